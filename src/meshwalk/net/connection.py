"""A link's pipe as the driver keeps it: frames in and out, and how much waits to be sent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from meshwalk.net.transport import Pipe
from meshwalk.wire.codec import FrameReader

if TYPE_CHECKING:
    from meshwalk.net.driver import Driver

LOOK_AGAIN_S: Final = 0.05
"""guess: a pause that nobody notices, in case a transport does not tell what its buffer does."""


class Connection:
    """A pipe with its frames; the reader that the pipe delivers to."""

    __slots__ = (
        "_look",
        "congested_at",
        "driver",
        "frames",
        "high",
        "is_dirty",
        "link",
        "out",
        "pipe",
        "progress_at",
        "room",
        "taken",
        "unsent",
        "written",
    )

    def __init__(self, driver: Driver, link: int, pipe: Pipe) -> None:
        self.driver = driver
        self.link = link
        self.pipe = pipe
        self.frames = FrameReader(driver.core.config.link.frame_bytes_max)
        self.out = bytearray()
        self.is_dirty = False
        self.congested_at: float | None = None
        """Since when more than the high mark waits to be sent, and less than half was never."""
        self.progress_at = 0.0
        """When the peer was last seen to take something while congested."""
        self.high = driver.core.config.link.send_buffer_high_bytes
        self.unsent = 0
        """What waited to be sent when it was last looked at."""
        self._look: asyncio.Handle | None = None
        """Of the next look for room, while the machines wait to hear that the pipe takes more."""
        self.written = 0
        self.taken = 0
        """Of the bytes written, how many had been taken at `progress_at`."""
        self.room: list[asyncio.Future[None]] = []
        """Writers that wait until it does not."""

    def is_congested(self) -> bool:
        """Whether more waits to be sent than a writer should add to; notes what the peer takes.

        The pipe tells of it only at the loop's next turn; a writer in a loop must know now.
        """
        driver, high = self.driver, self.high
        unsent = self.unsent = self.pipe.unsent_bytes
        if self.congested_at is None:
            if unsent > high:
                driver.congested.add(self.link)
                self.congested_at = self.progress_at = driver.clock()
                self.taken = self.written - unsent
        elif unsent <= high // 2:
            self._has_room()
        elif self.written - unsent > self.taken:
            self.taken = self.written - unsent
            self.progress_at = driver.clock()
            driver.core.progressed(self.link, self.progress_at)
        return self.congested_at is not None

    def wait_for_room(self) -> asyncio.Future[None]:
        """Done when the pipe has room again, or is gone."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.room = [w for w in self.room if not w.done()]
        self.room.append(waiter)
        return waiter

    def has_room_or_waits(self) -> None:
        """Tell the machines how much the pipe can take, now or when it takes more.

        A pipe that fills and drains within one turn of the loop tells nobody, and one that is full
        to the byte has never been too full: so it is looked at again, until there is room.
        """
        is_first = self._look is None
        self._look_no_more()
        driver = self.driver
        if driver.connections.get(self.link) is not self:
            return  # it is gone
        room = self.high - self.pipe.unsent_bytes
        if room >= 0:  # none at all, and the pipe would not tell when there is some: so a byte
            driver.perform(driver.core.room(self.link, max(1, room), driver.clock()))
        elif is_first:
            self._look = asyncio.get_running_loop().call_soon(self._look_for_room)
        else:
            loop = asyncio.get_running_loop()
            self._look = loop.call_later(LOOK_AGAIN_S, self._look_for_room)

    # As PipeReader.

    def received(self, data: memoryview) -> None:
        self.driver.received(self, data)

    def stalled(self) -> None:
        driver = self.driver
        self.is_congested()
        driver.perform(driver.core.stalled(self.link, driver.clock()))
        driver.arm()

    def resumed(self) -> None:
        driver = self.driver
        driver.perform(driver.core.resumed(self.link))
        self._has_room()
        if self._look is not None:
            self.has_room_or_waits()
        driver.flush()

    def lost(self, why: str) -> None:
        driver = self.driver
        driver.connections.pop(self.link, None)
        self._look_no_more()
        self._has_room()
        driver.perform(driver.core.lost(self.link, why, driver.clock()))
        driver.flush()
        driver.pipe_lost(self.link)

    def _look_for_room(self) -> None:
        self.has_room_or_waits()
        self.driver.flush()

    def _look_no_more(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _has_room(self) -> None:
        self.congested_at = None
        self.driver.congested.discard(self.link)
        for waiter in self.room:
            if not waiter.done():
                waiter.set_result(None)
        self.room.clear()
