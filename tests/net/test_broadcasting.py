"""Own broadcasts: receipts, proof of work, private ones, and what becomes of them at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

import meshwalk
from meshwalk.config import BroadcastConfig, Config
from meshwalk.identity.keys import KeyPair, NodeSignatures
from meshwalk.net import broadcasting
from meshwalk.net.broadcasting import Broadcasting
from meshwalk.net.driver import Driver
from meshwalk.net.node import Node
from meshwalk.net.solving import Progress
from meshwalk.net.tracing import Trace
from meshwalk.proto.effects import ReceiptCame
from meshwalk.wire.gossip import HopSeen
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import ASKS_RECEIPT, ASKS_TRACE, Domain

DEADLINE_S = 20
ME = PeerId(bytes(32))
OTHER = PeerId(bytes([1]) * 32)


class Core:
    """Machines that number what they are given."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.me = ME
        self.sent: list[tuple[str, bytes, int]] = []
        self.worked: list[tuple[bytes, int, bytes]] = []
        self.origins: list[bytes] = []
        self.network_id = bytes(32)
        membership = SimpleNamespace(neighbours={OTHER: None})
        self.overlay = SimpleNamespace(membership=membership)

    def broadcast(
        self, topic: str, content: object, body: bytes, now: float, asks: int = 0
    ) -> tuple[int, list[object]]:
        self.sent.append((topic, body, asks))
        return len(self.sent), []

    def may_broadcast_at(self, now: float) -> float:
        return now

    def draft(
        self,
        topic: str,
        content: object,
        body: bytes,
        now: float,
        asks: int = 0,
        origin: bytes = b"",
    ) -> bytes:
        self.origins.append(origin)
        return b"%b, draft after %d" % (body, len(self.sent))

    def broadcast_draft(
        self, payload: bytes, work: int, now: float, signature: bytes = b""
    ) -> tuple[int, list[object]]:
        self.worked.append((payload, work, signature))
        self.sent.append(("", payload, 0))
        return len(self.sent), []


class FakeDriver:
    """What `Broadcasting` uses of a driver."""

    def __init__(self, **settings: Any) -> None:
        self.core = Core(Config(broadcast=BroadcastConfig(**settings)))
        self.congested: set[int] = set()
        self.commands = 0

    def clock(self) -> float:
        return 0.0

    def command(self, effects: list[object]) -> None:
        self.commands += 1

    def must_yield(self, size: int) -> bool:
        return False


def made(**settings: Any) -> tuple[Broadcasting, Core]:
    driver = FakeDriver(**settings)
    return Broadcasting(cast("Driver", driver)), driver.core


async def sent(
    under_test: Broadcasting,
    body: object = "x",
    *,
    confirm: bool = False,
    private: bool = False,
    timeout_s: float | None = None,
    progress: Progress | None = None,
) -> int:
    return await under_test.broadcast(body, "", None, confirm, private, timeout_s, progress)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.005)


def receipt(number: int, peers: int, *, is_last: bool = False) -> ReceiptCame:
    return ReceiptCame(number, peers, [], is_last)


# Receipts.


async def test_receipts_add_up_until_the_last() -> None:
    under_test, core = made()
    first = asyncio.create_task(sent(under_test, confirm=True))
    second = asyncio.create_task(sent(under_test, confirm=True))
    await until(lambda: len(core.sent) == 2)
    assert [asks for _, _, asks in core.sent] == [ASKS_RECEIPT, ASKS_RECEIPT]
    under_test.told(receipt(1, 3))
    under_test.told(receipt(2, 1, is_last=True))
    under_test.told(receipt(9, 100, is_last=True))  # nobody's
    assert await second == 1
    assert not first.done()
    under_test.told(receipt(1, 4, is_last=True))
    assert await first == 7
    under_test.told(receipt(1, 1, is_last=True))  # too late


async def test_a_receipt_that_does_not_come_is_not_waited_for_longer() -> None:
    under_test, core = made(confirm_timeout_s=0.02)
    waiting = asyncio.create_task(sent(under_test, confirm=True, timeout_s=None))
    await until(lambda: bool(core.sent))
    under_test.told(receipt(1, 2))
    assert await waiting == 2
    assert await sent(under_test, confirm=True, timeout_s=0.0) == 0


async def test_the_end_of_the_node_ends_waiting_and_sending() -> None:
    under_test, core = made()
    waiting = asyncio.create_task(sent(under_test, confirm=True))
    await until(lambda: bool(core.sent))
    under_test.stop()
    with pytest.raises(meshwalk.Closed):
        await waiting
    with pytest.raises(meshwalk.NotRunning):
        await sent(under_test, private=True)
    assert len(core.sent) == 1


async def test_what_cannot_be_is_refused() -> None:
    under_test, core = made()
    with pytest.raises(meshwalk.InvalidArgument):
        await sent(under_test, confirm=True, private=True)
    for timeout_s in (-1.0, float("nan"), float("inf")):
        with pytest.raises(meshwalk.InvalidArgument):
            await sent(under_test, confirm=True, timeout_s=timeout_s)
    with pytest.raises(meshwalk.InvalidArgument):
        await sent(under_test, object(), confirm=True)
    assert core.sent == []


async def test_a_trace_gathers_reports() -> None:
    under_test, core = made()
    tracing = asyncio.create_task(under_test.trace(b"", "way", None, None, None))
    await until(lambda: bool(core.sent))
    assert core.sent == [("way", b"", ASKS_RECEIPT | ASKS_TRACE)]
    third = PeerId(bytes([2]) * 32)
    under_test.told(ReceiptCame(1, 1, [HopSeen(third, OTHER, 2, 500, 0, True)], False))
    under_test.told(ReceiptCame(1, 1, [], True))
    trace = await tracing
    assert (trace.origin, trace.peers, trace.is_complete) == (ME, 2, True)
    assert [hop.peer for hop in trace.hops] == [third]
    assert trace.silent == (OTHER,)


