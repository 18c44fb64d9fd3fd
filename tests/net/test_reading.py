"""Readers of messages: what each takes, and in which order."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest
from readers import ANNA, BERT, NOW_S, World, broadcast, direct, taken

from meshwalk.config import Config
from meshwalk.errors import InvalidArgument, NotRunning
from meshwalk.events import Delivery, Event, MessagesDropped, MessagesMissed
from meshwalk.net.inbox import Inbox
from meshwalk.net.serving import Serving
from meshwalk.proto.effects import BroadcastsMissed, KeepBroadcast, Readers
from meshwalk.wire.frames import ContentType

SKEW_S = Config().broadcast.clock_skew_max_s


@pytest.fixture
async def world() -> World:
    return World()


# Topics.


async def test_topics_are_chosen_and_leave_out_direct_messages(world: World) -> None:
    everything, news = world.read(), world.read(topic="news")
    either, plain = world.read(topic=iter(["news", "chat"])), world.read(topic="")
    world.deliver(
        broadcast(1, topic="news"),
        broadcast(2, topic="chat"),
        broadcast(3),
        direct(type="news"),
        direct(),
    )
    assert taken(everything) == [1, 2, 3, 0, 0]
    assert taken(news) == [1]
    assert taken(either) == [1, 2]
    assert taken(plain) == [3]


@pytest.mark.parametrize(
    "topic", [7, b"news", ["news", 7], [], ["a" * 256], "a" * 256, "\ud800", ["news", None]]
)
async def test_topics_that_are_none_are_refused(world: World, topic: Any) -> None:
    with pytest.raises(InvalidArgument, match="topic"):
        world.read(topic=topic)
    assert len(world.inbox.messages) == 0


# What was sent before.


async def test_old_broadcasts_are_for_those_who_asked(world: World) -> None:
    plain = world.read()
    asked = world.read(since=NOW_S - 3000)
    world.deliver(
        broadcast(1, sent_at=NOW_S - 3001, is_past=True),
        broadcast(2, sent_at=NOW_S - 3000, is_past=True),
        broadcast(3, sent_at=NOW_S - SKEW_S - 0.001),
        broadcast(4, sent_at=NOW_S - SKEW_S, is_past=True),
        broadcast(5, sent_at=NOW_S + 60),
        direct(sent_at=0.0),
    )
    assert taken(plain) == [3, 5, 0], "also of one whose clock is slow"
    assert taken(asked) == [2, 3, 4, 5, 0]


async def test_a_slow_clock_does_not_silence_an_origin(world: World) -> None:
    reader = world.read(since=NOW_S)
    world.deliver(broadcast(1, sent_at=NOW_S - 10))
    assert taken(reader) == [1]


async def test_what_is_held_comes_first_and_then_neighbours_are_asked(world: World) -> None:
    world.core.held = [
        broadcast(2, "two", sent_at=NOW_S - 20),
        broadcast(1, "one", sent_at=NOW_S - 20),
        broadcast(7, {"x": 1}, sent_at=NOW_S - 40, origin=BERT),
        broadcast(9, sent_at=NOW_S - 4000),
    ]
    reader = world.read(limit=2, since=NOW_S - 3600.0005)
    assert world.core.calls == [("catch up", int((NOW_S - 3600) * 1000))]
    world.deliver(broadcast(3, "three"))
    assert len(reader) == 4, "what was held takes no room of what is new"
    assert [(await anext(reader)).body for _ in range(4)] == [{"x": 1}, "one", "two", "three"]
    assert world.storage.noted == [broadcast(3, "three")], "the others have been noted"


async def test_room_is_for_new_ones_however_many_were_held(world: World) -> None:
    world.core.held = [broadcast(number) for number in range(1, 6)]
    reader = world.read(limit=2, since=NOW_S)
    world.deliver(broadcast(6), broadcast(7), broadcast(8))
    assert taken(reader) == [1, 2, 3, 4, 5, 6, 7]
    assert reader.dropped == 1
    world.deliver(broadcast(9), broadcast(10), broadcast(11))
    assert taken(reader) == [9, 10]


async def test_held_ones_are_chosen_as_new_ones(world: World) -> None:
    world.core.held = [broadcast(1, topic="news"), broadcast(2), broadcast(3, topic="news")]
    assert taken(world.read(topic="news", since=0)) == [1, 3]


async def test_held_ones_that_cannot_be_read_are_left_out(world: World) -> None:
    broken = Delivery(ANNA, b"\xc1", ContentType.MESSAGEPACK, True, sequence=1, sent_at=NOW_S)
    world.core.held = [broken, broadcast(2)]
    assert taken(world.read(since=0)) == [2]


@pytest.mark.parametrize("since", [-1, float("nan"), float("inf"), True, "yesterday", 2**60])
async def test_a_since_that_is_no_time_is_refused(world: World, since: Any) -> None:
    with pytest.raises(InvalidArgument, match="since"):
        world.read(since=since)


async def test_what_was_before_needs_a_node_that_runs() -> None:
    inbox = Inbox(cast("Serving", None), Config(), time.time)
    with pytest.raises(NotRunning):
        inbox.read(10, None, 0.0, True, "drop")
    assert not inbox.read(10, None, None, True, "wait").is_closed


# Order.


async def test_early_ones_go_to_readers_without_an_order_at_once(world: World) -> None:
    in_order, as_it_comes = world.read(), world.read(ordered=False)
    world.deliver(broadcast(1))
    world.deliver(broadcast(3), readers=Readers.UNORDERED)
    world.deliver(broadcast(2))
    world.deliver(broadcast(3), readers=Readers.ORDERED)
    assert taken(in_order) == [1, 2, 3]
    assert taken(as_it_comes) == [1, 3, 2]
    assert [each.sequence for each in world.storage.noted] == [1, 3, 2], "each noted once"


async def test_one_that_cannot_be_read_is_counted_once(world: World) -> None:
    broken = Delivery(ANNA, b"\xc1", ContentType.MESSAGEPACK, True, sequence=1, sent_at=NOW_S)
    reader = world.read()
    world.deliver(broken, readers=Readers.UNORDERED)
    world.deliver(broken, readers=Readers.ORDERED)
    assert world.inbox.dropped == 1
    assert taken(reader) == []


async def test_no_message_twice_to_one_who_asks_while_some_wait_for_their_turn(
    world: World,
) -> None:
    world.core.held = [broadcast(1), broadcast(3)]
    world.deliver(broadcast(1))
    world.deliver(broadcast(3), readers=Readers.UNORDERED)
    in_order, as_it_comes = world.read(since=0), world.read(since=0, ordered=False)
    world.core.held.insert(1, broadcast(2))
    world.deliver(broadcast(2))
    world.deliver(broadcast(3), readers=Readers.ORDERED)
    late = world.read(since=0)
    assert taken(in_order) == [1, 2, 3]
    assert taken(as_it_comes) == [1, 3, 2]
    assert taken(late) == [1, 2, 3]


async def test_what_waited_for_its_turn_when_the_node_stopped_is_not_left_out(
    world: World,
) -> None:
    world.deliver(broadcast(3), readers=Readers.UNORDERED)
    world.inbox.close()
    world.start()
    world.core.held = [broadcast(3)]
    assert taken(world.read(since=0)) == [3]


async def test_a_full_reader_is_told_of_when_an_early_one_finds_no_room(world: World) -> None:
    news = world.inbox.events
    events = news.subscribe(10)
    narrow = world.read(limit=1, ordered=False)
    world.deliver(broadcast(1), broadcast(3), readers=Readers.UNORDERED)
    assert (narrow.dropped, world.inbox.dropped) == (1, 1)
    assert isinstance(events.get_nowait(), MessagesDropped)


@pytest.mark.parametrize(("limit", "when_full"), [(0, "wait"), (-1, "wait"), (10, "block")])
async def test_what_makes_no_reader_is_refused(world: World, limit: int, when_full: Any) -> None:
    with pytest.raises(InvalidArgument):
        world.read(limit=limit, when_full=when_full)


# What else the machines tell.


async def test_broadcasts_that_nobody_has_any_more_are_news(world: World) -> None:
    events = world.inbox.events.subscribe(10)
    world.inbox.broadcasts_missed(BroadcastsMissed(ANNA, 3))
    event: Event | None = events.get_nowait()
    assert event == MessagesMissed(ANNA, 3)
    assert str(event) == f"3 broadcasts of {ANNA.short} could not be had any more"
    assert str(MessagesMissed(BERT, 1)).startswith("1 broadcast of ")


async def test_broadcasts_are_kept_by_a_node_that_runs(world: World) -> None:
    change = KeepBroadcast(bytes(ANNA), 1, 2, 3, b"payload", bytes(64), 0)
    world.inbox.broadcast_kept(change)
    assert world.storage.kept == [change]
    world.inbox.close()
    world.inbox.broadcast_kept(change)
    assert world.storage.kept == [change]
