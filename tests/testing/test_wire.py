"""The simulated wire keeps every promise of `meshwalk/net/transport.py`: the suite of all of them.

The scenarios are those of tests/contract, on two machines whose pipes take 10 ms one way. What
follows them is what only this wire does: steps of dials at their times, and losses.
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
from meshwalk.errors import TimedOut, Unreachable
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
        self, transport: Transport, gate: Any, at: Address = worlds.ANY_PORT
    ) -> Address:
        host = cast("WireTransport", transport).host
        listener: Listener = await transport.listen(Address(host.name, at.port), gate)
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


def carry_out(scenario: Callable[[Any], Awaitable[None]]) -> None:
    loop = VirtualTimeLoop(limit_s=600)

    async def run() -> None:
        world = WireWorld()
        try:
            await scenario(world)
        finally:
            await world.end()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(run())
    assert loop.failures == []


@pytest.mark.parametrize("name", SCENARIOS)
def test_contract(name: str) -> None:
    carry_out(SCENARIOS[name])


def test_the_suite_has_been_found() -> None:
    assert len(SCENARIOS) > 15


D = 0.01  # seconds for a crossing
HERE, THERE = "127.0.0.1", "127.0.0.2"


class TimedGate(worlds.Gate):  # type: ignore[name-defined,misc]
    """An acceptor that notes when it is asked."""

    def __init__(self, *, is_open: bool = True) -> None:
        super().__init__(is_open=is_open)
        self.asked_at: list[float] = []

    def admit(self, remote: Address) -> int | None:
        self.asked_at.append(round(asyncio.get_running_loop().time(), 6))
        return cast("int | None", super().admit(remote))


async def dialled(world: WireWorld, gate: TimedGate) -> float:
    """One dial, begun at 0 and answered; how long it took."""
    address = await world.listen(world.transport(2), gate)
    pipe = await world.transport(1).dial(address, None)
    took_s = world.loop.time()
    pipe.start(worlds.Reader())
    await gate.until(lambda: gate.pipes)
    pipe.abort()
    return round(took_s, 6)


def test_an_acceptor_is_asked_at_the_third_crossing() -> None:
    async def scenario(world: WireWorld) -> None:
        gate = TimedGate()
        assert await dialled(world, gate) == 4 * D
        assert gate.asked_at == [3 * D]

    carry_out(scenario)


@pytest.mark.parametrize("is_open", [True, False])
def test_nobody_listens_or_is_not_let_in(is_open: bool) -> None:
    """The first is said by the system, after two crossings, and the second after four."""

    async def scenario(world: WireWorld) -> None:
        gate = TimedGate(is_open=False)
        address = await world.listen(world.transport(2), gate)
        if is_open:
            address = Address(address.host, address.port + 1)
        why = "nobody listens" if is_open else "closed the connection at once"
        with pytest.raises(Unreachable, match=why):
            await world.transport(1).dial(address, None)
        assert world.loop.time() == pytest.approx((2 if is_open else 4) * D)

    carry_out(scenario)


def test_who_stops_listening_in_the_middle_of_a_dial_is_not_asked() -> None:
    async def scenario(world: WireWorld) -> None:
        gate = TimedGate()
        address = await world.listen(world.transport(2), gate)
        dial = asyncio.ensure_future(world.transport(1).dial(address, None))
        await asyncio.sleep(1.5 * D)
        await world.listeners[0].close()
        with pytest.raises(Unreachable, match="closed the connection at once"):
            await dial
        assert gate.asked_at == []

    carry_out(scenario)


def test_dials_are_lost() -> None:
    """A defect: nobody asked."""

    async def scenario(world: WireWorld) -> None:
        world.wire.conditions.set_dial_loss(1.0)
        gate = TimedGate()
        with pytest.raises(TimedOut):
            await dialled(world, gate)
        assert gate.asked_at == []

    carry_out(scenario)


@pytest.mark.parametrize(("trouble_s", "at_s"), [(0.5, 1.0), (2.0, 3.0), (5.0, 7.0)])
@pytest.mark.parametrize("trouble", ["lost", "cut", "asleep"])
def test_a_syn_is_sent_again(trouble: str, trouble_s: float, at_s: float) -> None:
    """RFC 6298: after 1 second, then after twice as long each time."""

    async def scenario(world: WireWorld) -> None:
        conditions, gate = world.wire.conditions, TimedGate()
        world.transport(2)
        there = world.wire.hosts[THERE]

        def end() -> None:
            conditions.heal()
            there.is_paused = False

        if trouble == "lost":
            conditions.set_dial_loss(1.0)
        elif trouble == "cut":
            conditions.partition([HERE], [THERE])
        else:
            there.is_paused = True
        world.loop.call_at(trouble_s, end)
        assert await dialled(world, gate) == pytest.approx(at_s + 4 * D)
        assert gate.asked_at == [pytest.approx(at_s + 3 * D)]

    carry_out(scenario)


def test_no_machine_has_that_address() -> None:
    async def scenario(world: WireWorld) -> None:
        with pytest.raises(Unreachable, match="there is no machine at"):
            await world.transport(1).dial(Address("127.0.0.9", 1), None)

    carry_out(scenario)


GIVEN_UP_S = (2 * D + 0.2) * (2**6 - 1)


async def lossy_pair(world: WireWorld) -> tuple[Any, Any, Any, Any]:
    """Two ends, and the first has written in vain what the second waits for; time begins."""
    a, read_a, b, read_b = await world.pair()
    world.wire.conditions.set_loss(1.0, a.host.name)
    a.write(b"lost")
    world.wire.conditions.heal()
    a.write(b"behind it")
    return a, read_a, b, read_b


def test_a_sender_gives_up_after_six_tries_and_not_before() -> None:
    async def scenario(world: WireWorld) -> None:
        _, read_a, b, read_b = await lossy_pair(world)
        await asyncio.sleep(GIVEN_UP_S - D)
        assert read_a.events == []
        await asyncio.sleep(2 * D)
        assert read_a.why == "the network lost too much; the system gave the connection up"
        await asyncio.sleep(60)
        assert read_b.events == [], "nobody has told it"
        assert read_b.data == b""
        b.write(b"are you there?")
        await asyncio.sleep(3 * D)
        assert read_b.why == "the peer ended the connection without a goodbye"

    carry_out(scenario)


def test_a_reset_waits_for_nothing_that_was_lost() -> None:
    async def scenario(world: WireWorld) -> None:
        a, _, _, read_b = await lossy_pair(world)
        a.abort()
        await asyncio.sleep(2 * D)
        assert read_b.why == "the peer ended the connection without a goodbye"
        assert read_b.data == b""

    carry_out(scenario)


def test_a_sleeping_machine_gives_no_pipe_up() -> None:
    """Its timers stand still with its clock, and go on with it."""

    async def scenario(world: WireWorld) -> None:
        a, read_a, _, _ = await lossy_pair(world)
        world.pause(a)
        await asyncio.sleep(GIVEN_UP_S + 5)
        assert read_a.events == []
        world.resume(a)
        await asyncio.sleep(GIVEN_UP_S - D)
        assert read_a.events == []
        await asyncio.sleep(2 * D)
        assert read_a.events == ["lost"]

    carry_out(scenario)
