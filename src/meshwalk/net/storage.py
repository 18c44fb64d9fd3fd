"""What a node keeps in its store, in the node's own words. Reads once at the start, then posts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from meshwalk.config import Config
from meshwalk.errors import StoreError
from meshwalk.events import Delivery
from meshwalk.net.persistence import Persistence, PersistenceStatistics
from meshwalk.net.surroundings import Surroundings
from meshwalk.proto.effects import ForgetPeer, SavePeer
from meshwalk.proto.overlay.addressbook import BookEntry
from meshwalk.proto.overlay.restoring import restored
from meshwalk.store import history, identity, peerbook
from meshwalk.store.history import StoredMessage
from meshwalk.store.peerbook import StoredPeer
from meshwalk.wire.frames import ContentType
from meshwalk.wire.peerid import PeerId

PRUNE_EVERY = 1000  # guess: messages between two looks at the length of the history


class NodeStorage:
    """The store of one node. With no folder nothing outlives it and no history is kept."""

    def __init__(
        self,
        persistence: Persistence,
        config: Config,
        unix_clock: Callable[[], float],
        *,
        keeps_history: bool,
    ) -> None:
        self.seed = b""
        """The identity's private key, 32 bytes."""
        self._peers: list[StoredPeer] = []
        self._persistence = persistence
        self._config = config
        self._unix_clock = unix_clock
        self.keeps_history = keeps_history
        self._since_pruned = 0

    @classmethod
    async def open(
        cls,
        folder: Path | None,
        config: Config,
        on_error: Callable[[str], None],
        surroundings: Surroundings,
    ) -> NodeStorage:
        """Open or make the store, and read identity and peers. Raises `StoreError`."""

        def failed(error: StoreError) -> None:
            on_error(str(error))

        persistence = await Persistence.open(
            folder, config.store, failed, surroundings.store_executor()
        )
        storage = cls(
            persistence, config, surroundings.unix_clock, keeps_history=folder is not None
        )
        try:
            storage.seed = await persistence.call(identity.load_or_make, surroundings.identity_seed)
            storage._peers = await persistence.call(peerbook.load_peers, config.book.total_max)
        except BaseException:
            await persistence.close()
            raise
        storage._prune()  # a run may be shorter than the pause between two looks
        return storage

    def known_peers(self, unix_offset_s: float) -> list[BookEntry]:
        """The peers of the last run, as the address book keeps them."""
        found = (restored(_as_saved(peer), unix_offset_s) for peer in self._peers)
        return [entry for entry in found if entry is not None]

    def peer_changed(self, change: SavePeer | ForgetPeer) -> None:
        """Keep or forget a peer."""
        if isinstance(change, ForgetPeer):
            self._persistence.post(peerbook.forget_peer, change.peer)
            return
        stored = StoredPeer(**msgspec.structs.asdict(change))
        self._persistence.post(peerbook.save_peer, stored)

    def sent(
        self,
        me: PeerId,
        sequence: int,
        topic: str,
        content: ContentType,
        body: bytes,
        recipient: PeerId | None = None,
    ) -> None:
        """Note an own message in the history."""
        self._note(
            StoredMessage(
                origin=me,
                at=self._unix_clock(),
                kind="direct" if recipient is not None else "broadcast",
                body=body,
                content=content,
                topic=topic if recipient is None else "",
                type=topic if recipient is not None else "",
                sequence=sequence,
                is_own=True,
                recipient=recipient,
            )
        )

    def received(self, delivery: Delivery) -> None:
        """Note a message that arrived; its body is still bytes."""
        is_broadcast = delivery.is_broadcast
        self._note(
            StoredMessage(
                origin=delivery.origin,
                at=self._unix_clock(),
                kind="broadcast" if is_broadcast else "direct",
                body=delivery.body,
                content=delivery.content,
                topic=delivery.topic if is_broadcast else "",
                type="" if is_broadcast else delivery.topic,
                sequence=delivery.sequence,
            )
        )

    async def history(self, limit: int, topic: str | None = None) -> list[StoredMessage]:
        """The newest messages, oldest of them first."""
        newest_first = await self._persistence.call(history.recent, limit, topic)
        return newest_first[::-1]

    def statistics(self) -> PersistenceStatistics:
        """Counts of the store's writer."""
        return self._persistence.statistics()

    async def close(self) -> None:
        """Write what waits and let the file go."""
        await self._persistence.close()

    def _note(self, message: StoredMessage) -> None:
        if len(message.body) > self._config.store.history_body_bytes_max:
            message = msgspec.structs.replace(message, body=b"")
        self._persistence.post(history.append, [message])
        self._since_pruned += 1
        if self._since_pruned >= PRUNE_EVERY:
            self._since_pruned = 0
            self._prune()

    def _prune(self) -> None:
        self._persistence.post(history.prune, self._config.store.history_max)
        # A dropped write may have left a peer behind that the book has forgotten.
        self._persistence.post(peerbook.prune_peers, self._config.book.total_max)


def _as_saved(peer: StoredPeer) -> SavePeer:
    kept = msgspec.structs.asdict(peer)
    del kept["first_seen"]  # for people: the node does nothing with it
    return SavePeer(**kept)
