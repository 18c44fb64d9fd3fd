"""A node that listens on every interface follows its machine's addresses. The clock is virtual."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Coroutine, Iterable
from concurrent.futures import Executor
from random import Random
from typing import Any
from unittest import mock

from meshwalk import Node
from meshwalk.config import Config, LinkConfig
from meshwalk.identity.keys import KeyPair
from meshwalk.identity.network import Network
from meshwalk.net.memory import MemoryHub, MemoryTransport
from meshwalk.net.surroundings import Surroundings
from meshwalk.net.surveying import LOOKS_APART_S, SURVEY_S
from meshwalk.net.transport import Pipe, Transport
from meshwalk.testing.loop import VirtualTimeLoop
from meshwalk.testing.process import InlineExecutor
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId


class Place(Surroundings):
    """A machine that is carried about."""

    def __init__(self, *hosts: str) -> None:
        self.routes = hosts
        """From which addresses it would speak to the world."""
        self.others: tuple[str, ...] = ()
        """What else it has."""
        self.is_exhausted = False
        """No file descriptor is free."""
        self.looks = 0
        self.slept_s = 0.0

    def clock(self) -> float:
        return asyncio.get_running_loop().time()

    def unix_clock(self) -> float:
        return 1e9 + self.clock() + self.slept_s

    def random(self) -> Random:
        return Random(1)

    def identity_seed(self) -> bytes:
        return bytes(32)

    def store_executor(self) -> Executor:
        return InlineExecutor()

    def hosts(self, known: Iterable[str] = ()) -> list[str]:
        if self.is_exhausted:
            raise OSError(errno.EMFILE, "too many open files")
        self.looks += not known  # else it is the second question of the same look
        return [*self.routes, *(h for h in known if h in self.others and h not in self.routes)]


class Other(Place):
    """A machine of somebody else."""

    def identity_seed(self) -> bytes:
        return bytes(31) + b"1"


class Carried(MemoryTransport):
    """Dials from where the machine is."""

    def __init__(
        self, place: Place, hub: MemoryHub, peer: PeerId, network: bytes, config: LinkConfig
    ) -> None:
        super().__init__(hub, peer, network, config)
        self._place = place

    async def dial(self, address: Address, expected: PeerId | None) -> Pipe:
        hosts = [*self._place.others, *self._place.routes, "10.0.0.1"]
        self._host = hosts[0]
        return await super().dial(address, expected)


def run(steps: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(1e6)) as runner:
        runner.run(steps)


def node_at(place: Place, listen: str = "0.0.0.0:7", hub: MemoryHub | None = None) -> Node:
    hub = hub or MemoryHub()

    def transport(keys: KeyPair, network: Network, config: Config) -> Transport:
        return Carried(place, hub, keys.peer_id, network.network_id, config.link)

    return Node(listen=listen, transport=transport, surroundings=place)


def hosts_of(node: Node) -> list[str]:
    return [address.host for address in node.addresses]


def test_it_looks_again_and_again_until_it_stops() -> None:
    async def steps() -> None:
        place = Place("10.0.0.1")
        async with node_at(place) as node:
            assert hosts_of(node) == ["10.0.0.1"]
            place.routes = ("192.168.7.7", "fd00::7")
            await asyncio.sleep(SURVEY_S + 1)
            assert hosts_of(node) == ["192.168.7.7"], "and IPv4's wildcard hears no IPv6"
            place.routes = ()
            await asyncio.sleep(SURVEY_S)
            assert node._driver is not None
            assert node._driver.core.own_record.addresses == ()
            place.routes = ("192.168.7.8",)
            await asyncio.sleep(SURVEY_S)
            assert hosts_of(node) == ["192.168.7.8"]
            assert place.looks == 4
        await asyncio.sleep(10 * SURVEY_S)
        assert place.looks == 4

    run(steps())


def test_a_named_address_is_not_looked_after() -> None:
    async def steps() -> None:
        place = Place("10.0.0.1")
        async with node_at(place, "10.0.0.9:7") as node:
            await asyncio.sleep(10 * SURVEY_S)
            assert hosts_of(node) == ["10.0.0.9"]
            assert place.looks == 0

    run(steps())


def test_a_host_that_links_use_stays_as_long_as_the_machine_has_it() -> None:
    async def steps() -> None:
        place = Place("192.168.0.1")
        place.others = ("10.0.0.1",)
        hub = MemoryHub()
        async with node_at(place, hub=hub) as node:
            async with node_at(Other(), "10.0.0.1:8", hub) as other:
                await node.join(other.address)
                assert hosts_of(node) == ["192.168.0.1", "10.0.0.1"]
            await asyncio.sleep(10 * SURVEY_S)
            assert hosts_of(node) == ["192.168.0.1", "10.0.0.1"], "though no link uses it now"
            place.others = ()
            await asyncio.sleep(SURVEY_S)
            assert hosts_of(node) == ["192.168.0.1"]

    run(steps())


def test_after_sleep_it_looks_at_once() -> None:
    async def steps() -> None:
        place, hub = Place("10.0.0.1"), MemoryHub()
        async with (
            node_at(place, hub=hub) as node,
            node_at(Other(), "10.0.0.1:8", hub) as other,
        ):
            await node.join(other.address)
            await asyncio.sleep(0.2 * SURVEY_S)
            looks = place.looks
            place.routes = ("192.168.7.7",)
            place.slept_s = 600.0
            async with asyncio.timeout(SURVEY_S):
                while hosts_of(node) != ["192.168.7.7"]:
                    await asyncio.sleep(0.1)
            assert place.looks == looks + 1
            assert place.clock() < 0.8 * SURVEY_S, "with the next ping, not with the next look"

    run(steps())


def test_neighbours_are_told_where_the_machine_is_now() -> None:
    async def steps() -> None:
        place, hub = Place("10.0.0.1"), MemoryHub()
        async with (
            node_at(place, hub=hub) as node,
            node_at(Other(), "10.0.0.1:8", hub) as other,
        ):
            await node.join(other.address)

            def known() -> tuple[Address, ...]:
                assert other._driver is not None
                return other._driver.core.overlay.book.entries[node.id].addresses

            assert known() == (Address("10.0.0.1", 7),)
            place.routes = ("192.168.7.7",)
            async with asyncio.timeout(6 * SURVEY_S):
                while known() != (Address("192.168.7.7", 7),):
                    await asyncio.sleep(1)
            assert other.neighbours == [node.id]
            assert node.statistics().node.ended["lost"] == 1, "the link from where it was"


def test_with_its_cable_in_again_it_looks_for_others_at_once() -> None:
    async def steps() -> None:
        place, hub = Place("10.0.0.1"), MemoryHub()
        async with (
            node_at(place, hub=hub) as node,
            node_at(Other(), "10.0.0.1:8", hub) as other,
        ):
            await node.join(other.address)
            assert node._driver is not None
            walks = node._driver.core.overlay.walks
            walks.failures, walks._not_before = 9, place.clock() + 10 * SURVEY_S
            # Its cable is out: the address is this machine's all the same.
            place.routes, place.others = (), ("10.0.0.1",)
            await asyncio.sleep(2 * SURVEY_S)
            assert hosts_of(node) == ["10.0.0.1"]
            assert other.neighbours == [node.id], "and its link may outlast that"
            assert walks.failures == 9
            place.routes, place.others = ("10.0.0.1",), ()
            await asyncio.sleep(SURVEY_S)
            assert walks.failures < 9, "what was put off has been tried"

    run(steps())


def test_a_look_that_the_system_refuses_changes_nothing() -> None:
    """No file descriptor is free for some time: no link is closed as if the machine had moved."""

    async def steps() -> None:
        place, hub = Place("10.0.0.1"), MemoryHub()
        async with (
            node_at(place, hub=hub) as node,
            node_at(Other(), "10.0.0.1:8", hub) as other,
        ):
            await node.join(other.address)
            place.is_exhausted = True
            await asyncio.sleep(3 * SURVEY_S)
            assert hosts_of(node) == ["10.0.0.1"]
            assert other.neighbours == [node.id]
            assert "lost" not in node.statistics().node.ended
            place.is_exhausted, place.routes = False, ("192.168.7.7",)
            await asyncio.sleep(SURVEY_S)
            assert hosts_of(node) == ["192.168.7.7"], "and it has gone on looking"

    run(steps())


def test_a_first_look_that_is_refused_is_made_up_for() -> None:
    async def steps() -> None:
        place = Place("10.0.0.1")
        place.is_exhausted = True
        async with node_at(place) as node:
            assert node._driver is not None
            assert node._driver.core.own_record.addresses == ()
            place.is_exhausted = False
            await asyncio.sleep(SURVEY_S + 1)
            assert hosts_of(node) == ["10.0.0.1"]

    run(steps())


def test_connections_have_it_look_once_a_second() -> None:
    """A machine with more addresses than are kept: each connection comes from a strange one."""

    async def steps() -> None:
        place = Place("10.0.0.1")
        async with node_at(place) as node:
            assert node._driver is not None
            surveying = node._driver._surveying
            assert surveying is not None
            await asyncio.sleep(2 * LOOKS_APART_S)
            looks = place.looks
            for _ in range(100):
                surveying.look_soon()
                await asyncio.sleep(0.05 * LOOKS_APART_S)
            assert place.looks - looks == 5
            await asyncio.sleep(LOOKS_APART_S)
            assert place.looks - looks == 6, "what came after the last look is looked at, too"
            await asyncio.sleep(0.9 * SURVEY_S)
            assert place.looks - looks == 6

    run(steps())


def test_addresses_that_cannot_be_told_are_no_news() -> None:
    """Each piece of news is a line of a trace."""

    async def steps() -> None:
        place = Place("10.0.0.1", *(f"fd00::{n}" for n in range(9)), "10.0.0.2")
        async with node_at(place) as node:
            assert node._driver is not None
            assert hosts_of(node) == ["10.0.0.1", "10.0.0.2"], "IPv6 takes no place of theirs"
            with mock.patch.object(node._driver.core, "hosts") as told:
                await asyncio.sleep(5 * SURVEY_S)
            assert not told.called

    run(steps())
