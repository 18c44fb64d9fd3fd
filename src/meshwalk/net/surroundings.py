"""What a node takes from the machine under it: time, chance, addresses, a thread for its store.

`Surroundings` is the real machine. A test of a whole application gives its nodes another one, whose
clock is virtual and whose chance comes from a seed: see `meshwalk.testing`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from random import Random, SystemRandom

from meshwalk.identity.keys import SEED_BYTES
from meshwalk.net.interfaces import hosts_of_this_machine


class Surroundings:
    """The real machine."""

    def clock(self) -> float:
        """Machine time in seconds; never goes back."""
        return time.monotonic()

    def unix_clock(self) -> float:
        """Seconds since 1970, as far as this machine knows."""
        return time.time()

    def random(self) -> Random:
        """A source of choices for one node."""
        return SystemRandom()

    def identity_seed(self) -> bytes:
        """A private key for a node that has none yet, 32 bytes."""
        return os.urandom(SEED_BYTES)

    def hosts(self, known: Iterable[str] = ()) -> list[str]:
        """The machine's own addresses, numbers without ports: those that it would speak to the
        world from first, then those of `known` that it still has. Raises `OSError` when the
        system cannot tell now."""
        return hosts_of_this_machine(known)

    def store_executor(self) -> Executor:
        """Runs the calls of one store, one after the other; shut down by who asked for it.

        Rather than a thread of our own: the interpreter waits for an executor's work when it exits,
        so a program that forgets to close a store neither hangs nor loses what it posted.
        """
        return ThreadPoolExecutor(1, thread_name_prefix="meshwalk-store")
