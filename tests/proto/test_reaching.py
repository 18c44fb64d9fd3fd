"""Reaching a peer that is no neighbour: the order of steps, what a person is told, and bounds."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwalk.config import Config, OverlayConfig, ReachConfig
from meshwalk.proto.reaching import (
    DialPeer,
    FindIt,
    Reached,
    Reaching,
    ReachingEffect,
    Unreached,
)
from meshwalk.proto.timers import Timers
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId

NOBODY = "nobody asked knows one"


def peer_of(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def at(number: int) -> Address:
    return Address("10.0.0.1", number)


PEER = peer_of(7)
NAME = PEER.short


class Bench:
    """A machine, what the node knows of addresses, and its clock."""

    def __init__(self, *known: Address, **limits: float) -> None:
        self.config = msgspec.structs.replace(ReachConfig(), **{"searches": 1, **limits})
        self.known: dict[PeerId, list[Address]] = {PEER: list(known)}
        self.timers = Timers()
        config = Config(reach=self.config, overlay=OverlayConfig(addresses_per_peer_max=3))
        self.reaching = Reaching(config, lambda peer: self.known.get(peer, []), self.timers)

    def want(self, now: float = 0.0, peer: PeerId = PEER) -> list[ReachingEffect]:
        return self.reaching.want(peer, now)

    def dial(self, effects: list[ReachingEffect], link: int) -> Address:
        """The one effect is a dial, which becomes this link."""
        (effect,) = effects
        assert isinstance(effect, DialPeer)
        self.reaching.dialling(effect.peer, link)
        return effect.address

    def fail(
        self, link: int, now: float, text: str = "connection refused", *, not_admitted: bool = False
    ) -> list[ReachingEffect]:
        return self.reaching.dial_ended(link, text, not_admitted, now)

    def tick_until(self, now: float) -> list[ReachingEffect]:
        """Let every deadline up to `now` come, until there is something to do."""
        for _ in range(1000):
            due = self.timers.next()
            if due is None or due > now:
                return []
            for key in self.timers.due(due):
                assert key[0] == "reaching"
                if effects := self.reaching.tick(due):
                    return effects
        raise AssertionError("the timers do not come to rest")

    def is_idle(self) -> bool:
        reaching = self.reaching
        return not (reaching.wanted or reaching.failed or reaching._peer_of or len(self.timers))


# The order of steps.


def test_known_addresses_come_one_after_the_other_then_the_search_then_what_it_brings() -> None:
    bench = Bench(at(1), at(2), at(1))
    assert bench.dial(bench.want(), 101) == at(1)
    assert bench.dial(bench.fail(101, 0.1), 102) == at(2)
    assert bench.fail(102, 0.2) == [FindIt(PEER)]
    assert bench.dial(bench.reaching.found(PEER, [at(2), at(3), at(3)], 0.3), 103) == at(3)
    assert bench.reaching.linked(PEER, 0.4) == [Reached(PEER)]
    bench.tick_until(100)
    assert bench.is_idle()


def test_who_is_not_known_is_searched_at_once() -> None:
    bench = Bench()
    assert bench.want() == [FindIt(PEER)]


@pytest.mark.parametrize("step", ["dialling", "searching", "waiting for a dial"])
def test_any_link_will_do_whoever_dialled(step: str) -> None:
    bench = Bench(*([] if step == "searching" else [at(1)]))
    effects = bench.want()
    if step == "dialling":
        bench.dial(effects, 101)
    elif step == "waiting for a dial":
        assert bench.reaching.not_dialled(PEER, 0.0) == []
    assert bench.reaching.linked(PEER, 0.5) == [Reached(PEER)]
    assert bench.reaching.linked(PEER, 0.5) == []
    # What comes of it later is nobody's business.
    assert bench.fail(101, 0.6) == []
    assert bench.reaching.found(PEER, [at(3)], 0.6) == []
    assert bench.reaching.not_found(PEER, NOBODY, 0.6) == []
    assert bench.reaching.not_dialled(PEER, 0.6) == []
    bench.tick_until(100)
    assert bench.is_idle()


def test_links_of_others_are_none_of_ours() -> None:
    bench = Bench(at(1))
    bench.dial(bench.want(), 101)
    assert bench.fail(999, 0.1) == []
    assert bench.reaching.linked(peer_of(8), 0.1) == []
    assert PEER in bench.reaching.wanted


def test_a_dial_that_takes_long_gets_company_and_then_a_search() -> None:
    """An address that never answers would hold up the others for the length of a timeout."""
    bench = Bench(at(1), at(2), next_dial_s=1.0)
    bench.dial(bench.want(), 101)
    assert bench.tick_until(0.99) == []
    assert bench.dial(bench.tick_until(1.0), 102) == at(2)
    assert bench.tick_until(1.99) == []
    assert bench.tick_until(2.0) == [FindIt(PEER)]
    assert bench.reaching.not_found(PEER, NOBODY, 2.5) == []  # the dials may yet succeed
    assert bench.fail(101, 5.0) == []
    assert [type(e) for e in bench.fail(102, 6.0)] == [Unreached]


def test_dials_at_once_are_bounded() -> None:
    bench = Bench(at(1), at(2), at(3), dials_max=2)
    bench.dial(bench.want(), 101)
    bench.dial(bench.tick_until(1.0), 102)
    assert bench.tick_until(4.0) == []
    assert bench.dial(bench.fail(101, 5.0), 103) == at(3)


def test_what_the_search_brings_waits_for_a_free_dial() -> None:
    bench = Bench(at(1), at(2))
    bench.dial(bench.want(), 101)
    bench.dial(bench.tick_until(1.0), 102)
    assert bench.tick_until(2.0) == [FindIt(PEER)]
    assert bench.reaching.found(PEER, [at(3)], 2.5) == []
    assert bench.dial(bench.fail(101, 5.0), 103) == at(3)


def test_a_dial_that_is_put_off_is_tried_again() -> None:
    bench = Bench(at(1), at(2), next_dial_s=1.0)
    assert bench.want() == [DialPeer(PEER, at(1))]
    assert bench.reaching.not_dialled(PEER, 0.0) == []
    assert bench.tick_until(0.99) == []
    assert bench.dial(bench.tick_until(1.0), 101) == at(1)
    assert bench.dial(bench.fail(101, 1.1), 102) == at(2)


def test_addresses_are_bounded() -> None:
    bench = Bench(*(at(n) for n in range(1, 20)))
    effects, dialled = bench.want(), []
    for link in range(100, 120):
        if effects == [FindIt(PEER)]:
            effects = bench.reaching.found(PEER, [at(n) for n in range(1, 60)], 0.0)
        if isinstance(effects[0], Unreached):
            break
        dialled.append(bench.dial(effects, link))
        effects = bench.fail(link, 0.0)
    assert dialled == [at(1), at(2), at(3), at(4), at(5), at(6)]


def test_two_who_want_the_same_wait_together() -> None:
    bench = Bench(at(1))
    bench.dial(bench.want(), 101)
    assert bench.want(0.5) == []
    assert bench.reaching.linked(PEER, 0.6) == [Reached(PEER)]


def test_nobody_waits_any_more() -> None:
    bench = Bench(at(1), at(2))
    bench.dial(bench.want(), 101)
    bench.reaching.forget(PEER)
    bench.reaching.forget(PEER)
    assert bench.fail(101, 0.1) == []
    assert bench.tick_until(100) == []
    assert bench.is_idle()
    assert bench.want(101.0) == [DialPeer(PEER, at(1))]


# What a person is told.


def test_text_when_no_address_is_known() -> None:
    bench = Bench()
    bench.want()
    assert bench.reaching.not_found(PEER, NOBODY, 0.5) == [
        Unreached(
            PEER, f"no address of {NAME} is known, and nobody asked knows one", not_admitted=False
        )
    ]


def test_text_when_no_address_answers() -> None:
    bench = Bench(at(1), at(2))
    bench.dial(bench.want(), 101)
    bench.dial(bench.fail(101, 0.1), 102)
    bench.fail(102, 0.2, "timed out")
    (unreached,) = bench.reaching.not_found(PEER, NOBODY, 0.3)
    assert unreached == Unreached(
        PEER,
        f"{NAME} answers at none of its addresses: tcp://10.0.0.1:1: connection refused; "
        "tcp://10.0.0.1:2: timed out",
        not_admitted=False,
        was_dialled=True,
    )


def test_text_when_the_record_names_no_address() -> None:
    bench = Bench()
    bench.want()
    (unreached,) = bench.reaching.found(PEER, [], 0.3)
    assert unreached == Unreached(
        PEER, f"{NAME} is known, but names no address at which it can be dialled", False
    )


def test_text_when_the_time_is_over() -> None:
    bench = Bench(at(1), at(2), timeout_s=4.0)
    bench.dial(bench.want(), 101)
    bench.dial(bench.fail(101, 0.1), 102)
    assert bench.tick_until(1.1) == [FindIt(PEER)]
    assert bench.tick_until(3.99) == []
    assert bench.tick_until(4.0) == [
        Unreached(
            PEER,
            f"{NAME} was not reached within 4 s: tcp://10.0.0.1:1: connection refused; "
            "tcp://10.0.0.1:2: no answer yet",
            not_admitted=False,
            was_dialled=True,
        )
    ]
    assert bench.fail(102, 5.0) == []


def test_text_when_nothing_came_of_anything_in_time() -> None:
    bench = Bench()
    bench.want()
    (unreached,) = bench.tick_until(60.0)
    assert unreached == Unreached(PEER, f"{NAME} was not reached within 20 s", False)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(True, True, True), (True, False, False), (False, False, False)],
)
def test_trying_again_is_vain_if_no_address_admits_us(
    first: bool, second: bool, expected: bool
) -> None:
    bench = Bench(at(1), at(2))
    bench.dial(bench.want(), 101)
    bench.dial(bench.fail(101, 0.1, not_admitted=first), 102)
    assert bench.fail(102, 0.1, not_admitted=second) == [FindIt(PEER)]
    (unreached,) = bench.reaching.not_found(PEER, NOBODY, 0.2)
    assert isinstance(unreached, Unreached)
    assert unreached.not_admitted is expected


# Bounds.


def failed_at(bench: Bench, now: float, peer: PeerId = PEER) -> Unreached:
    assert bench.want(now - 0.5, peer) == [FindIt(peer)]
    (unreached,) = bench.reaching.not_found(peer, NOBODY, now)
    assert isinstance(unreached, Unreached)
    return unreached


def test_after_a_failure_the_same_is_answered_for_a_while() -> None:
    bench = Bench(pause_s=5.0)
    unreached = failed_at(bench, 1.0)
    for now in (1.0, 2.0, 5.99):
        assert bench.want(now) == [unreached]
    assert bench.want(6.0) == [FindIt(PEER)]


def test_a_link_ends_that_pause() -> None:
    bench = Bench()
    failed_at(bench, 1.0)
    assert bench.reaching.linked(PEER, 1.5) == []
    assert bench.want(2.0) == [FindIt(PEER)]


def test_what_cost_nothing_is_not_remembered() -> None:
    """A node that has just started has nobody to ask; a second later it has."""
    bench = Bench()
    for now in (0.0, 1.0):
        assert bench.want(now) == [FindIt(PEER)]
        (unreached,) = bench.reaching.not_found(PEER, "there is no neighbour to ask", now)
        assert isinstance(unreached, Unreached)
    bench.tick_until(100)
    assert bench.is_idle()


def test_failures_remembered_are_bounded_and_forgotten() -> None:
    bench = Bench(failures_max=3, pause_s=5.0)
    for number in range(10):
        failed_at(bench, 1.0, peer_of(number))
    assert list(bench.reaching.failed) == [peer_of(n) for n in (7, 8, 9)]
    bench.tick_until(6.0)
    assert bench.is_idle()


def test_peers_wanted_are_bounded() -> None:
    bench = Bench(peers_max=3)
    for number in range(3):
        bench.want(0.0, peer_of(number))
    for _ in range(2):
        (unreached,) = bench.want(0.0)
        assert unreached == Unreached(
            PEER, f"{NAME} is not looked for: too many other peers are", not_admitted=False
        )
    bench.reaching.forget(peer_of(0))
    assert bench.want(0.0) == [FindIt(PEER)]
    assert bench.reaching.statistics().counts["too many"] == 2


def test_stopping_tells_all_who_wait() -> None:
    bench = Bench(at(1))
    bench.dial(bench.want(), 101)
    failed_at(bench, 1.0, peer_of(8))
    text = f"{NAME} was not reached: the node is stopping"
    assert bench.reaching.stop() == [Unreached(PEER, text, not_admitted=False)]
    assert bench.fail(101, 1.0) == []
    assert bench.is_idle()


peers = st.integers(0, 4).map(peer_of)
links = st.integers(100, 130)
some = st.lists(st.integers(1, 9).map(at), max_size=6)
events = st.one_of(
    st.tuples(st.just("want"), peers, some),
    st.tuples(st.just("linked"), peers, some),
    st.tuples(st.just("found"), peers, some),
    st.tuples(st.just("not found"), peers, some),
    st.tuples(st.just("forget"), peers, some),
    st.tuples(st.just("put off"), peers, some),
    st.tuples(st.just("ended"), links, some),
    st.tuples(st.just("wait"), st.floats(0, 6), some),
)


class Checked(Bench):
    """Performs what the machine asks for, as a node would, and counts."""

    def __init__(self) -> None:
        super().__init__(peers_max=3, failures_max=2)
        self.waiting: set[PeerId] = set()
        self.dialled: dict[PeerId, list[Address]] = {}
        self.links = iter(range(100, 10_000))

    def perform(self, effects: list[ReachingEffect], now: float) -> None:
        for effect in effects:
            if isinstance(effect, DialPeer):
                assert effect.address not in self.dialled[effect.peer]
                link = next(self.links)
                if link % 4 == 3:
                    self.perform(self.reaching.not_dialled(effect.peer, now), now)
                else:
                    self.dialled[effect.peer].append(effect.address)
                    self.reaching.dialling(effect.peer, link)
            elif not isinstance(effect, FindIt):
                self.waiting.discard(effect.peer)

    def happen(self, what: str, value: object, addresses: list[Address], now: float) -> None:
        reaching = self.reaching
        if isinstance(value, PeerId):
            if what == "want":
                self.known[value] = addresses
                if value not in self.waiting:
                    self.dialled[value] = []
                self.waiting.add(value)
                self.perform(reaching.want(value, now), now)
            elif what == "linked":
                self.perform(reaching.linked(value, now), now)
                assert value not in self.waiting
            elif what == "found":
                self.perform(reaching.found(value, addresses, now), now)
            elif what == "not found":
                self.perform(reaching.not_found(value, NOBODY, now), now)
            elif what == "put off":
                self.perform(reaching.not_dialled(value, now), now)
            else:
                reaching.forget(value)
                self.waiting.discard(value)
        elif isinstance(value, int):
            self.perform(reaching.dial_ended(value, "no", False, now), now)


@settings(deadline=None)
@given(st.lists(events, max_size=60))
def test_any_order_keeps_the_bounds_and_leaves_nobody_waiting(
    sequence: list[tuple[str, object, list[Address]]],
) -> None:
    bench, now = Checked(), 0.0
    for what, value, addresses in sequence:
        if isinstance(value, float):
            while effects := bench.tick_until(now + value):
                bench.perform(effects, now + value)
            now += value
        else:
            bench.happen(what, value, addresses, now)
        assert set(bench.reaching.wanted) == bench.waiting
        assert len(bench.reaching.wanted) <= 3
        assert len(bench.reaching.failed) <= 2
        for wanted in bench.reaching.wanted.values():
            assert len(wanted.dials) <= bench.config.dials_max
    while effects := bench.tick_until(now + 60):
        bench.perform(effects, now + 60)
    assert bench.waiting == set()
    assert bench.is_idle()


def test_a_search_that_missed_is_made_again() -> None:
    bench = Bench(searches=2)
    assert bench.want(0.0) == [FindIt(PEER)]
    assert bench.reaching.not_found(PEER, "nobody asked knows one", 1.0) == [FindIt(PEER)]
    (effect,) = bench.reaching.not_found(PEER, "nobody asked knows one", 2.0)
    assert isinstance(effect, Unreached)


def test_a_record_that_led_nowhere_is_searched_for_anew() -> None:
    bench = Bench(searches=2)
    bench.want(0.0)
    (dial,) = bench.reaching.found(PEER, [at(1)], 1.0)
    assert dial == DialPeer(PEER, at(1))
    bench.reaching.dialling(PEER, 101)
    assert bench.fail(101, 2.0) == [FindIt(PEER)]


def test_nobody_to_ask_is_no_search() -> None:
    bench = Bench(searches=2)
    bench.want(0.0)
    (effect,) = bench.reaching.not_found(PEER, "there is nobody to ask", 0.0)
    assert isinstance(effect, Unreached)
