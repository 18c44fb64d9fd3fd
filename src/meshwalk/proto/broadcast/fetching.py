"""What is missing, who has it, and of whom it was asked. Decides whom to ask next, and no more.

    told of, or a gap --> waits `wait_s` for the tree --> asked of one who has it
                                |                                   |  in time: came
                              came                                  |  no answer, or Gone: the next
                                                                    |  Gone, and nobody else: later
                                                                    `- nobody left: missed

Of each peer a bounded number is asked for at a time; the rest waits in its queue. A peer that sends
nothing of what it was asked for has broken its promise once it does so for the third time in a row:
before that, a slow path may have done it.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from typing import Final, TypeAlias, final

import msgspec

from meshwalk.config import TreeConfig
from meshwalk.proto.broadcast.history import Id
from meshwalk.proto.timers import Timers
from meshwalk.wire.peerid import PeerId

TIMER = "broadcast fetch"
DUE: Final = (TIMER, None)
TOO_SOON_MAX: Final = 1024  # guess: what is asked for within a second or two
DUE_LEAST: Final = 64  # guess: below it a heap may be as it likes
PROMISE_S: Final = 5.0  # guess: few have so much that they lose what they have just told
BACKLOG_S: Final = 10.0  # guess: as long as a link may be stalled before it is given up
PATIENCE: Final = 2  # guess: times in a row that a peer may send nothing before it is blamed


@final
class Ask(msgspec.Struct, frozen=True, gc=False):
    """Ask a peer for these."""

    peer: PeerId
    ids: list[Id]
    from_history: bool
    """All of them were told of by peers that were asked what they have."""


@final
class PromiseBroken(msgspec.Struct, frozen=True, gc=False):
    """A peer said that it has what it does not send."""

    peer: PeerId
    is_withdrawn: bool = False
    """It says that it has it no more, shortly after: it may have very much, or have lied."""


@final
class Missed(msgspec.Struct, frozen=True, gc=False):
    """Nobody has these, or sends them."""

    ids: list[Id]


FetchEffect: TypeAlias = Ask | PromiseBroken | Missed


class Missing:
    """One that has not come."""

    __slots__ = ("asked", "from_history", "had_by", "is_gap", "noted_by", "told_at", "tries")

    def __init__(
        self, noted_by: PeerId, told_at: float, *, from_history: bool, is_gap: bool
    ) -> None:
        self.is_gap = is_gap
        self.told_at = told_at
        self.noted_by = noted_by
        self.had_by: list[PeerId] = [noted_by]
        self.asked: PeerId | None = None
        """Of whom it was asked, or in whose queue it is."""
        self.tries = 0
        self.from_history = from_history
        """Told of by a peer that was asked what it has: no sign of anything wrong now."""


class Supplier:
    """One neighbour that is asked."""

    __slots__ = (
        "asked_at",
        "deadline",
        "in_flight",
        "pushed_at",
        "queue",
        "silent_since",
        "unanswered",
    )

    def __init__(self) -> None:
        self.in_flight: dict[Id, None] = {}
        self.queue: deque[Id] = deque()
        self.deadline: float | None = None
        self.asked_at = 0.0
        self.silent_since: float | None = None
        """When it was first asked for something since it last answered."""
        self.pushed_at = float("-inf")
        """When a copy last came from it, whatever it was: answers wait behind those."""
        self.unanswered = 0
        """How often in a row it sent nothing."""


class Fetching:
    """What is missing at one node."""

    def __init__(self, config: TreeConfig, timers: Timers, counts: Counter[str]) -> None:
        self.is_paused = False
        self._config = config
        self._timers = timers
        self._counts = counts
        self._missing: dict[Id, Missing] = {}
        self._of_origin: dict[tuple[bytes, int], set[int]] = {}
        """The same by origin and epoch."""
        self._noted: Counter[PeerId] = Counter()
        self._suppliers: dict[PeerId, Supplier] = {}
        self._lag_s = config.fetch_wait_least_s
        self._lag_deviation_s = config.fetch_wait_least_s / 2
        self._too_soon: OrderedDict[Id, float] = OrderedDict()
        """What was asked for and has come: when it was told of."""
        self._due: list[tuple[float, int, Id]] = []
        self._numbers = 0

    def __len__(self) -> int:
        return len(self._missing)

    def room_for(self, peer: PeerId) -> int:
        """How many more may be noted on the word of this peer."""
        config = self._config
        room = config.missing_per_peer_max - self._noted[peer]
        return max(0, min(room, config.missing_max - len(self._missing)))

    def told(
        self,
        id: Id,
        peer: PeerId,
        now: float,
        *,
        from_history: bool = False,
        is_gap: bool = False,
    ) -> None:
        """A neighbour has one that has not come. The caller has seen to `room_for`. `is_gap`:
        nobody has said so, but it has passed on what came after it."""
        if peer not in self._suppliers:
            self._suppliers[peer] = Supplier()
        missing = self._missing.get(id)
        if missing is not None:
            if peer not in missing.had_by and len(missing.had_by) < self._config.announcers_max:
                missing.had_by.append(peer)
            return
        self._missing[id] = Missing(peer, now, from_history=from_history, is_gap=is_gap)
        self._noted[peer] += 1
        self._of_origin.setdefault(id[:2], set()).add(id[2])
        self._wait_for(id, self.wait_s, now)

    def lowest_of(self, origin: tuple[bytes, int]) -> int | None:
        """The smallest number of this origin that is missing, as far as it is waited for."""
        found = self._of_origin.get(origin)
        return min(found) if found else None

    def missing_of(self, origin: tuple[bytes, int]) -> int:
        """How many of this origin are missing."""
        return len(self._of_origin.get(origin, ()))

    def refused(self, id: Id) -> None:
        """It has come, and is not taken: nobody is asked for it again, and nobody blamed."""
        missing = self._missing.get(id)
        if missing is None:
            return
        self._forget(id)
        supplier = self._suppliers.get(missing.asked) if missing.asked is not None else None
        if supplier is not None:
            supplier.in_flight.pop(id, None)
            supplier.unanswered, supplier.silent_since = 0, None

    def pushed(self, peer: PeerId, now: float) -> None:
        """A copy has come from a neighbour."""
        supplier = self._suppliers.get(peer)
        if supplier is not None:
            supplier.pushed_at = now

    def delayed(self, id: Id, peer: PeerId, now: float) -> None:
        """It has come from this peer, and there was no room for it: it is to be asked for, or asked
        for again, in time. No fault of the peer's, and no try."""
        missing = self._missing.get(id)
        if missing is None:
            if self.room_for(peer):
                self.told(id, peer, now, is_gap=True)
            else:
                self._counts["not noted"] += 1
        elif missing.asked is not None:
            self._answered(id, missing.asked, now)
            missing.asked = None
            missing.tries -= 1
            self._wait_for(id, self._config.fetch_timeout_s, now)

    def came(self, id: Id, now: float) -> Missing | None:
        """It has come, from whomever; what was known of it, if it was missing."""
        if id not in self._missing:
            return None
        missing = self._forget(id)
        if missing.asked is None:
            if not missing.from_history:
                self._note_lag(now - missing.told_at)
        else:
            self._too_soon[id] = missing.told_at
            if len(self._too_soon) > TOO_SOON_MAX:
                self._too_soon.popitem(last=False)
            self._answered(id, missing.asked, now)
        return missing

    def came_by_tree(self, id: Id, now: float) -> None:
        """What was asked for has come once more, by the tree: it was asked for too soon."""
        told_at = self._too_soon.get(id)
        if told_at is not None:
            self._note_lag(now - told_at)

    @property
    def wait_s(self) -> float:
        """How long the tree may take after others have told of a broadcast, as it did lately; as
        RFC 6298 has it for round trips."""
        config = self._config
        wait_s = self._lag_s + 4 * self._lag_deviation_s
        return min(max(wait_s, config.fetch_wait_least_s), config.fetch_wait_most_s)

    def is_asked(self, id: Id) -> bool:
        """Whether one that has not come is waited for."""
        return id in self._missing

    def was_asked_for(self, id: Id) -> bool:
        """Whether one that has come was asked for, of whomever, not long ago."""
        return id in self._too_soon

    def _note_lag(self, lag_s: float) -> None:
        lag_s = min(lag_s, self._config.fetch_wait_most_s)
        self._lag_deviation_s += (abs(lag_s - self._lag_s) - self._lag_deviation_s) / 4
        self._lag_s += (lag_s - self._lag_s) / 8

    def more(self, peer: PeerId, now: float) -> list[FetchEffect]:
        """A peer has answered: ask for what waits in its queue, a good many at once."""
        supplier = self._suppliers.get(peer)
        if supplier is None or not supplier.queue or self.is_paused:
            return []
        if len(supplier.in_flight) > self._config.fetch_numbers_max // 2:
            return []
        return self._ask(peer, supplier, now)

    def gone(
        self, peer: PeerId, origin: tuple[bytes, int], first: int, last: int, now: float
    ) -> list[FetchEffect]:
        """A peer has some that it was asked for no more."""
        supplier = self._suppliers.get(peer)
        if supplier is None:
            return []
        ids = [id for id in supplier.in_flight if id[:2] == origin and first <= id[2] <= last]
        if not ids:
            return []
        others: list[Id] = []
        was_promised = False
        for id in ids:
            del supplier.in_flight[id]
            missing = self._missing[id]
            was_told = missing.noted_by == peer and not missing.from_history
            was_promised |= was_told and not missing.is_gap and now < missing.told_at + PROMISE_S
            if any(other != peer and other in self._suppliers for other in missing.had_by):
                if peer in missing.had_by:
                    missing.had_by.remove(peer)
                others.append(id)
            elif missing.tries >= self._config.fetch_tries_max:
                others.append(id)
            else:
                # Perhaps it waits for it as well, and passed on what came after it.
                missing.asked = None
                wait_s = min(self.wait_s * 2**missing.tries, self._config.fetch_wait_most_s)
                self._wait_for(id, wait_s, now)
        supplier.unanswered, supplier.silent_since = 0, None
        out: list[FetchEffect] = [PromiseBroken(peer, is_withdrawn=True)] if was_promised else []
        return [*out, *self._pass_on(others, peer, now), *self.more(peer, now)]

    def neighbour_gone(self, peer: PeerId, now: float) -> list[FetchEffect]:
        """It is asked for nothing more."""
        supplier = self._suppliers.pop(peer, None)
        if supplier is None:
            return []
        self._timers.cancel((TIMER, peer))
        return self._pass_on([*supplier.in_flight, *supplier.queue], peer, now)

    def pause(self) -> None:
        """Ask for nothing until `resume`; note on."""
        self.is_paused = True
        self._timers.cancel(DUE)

    def resume(self, now: float) -> list[FetchEffect]:
        """Ask for what is missing."""
        self.is_paused = False
        if self._due:
            self._timers.set(DUE, max(now, self._due[0][0]))
        return [each for peer in list(self._suppliers) for each in self.more(peer, now)]

    def tick(self, peer: PeerId | None, now: float) -> list[FetchEffect]:
        """What was to come by the tree has not; or a peer's time is up."""
        if peer is not None:
            return self._time_is_up(peer, now)
        if self.is_paused:
            return []
        due: set[Id] = set()  # what came and was told of once more is there twice
        while self._due and self._due[0][0] <= now:
            id = heapq.heappop(self._due)[2]
            missing = self._missing.get(id)
            if missing is not None and missing.asked is None:
                due.add(id)
        while self._due and self._due[0][2] not in self._missing:
            heapq.heappop(self._due)
        if self._due:
            self._timers.set(DUE, self._due[0][0])
        return self._assign(sorted(due), now)

    # Steps.

    def _wait_for(self, id: Id, wait_s: float, now: float) -> None:
        """Let the tree bring it; after so long it is asked for."""
        self._numbers += 1
        if len(self._due) > DUE_LEAST and len(self._due) > 2 * len(self._missing):
            # What came before it was due, as long as nothing is asked for.
            self._due = [entry for entry in self._due if entry[2] in self._missing]
            heapq.heapify(self._due)
        heapq.heappush(self._due, (now + wait_s, self._numbers, id))
        if self._due[0][2] == id and not self.is_paused:
            self._timers.set(DUE, now + wait_s)

    def _assign(self, ids: Sequence[Id], now: float) -> list[FetchEffect]:
        """Give each to the queue of one who has it, and ask."""
        peers: dict[PeerId, Supplier] = {}
        missed: list[Id] = []
        for id in ids:
            missing = self._missing[id]
            peer = self._choose(missing)
            if peer is None:
                self._forget(id)
                missed.append(id)
                continue
            missing.asked = peer
            missing.tries += 1
            supplier = peers[peer] = self._suppliers[peer]
            supplier.queue.append(id)
        out: list[FetchEffect] = [Missed(missed)] if missed else []
        self._counts["missed"] += len(missed)
        if not self.is_paused:
            for peer, supplier in peers.items():
                out += self._ask(peer, supplier, now)
        return out

    def _answered(self, id: Id, peer: PeerId, now: float) -> None:
        supplier = self._suppliers.get(peer)
        if supplier is not None and id in supplier.in_flight:
            del supplier.in_flight[id]
            supplier.unanswered, supplier.silent_since = 0, None
            supplier.deadline = now + self._config.fetch_timeout_s

    def _forget(self, id: Id) -> Missing:
        missing = self._missing.pop(id)
        numbers = self._of_origin[id[:2]]
        numbers.discard(id[2])
        if not numbers:
            del self._of_origin[id[:2]]
        self._noted[missing.noted_by] -= 1
        if not self._noted[missing.noted_by]:
            del self._noted[missing.noted_by]
        return missing

    def _choose(self, missing: Missing) -> PeerId | None:
        if missing.tries >= self._config.fetch_tries_max:
            return None
        best: tuple[int, int] | None = None
        chosen = None
        for peer in missing.had_by:
            supplier = self._suppliers.get(peer)
            if supplier is not None:
                load = supplier.unanswered, len(supplier.in_flight) + len(supplier.queue)
                if best is None or load < best:
                    best, chosen = load, peer
        return chosen

    def _ask(self, peer: PeerId, supplier: Supplier, now: float) -> list[FetchEffect]:
        ids: list[Id] = []
        room = self._config.fetch_numbers_max - len(supplier.in_flight)
        was_idle = not supplier.in_flight
        while supplier.queue and len(ids) < room:
            id = supplier.queue.popleft()
            missing = self._missing.get(id)
            if missing is not None and missing.asked == peer and id not in supplier.in_flight:
                supplier.in_flight[id] = None
                ids.append(id)
        if not ids:
            return []
        self._counts["asked for"] += len(ids)
        # A path that is slow, or full, gets twice as long each time.
        patience_s = self._config.fetch_timeout_s * 2 ** min(supplier.unanswered, 4)
        if supplier.deadline is None:
            self._timers.set((TIMER, peer), now + patience_s)
        supplier.asked_at = now
        if supplier.silent_since is None:
            supplier.silent_since = now
        if supplier.deadline is None or was_idle:  # asking for more does not give it more time
            supplier.deadline = now + patience_s
        return [Ask(peer, ids, all(self._missing[id].from_history for id in ids))]

    def _time_is_up(self, peer: PeerId, now: float) -> list[FetchEffect]:
        supplier = self._suppliers.get(peer)
        if supplier is None or supplier.deadline is None:
            return []
        if not supplier.in_flight:
            supplier.deadline = None
            return self._ask(peer, supplier, now) if not self.is_paused else []
        if now < supplier.deadline:  # it has sent something meanwhile
            self._timers.set((TIMER, peer), supplier.deadline)
            return []
        supplier.deadline = None
        # Answers wait behind what it pushes; but not for ever.
        is_backlog = supplier.pushed_at >= supplier.asked_at
        since = supplier.silent_since
        if not is_backlog or (since is not None and now > since + BACKLOG_S):
            supplier.unanswered += 1
            self._counts["unanswered"] += 1
        left = [*supplier.in_flight, *supplier.queue]
        supplier.in_flight.clear()
        supplier.queue.clear()
        out: list[FetchEffect] = []
        if supplier.unanswered > PATIENCE:
            out.append(PromiseBroken(peer))
        return out + self._pass_on(left, peer, now)

    def _pass_on(self, ids: Sequence[Id], peer: PeerId, now: float) -> list[FetchEffect]:
        """Ask somebody else for them."""
        again: list[Id] = []
        for id in ids:
            missing = self._missing.get(id)
            if missing is None or missing.asked != peer:
                continue
            missing.asked = None
            if peer in missing.had_by:
                missing.had_by.remove(peer)
                missing.had_by.append(peer)  # once more, if there is nobody else
            again.append(id)
        return self._assign(again, now)
