"""Looks again and again at which addresses this machine has, and tells the node when others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshwalk.net.driver import Driver

SURVEY_S = 10.0  # guess: less than a link is silent before it is given up; a look takes 0.1 ms
LOOKS_APART_S = 1.0  # guess: two looks because of links; a busy node opens hundreds in a second


class Surveying:
    """For a node that listens on every interface. `hosts` is asked as `Surroundings.hosts` is."""

    def __init__(self, driver: Driver, hosts: Callable[[Iterable[str]], list[str]]) -> None:
        self._driver = driver
        self._hosts = hosts
        self._timer: asyncio.TimerHandle | None = None
        self._looked_at = float("-inf")
        self._has_told = False
        self._has_stopped = False
        self._up: set[str] = set()
        """Hosts that could be used at the last look."""

    def look(self) -> None:
        """Look now, and from then on every `SURVEY_S`, until stopped.

        When the system cannot tell, everything stays as it was at the last look.
        """
        if self._has_stopped:
            return
        driver = self._driver
        now = self._looked_at = driver.clock()
        self._look_in(SURVEY_S)  # first: a fault in what follows must not end the looking
        own = driver.core.own_record
        known = own.hosts
        try:
            found = up = self._hosts(())
            if not set(known) <= set(up):
                found = self._hosts(known)  # one whose cable is out is still this machine's
        except OSError:
            return  # no file descriptor is free: that moves nobody, and must not close links
        is_first, self._has_told = not self._has_told, True
        came_up = not set(up) <= self._up
        self._up = set(up)
        # Only news, or a trace would have a line for each look.
        if is_first or set(own.chosen(found)) != set(known):
            driver.perform(driver.core.hosts(tuple(found), now))
        elif came_up:  # a cable that is in again, a radio that is on again
            driver.perform(driver.core.woke(now))
        driver.flush()

    def look_soon(self) -> None:
        """Look, but no sooner than `LOOKS_APART_S` after the last look."""
        wait_s = self._looked_at + LOOKS_APART_S - self._driver.clock()
        if wait_s <= 0:
            self.look()
        elif not self._has_stopped:
            self._look_in(wait_s)

    def stop(self) -> None:
        """Look no more."""
        self._has_stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _look_in(self, wait_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(wait_s, self.look)
