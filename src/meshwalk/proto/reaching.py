"""Get a link to a peer that is no neighbour: dial what is known, have it searched, dial again.

    want --> addresses known? --dial--> none answers --> search --> dial what it brings --> fail
                   `----------- no ---------------------^  `-- nobody knows one -----------^

Per wanted peer that happens once, but for the search, which is made again, within one deadline. It
ends as soon as any link to the peer is open, whoever dialled. A failure is remembered for a while,
so that an application which tries again and again gets its answer without a packet. Decides only;
knows neither links nor the overlay.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypeAlias, final

import msgspec

from meshwalk.config import Config
from meshwalk.proto.timers import Timers
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId

TIMER = "reaching"
_NEXT = (TIMER, "next")


@final
class DialPeer(msgspec.Struct, frozen=True, gc=False):
    """Dial, expecting this peer; answer with `dialling` or `not_dialled`."""

    peer: PeerId
    address: Address


@final
class FindIt(msgspec.Struct, frozen=True, gc=False):
    """Search for the peer's record; answer with `found` or `not_found`."""

    peer: PeerId


@final
class Reached(msgspec.Struct, frozen=True, gc=False):
    """There is a link to the peer now."""

    peer: PeerId


@final
class Unreached(msgspec.Struct, frozen=True, gc=False):
    """The peer cannot be reached now."""

    peer: PeerId
    text: str
    """Why, as one line for a person."""
    not_admitted: bool
    """Whether trying again is vain: wherever it was dialled, another network or peer answered."""
    was_dialled: bool = False
    """Whether it was dialled in vain just now, and not only remembered to be out of reach."""


ReachingEffect: TypeAlias = DialPeer | FindIt | Reached | Unreached


class Search(enum.Enum):
    """How far the search for one peer is."""

    TO_COME = enum.auto()
    UNDER_WAY = enum.auto()
    DONE = enum.auto()


class Wanted(msgspec.Struct):
    """A peer that somebody waits for."""

    peer: PeerId
    until: float
    addresses: list[Address]
    """To be dialled yet."""
    known: set[Address]
    """All addresses so far: none is dialled twice."""
    patient_until: float
    """Before that nothing more is begun, as long as something is under way."""
    asked_for: Address | None = None
    """A dial that has been asked for and neither begun nor put off."""
    dials: dict[int, Address] = {}
    """Under way, by link."""
    search: Search = Search.TO_COME
    searching_since: float = 0.0
    searches: int = 0
    why_not_found: str = ""
    failures: list[tuple[Address, str, bool]] = []
    """Addresses that did not answer: why, and whether they did not admit us."""


class Failure(msgspec.Struct, frozen=True, gc=False):
    """What is answered for a while to whoever wants the peer."""

    unreached: Unreached
    until: float


class ReachingStatistics(msgspec.Struct, frozen=True):
    """What was done to reach peers since the node started."""

    wanted: int
    """Peers that are being reached."""
    counts: dict[str, int]
    """How often which step was taken, and how it ended."""


