"""What a node's machines have for the application: messages, events, requests, things to keep.

Implements the driver's `Application`: decodes, notes in the history, hands to the readers.
"""

from __future__ import annotations

import logging

import msgspec

from meshwalk.errors import MalformedFrame
from meshwalk.events import Delivery, Event, MessagesDropped
from meshwalk.net.driver import Driver
from meshwalk.net.serving import Serving
from meshwalk.net.storage import NodeStorage
from meshwalk.net.subscription import Subscribers
from meshwalk.proto.effects import Ask, ForgetPeer, SavePeer
from meshwalk.wire.content import decode_body
from meshwalk.wire.frames import ContentType
from meshwalk.wire.peerid import PeerId

log = logging.getLogger("meshwalk")

TOLD_EVERY = 1000  # guess: drops between two events that tell of them


class Inbox:
    """The application's side of one running node."""

    def __init__(self, serving: Serving) -> None:
        self.messages: Subscribers[Delivery] = Subscribers()
        self.events: Subscribers[Event] = Subscribers()
        self.storage: NodeStorage | None = None
        self.driver: Driver | None = None
        self.dropped = 0
        """Messages and events that found a reader's queue full, or could not be decoded."""
        self._serving = serving

    def delivered(self, delivery: Delivery) -> None:
        message = delivery
        if delivery.content is not ContentType.BYTES:
            try:
                body = decode_body(delivery.content, delivery.body)
            except MalformedFrame as error:
                log.warning("dropped a message of %s: %s", delivery.origin.short, error)
                self.dropped += 1
                return
            message = msgspec.structs.replace(delivery, body=body)
        if self.storage is not None and self.storage.keeps_history:
            self.storage.received(delivery)
        full = self.messages.put(message, len(delivery.body))
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
