"""Settings that cannot work are errors when they are made."""

from __future__ import annotations

from typing import Any

import pytest

from meshwalk import Config, InvalidArgument
from meshwalk.config import ConversationConfig, PacingConfig, ReachConfig


@pytest.mark.parametrize("kind", [ConversationConfig, PacingConfig, ReachConfig])
def test_nothing_is_negative_and_bounds_let_something_through(kind: Any) -> None:
    kind()
    for name in kind.__struct_fields__:
        for value in (-1, float("nan"), *([0] if name.endswith("_max") else [])):
            with pytest.raises(InvalidArgument):
                kind(**{name: value})


@pytest.mark.parametrize(
    "wrong",
    [
        {"packet_bytes_max": 1 << 20},
        {"part_bytes_max": 1000},
        {"message_bytes_max": 60_000},
        {"assembling_bytes_max": 1 << 20},
        {"shared_window_bytes": 1 << 10},
    ],
)
def test_relations_between_settings_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidArgument):
        ConversationConfig(**wrong)


def test_presets() -> None:
    assert not Config.local().pacing.is_on
    assert not Config.lan().pacing.is_on
    assert Config.internet().pacing.is_on