class Reaching:
    """The peers that one node tries to reach."""

    def __init__(
        self, config: Config, addresses_of: Callable[[PeerId], Iterable[Address]], timers: Timers
    ) -> None:
        """`addresses_of`: where a peer is known to be, best first."""
        self.wanted: dict[PeerId, Wanted] = {}
        self.failed: dict[PeerId, Failure] = {}
        """In the order in which they are forgotten."""
        self.counts: Counter[str] = Counter()
        self._config = config.reach
        self._addresses_max = config.overlay.addresses_per_peer_max
        self._addresses_of = addresses_of
        self._timers = timers
        self._peer_of: dict[int, PeerId] = {}
        """By link that is being dialled."""
        self._out: list[ReachingEffect] = []
        self._armed_at: float | None = None

    # Inputs.

    def want(self, peer: PeerId, now: float) -> list[ReachingEffect]:
        """Somebody waits for a link to it: `Reached` or `Unreached` follows, now or later."""
        self._forget_failures(now)
        failure = self.failed.get(peer)
        if peer in self.wanted:
            pass  # they wait together
        elif failure is not None:
            self.counts["refused after a failure"] += 1
            self._out.append(failure.unreached)
        elif len(self.wanted) >= self._config.peers_max:
            self.counts["too many"] += 1
            text = f"{peer.short} is not looked for: too many other peers are"
            self._out.append(Unreached(peer, text, not_admitted=False))
        else:
            self.counts["wanted"] += 1
            addresses = list(dict.fromkeys(self._addresses_of(peer)))[: self._addresses_max]
            until = now + self._config.timeout_s
            self.wanted[peer] = Wanted(peer, until, addresses, set(addresses), now)
            self._go_on(self.wanted[peer], now)
        return self._flush()

    def dialling(self, peer: PeerId, link: int) -> None:
        """A `DialPeer` has become this link."""
        wanted = self.wanted.get(peer)
        if wanted is not None and wanted.asked_for is not None:
            wanted.dials[link], wanted.asked_for = wanted.asked_for, None
            self._peer_of[link] = peer
            self._arm(wanted)

    def not_dialled(self, peer: PeerId, now: float) -> list[ReachingEffect]:
        """A `DialPeer` was not begun: too many dials are under way. It is tried again soon."""
        wanted = self.wanted.get(peer)
        if wanted is not None and wanted.asked_for is not None:
            self.counts["dial put off"] += 1
            wanted.addresses.insert(0, wanted.asked_for)
            wanted.asked_for = None
            wanted.patient_until = now + self._config.next_dial_s
            self._arm(wanted)
        return self._flush()

    def dial_ended(
        self, link: int, text: str, not_admitted: bool, now: float
    ) -> list[ReachingEffect]:
        """A dial has failed, or the peer has refused the link. Other links are none of ours."""
        peer = self._peer_of.pop(link, None)
        if peer is not None:
            wanted = self.wanted[peer]
            wanted.failures.append((wanted.dials.pop(link), text, not_admitted))
            wanted.patient_until = now
            self._go_on(wanted, now)
        return self._flush()

    def linked(self, peer: PeerId, now: float) -> list[ReachingEffect]:
        """A link to the peer has opened, whoever dialled."""
        self.failed.pop(peer, None)
        wanted = self.wanted.get(peer)
        if wanted is not None:
            self._drop(wanted)
            self.counts["reached"] += 1
            self._out.append(Reached(peer))
        return self._flush()

    def found(self, peer: PeerId, addresses: Iterable[Address], now: float) -> list[ReachingEffect]:
        """The search has brought a record that has these addresses."""
        wanted = self.wanted.get(peer)
        if wanted is not None and wanted.search is Search.UNDER_WAY:
            wanted.search = Search.DONE
            news = [a for a in dict.fromkeys(addresses) if a not in wanted.known]
            wanted.addresses += news[: self._addresses_max]
            wanted.known.update(wanted.addresses)
            self._go_on(wanted, now)
        return self._flush()

    def not_found(self, peer: PeerId, why: str, now: float) -> list[ReachingEffect]:
        """The search has brought nothing; `why` is a clause, "nobody asked knows one"."""
        wanted = self.wanted.get(peer)
        if wanted is not None and wanted.search is Search.UNDER_WAY:
            wanted.search, wanted.why_not_found = Search.DONE, why
            self._go_on(wanted, now)
        return self._flush()

    def forget(self, peer: PeerId) -> None:
        """Nobody waits for this peer any more. Dials under way end by themselves."""
        wanted = self.wanted.get(peer)
        if wanted is not None:
            self._drop(wanted)
            self.counts["forgotten"] += 1

    def stop(self) -> list[ReachingEffect]:
        """The node is stopping: nobody is reached any more."""
        for wanted in list(self.wanted.values()):
            self._drop(wanted)
            text = f"{wanted.peer.short} was not reached: the node is stopping"
            self._out.append(Unreached(wanted.peer, text, not_admitted=False))
        self.failed.clear()
        self._timers.cancel(_NEXT)
        self._armed_at = None
        return self._flush()

    def tick(self, now: float) -> list[ReachingEffect]:
        """The deadline of this machine has come."""
        self._timers.cancel(_NEXT)
        self._armed_at = None
        self._forget_failures(now)
        for wanted in list(self.wanted.values()):
            if wanted.until <= now:
                self._fail(wanted, self._late_text(wanted), now)
            else:
                self._go_on(wanted, now)
        self._arm_anew()
        return self._flush()

    def statistics(self) -> ReachingStatistics:
        """A snapshot."""
        return ReachingStatistics(len(self.wanted), dict(sorted(self.counts.items())))

    # Steps.

    def _go_on(self, wanted: Wanted, now: float) -> None:
        """Take the next step for a peer if there is one to take now."""
        is_busy = wanted.asked_for is not None or bool(wanted.dials)
        may_begin = wanted.asked_for is None and now >= wanted.patient_until
        if wanted.addresses:
            if may_begin and len(wanted.dials) < self._config.dials_max:
                self.counts["dialled"] += 1
                wanted.asked_for = wanted.addresses.pop(0)
                wanted.patient_until = now + self._config.next_dial_s
                self._out.append(DialPeer(wanted.peer, wanted.asked_for))
        elif wanted.search is Search.TO_COME and may_begin:
            self._search(wanted, now)
        elif wanted.search is Search.DONE and not is_busy:
            # One that ended in the step in which it began has found nobody to ask.
            has_asked = wanted.searching_since < now
            if not has_asked or wanted.searches >= self._config.searches:
                self._fail(wanted, self._text(wanted), now)
                return
            self._search(wanted, now)
        self._arm(wanted)

    def _search(self, wanted: Wanted, now: float) -> None:
        self.counts["searched"] += 1
        wanted.searches += 1
        wanted.search, wanted.searching_since = Search.UNDER_WAY, now
        self._out.append(FindIt(wanted.peer))

    def _fail(self, wanted: Wanted, text: str, now: float) -> None:
        self._drop(wanted)
        self.counts["not reached"] += 1
        refusals = [not_admitted for _, _, not_admitted in wanted.failures]
        is_refused = bool(refusals) and all(refusals)
        unreached = Unreached(wanted.peer, text, is_refused, was_dialled=bool(refusals))
        self._out.append(unreached)
        # A search that ends in the step in which it began has asked nobody. If no more was done, it
        # cost nothing, and the next may find a neighbour to ask.
        asked_nobody = wanted.search is Search.DONE and wanted.searching_since == now
        if wanted.failures or not asked_nobody:
            if len(self.failed) >= self._config.failures_max:
                del self.failed[next(iter(self.failed))]
            again = msgspec.structs.replace(unreached, was_dialled=False)
            failure = Failure(again, now + self._config.pause_s)
            self.failed[wanted.peer] = failure
            self._arm_at(failure.until)

    def _drop(self, wanted: Wanted) -> None:
        del self.wanted[wanted.peer]
        for link in wanted.dials:
            del self._peer_of[link]

    def _text(self, wanted: Wanted) -> str:
        name = wanted.peer.short
        if wanted.failures:
            return f"{name} answers at none of its addresses: {_listed(wanted)}"
        if wanted.why_not_found:
            return f"no address of {name} is known, and {wanted.why_not_found}"
        return f"{name} is known, but names no address at which it can be dialled"

    def _late_text(self, wanted: Wanted) -> str:
        text = f"{wanted.peer.short} was not reached within {self._config.timeout_s:g} s"
        return f"{text}: {tried}" if (tried := _listed(wanted)) else text

    # What the above share.

    def _forget_failures(self, now: float) -> None:
        while self.failed and self.failed[first := next(iter(self.failed))].until <= now:
            del self.failed[first]

    def _arm(self, wanted: Wanted) -> None:
        at = wanted.until
        if wanted.asked_for is not None:
            pass  # the answer arms it anew
        elif wanted.addresses:
            # While as many dials as are allowed are under way, the end of one brings the next.
            if len(wanted.dials) < self._config.dials_max:
                at = min(at, wanted.patient_until)
        elif wanted.search is Search.TO_COME:
            at = min(at, wanted.patient_until)
        self._arm_at(at)

    def _arm_at(self, at: float) -> None:
        """Have `tick` called at that time at the latest. What it is for may be gone by then."""
        if self._armed_at is None or at < self._armed_at:
            self._armed_at = at
            self._timers.set(_NEXT, at)

    def _arm_anew(self) -> None:
        for wanted in self.wanted.values():
            self._arm(wanted)
        if self.failed:
            self._arm_at(next(iter(self.failed.values())).until)

    def _flush(self) -> list[ReachingEffect]:
        out, self._out = self._out, []
        return out


def _listed(wanted: Wanted) -> str:
    ended = [f"{address}: {text}" for address, text, _ in wanted.failures]
    return "; ".join([*ended, *(f"{a}: no answer yet" for a in wanted.dials.values())])
