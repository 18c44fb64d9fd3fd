"""Python's collector of cycles, told that the objects of a large simulation are many and stay.

A hundred thousand objects for each thousand nodes, all reachable, and hardly a cycle among them:
each full collection walks through all of them and finds nothing. While a network grows, that is a
tenth of the time and more.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# guess: what 100 joining nodes make; the default of 700 is for programs of one node's size.
THRESHOLDS: Final = (100_000, 50, 1_000)


@contextmanager
def collecting_seldom() -> Iterator[None]:
    """Within it, cycles are collected rarely, and what was there before is not looked at at all.

    For a process that does little else than simulate: what becomes garbage in cycles stays longer.
    On leaving, all is as it was.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
