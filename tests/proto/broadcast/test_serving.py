"""Neighbours get what they ask for, as fast as they take it, or hear that it is gone."""

from __future__ import annotations

from collections import Counter

from meshwalk.config import HistoryConfig, TreeConfig
from meshwalk.proto.broadcast.effects import Pass
from meshwalk.proto.broadcast.history import HeldBroadcast, History, Id
from meshwalk.proto.broadcast.serving import TIMER, Serving
from meshwalk.proto.timers import Timers
from meshwalk.wire.gossip import Broadcast, Gone
from meshwalk.wire.peerid import PeerId

from .scene import held_of, peer

A, B = peer(1), peer(2)
CONFIG = TreeConfig(serve_bytes=100, serve_numbers_max=20)


def id_of(number: int) -> Id:
    return b"k" * 32, 1, number


class Desk:
    """What one node has been asked for."""

    def __init__(self, kept: int, size: int = 30) -> None:
        self.timers = Timers()
        self.counts: Counter[str] = Counter()
        history = History(HistoryConfig())
        for number in range(1, kept + 1):
            history.hold(id_of(number), held_of(size))
        self.serving = Serving(CONFIG, history, self.timers, self.counts)
        self.sent: list[tuple[PeerId, int]] = []

    def send(self, to: PeerId, id: Id, held: HeldBroadcast, now: float) -> Pass:
        self.sent.append((to, id[2]))
        return Pass((to,), held.copy(0))

    def asked(self, by: PeerId, *numbers: int, now: float = 0.0) -> None:
        self.serving.asked(by, [id_of(number) for number in numbers], now)

    def run(self, until: float, *, takes_more: bool = True) -> list[Pass]:
        out: list[Pass] = []
        while (at := self.timers.next()) is not None and at <= until:
            for machine, who in self.timers.due(at):
                assert machine == TIMER
                assert isinstance(who, PeerId)
                found = self.serving.tick(who, self.send, lambda _: takes_more, at)
                sizes = [
                    len(each.message.payload)
                    for each in found
                    if isinstance(each.message, Broadcast)
                ]
                assert sum(sizes[:-1]) < CONFIG.serve_bytes
                out += found
        return out


def test_what_is_asked_for_is_sent_in_that_order_and_as_it_is_taken() -> None:
    desk = Desk(10)
    desk.asked(A, 3, 1, 2, 9, 8)
    desk.run(0.0)
    assert desk.sent == [(A, 3), (A, 1), (A, 2), (A, 9)]
    desk.run(1.0)
    assert desk.sent[4:] == [(A, 8)]
    assert len(desk.timers) == 0
    assert not desk.serving._owed


def test_what_is_kept_no_more_is_gone() -> None:
    desk = Desk(3)
    desk.asked(A, 2, 5, 6, 7, 9)
    out = desk.run(0.0)
    assert [each.message.ranges for each in out if isinstance(each.message, Gone)] == [[5, 7, 9, 9]]
    assert desk.sent == [(A, 2)]


def test_who_does_not_take_it_has_it_wait() -> None:
    desk = Desk(3)
    desk.asked(A, 1)
    assert desk.run(0.5, takes_more=False) == []
    desk.run(1.0)
    assert desk.sent == [(A, 1)]


def test_two_are_served_at_the_same_time() -> None:
    desk = Desk(10)
    desk.asked(A, *range(1, 11))
    desk.asked(B, *range(1, 11))
    desk.run(0.0)
    assert Counter(to for to, _ in desk.sent) == {A: 4, B: 4}
    desk.run(1.0)
    assert Counter(desk.sent) == {(to, n): 1 for to in (A, B) for n in range(1, 11)}


def test_what_one_neighbour_may_ask_for_is_bounded() -> None:
    desk = Desk(10)
    desk.asked(A, *[1] * 15)
    desk.asked(A, *[2] * 15)
    assert len(desk.serving._owed[A]) == CONFIG.serve_numbers_max
    assert desk.counts["asked for too much"] == 10
    desk.run(1.0)
    assert len(desk.sent) == CONFIG.serve_numbers_max


def test_who_has_gone_is_sent_nothing() -> None:
    desk = Desk(10)
    desk.asked(A, 1)
    desk.serving.forget(A)
    desk.serving.forget(B)
    assert len(desk.timers) == 0
    assert desk.serving.tick(A, desk.send, lambda _: True, 0.0) == []


def test_who_asks_for_nothing_gets_nothing() -> None:
    desk = Desk(10)
    desk.asked(A)
    assert desk.run(1.0) == []
    assert not desk.serving._owed
