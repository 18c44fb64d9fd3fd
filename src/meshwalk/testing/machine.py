"""A machine of a simulated world: a host on the wire, its clock, its chance, its disk, its node."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path
from random import Random

from meshwalk.config import Config
from meshwalk.identity.keys import SEED_BYTES, KeyPair
from meshwalk.identity.network import Network
from meshwalk.net.driver import Driver
from meshwalk.net.node import Node
from meshwalk.net.surroundings import Surroundings
from meshwalk.net.transport import Transport
from meshwalk.testing.loop import VirtualTimeLoop
from meshwalk.testing.pipe import WirePipe
from meshwalk.testing.process import InlineExecutor, Process
from meshwalk.testing.wire import Handshake, Host, Wire, WireTransport

UNIX_AT_START_S = 1_000_000_000.0  # guess: any day will do that every run shares; this is in 2001


class Machine(Surroundings):
    """What a node of the world gets from below. One node at a time runs on it."""

    def __init__(
        self, wire: Wire, name: str, host: str, seed: int, folder: Path, kept: Path
    ) -> None:
        self.name = name
        self.host = Host(host)
        self.folder = folder
        """The disk. After a crash `kept`, a path of the run's own, has a copy of it."""
        self.node: Node | None = None
        """The node that runs, or ran last."""
        self.start_options: dict[str, object] = {}
        """What the node was made with."""
        self.ending: asyncio.Task[None] | None = None
        """What is left to do after a crash."""
        self._kept = kept
        self._is_kept = False
        self._wire = wire
        self._loop: VirtualTimeLoop = wire.loop
        self._seed = seed
        self._starts = 0
        self._identities = 0
        self._slept_s = 0.0
        self._fell_asleep_at = 0.0
        wire.hosts[host] = self.host

    # As Surroundings.

    def clock(self) -> float:
        """Virtual time, less what the machine has slept."""
        now = self._fell_asleep_at if self.host.is_paused else self._loop.time()
        return now - self._slept_s

    def unix_clock(self) -> float:
        """The calendar goes on while a machine sleeps."""
        return UNIX_AT_START_S + self._loop.time()

    def random(self) -> Random:
        """Another sequence for each start, all from the world's seed and the machine's name."""
        return Random(f"{self._seed}/choices/{self._starts}/{self.name}")

    def identity_seed(self) -> bytes:
        """A key from the world's seed and the machine's name; another one when that was lost."""
        self._identities += 1
        text = f"{self._seed}/identity/{self._identities}/{self.name}"
        return hashlib.blake2b(text.encode(), digest_size=SEED_BYTES).digest()

    def hosts(self, known: Iterable[str] = ()) -> list[str]:
        """The one address of the simulated machine."""
        return [self.host.name]

    def store_executor(self) -> InlineExecutor:
        """No thread: a store's call is done when it is made."""
        return InlineExecutor()

    def transport(self, keys: KeyPair, network: Network, config: Config) -> Transport:
        """For `Node(transport=...)`."""
        return WireTransport(self._wire, self.host, keys.peer_id, network.network_id, config.link)

    # Life.

    def begin(self) -> None:
        """A process of its own for a node that starts."""
        self._starts += 1
        self.host.process = Process(self.host.name)
        self.host.is_running = True
        self.host.has_vanished = False

    def pause(self) -> None:
        """Everything stands still but the calendar."""
        if not self.host.is_paused:
            self._fell_asleep_at = self._loop.time()
            self.host.is_paused = True
            self._loop.pause(self.host.process)

    def resume(self) -> None:
        """Everything goes on."""
        if self.host.is_paused:
            self._slept_s += self._loop.time() - self._fell_asleep_at
            self.host.is_paused = False
            self._loop.resume(self.host.process)
            for pipe in list(self.host.pipes):
                pipe.resume()

    def crash(self, *, silently: bool) -> None:
        """The process is gone, and the disk is as it is now."""
        process = self.host.process
        self._wire.crash(self.host, silently=silently)
        self.resume()  # only for what is left to tidy up: it has no pipes any more
        if self.folder.exists():
            shutil.copytree(self.folder, self._kept, symlinks=True)
            self._is_kept = True
        self._loop.cancel_timers(process, _is_not_of_the_node)
        for task in self._loop.tasks():
            if task.process is process:
                task.cancel()
        if self.node is not None:
            self.ending = self._loop.create_task(self.node.stop())

    async def restore(self) -> None:
        """After a crash: put the disk back as it was in that moment."""
        if self.ending is not None:
            await self.ending
            self.ending = None
        if self._is_kept:
            # Not the folder itself: it may be a mount or a link, and the copy on another disk.
            for path in self.folder.iterdir() if self.folder.exists() else ():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            shutil.copytree(self._kept, self.folder, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(self._kept)
            self._is_kept = False

    def lose_store(self) -> None:
        """Empty the disk."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _is_not_of_the_node(callback: object) -> bool:
    # What is left of a crashed node tidies up, and needs its own timers and pipes for that.
    return not isinstance(getattr(callback, "__self__", None), Driver | WirePipe | Handshake)
