"""A node that slept, stood still, tests a link, or has a silent neighbour: what is routed where."""

from __future__ import annotations

import pytest

from meshwalk.proto.effects import Effect, Send, Shut
from meshwalk.proto.link import Link
from meshwalk.proto.node import LATE_S
from meshwalk.proto.overlay.effects import Measure
from meshwalk.sim.node import UNIX_START_S
from meshwalk.wire.frames import Ping, Pong

from .test_node import Bench, frames

HEARD_S = 20.0


class Watched(Bench):
    """A node with one neighbour, which has answered its pings until `HEARD_S`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.number = self.neighbour()
        self.link = self.core.connections.links[self.number]
        self.told: list[tuple[str, float]] = []
        for name in ("suspected", "measured"):

            def heard(link: Link, now: float, name: str = name) -> list[Effect]:
                assert link is self.link
                self.told.append((name, now))
                return []

            monkeypatch.setattr(self.core.overlay, name, heard)

        def woke(now: float) -> list[Effect]:
            self.told.append(("woke", now))
            return []

        monkeypatch.setattr(self.core.overlay, "woke", woke)
        self.until(HEARD_S, answers=True)
        assert self.told == []

    def until(self, end: float, *, answers: bool = False) -> list[Effect]:
        """Tick whenever it is due."""
        effects = []
        while (at := self.core.deadline()) is not None and at <= end:
            effects += (ticked := self.core.tick(at))
            if answers:
                self.answer(ticked, at)
        return effects

    def answer(self, effects: list[Effect], now: float) -> None:
        for frame in frames(effects, self.number):
            if isinstance(frame, Ping):
                self.core.receive(self.number, [Pong(frame.id, 0, 0, 0)], now)

    def pings(self, effects: list[Effect]) -> int:
        return sum(isinstance(frame, Ping) for frame in frames(effects, self.number))


def test_a_process_that_stood_still_closes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    effects = watched.core.tick(900.0)
    assert watched.told == [("woke", 900.0)]
    assert watched.pings(effects) == 1
    assert not [e for e in effects if isinstance(e, Shut) and e.link == watched.number]
    watched.answer(effects, 900.1)
    watched.until(910.0, answers=True)
    assert watched.link.is_open
    assert [what for what, _ in watched.told] == ["woke"]


def test_a_neighbour_that_is_gone_when_it_goes_on_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = Watched(monkeypatch)
    watched.core.tick(900.0)
    effects = watched.until(916.0)
    assert [what for what, _ in watched.told] == ["woke", "suspected"]
    assert Shut(watched.number, at_once=True) in effects


def test_a_tick_that_is_a_little_late_is_none_of_that(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    at = watched.core.deadline()
    assert at is not None
    watched.core.tick(at + LATE_S)
    assert watched.told == []


def test_whoever_sets_the_calendar_forward_has_slept(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    now = HEARD_S + 0.5
    for offset_s in (UNIX_START_S + 2, UNIX_START_S - 1000):
        assert watched.core.calendar_set(offset_s, now) == []
    assert watched.told == []
    effects = watched.core.calendar_set(UNIX_START_S - 900, now)
    assert watched.told == [("woke", now)]
    assert watched.pings(effects) == 1
    assert watched.link.heard_at < now, "the machine's clock stood still, so nothing is forgiven"
    assert watched.core.deadline() is not None


def test_told_that_it_woke_it_pings_every_link(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    effects = watched.core.woke(HEARD_S)
    open_links = [link.number for link in watched.core.connections.links.values() if link.is_pinged]
    assert [e.link for e in effects if isinstance(e, Send) and isinstance(e.frame, Ping)] == (
        open_links
    )
    assert watched.told == [("woke", HEARD_S)]


def test_a_silent_neighbour_is_told_of_once_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    watched.until(HEARD_S + 12.0)
    assert [what for what, _ in watched.told] == ["suspected"]
    assert watched.core.statistics().silences == {"suspected": 1}


def test_only_answers_of_links_that_are_tested_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    core = watched.core
    watched.link.is_tested = True
    core._on_overlay([Measure(watched.number), Measure(999)], HEARD_S)
    effects = core._flush()
    assert watched.pings(effects) == 1
    watched.answer(effects, HEARD_S + 0.25)
    watched.answer(effects, HEARD_S + 0.5)
    assert watched.told == [("measured", HEARD_S + 0.25)]
    assert watched.link.round_trips.samples[-1] == pytest.approx(0.25)
