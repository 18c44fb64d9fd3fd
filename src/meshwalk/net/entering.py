"""Where a node listens when it starts, and how it waits to be let into a network."""

from __future__ import annotations

import asyncio

from meshwalk.errors import (
    AddressInUse,
    InvalidAddress,
    InvalidArgument,
    NotAdmitted,
    NotRunning,
    Unreachable,
)
from meshwalk.events import EntryFailed, Event, Joined
from meshwalk.net.subscription import Subscription
from meshwalk.net.transport import Acceptor, Listener, Transport
from meshwalk.wire.address import DEFAULT_PORT, Address, Invite, encode_network_name
from meshwalk.wire.peerid import PeerId

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


def parse_entry(entry: str | Address | Invite, network: str) -> tuple[list[Address], PeerId | None]:
    """The addresses of an entry to this network, and who is expected there. See `Node.check_entry`.

    Raises `InvalidAddress`, `InvalidInvite`, `InvalidArgument`.
    """
    if isinstance(entry, str):
        is_invite = entry.strip().startswith("meshwalk:")
        entry = Invite.parse(entry) if is_invite else Address.parse(entry)
    if isinstance(entry, Address):
        return [entry], None
    if encode_network_name(entry.network) != encode_network_name(network):
        raise InvalidArgument(
            f"the invite is for the network {entry.network!r}, and this node is in"
            f" {network!r}; start it with that network's name"
        )
    return list(entry.addresses), entry.peer


async def joined(events: Subscription[Event], addresses: list[Address], timeout_s: float) -> None:
    """Return when joined. Raises `Unreachable` after `timeout_s`, and otherwise as `Node.join`."""
    reasons: dict[Address, str] = {}
    try:
        async with asyncio.timeout(timeout_s):
            await _joined(events, addresses, reasons)
    except TimeoutError:
        places = ", ".join(address.host_and_port for address in addresses)
        why = "; ".join(dict.fromkeys(reasons.values())) or "no answer"
        raise Unreachable(f"cannot join through {places}: {why}") from None


async def _joined(
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
