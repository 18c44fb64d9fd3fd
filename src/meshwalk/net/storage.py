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
from meshwalk.proto.effects import ForgetPeer, KeepBroadcast, SavePeer
from meshwalk.proto.overlay.addressbook import BookEntry
from meshwalk.proto.overlay.restoring import restored
from meshwalk.store import broadcasts, history, identity, peerbook
from meshwalk.store.broadcasts import StoredBroadcast
from meshwalk.store.database import Database
from meshwalk.store.history import StoredMessage
from meshwalk.store.peerbook import StoredPeer
from meshwalk.wire.frames import ContentType
from meshwalk.wire.peerid import PeerId

PRUNE_EVERY = 1000  # guess: messages between two looks at the length of the history
PRUNE_BROADCASTS_EVERY_S = 300.0  # guess: while others come, one stays so much longer at the most
PRUNE_BROADCASTS_SHARE = 4  # guess: the disk holds a quarter more than is wanted, at the most


class _Writing(msgspec.Struct):
    """A broadcast that waits for the disk."""

    broadcast: StoredBroadcast
    was_tried: bool = False
    """The store may run a write twice: when another of its batch fails."""


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
        self._broadcasts: list[StoredBroadcast] = []
        self._persistence = persistence
        self._config = config
        self._unix_clock = unix_clock
        self.keeps_history = keeps_history
        self._since_pruned = 0
        # Of broadcasts. What is done is counted by the store's thread, the rest by the loop.
        self._bytes_posted = 0
        self._bytes_done = 0
        self._dropped = 0
        self._kept_since_pruned = 0
        self._bytes_since_pruned = 0
        self._pruned_at = 0.0

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
            if storage.keeps_history:
                storage._broadcasts = await persistence.call(
                    broadcasts.kept,
                    storage._oldest_ms(),
                    config.history.count_max,
                    config.history.bytes_max,
                )
        except BaseException:
            await persistence.close()
            raise
        storage._prune()  # a run may be shorter than the pause between two looks
        storage._prune_broadcasts()
        return storage

    def known_peers(self, unix_offset_s: float) -> list[BookEntry]:
        """The peers of the last run, as the address book keeps them."""
        found = (restored(_as_saved(peer), unix_offset_s) for peer in self._peers)
        return [entry for entry in found if entry is not None]

    def kept_broadcasts(self) -> list[KeepBroadcast]:
        """Those of the last run that are not too old yet, in the order in which they came.

        Given once: they are as large as all that the machines keep of them.
        """
        found, self._broadcasts = self._broadcasts, []
        return [KeepBroadcast(*msgspec.structs.astuple(broadcast)) for broadcast in found]

    def broadcast_kept(self, change: KeepBroadcast) -> None:
        """Keep a broadcast, so that it can be given to others after a restart too.

        When as many bytes wait for the disk as are kept at all, it is dropped and counted.
        """
        if not self.keeps_history:
            return
        size, limit = len(change.payload), self._config.history.bytes_max
        if self._bytes_posted - self._bytes_done + size > limit:
            if self._persistence.statistics().queued:
                self._dropped += 1
                return
            # Some were never tried: their whole batch had failed.
            self._bytes_posted = self._bytes_done
        writing = _Writing(StoredBroadcast(*msgspec.structs.astuple(change)))
        if not self._persistence.post(self._write, writing):
            return
        self._bytes_posted += size
        self._kept_since_pruned += 1
        self._bytes_since_pruned += size
        if (
            self._kept_since_pruned >= PRUNE_EVERY
            or self._bytes_since_pruned * PRUNE_BROADCASTS_SHARE >= limit
            or self._unix_clock() - self._pruned_at >= PRUNE_BROADCASTS_EVERY_S
        ):
            self._prune_broadcasts()

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
        counts = self._persistence.statistics()
        return msgspec.structs.replace(counts, dropped=counts.dropped + self._dropped)

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

    def _oldest_ms(self) -> int:
        """What was broadcast before that is kept no more; Unix time in milliseconds."""
        return max(0, int((self._unix_clock() - self._config.history.age_s) * 1000))

    def _prune_broadcasts(self) -> None:
        self._kept_since_pruned = self._bytes_since_pruned = 0
        self._pruned_at = self._unix_clock()
        limits = self._config.history
        self._persistence.post(
            broadcasts.prune, self._oldest_ms(), limits.count_max, limits.bytes_max
        )

    def _write(self, database: Database, writing: _Writing) -> None:
        # On the store's thread.
        try:
            broadcasts.keep(database, [writing.broadcast])
        finally:
            if not writing.was_tried:
                writing.was_tried = True
                self._bytes_done += len(writing.broadcast.payload)

    def _prune(self) -> None:
        self._persistence.post(history.prune, self._config.store.history_max)
        # A dropped write may have left a peer behind that the book has forgotten.
        self._persistence.post(peerbook.prune_peers, self._config.book.total_max)


def _as_saved(peer: StoredPeer) -> SavePeer:
    kept = msgspec.structs.asdict(peer)
    del kept["first_seen"]  # for people: the node does nothing with it
    return SavePeer(**kept)
