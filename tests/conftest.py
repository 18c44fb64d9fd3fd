"""What all tests share: hypothesis draws the same examples in every run and on every machine."""

from __future__ import annotations

from hypothesis import settings

# A slow machine must not fail a test, so no deadline; pytest-timeout catches what hangs.
settings.register_profile("meshwalk", derandomize=True, deadline=None, max_examples=100)
settings.load_profile("meshwalk")
