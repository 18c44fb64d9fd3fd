"""The simulated wire keeps every promise of `meshwalk/net/transport.py`: the suite of all of them.

The scenarios are those of tests/contract, on two machines whose pipes take 10 ms one way.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest

from meshwalk.config import LinkConfig
from meshwalk.identity.network import Network
from meshwalk.net.transport import Listener, Transport
from meshwalk.sim.conditions import Conditions
from meshwalk.sim.latency import Constant
from meshwalk.testing.loop import VirtualTimeLoop
from meshwalk.testing.pipe import WirePipe
from meshwalk.testing.wire import Host, Wire, WireTransport
from meshwalk.wire.address import Address

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))
worlds = importlib.import_module("worlds")
contract = importlib.import_module("test_transport")


class WireWorld(worlds.World):  # type: ignore[name-defined,misc]
    """Each transport on a host of its own."""

    kind = "wire"

    def __init__(self) -> None:
        super().__init__()
        self.loop = cast("VirtualTimeLoop", asyncio.get_running_loop())
        self.wire = Wire(self.loop, Conditions(Constant(0.01), Random(1)))

    def transport(
        self, seed: int, network: Network = worlds.NETWORK, config: LinkConfig = worlds.QUICK
    ) -> Transport:
        name = f"127.0.0.{seed}"
        host = self.wire.hosts.setdefault(name, Host(name))
        host.is_running = True
        peer = worlds.keys(seed).peer_id
        return WireTransport(self.wire, host, peer, network.network_id, config)

    async def listen(
        self, transport: WireTransport, gate: Any, at: Address = worlds.ANY_PORT
    ) -> Address:
        listener: Listener = await transport.listen(Address(transport.host.name, at.port), gate)
        self.listeners.append(listener)
        return listener.address

    def pause(self, pipe: WirePipe) -> None:
        pipe.host.is_paused = True
        self.loop.pause(pipe.host.process)

    def resume(self, pipe: WirePipe) -> None:
        pipe.host.is_paused = False
        self.loop.resume(pipe.host.process)


# These ask for what only a real system has, or for one host with two transports, or they go round
# without any time passing.
NOT_HERE = {
    "_close_delivers",
    "_not_admitted_by_place",
    "_port_in_use",
    "_ipv6",
    "_dual_stack",
    "_by_name",
    "_no_delay",
}
SCENARIOS: dict[str, Callable[[Any], Awaitable[None]]] = {
    name: steps
    for name, steps in vars(contract).items()
    if name.startswith("_") and asyncio.iscoroutinefunction(steps) and name not in NOT_HERE
}


async def _close_delivers(world: WireWorld) -> None:
    """As the contract's, which lets no time pass."""
    a, read_a, b, read_b = await world.pair()
    data = Random(2).randbytes(5_000_000)
    a.write(data)
    a.close()
    a.write(b"too late")
    while read_b.why is None:
        b.write(b"are you still there?")
        await asyncio.sleep(0.001)
    assert await read_a.until_lost() == ""
    assert read_b.why == ""
    assert read_b.data == data
    assert read_a.data == b""


SCENARIOS["close_delivers"] = _close_delivers


@pytest.mark.parametrize("name", SCENARIOS)
def test_contract(name: str) -> None:
    loop = VirtualTimeLoop(limit_s=600)

    async def run() -> None:
        world = WireWorld()
        try:
            await SCENARIOS[name](world)
        finally:
            await world.end()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(run())
    assert loop.failures == []


def test_the_suite_has_been_found() -> None:
    assert len(SCENARIOS) > 15
