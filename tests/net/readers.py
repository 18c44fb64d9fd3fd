"""An inbox as a node that runs has it; its machines and its history only note what they hear."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, cast

from meshwalk.config import Config
from meshwalk.events import Delivery
from meshwalk.net.driver import Driver
from meshwalk.net.inbox import Inbox
from meshwalk.net.reading import Reader, WhenFull
from meshwalk.net.serving import Serving
from meshwalk.net.storage import NodeStorage
from meshwalk.net.subscription import ITEMS_MAX
from meshwalk.proto.effects import Effect, KeepBroadcast, Readers
from meshwalk.wire.content import encode_body
from meshwalk.wire.frames import ContentType
from meshwalk.wire.peerid import PeerId

NOW_S = 1_700_000_000.0
ANNA, BERT = PeerId(b"a" * 32), PeerId(b"b" * 32)


class StubCore:
    """The commands of a node's machines that readers give."""

    def __init__(self) -> None:
        self.held: list[Delivery] = []
        self.calls: list[tuple[str, float]] = []

    def broadcasts_since(
        self, since_ms: int, topics: frozenset[str] | None = None
    ) -> list[Delivery]:
        found = [each for each in self.held if each.sent_at * 1000 >= since_ms]
        found.sort(key=lambda each: (each.sent_at, each.sequence))
        return [each for each in found if topics is None or each.topic in topics]

    def catch_up(self, since_ms: int, now: float) -> list[Effect]:
        self.calls.append(("catch up", since_ms))
        return []

    def pause_broadcasts(self, now: float) -> list[Effect]:
        self.calls.append(("pause", now))
        return []

    def resume_broadcasts(self, now: float) -> list[Effect]:
        self.calls.append(("resume", now))
        return []


class StubDriver:
    """A driver whose machines say nothing."""

    def __init__(self) -> None:
        self.core = StubCore()

    def clock(self) -> float:
        return 5.0

    def command(self, effects: list[Effect]) -> None:
        assert effects == []


class StubStorage:
    """A history."""

    keeps_history = True

    def __init__(self) -> None:
        self.noted: list[Delivery] = []
        self.kept: list[KeepBroadcast] = []

    def received(self, delivery: Delivery) -> None:
        self.noted.append(delivery)

    def broadcast_kept(self, change: KeepBroadcast) -> None:
        self.kept.append(change)


class World:
    """An inbox of a node that runs."""

    def __init__(self) -> None:
        self.driver, self.storage = StubDriver(), StubStorage()
        self.core = self.driver.core
        self.inbox = Inbox(cast("Serving", None), Config(), lambda: NOW_S)
        self.start()

    def start(self) -> None:
        self.inbox.open(cast("Driver", self.driver), cast("NodeStorage", self.storage))

    def read(
        self,
        limit: int = ITEMS_MAX,
        *,
        topic: str | Iterable[str] | None = None,
        since: float | None = None,
        ordered: bool = True,
        when_full: WhenFull = "drop",
    ) -> Reader:
        return self.inbox.read(limit, topic, since, ordered, when_full)

    def deliver(self, *deliveries: Delivery, readers: Readers = Readers.ALL) -> None:
        for delivery in deliveries:
            self.inbox.delivered(delivery, readers)

    async def calls(self) -> list[str]:
        """What the machines have been told since the last look."""
        for _ in range(3):
            await asyncio.sleep(0)
        told = [name for name, _ in self.core.calls]
        self.core.calls.clear()
        return told


def broadcast(
    sequence: int,
    body: Any = b"",
    *,
    topic: str = "",
    sent_at: float = NOW_S,
    origin: PeerId = ANNA,
    is_past: bool = False,
) -> Delivery:
    content, data = encode_body(body)
    return Delivery(
        origin,
        data,
        content,
        is_broadcast=True,
        topic=topic,
        sequence=sequence,
        sent_at=sent_at,
        is_past=is_past,
    )


def direct(body: bytes = b"", *, type: str = "", sent_at: float = NOW_S) -> Delivery:
    return Delivery(BERT, body, ContentType.BYTES, False, topic=type, sent_at=sent_at)


def taken(reader: Reader) -> list[int]:
    found = []
    while (message := reader.get_nowait()) is not None:
        found.append(message.sequence)
    return found
