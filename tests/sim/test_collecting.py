"""The collector of cycles within a simulation, and after it."""

from __future__ import annotations

import gc

import pytest

from meshwalk.sim.collecting import THRESHOLDS, collecting_seldom


def interrupted() -> None:
    with collecting_seldom():
        assert gc.get_threshold() == THRESHOLDS
        assert gc.get_freeze_count() > 0
        raise ValueError("inside")


def test_it_is_as_it_was_afterwards() -> None:
    before = gc.get_threshold()
    with pytest.raises(ValueError, match="inside"):
        interrupted()
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
