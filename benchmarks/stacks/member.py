"""One process of a network that is measured by broadcast.py: what it counts, and what it is told.

A member is one file for each stack. It prints its address in a line, then answers each line of its
standard input, an order, with a line of its own, both JSON; it ends when that is closed. Bodies
begin with a stamp: which run, the number in it, and when it was sent, by the clock that all
processes of a machine share. What a receiver does with a message is the same for all stacks.
"""

from __future__ import annotations

import array
import asyncio
import json
import os
import resource
import struct
import time
from pathlib import Path
from typing import Any, Final

STAMP: Final = struct.Struct("<IIQ")  # run, number, nanoseconds
PAGE_BYTES: Final = resource.getpagesize()
DELAYS_MAX: Final = 8192  # kept of one run; only a paced one has a delay that says something
TICK_S: Final = 0.001  # how often the loop is asked how late it is


class Run:
    """What one member has received in one run of one sender."""

    def __init__(self) -> None:
        self.seen = bytearray()
        """One byte for each number: how often it came."""
        self.count = 0
        """Different ones."""
        self.twice = 0
        self.disordered = 0
        self.highest = -1
        self.first_ns = 0
        self.last_ns = 0
        self.delays_us = array.array("I")


class Counting:
    """What one member has received."""

    def __init__(self) -> None:
        self.runs: dict[int, Run] = {}

    def received(self, body: bytes) -> None:
        """One message, as an application gets it."""
        now = time.monotonic_ns()
        number_of_run, number, sent_ns = STAMP.unpack_from(body)
        run = self.runs.get(number_of_run)
        if run is None:
            run = self.runs[number_of_run] = Run()
            run.first_ns = now
        seen = run.seen
        if number >= len(seen):
            seen.extend(bytes(number + 1024 - len(seen)))
        if seen[number]:
            run.twice += 1
            return
        seen[number] = 1
        run.count += 1
        if number > run.highest:
            run.highest = number
        else:
            run.disordered += 1
        run.last_ns = now
        if len(run.delays_us) < DELAYS_MAX:
            run.delays_us.append(min((now - sent_ns) // 1000, 0xFFFF_FFFF))

    def told(self, number: int) -> dict[str, Any]:
        """One run, to be sent to the parent."""
        run = self.runs.get(number) or Run()
        delays = sorted(run.delays_us)
        at = {f"p{p}": delays[len(delays) * p // 100] for p in (50, 99) if delays}
        return {
            "count": run.count,
            "twice": run.twice,
            "disordered": run.disordered,
            "first_ns": run.first_ns,
            "last_ns": run.last_ns,
            "delay_us": at,
        }


def stamped(run: int, number: int, padding: bytes) -> bytes:
    """A body."""
    return STAMP.pack(run, number, time.monotonic_ns()) + padding


def cost() -> dict[str, float]:
    """What this process has used of the processor, and holds of memory, by its own account."""
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return {
        "cpu_s": time.process_time(),
        "rss": int(fields[1]) * PAGE_BYTES,
        "peak": int(peak) * 1024,
        "pid": os.getpid(),
    }


def said(answer: dict[str, Any]) -> bytes:
    """An answer as it goes to the parent."""
    return json.dumps(answer).encode() + b"\n"


class Ticking:
    """How late an event loop is for its timers."""

    def __init__(self) -> None:
        self.late_us = array.array("I")

    async def watch(self) -> None:
        """Look for ever."""
        while True:
            due = time.monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            self.late_us.append(max(0, int((time.monotonic() - due) * 1e6)))

    def told(self) -> dict[str, float]:
        """Since the last call, in milliseconds."""
        late, self.late_us = sorted(self.late_us), array.array("I")
        if not late:
            return {}
        p99 = late[len(late) * 99 // 100]
        return {"p50": late[len(late) // 2] / 1e3, "p99": p99 / 1e3, "max": late[-1] / 1e3}
