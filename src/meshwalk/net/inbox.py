"""What a node's machines have for the application: messages, events, requests, things to keep.

Implements the driver's `Application`: decodes, notes in the history, hands to the readers.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from meshwalk.config import Config
from meshwalk.errors import MalformedFrame, NotRunning
from meshwalk.events import Delivery, Event, MessagesDropped, MessagesMissed
from meshwalk.net.driver import Driver
from meshwalk.net.reading import (
    Choice,
    Reader,
    Readings,
    WhenFull,
    check_reading,
    topics_of,
)
from meshwalk.net.serving import Serving
from meshwalk.net.storage import NodeStorage
from meshwalk.net.subscription import Subscribers
from meshwalk.proto.effects import (
    Ask,
    BroadcastsMissed,
    ForgetPeer,
    KeepBroadcast,
    Readers,
    SavePeer,
)
from meshwalk.wire.content import decode_body
from meshwalk.wire.frames import ContentType
from meshwalk.wire.peerid import PeerId

log = logging.getLogger("meshwalk")

TOLD_EVERY = 1000  # guess: drops between two events that tell of them

# Names of this module, since looking into the enum costs as much as what is done with it.
_BYTES: Final = ContentType.BYTES
_ALL: Final = Readers.ALL
_ORDERED: Final = Readers.ORDERED


class Inbox:
    """The application's side of one running node."""

    def __init__(self, serving: Serving, config: Config, unix_clock: Callable[[], float]) -> None:
        self.messages = Readings(self._hold_back)
        self.events: Subscribers[Event] = Subscribers()
        self.storage: NodeStorage | None = None
        self.driver: Driver | None = None
        self.dropped = 0
        """Messages and events that found a reader's queue full, or could not be decoded."""
        self._serving = serving
        self._config = config
        self._unix_clock = unix_clock

    def open(self, driver: Driver, storage: NodeStorage) -> None:
        """The node has started."""
        self.driver, self.storage = driver, storage
        self.messages.open()
        self.events.open()

    def close(self) -> None:
        """It has stopped: every reader ends after what waits for it."""
        self.driver = self.storage = None
        self.messages.close()
        self.events.close()

    def read(
        self,
        limit: int,
        topic: str | Iterable[str] | None,
        since: float | None,
        ordered: bool,
        when_full: WhenFull,
    ) -> Reader:
        """One more reader of messages; see `Node.messages`."""
        topics = topics_of(topic)
        check_reading(limit, since, when_full)
        if since is None:
            return self.messages.read(limit, Choice(topics, ordered), when_full)
        driver = self.driver
        if driver is None:
            raise NotRunning("what was sent before can only be had from a node that runs")
        # New ones count as sent since then, even by a clock that is slow.
        from_s = self._unix_clock() - self._config.broadcast.clock_skew_max_s
        choice = Choice(topics, ordered, takes_past=True, from_s=min(since, from_s))
        since_ms = math.ceil(since * 1000)
        # All in one go: what is not held yet comes after the reader is there, and not before.
        earlier = self._held_since(since_ms, choice, driver)
        reader = self.messages.read(limit, choice, when_full, earlier)
        driver.command(driver.core.catch_up(since_ms, driver.clock()))
        return reader

    def delivered(self, delivery: Delivery, readers: Readers = _ALL) -> None:
        message = delivery
        if delivery.content is not _BYTES:
            decoded = self._decoded(delivery)
            if decoded is None:
                if readers is not _ORDERED:  # else it has been counted when it came
                    self.dropped += 1
                return
            message = decoded
        if self.storage is not None and self.storage.keeps_history and readers is not _ORDERED:
            self.storage.received(delivery)  # what was held for the order is noted when it comes
        if readers is _ALL:
            full = self.messages.put(message, len(delivery.body))
        else:
            is_ordered = readers is _ORDERED
            full = self.messages.put_to(message, len(delivery.body), ordered=is_ordered)
        if full is not None:
            self.dropped += 1
            if full.dropped % TOLD_EVERY == 1:
                self.happened(MessagesDropped(full.dropped, "a reader of messages is too slow"))

    def happened(self, event: Event) -> None:
        log.debug("%s", event)
        if self.events.put(event) is not None:
            self.dropped += 1

    def asked(self, ask: Ask) -> None:
        if self.driver is not None:
            self._serving.asked(ask, self.driver)

    def ask_gone(self, peer: PeerId, request: int) -> None:
        self._serving.ask_gone(peer, request)

    def peer_changed(self, change: SavePeer | ForgetPeer) -> None:
        if self.storage is not None:
            self.storage.peer_changed(change)

    def broadcast_kept(self, change: KeepBroadcast) -> None:
        if self.storage is not None:
            self.storage.broadcast_kept(change)

    def broadcasts_missed(self, missed: BroadcastsMissed) -> None:
        self.happened(MessagesMissed(missed.origin, missed.count))

    def _held_since(self, since_ms: int, choice: Choice, driver: Driver) -> list[Delivery]:
        """What the node holds of that, oldest first, and each origin's in their order.

        What waits for its turn in that order comes later to a reader that wants one.
        """
        held = driver.core.broadcasts_since(since_ms, choice.topics)
        wanted = (
            self._decoded(delivery)
            for delivery in held
            if choice.takes(delivery) and not (choice.ordered and self.messages.is_early(delivery))
        )
        return [message for message in wanted if message is not None]

    def _decoded(self, delivery: Delivery) -> Delivery | None:
        """The same with its body decoded, or None and a line in the log if it cannot be."""
        try:
            body = decode_body(delivery.content, delivery.body)
        except MalformedFrame as error:
            log.warning("dropped a message of %s: %s", delivery.origin.short, error)
            return None
        return msgspec.structs.replace(delivery, body=body)

    def _hold_back(self, is_held: bool) -> None:
        driver = self.driver
        if driver is None:
            return
        core, now = driver.core, driver.clock()
        driver.command(core.pause_broadcasts(now) if is_held else core.resume_broadcasts(now))
