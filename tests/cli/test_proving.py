"""The bar of a proof of work: when it shows, and that it never promises an end."""

from __future__ import annotations

import io
import sys

import pytest

from meshwalk.cli.proving import SHOWN_AFTER_S, Proving, bar_text, chance


def test_the_chance_grows_and_never_gets_there() -> None:
    chances = [chance(tried, 1000) for tried in (0, 10, 1000, 3000, 9000)]
    assert chances == sorted(set(chances))
    assert chances[0] == 0.0
    assert chances[2] == pytest.approx(0.632, abs=0.001)
    assert chances[-1] < 1.0


def test_the_bar_in_words_has_one_width() -> None:
    lines = [bar_text(tried, 1000) for tried in (100, 500, 999)]
    assert len({line.index("trials") for line in lines}) == 1
    assert lines[0].count("━") < lines[1].count("━") < lines[2].count("━")
    assert len(bar_text(10**9, 10**9)) < 80
    assert "\n" not in bar_text(0, 0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_shows_only_when_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with Proving(lambda: now) as proving:
        proving.told(1000, 3000)
        assert screen.getvalue() == ""
        now = SHOWN_AFTER_S
        proving.told(2000, 3000)
        proving.told(2500, 3000)
    assert "2.0k trials" in screen.getvalue()
    assert "on the average" in screen.getvalue()


def test_there_is_none_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    times = iter((0.0, 100.0))
    with Proving(lambda: next(times)) as proving:
        proving.told(1, 2)
    assert file.getvalue() == ""
