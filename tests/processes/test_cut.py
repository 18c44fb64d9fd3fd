"""The cable that the other tests cut: nothing is lost over it, and nothing refused."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

import pytest
from cut import CutNode, CuttableTransport, components, cut_apart

from meshwalk.config import Config, DetectionConfig, LinkConfig, OverlayConfig
from meshwalk.errors import TimedOut
from meshwalk.net.memory import MemoryHub, MemoryTransport
from meshwalk.net.transport import Pipe
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId

QUICK = LinkConfig(
    close_timeout_s=0.02, connect_timeout_s=0.02, send_buffer_high_bytes=5000, frame_bytes_max=5000
)
THERE = Address("127.0.0.1", 7)
WAIT_S = 30.0  # guess: what takes a second on a quiet machine


class End:
    """Reads one end, and answers as an acceptor."""

    def __init__(self) -> None:
        self.data = b""
        self.events: list[str] = []
        self.pipe: Pipe | None = None

    def admit(self, remote: Address) -> int:
        return 1

    def handshake_failed(self, link: int, why: str) -> None:
        raise AssertionError(why)

    def accepted(self, link: int, pipe: Pipe) -> None:
        self.pipe = pipe
        pipe.start(self)

    def received(self, data: memoryview) -> None:
        self.data += bytes(data)

    def stalled(self) -> None:
        self.events.append("stalled")

    def resumed(self) -> None:
        self.events.append("resumed")

    def lost(self, why: str) -> None:
        self.events.append("lost")


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def connected() -> tuple[CuttableTransport, Pipe, End, Pipe, End]:
    """A transport that dialled, its pipe and who reads it, and the same of the other end."""
    hub, network = MemoryHub(), bytes(32)
    far, near = End(), End()
    await MemoryTransport(hub, PeerId(bytes(32)), network, QUICK).listen(THERE, far)
    within = MemoryTransport(hub, PeerId(bytes(31) + b"1"), network, QUICK)
    transport = CuttableTransport(within, QUICK)
    pipe = await transport.dial(THERE, None)
    pipe.start(near)
    assert far.pipe is not None
    return transport, pipe, near, far.pipe, far


async def test_what_was_under_way_arrives_after_mending() -> None:
    transport, pipe, near, far_pipe, far = await connected()
    pipe.write(b"before ")
    await turns()
    transport.cut([7])
    pipe.write(b"meanwhile ")
    far_pipe.write(b"as well")
    await turns()
    assert (far.data, near.data) == (b"before ", b"")
    assert pipe.unsent_bytes == len(b"meanwhile ")
    transport.cut([8])
    pipe.write(b"after")
    await turns()
    assert (far.data, near.data) == (b"before meanwhile after", b"as well")
    assert near.events == far.events == []


async def test_a_full_cable_stalls_its_writer_until_it_is_mended() -> None:
    transport, pipe, near, _, far = await connected()
    transport.cut([7])
    for _ in range(3):
        pipe.write(bytes(2000))
    await turns()
    assert near.events == ["stalled"]
    transport.cut([])
    async with asyncio.timeout(WAIT_S):
        while near.events != ["stalled", "resumed"]:
            await asyncio.sleep(0)
    assert len(far.data) == 6000


@pytest.mark.parametrize("deed", ["close", "abort"])
async def test_an_end_is_heard_of_only_after_mending(deed: str) -> None:
    transport, pipe, near, far_pipe, far = await connected()
    transport.cut([7])
    getattr(pipe, deed)()
    far_pipe.write(b"is anybody there?")
    async with asyncio.timeout(WAIT_S):
        while not near.events:
            await asyncio.sleep(0)
    assert far.events == []
    transport.cut([])
    await turns()
    assert (near.events, far.events) == (["lost"], ["lost"])
    assert near.data == b""
    assert not transport.pipes


@pytest.mark.parametrize("deed", ["close", "abort"])
async def test_the_others_end_is_heard_of_only_after_mending(deed: str) -> None:
    transport, _, near, far_pipe, far = await connected()
    transport.cut([7])
    far_pipe.write(b"goodbye")
    await turns()
    getattr(far_pipe, deed)()
    await turns()
    assert near.events == []
    transport.cut([])
    await turns()
    assert (near.data, near.events, far.events) == (b"goodbye", ["lost"], ["lost"])
    assert not transport.pipes


async def test_mended_while_it_closes() -> None:
    transport, pipe, near, _, far = await connected()
    transport.cut([7])
    pipe.write(b"the last")
    pipe.close()
    transport.cut([])
    await turns()
    assert (far.data, near.events, far.events) == (b"the last", ["lost"], ["lost"])


async def test_dials_are_not_answered() -> None:
    transport, *_ = await connected()
    transport.cut([7])
    with pytest.raises(TimedOut):
        await transport.dial(THERE, None)
    dial = asyncio.create_task(transport.dial(THERE, None))
    await turns()
    transport.cut([])
    assert (await dial).peer == PeerId(bytes(32))


def test_components() -> None:
    def says(peer: str, *neighbours: str) -> dict[str, object]:
        return {"peer": peer, "neighbours": list(neighbours)}

    found = components([says("a", "b"), says("b", "a", "c"), says("c"), says("d", "gone")])
    assert sorted(map(sorted, found)) == [["a", "b"], ["c"], ["d"]]


@pytest.mark.processes
@pytest.mark.skipif(sys.platform == "win32", reason="its loop reads no pipe of another program")
async def test_real_processes_lose_the_other_half_and_have_it_again() -> None:
    config = Config(
        link=LinkConfig(ping_interval_s=0.2, idle_timeout_s=1.0),
        overlay=OverlayConfig(links_min=3, links_max=5),
        detection=DetectionConfig(least_s=0.2),
    )
    nodes = [CutNode(config) for _ in range(4)]
    try:
        await asyncio.gather(*(node.start() for node in nodes))
        for node in nodes[1:]:
            await node.say(f"join {nodes[0].address}")

        async def come_to(is_so: Callable[[list[set[str]], list[int]], bool]) -> None:
            async with asyncio.timeout(WAIT_S):
                while True:
                    reports = [await node.say("report") for node in nodes]
                    held = [report["held"] for report in reports]
                    if is_so(components(reports), held):
                        return
                    await asyncio.sleep(0.05)

        await come_to(lambda fragments, _: len(fragments) == 1)
        await cut_apart(nodes[:2], nodes[2:])
        sides = [{node.peer for node in nodes[:2]}, {node.peer for node in nodes[2:]}]
        await come_to(
            lambda fragments, held: sorted(map(sorted, fragments)) == sorted(map(sorted, sides))
        )
        for node in nodes:
            await node.say("mend")
        with_links = await nodes[3].say(f"join {nodes[0].address}")
        assert with_links["held"] == 0
        await come_to(lambda fragments, held: len(fragments) == 1 and not any(held))
    finally:
        await asyncio.gather(*(node.stop() for node in nodes))
