"""What `meshwalk up` writes into its log, and how little of it in a storm."""

from __future__ import annotations

import asyncio

from meshwalk.cli.up import _tell
from meshwalk.cli.up_news import FAILURES_MAX, TURNS_WITHIN_S, UpNews
from meshwalk.events import (
    Alone,
    EntryFailed,
    Event,
    FragmentFound,
    Joined,
    NeighbourUp,
    StoreFailed,
)
from meshwalk.net.subscription import Subscription
from meshwalk.testing.loop import VirtualTimeLoop
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId

PEER = PeerId(bytes(range(32)))
HERE = Address("127.0.0.1", 1)
FAILED = EntryFailed(HERE, "nobody listens", not_admitted=False)


def told(news: UpNews, events: list[tuple[float, Event]], until: float) -> list[tuple[float, str]]:
    """The lines with their times, when ticks come exactly when they are due."""
    lines: list[tuple[float, str]] = []
    for at, event in [*events, (until, NeighbourUp(PEER, HERE, 1))]:
        due = news.deadline()
        if due is not None and due <= at:
            lines += [(due, line) for line in news.tick(due)]
        lines += [(at, line) for line in news.feed(event, at)]
    return lines


def test_a_pair_is_told_at_once() -> None:
    news = UpNews()
    assert news.feed(Joined(PEER), 0.0) == [f"joined through {PEER.short}"]
    assert news.deadline() is None
    assert news.feed(Alone(), 0.1) == [str(Alone())]
    assert news.deadline() is None


def test_of_a_fast_series_one_pair_and_then_what_is_now() -> None:
    events: list[tuple[float, Event]] = []
    for n in range(1000):
        events += [(n / 100, Joined(PEER)), (n / 100 + 0.001, Alone())]
    lines = told(UpNews(), events, 100.0)
    assert len(lines) <= 2 * (10.0 / TURNS_WITHIN_S + 1)
    hidden = [int(line.split("(and ")[1].split()[0]) for _, line in lines if "(and " in line]
    assert sum(hidden) + len(lines) == 2000, "each is told or counted"
    assert lines[-1][1].startswith("alone"), "the last is how it stands"
    assert lines[-1][0] <= 10.0 + TURNS_WITHIN_S
    assert lines[2][1].endswith(" turns before that, joined or alone)")


def test_one_turn_held_back_is_told_later() -> None:
    news = UpNews()
    events: list[tuple[float, Event]] = [(0.0, Joined(PEER)), (1.0, Alone()), (2.0, Joined(PEER))]
    lines = told(news, events, 60.0)
    assert lines[2] == (TURNS_WITHIN_S, f"joined through {PEER.short}")
    assert news.deadline() is None


def test_what_is_held_back_is_told_though_nothing_else_happens() -> None:
    async def steps() -> None:
        events: Subscription[Event] = Subscription(10)
        lines: list[str] = []
        telling = asyncio.create_task(_tell(events, lines.append))
        for event in (Joined(PEER), Alone(), Joined(PEER), Alone(), FragmentFound(PEER, 3, 2)):
            events.put(event)
        await asyncio.sleep(0.5 * TURNS_WITHIN_S)
        joined, alone = f"joined through {PEER.short}", str(Alone())
        assert lines == [joined, alone, str(FragmentFound(PEER, 3, 2))]
        await asyncio.sleep(TURNS_WITHIN_S)
        assert lines[3:] == [f"{alone} (and 1 turn before that, joined or alone)"]
        events.close()
        await telling

    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(1e6)) as runner:
        runner.run(steps())


def test_another_fragment_is_told() -> None:
    found = FragmentFound(PEER, 3, 2)
    assert UpNews().feed(found, 0.0) == [str(found)]


def test_what_repeats_itself_is_told_once_until_the_node_has_joined() -> None:
    news = UpNews()
    line = "cannot join yet: 127.0.0.1:1: nobody listens; trying again"
    assert news.feed(FAILED, 0.0) == [line]
    assert news.feed(FAILED, 1.0) == []
    assert news.feed(EntryFailed(HERE, "no", not_admitted=True), 1.0) == []
    assert news.feed(StoreFailed("the disk is full"), 2.0)
    assert not news.feed(StoreFailed("the disk is full"), 2.0)
    news.feed(Joined(PEER), 3.0)
    assert news.feed(FAILED, 4.0) == [line]
    for port in range(10 * FAILURES_MAX):
        assert news.feed(EntryFailed(Address("h", port), "no", not_admitted=False), 5.0)
    assert len(news._last) <= FAILURES_MAX
