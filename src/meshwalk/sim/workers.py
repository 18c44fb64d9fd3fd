"""Worker processes for runs of the simulator, which end when whoever started them does.

Processes are spawned, not forked, so that a run starts from the same state on every system.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Final
from weakref import WeakSet

_pools: Final[WeakSet[ProcessPoolExecutor]] = WeakSet()


def pool(jobs: int) -> ProcessPoolExecutor:
    """So many processes, started when there is something to do for them."""
    spawn = multiprocessing.get_context("spawn")
    made = ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_start)
    _pools.add(made)
    return made


@contextmanager
def ended_on_error() -> Iterator[None]:
    """Ends the workers that were started within when any error leaves it, also KeyboardInterrupt.

    The executor would first finish what runs, which may take hours.
    """
    others: set[BaseProcess] = set(multiprocessing.active_children())
    pools = set(_pools)
    try:
        yield
    except BaseException:
        for worker in multiprocessing.active_children():
            if worker not in others:
                worker.terminate()
        for made in set(_pools) - pools:
            # Its thread must be over before the interpreter ends, or both close the same pipe.
            made.shutdown(wait=True, cancel_futures=True)
        raise


def _start() -> None:
    """Ctrl-C goes to every process of a terminal; only the parent answers it, and ends us."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def end_with_parent() -> None:
    """Have this process ended when the one that started it ends, however that happens.

    A worker waits for more to do for ever, even when nobody is left to give it any.
    """
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
