"""Where a node listens when it starts, and how it waits to be let into a network."""

from __future__ import annotations

from meshwalk.errors import (
    AddressInUse,
    InvalidAddress,
    InvalidArgument,
    NotAdmitted,
    NotRunning,
)
from meshwalk.events import EntryFailed, Event, Joined
from meshwalk.net.subscription import Subscription
from meshwalk.net.transport import Acceptor, Listener, Transport
from meshwalk.wire.address import DEFAULT_PORT, Address

PORTS_TRIED = 100  # guess: nodes that one machine runs side by side without being told ports


async def open_listener(listen: str | None, transport: Transport, acceptor: Acceptor) -> Listener:
    """Listen where `Node(listen=…)` says. Raises `AddressInUse`, `InvalidArgument`."""
    hosts, port = _parse_listen(listen)
    if port is not None:
        return await transport.listen(Address(hosts[0], port), acceptor)
    for candidate in range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TRIED):
        for host in hosts:
            try:
                return await transport.listen(Address(host, candidate), acceptor)
            except AddressInUse:
                break  # the next port, as seed 000 does
            except InvalidArgument:
                if host == hosts[-1]:  # a machine without IPv6 still has IPv4
                    raise
    last = DEFAULT_PORT + PORTS_TRIED - 1
    raise AddressInUse(f"ports {DEFAULT_PORT} to {last} are all taken; choose one with listen")


def _parse_listen(listen: str | None) -> tuple[list[str], int | None]:
    """Hosts to try in turn, and the port; None: 55555 or the next free one."""
    if listen is None:
        return ["::", "0.0.0.0"], None  # noqa: S104 - a peer is there to be reached
    try:
        address = Address.parse(listen, default_port=None)
    except InvalidAddress:
        return [Address.parse(listen).host], None
    return [address.host], address.port


async def joined(
    events: Subscription[Event], addresses: list[Address], reasons: dict[Address, str]
) -> None:
    """Return when joined; note failures; raise when every entry says that trying again is vain."""
    vain: set[Address] = set()
    async for event in events:
        if isinstance(event, Joined):
            return
        if isinstance(event, EntryFailed) and event.address in addresses:
            reasons[event.address] = event.reason
            if event.not_admitted:
                vain.add(event.address)
            if len(vain) == len(set(addresses)):
                raise NotAdmitted("; ".join(dict.fromkeys(reasons.values())))
    raise NotRunning("the node has been stopped")
