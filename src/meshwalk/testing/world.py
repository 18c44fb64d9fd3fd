"""The world of a test: machines with a node each, the network between them, and what goes wrong.

A machine is named by the test ("anna"). Wherever a machine is meant, its name or the node that runs
or ran on it will do.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from random import Random
from typing import Any, Final, TypeAlias, TypeVar

from meshwalk.config import Config
from meshwalk.errors import InvalidArgument, NotRunning, TimedOut
from meshwalk.identity.network import DEFAULT_NETWORK
from meshwalk.net.node import Node
from meshwalk.sim.conditions import Conditions
from meshwalk.sim.latency import Constant, Latency, Pairwise, parse_latency
from meshwalk.testing.loop import VirtualTimeLoop
from meshwalk.testing.machine import Machine
from meshwalk.testing.wire import Wire
from meshwalk.wire.address import DEFAULT_PORT, Invite

LOOK_S: Final = 0.05  # guess: how often `until` looks; less than a person would notice
# guess: machines of one continent. Each pair keeps its own delay.
LATENCY_S: Final = (0.005, 0.05)

Place: TypeAlias = Node | str
"""A machine: its name, or a node that runs or ran on it."""

_Result = TypeVar("_Result")


class World:
    """Made by `simulate`, which gives it to the scenario.

    Everything in it follows from `seed`: identities, choices of nodes, delays, what is lost.
    """

    def __init__(
        self, loop: VirtualTimeLoop, seed: int, latency: Latency | str | float | None, folder: Path
    ) -> None:
        self.seed = seed
        self.random = Random(f"{seed}/scenario")
        """Chance for the scenario's own choices."""
        self.conditions = Conditions(_latency(latency, seed), Random(f"{seed}/network"))
        """What the network does to each write, by hosts: all that the methods below set, and more.
        See `meshwalk.sim.conditions`."""
        self._loop = loop
        self._folder = folder
        self._wire = Wire(loop, self.conditions)
        self._machines: dict[str, Machine] = {}
        self._numbers = itertools.count(1)
        self._by_node: dict[int, Machine] = {}

    # Nodes.

    async def start(
        self,
        name: str,
        *,
        join: Place | Invite | None = None,
        network: str = DEFAULT_NETWORK,
        secret: bytes | str = b"",
        data: Path | str | None = None,
        config: Config | None = None,
    ) -> Node:
        """Start a node on a new machine with this name; with `join`, enter through another.

        `join` is a machine, an invite, or an address as for `Node.join`; the rest is as for `Node`.
        Without `data` the store is in a folder of the run's own, which goes when the run ends.
        Raises what `Node.start` and `Node.join` raise, and `InvalidArgument` for a name in use. If
        the start failed, the name is free again; if the join failed, the node runs all the same.
        """
        if not name or name in self._machines:
            why = "is in use; restart it, or choose another" if name else "is empty"
            raise InvalidArgument(f"the name {name!r} of a machine {why}")
        number = next(self._numbers)
        host = f"10.{number >> 16}.{(number >> 8) & 255}.{number & 255}"
        folder = Path(data) if data is not None else self._folder / f"{number}"
        kept = self._folder / f"{number}-at-crash"
        machine = Machine(self._wire, name, host, self.seed, folder, kept)
        machine.start_options = {"network": network, "secret": secret, "config": config}
        self._machines[name] = machine
        try:
            node = await self._start(machine)
        except BaseException:
            self._remove(machine)
            raise
        return await self._join(node, join)

    async def restart(
        self, place: Place, *, lose_store: bool = False, join: Place | Invite | None = None
    ) -> Node:
        """Start a machine's next node, after `crash` or `Node.stop`; a running one stops first.

        It has the identity, the known peers and the history of the last one. With `lose_store` it
        is somebody new, at the same address. A machine that is paused wakes up first.
        """
        machine = self.machine(place)
        assert machine.node is not None
        machine.resume()
        if self._is_up(machine):
            await machine.node.stop()
        await machine.restore()
        if lose_store:
            machine.lose_store()
        return await self._join(await self._start(machine), join)

    @property
    def nodes(self) -> dict[str, Node]:
        """The running nodes by the names of their machines, oldest machine first."""
        return {
            name: machine.node
            for name, machine in self._machines.items()
            if machine.node is not None and self._is_up(machine)
        }

    def spawn(self, place: Place, program: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
        """Run a coroutine on a machine: `pause` holds it up too, and `crash` cancels it."""
        context = self.machine(place).host.process.context.copy()
        return self._loop.create_task(program, context=context)

    # Time.

    @property
    def now(self) -> float:
        """Virtual seconds since the start; what `asyncio`'s `loop.time()` says."""
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        """Let virtual time pass: `asyncio.sleep`."""
        await asyncio.sleep(seconds)

    async def until(self, condition: Callable[[], object], timeout_s: float = 60.0) -> None:
        """Wait until the condition is true; it is looked at every 50 ms. Raises `TimedOut`."""
        until = self.now + timeout_s
        while not condition():
            if self.now >= until:
                raise TimedOut(f"the condition has not come true within {timeout_s:g} s")
            await asyncio.sleep(min(LOOK_S, until - self.now))

    # What goes wrong with machines.

    def crash(self, place: Place, *, silently: bool = False) -> None:
        """End a node's process at once: no goodbye, and the disk as it is at this moment.

        The machine's system breaks the connections, so peers hear of it. With `silently` the
        machine goes with it, as in a power cut: it answers nothing until `restart`. What `spawn`
        runs there is cancelled, and so are its timers (`loop.call_later`): `finally` blocks do run,
        but nothing that they send arrives.
        """
        machine = self.machine(place)
        if not self._is_up(machine):
            raise NotRunning(f"no node runs on {machine.name!r}; start it first")
        machine.crash(silently=silently)

    def pause(self, place: Place) -> None:
        """A machine falls asleep: it reads, sends and runs nothing, and its clock stands still."""
        self.machine(place).pause()

    def resume(self, place: Place) -> None:
        """It wakes up and goes on where it stopped; the calendar has gone on meanwhile."""
        self.machine(place).resume()

    # What goes wrong between them.

    def partition(self, *groups: Iterable[Place]) -> None:
        """Nothing crosses between these groups, until `heal` or the next partition.

        Machines in no group form one more: `partition([anna])` sets her against the rest. What is
        sent across waits and arrives after the end, as TCP has it, if the link lives so long.
        """
        self.conditions.partition(*([self._host(place) for place in group] for group in groups))

    def cut(self, one: Place, other: Place) -> None:
        """Nothing crosses between two machines, until `mend` or `heal`."""
        for pair in self._pairs(one, other):
            self.conditions.clog(*pair)

    def mend(self, one: Place, other: Place) -> None:
        """End a `cut`."""
        for pair in self._pairs(one, other):
            self.conditions.unclog(*pair)

    def heal(self) -> None:
        """The network is as at the start: no partition, cut, loss or limit, and its latency."""
        self.conditions.heal()

    @property
    def latency(self) -> Latency:
        """How long bytes are on their way, one way. May be set, to a model, seconds or a text.

        The texts are those of `meshwalk.sim.latency.parse_latency`: "uniform:5ms-50ms".
        """
        return self.conditions.latency

    @latency.setter
    def latency(self, latency: Latency | str | float) -> None:
        self.conditions.latency = _latency(latency, self.seed)

    def set_loss(
        self, share: float, sender: Place | None = None, receiver: Place | None = None
    ) -> None:
        """Lose this share of what a sender sends to a receiver; None is everyone. 0 ends it.

        What is lost is sent again and arrives later; after six losses in a row the link breaks.
        """
        self.conditions.set_loss(share, *self._scope(sender, receiver))

    def limit_bandwidth(
        self, bytes_per_s: float | None, sender: Place | None = None, receiver: Place | None = None
    ) -> None:
        """Let what a machine sends wait in a queue that empties at this rate; None ends it.

        Without a sender: every machine, each with a queue of its own.
        """
        self.conditions.limit_bandwidth(bytes_per_s, *self._scope(sender, receiver))

    # What the above share, and what `simulate` needs.

    def machine(self, place: Place) -> Machine:
        """The machine that is meant. Raises `InvalidArgument` for one that is not of this world."""
        if isinstance(place, str):
            machine = self._machines.get(place)
        else:
            machine = self._by_node.get(id(place))
        if machine is None:
            known = ", ".join(self._machines) or "none"
            raise InvalidArgument(f"{place!r} is no machine of this world; it has: {known}")
        return machine

    def wake(self) -> None:
        """Resume every machine."""
        for machine in self._machines.values():
            machine.resume()

    async def end(self) -> None:
        """Stop every node."""
        stops = [node.stop() for node in self.nodes.values()]
        endings = [machine.restore() for machine in self._machines.values()]
        await asyncio.gather(*stops, *endings)

    async def _start(self, machine: Machine) -> Node:
        options: dict[str, Any] = machine.start_options
        node = Node(
            listen=f"{machine.host.name}:{DEFAULT_PORT}",
            data=machine.folder,
            transport=machine.transport,
            surroundings=machine,
            **options,
        )
        machine.resume()  # may have been paused since it ended: a new process is not paused
        machine.begin()
        machine.node = node
        self._by_node[id(node)] = machine
        await self.spawn(node, node.start())
        return node

    async def _join(self, node: Node, join: Place | Invite | None) -> Node:
        if join is not None:
            await node.join(self._entry(join))
        return node

    def _remove(self, machine: Machine) -> None:
        """Forget a machine that never had a node."""
        del self._machines[machine.name]
        del self._wire.hosts[machine.host.name]
        if machine.node is not None:
            del self._by_node[id(machine.node)]

    def _is_up(self, machine: Machine) -> bool:
        return machine.host.is_running and machine.node is not None and _runs(machine.node)

    def _entry(self, join: Place | Invite) -> str | Invite:
        if isinstance(join, Node) or (isinstance(join, str) and join in self._machines):
            return f"{self._host(join)}:{DEFAULT_PORT}"
        return join

    def _host(self, place: Place) -> str:
        return self.machine(place).host.name

    def _scope(self, sender: Place | None, receiver: Place | None) -> tuple[str | None, str | None]:
        return (
            None if sender is None else self._host(sender),
            None if receiver is None else self._host(receiver),
        )

    def _pairs(self, one: Place, other: Place) -> tuple[tuple[str, str], tuple[str, str]]:
        first, second = self._host(one), self._host(other)
        if first == second:
            raise InvalidArgument(f"{first} is one machine; name two")
        return (first, second), (second, first)


def _latency(given: Latency | str | float | None, seed: int) -> Latency:
    if given is None:
        return Pairwise(*LATENCY_S, seed)
    if isinstance(given, str):
        return parse_latency(given, seed)
    if isinstance(given, int | float):
        return Constant(given)
    return given


def _runs(node: Node) -> bool:
    try:
        _ = node.neighbours
    except NotRunning:
        return False
    return True
