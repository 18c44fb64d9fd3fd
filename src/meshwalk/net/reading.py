"""Readers of a node's messages: what each one takes, in which order, and who must wait for whom.

A reader that drops loses what it has no room for. One that waits has the node taken off the tree of
broadcasts while its queue is more than half full: neighbours then only announce, and what they
still keep is fetched when it has drained to a quarter. All broadcasts wait then, for every reader,
and for nodes that have no other way to them. What neighbours send before they know, and what had
been asked for, is queued beyond the limit. Direct messages are not held back.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from meshwalk.errors import InvalidArgument
from meshwalk.events import Delivery
from meshwalk.net.subscription import BYTES_MAX, Subscribers, Subscription
from meshwalk.proto.commands import TYPE_CHARACTERS_MAX
from meshwalk.wire.peerid import PeerId

WhenFull: TypeAlias = Literal["drop", "wait"]

HELD_ABOVE: Final = 2  # guess: half; neighbours take a moment to hear of it
FREED_BELOW: Final = 4  # guess: a quarter, so that reading goes on while what waits is fetched
# A broadcast may be a bundle of 512 messages, and 128 are asked for of one neighbour at a time: so
# many of four. measured: with no room beyond a limit of 20,000, a burst of 100,000 small messages
# lost 59,000 of them.
ON_THEIR_WAY_MAX: Final = 262_144
SINCE_MAX_S: Final = (1 << 64) // 1000 - 1  # U64 of wire/frames.py, in milliseconds


class Choice(msgspec.Struct, frozen=True):
    """Which messages a reader takes."""

    topics: frozenset[str] | None = None
    """Broadcasts with one of these, and no direct messages; None: all."""
    ordered: bool = True
    """Each origin's broadcasts in their order; else as they come."""
    takes_past: bool = False
    """Also what was fetched from before the node was there."""
    from_s: float = -math.inf
    """Broadcasts that were sent before that, by their origins' clocks, are left out."""

    def takes(self, message: Delivery) -> bool:
        """Whether the topic is one of those."""
        return self.topics is None or (message.is_broadcast and message.topic in self.topics)


