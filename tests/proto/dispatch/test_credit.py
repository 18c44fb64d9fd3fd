"""Credit of one conversation: neither end is ever in the wrong, and neither waits for ever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshwalk.proto.dispatch.credit import TELL_AT, Allowance, Window
from meshwalk.wire.frames import FIRST_WINDOW_BYTES

MOST = 16 * FIRST_WINDOW_BYTES


def test_a_sender_begins_with_the_first_window() -> None:
    allowance = Allowance(MOST)
    assert (allowance.room, allowance.outstanding) == (FIRST_WINDOW_BYTES, 0)


def test_old_credit_changes_nothing() -> None:
    allowance = Allowance(MOST)
    allowance.sent = 1000
    assert allowance.heard(900, 100, 5 * FIRST_WINDOW_BYTES)
    limit = allowance.limit
    assert allowance.heard(100, 200, 10)
    assert (allowance.taken, allowance.limit, allowance.outstanding) == (900, limit, 100)


def test_credit_for_what_was_never_sent_is_told_apart() -> None:
    allowance = Allowance(MOST)
    allowance.sent = 1000
    for taken, held in ((1001, 0), (0, 1001), (500, 501), (1 << 63, 1 << 63)):
        assert not allowance.heard(taken, held, 1 << 63)
    assert (allowance.taken, allowance.limit) == (0, FIRST_WINDOW_BYTES)


def test_no_more_than_the_limit_is_received() -> None:
    window = Window(MOST)
    assert window.receive(FIRST_WINDOW_BYTES, 0.0)
    assert not window.receive(1, 0.0)
    assert window.held == FIRST_WINDOW_BYTES


def test_the_window_grows_while_it_is_what_holds_the_sender_back() -> None:
    window, now = Window(MOST), 0.0
    for _ in range(10):
        assert window.receive(window.limit - window.received, now)
        window.take(window.held)
        window.tell(now)
        now += 1.0
    assert window.size == MOST


def test_the_window_does_not_grow_for_a_slow_reader() -> None:
    window, now = Window(MOST), 0.0
    for _ in range(10):
        assert window.receive(window.limit - window.received, now)
        now += 1.0
        window.take(window.held)
        window.tell(now, 0.1)
    assert window.size == FIRST_WINDOW_BYTES


def test_the_window_does_not_grow_when_the_sender_has_little_to_say() -> None:
    window = Window(MOST)
    for _ in range(1000):
        assert window.receive(FIRST_WINDOW_BYTES // 2, 0.0)
        window.take(window.held)
        if window.should_tell():
            window.tell(0.0)
    assert window.size == FIRST_WINDOW_BYTES


@given(
    st.lists(
        st.tuples(st.sampled_from(["send", "arrive", "read", "tell", "lose"]), st.integers(1, MOST))
    )
)
def test_both_ends_agree_whatever_is_late_or_lost(steps: list[tuple[str, int]]) -> None:
    """Parts come in order; credits may come late, in order or not, or never."""
    allowance, window = Allowance(MOST), Window(MOST)
    wire: list[int] = []
    news: list[tuple[int, int, int]] = []
    for n, (what, amount) in enumerate(steps):
        if what == "send" and allowance.room > 0:
            size = min(amount, allowance.room)
            allowance.sent += size
            wire.append(size)
        elif what == "arrive" and wire:
            assert window.receive(wire.pop(0), n * 0.001)
        elif what == "read":
            window.take(min(amount, window.held))
            if window.should_tell():
                news.append(window.tell(n * 0.001))
        elif what == "tell" and news:
            assert allowance.heard(*news.pop(amount % len(news)))
        elif news:
            news.pop(amount % len(news))
        assert allowance.limit <= window.limit
        assert 0 <= allowance.taken <= window.told <= window.taken <= window.received
        assert window.received <= allowance.sent <= allowance.limit
        assert window.held <= window.size_max
    # The latest says all: a sender that has heard it, and whose words were read, can say more.
    for size in wire:
        assert window.receive(size, 1e6)
    window.take(window.held)
    assert allowance.heard(*window.tell(1e6))
    assert allowance.outstanding == 0
    assert allowance.room >= FIRST_WINDOW_BYTES


@given(st.integers(1, FIRST_WINDOW_BYTES), st.integers(0, FIRST_WINDOW_BYTES))
def test_a_reader_who_has_read_all_tells_before_the_sender_is_short(sent: int, read: int) -> None:
    window = Window(MOST)
    assert window.receive(sent, 0.0)
    window.take(min(sent, read))
    if not window.should_tell():
        assert window.owed * TELL_AT < window.size
        assert window.limit - window.received + window.held > window.size - window.size // TELL_AT


def test_a_sender_keeps_no_more_than_it_would_hold_itself() -> None:
    allowance = Allowance(MOST)
    assert allowance.heard(0, 0, (1 << 64) - 1)
    assert allowance.room == MOST
    allowance.sent = MOST
    assert allowance.heard(1000, 0, (1 << 64) - 1)
    assert allowance.room == 1000
