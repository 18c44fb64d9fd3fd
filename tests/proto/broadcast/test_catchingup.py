"""From when on neighbours are asked what was missed, and how often they may ask."""

from __future__ import annotations

from collections import Counter

from meshwalk.config import Config, HistoryConfig
from meshwalk.proto.broadcast.catchingup import ANSWER_S, MARGIN_S, OVERLAP_MS, CatchingUp
from meshwalk.proto.broadcast.history import MINUTE_MS, History

from .scene import held_of, peer

A, B, C = (peer(number) for number in (1, 2, 3))
START_MS = 100 * MINUTE_MS


class Desk:
    """One node's questions."""

    def __init__(self, config: Config | None = None, newest_ms: int | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self.history = History(HistoryConfig())
        if newest_ms is not None:
            self.history.hold((b"k" * 32, 1, 1), held_of(sent_at_ms=newest_ms))
        self.catching = CatchingUp(config or Config(), self.history, self.counts, START_MS)
        self.catching.restored()

    def since_ms(self, unix_ms: int = START_MS) -> int:
        return self.catching.question(A, unix_ms, 0.0).since_ms


def test_who_is_new_wants_what_comes_from_now_on() -> None:
    assert Desk().since_ms() == START_MS
    assert Desk().since_ms(START_MS + 30 * MINUTE_MS) == START_MS


def test_who_comes_back_wants_what_came_after_the_last_that_it_has() -> None:
    newest_ms = START_MS - 7 * MINUTE_MS
    assert Desk(newest_ms=newest_ms).since_ms() == newest_ms - OVERLAP_MS


def test_an_origin_with_a_fast_clock_hides_nothing() -> None:
    assert Desk(newest_ms=START_MS + 9 * MINUTE_MS).since_ms() == START_MS


def test_nobody_is_asked_for_what_would_be_too_old() -> None:
    desk = Desk(newest_ms=MINUTE_MS)
    oldest_ms = desk.catching.oldest_ms(START_MS)
    assert oldest_ms == START_MS - int((Config().broadcast.age_max_s - MARGIN_S) * 1000)
    assert desk.since_ms() == oldest_ms


def test_the_application_has_a_few_asked_for_what_was_before() -> None:
    desk = Desk()
    assert desk.catching.want(START_MS, [A, B, C]) == []
    asks = Config().tree.history_asks
    assert desk.catching.want(START_MS - MINUTE_MS, [A, B, C]) == [A, B, C][:asks]
    assert desk.since_ms() == START_MS - MINUTE_MS


def test_what_comes_soon_after_may_be_an_answer() -> None:
    desk = Desk()
    desk.catching.question(A, START_MS, 10.0)
    assert desk.counts["history asked"] == 1
    assert desk.catching.was_asked(A, 10.0)
    assert not desk.catching.was_asked(B, 10.0)
    assert not desk.catching.was_asked(A, 10.0 + ANSWER_S)
    desk.catching.neighbour_down(A)
    assert not desk.catching.was_asked(A, 10.0)


def test_a_neighbour_may_ask_now_and_then() -> None:
    config = Config(history=HistoryConfig(asks_burst=2, asks_per_s=0.1))
    desk = Desk(config)
    assert [desk.catching.may_ask(A, 0.0) for _ in range(4)] == [True, True, False, False]
    assert desk.catching.may_ask(B, 0.0)
    assert desk.catching.may_ask(A, 10.0)
    assert desk.counts["history refused"] == 2
    desk.catching.neighbour_down(A)
    desk.catching.neighbour_down(B)
    assert not desk.catching._buckets
    assert not desk.catching._asked