class Reader(Subscription[Delivery]):
    """One reader of messages. Those in `earlier` come first and take no room of the others."""

    def __init__(
        self,
        limit: int,
        choice: Choice,
        earlier: Sequence[Delivery] = (),
        crowding: Callable[[], None] | None = None,
        limit_bytes: int = BYTES_MAX,
    ) -> None:
        """`crowding` is told whenever `is_crowded` has changed, in whatever thread that happens; a
        reader without it is never crowded."""
        super().__init__(limit, limit_bytes)
        self.ordered = choice.ordered
        self.is_crowded = False
        """Whether the node should hold back broadcasts."""
        self._topics = choice.topics
        self._takes_past = choice.takes_past
        self._from_s = choice.from_s
        self._crowding = crowding
        self._items.extend((message, 0) for message in earlier)
        self._earlier = len(earlier)
        """How many of those are left; they are the first in the queue."""
        if crowding is None:
            mark, self._full, self._mark_bytes = limit, limit, limit_bytes
        else:
            mark, self._full = -(-limit // HELD_ABOVE) - 1, limit + ON_THEIR_WAY_MAX
            self._mark_bytes = limit_bytes // HELD_ABOVE
        self._mark = mark + self._earlier

    def put(self, item: Delivery, size: int = 0) -> bool:
        # As its parent's, for the same; spelled out, since it runs for each message.
        if self._is_closed:
            return True
        if not item.is_broadcast:
            if self._topics is not None:
                return True
        elif (
            (item.is_past and not self._takes_past)
            or item.sent_at < self._from_s
            or (self._topics is not None and item.topic not in self._topics)
        ):
            return True
        if (
            len(self._items) >= self._mark or self._bytes + size > self._mark_bytes
        ) and not self._has_room(size):
            return False
        self._items.append((item, size))
        self._bytes += size
        if self._waiter is not None:
            self._wake()
        return True

    def close(self) -> None:
        super().close()
        self._is_crowded_now(False)

    def __del__(self) -> None:
        self._is_crowded_now(False)

    def _take(self) -> Delivery:
        item, size = self._items.popleft()
        self._bytes -= size
        if self._earlier:
            self._earlier -= 1
            self._mark -= 1
        if (
            self.is_crowded
            and len(self._items) <= self.limit // FREED_BELOW
            and self._bytes <= self.limit_bytes // FREED_BELOW
        ):
            self._is_crowded_now(False)
        return item

    def _has_room(self, size: int) -> bool:
        """Above the mark: whether one more fits all the same."""
        if self._crowding is not None:
            self._is_crowded_now(True)
        if len(self._items) - self._earlier >= self._full or self._bytes + size > self.limit_bytes:
            self.dropped += 1
            return False
        return True

    def _is_crowded_now(self, is_crowded: bool) -> None:
        if is_crowded is not self.is_crowded and self._crowding is not None:
            self.is_crowded = is_crowded
            self._crowding()


class Readings(Subscribers[Delivery]):
    """All readers of one node's messages."""

    def __init__(self, hold: Callable[[bool], None]) -> None:
        """`hold` is called in the loop when broadcasts are to be held back, and when no more."""
        super().__init__()
        self._hold = hold
        self._is_held = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_look_due = False
        self._early: set[tuple[PeerId, int, float]] = set()

    def open(self) -> None:
        """Take readers again, for a node that has just started in the running loop."""
        super().open()
        self._loop = asyncio.get_running_loop()
        self._is_held = self._is_look_due = False
        self._early.clear()

    def read(
        self, limit: int, choice: Choice, when_full: WhenFull, earlier: Sequence[Delivery] = ()
    ) -> Reader:
        """One more reader."""
        crowding = self.look_soon if when_full == "wait" else None
        reader = Reader(limit, choice, earlier, crowding)
        self.add(reader)
        return reader

    def put_to(self, message: Delivery, size: int, *, ordered: bool) -> Reader | None:
        """As `put`, but only to readers that want an order, or only to those that want none.

        Each that is put to those without an order is put to the others later.
        """
        # As many as the machines hold for the sake of the order, and so as bounded.
        if ordered:
            self._early.discard(_name_of(message))
        else:
            self._early.add(_name_of(message))
        full = None
        for reference in self._readers:
            reader = reference()
            if (
                isinstance(reader, Reader)
                and reader.ordered is ordered
                and not reader.put(message, size)
            ):
                full = reader
        return full

    def is_early(self, message: Delivery) -> bool:
        """Whether it is yet to be put to readers that want an order."""
        return bool(self._early) and _name_of(message) in self._early

    def look_soon(self) -> None:
        """A reader has become crowded, or no longer is one. From any thread: also where garbage is
        collected."""
        if self._is_look_due or self._loop is None:
            return
        # First the flag, then the look, which takes it down before it looks: see persistence.py.
        self._is_look_due = True
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody is held back
            self._loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        self._is_look_due = False
        readers = (reference() for reference in self._readers)
        is_held = any(isinstance(reader, Reader) and reader.is_crowded for reader in readers)
        if is_held is not self._is_held:
            self._is_held = is_held
            self._hold(is_held)


def _name_of(message: Delivery) -> tuple[PeerId, int, float]:
    return message.origin, message.sequence, message.sent_at


def topics_of(topic: str | Iterable[str] | None) -> frozenset[str] | None:
    """What a reader named as its topics. Raises `InvalidArgument`."""
    if topic is None:
        return None
    if isinstance(topic, str):
        topic = (topic,)
    elif not isinstance(topic, Iterable):
        raise InvalidArgument("a topic is text, or name several in a list")
    topics = list(topic)
    if not topics:
        raise InvalidArgument("name at least one topic, or none for all messages")
    for each in topics:
        if not isinstance(each, str):
            raise InvalidArgument("a topic is text")
        if len(each) > TYPE_CHARACTERS_MAX:
            raise InvalidArgument(f"a topic has at most {TYPE_CHARACTERS_MAX} characters")
        try:
            each.encode()
        except UnicodeEncodeError:
            raise InvalidArgument("a topic is text that UTF-8 can write") from None
    return frozenset(topics)


def check_reading(limit: int, since: float | None, when_full: str) -> None:
    """Raises `InvalidArgument` for what makes no reader."""
    if when_full not in ("drop", "wait"):
        raise InvalidArgument('when_full is "drop" or "wait"')
    if when_full == "wait" and limit < 1:
        raise InvalidArgument("a reader that is waited for has room for one message at least")
    if since is None:
        return
    if isinstance(since, bool) or not isinstance(since, (int, float)):
        raise InvalidArgument("since is a Unix time in seconds")
    if not 0 <= since <= SINCE_MAX_S:  # NaN, too
        raise InvalidArgument("since is a Unix time in seconds, after 1970")