# Proof of work, and private ones.


async def test_drafts_are_worked_on_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    under_test, core = made(difficulty=5)
    working: list[bytes] = []
    may_go = asyncio.Semaphore(0)

    async def solved(payload: bytes, difficulty: int, progress: Progress | None) -> int:
        assert difficulty == 5
        working.append(payload)
        await may_go.acquire()
        return 40 + len(working)

    monkeypatch.setattr(broadcasting, "solved", solved)
    one = asyncio.create_task(sent(under_test, "one"))
    two = asyncio.create_task(sent(under_test, "two"))
    three = asyncio.create_task(sent(under_test, "three", private=True))
    await until(lambda: bool(working))
    two.cancel()  # it waits for its turn
    may_go.release()
    assert await one == 1
    await until(lambda: len(working) == 2)
    may_go.release()
    assert await three == 2
    assert working == [b"one, draft after 0", b"three, draft after 1"]
    assert [(work, len(signature)) for _, work, signature in core.worked] == [(41, 0), (42, 64)]


async def test_a_cancelled_proof_sends_nothing_and_lets_the_next_one_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    under_test, core = made(difficulty=5)
    is_working = asyncio.Event()

    async def solved(payload: bytes, difficulty: int, progress: Progress | None) -> int:
        if b"never" in payload:
            is_working.set()
            await asyncio.Event().wait()
        return 7

    monkeypatch.setattr(broadcasting, "solved", solved)
    never = asyncio.create_task(sent(under_test, "never"))
    async with asyncio.timeout(DEADLINE_S):
        await is_working.wait()
        never.cancel()
        assert await sent(under_test, "next") == 1
    assert [payload for payload, _, _ in core.worked] == [b"next, draft after 0"]


async def test_a_node_that_stops_ends_its_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    under_test, core = made(difficulty=5)
    is_working = asyncio.Event()

    async def solved(payload: bytes, difficulty: int, progress: Progress | None) -> int:
        is_working.set()
        await asyncio.Event().wait()
        return 7

    monkeypatch.setattr(broadcasting, "solved", solved)
    never = asyncio.create_task(sent(under_test, "never"))
    async with asyncio.timeout(DEADLINE_S):
        await is_working.wait()
        under_test.stop()
        with pytest.raises(meshwalk.NotRunning):
            await never
        with pytest.raises(meshwalk.NotRunning):
            await sent(under_test, "afterwards")
    assert not core.worked


async def test_private_ones_have_a_key_each() -> None:
    under_test, core = made()
    await sent(under_test, private=True)
    await sent(under_test, private=True)
    assert len({bytes(ME), *core.origins}) == 3
    for origin, (payload, _, signature) in zip(core.origins, core.worked, strict=True):
        signatures = NodeSignatures(KeyPair.generate(), core.network_id)
        assert signatures.verify(Domain.BROADCAST, origin, signature, payload)


# Whole nodes.


def local(**settings: Any) -> Node:
    return Node(listen="127.0.0.1:0", config=Config(broadcast=BroadcastConfig(**settings)))


async def linked(one: Node, other: Node) -> None:
    await other.join(one.address)
    await until(lambda: other.id in one.neighbours and one.id in other.neighbours)


async def test_confirmed_by_all() -> None:
    async with local() as one, local() as two, local() as three:
        await linked(one, two)
        await linked(one, three)
        async with asyncio.timeout(DEADLINE_S):
            assert await two.broadcast("hello", confirm=True) == 2
            await three.stop()
            await until(lambda: three.id not in two.neighbours + one.neighbours)
            assert await two.broadcast("hello", confirm=True) == 1


async def test_nobody_confirms_to_one_that_is_alone() -> None:
    async with local() as node:
        assert await node.broadcast("hello", confirm=True, timeout_s=0.1) == 0
        assert await node.broadcast("hello") == 2


async def test_the_way_of_a_broadcast() -> None:
    async with local() as one, local() as two, local(answers_traces=False) as three:
        await linked(one, two)
        await linked(one, three)
        async with asyncio.timeout(DEADLINE_S):
            trace: Trace = await one.trace_broadcast("where to?")
        assert (trace.origin, trace.peers, trace.is_complete) == (one.id, 2, True)
        assert [hop.peer for hop in trace.hops] == [two.id]
        assert three.id in trace.silent
        ((hop, total_s),) = trace.path(two.id)
        assert (hop.parent, hop.hops, hop.took_s) == (one.id, 1, total_s)


async def test_a_private_one_arrives_from_nobody_known() -> None:
    async with local() as one, local() as two:
        await linked(one, two)
        async with two.messages() as messages, asyncio.timeout(DEADLINE_S):
            await one.broadcast("psst", private=True)
            message = await anext(messages)
        assert message.body == "psst"
        assert message.origin not in (one.id, two.id)


@pytest.mark.processes
async def test_proof_of_work_between_nodes() -> None:
    async with local(difficulty=2) as one, local(difficulty=2) as two, local() as lazy:
        await linked(one, two)
        await linked(two, lazy)
        async with two.messages() as messages, asyncio.timeout(DEADLINE_S):
            await lazy.broadcast("without work")
            await one.broadcast("with work")
            assert (await anext(messages)).body == "with work"
            assert await one.broadcast("again", confirm=True) >= 1
