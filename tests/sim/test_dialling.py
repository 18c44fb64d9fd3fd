"""Dials: how long their steps take, each way in which they fail, and what is left afterwards."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from meshwalk.config import Config, ConnectionConfig, ProbingConfig
from meshwalk.proto.effects import ProbeEnded, ProbeOpened
from meshwalk.proto.node import NodeCore
from meshwalk.sim.latency import Constant
from meshwalk.sim.nat import Nat
from meshwalk.sim.node import SimNode
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId
from recorder import RecordedWorld, Spied, still

D = 0.1  # seconds for a crossing
PATIENCE_S = 10.0  # connect_timeout_s and handshake_timeout_s of the configuration at rest
EXTERNAL = "203.0.113.1"
UNTESTED = Config(probing=ProbingConfig(interval_s=1e9))  # nor when it wakes

# When a dial that begins at 0 is where: the drawing in sim/dialling.py, between two crossings.
UNDER_WAY = {"SYN": 0.5 * D, "ClientHello": 2 * D, "server's flight": 3.5 * D, "Finished": 4.5 * D}


class Scene:
    """A dialler and an acceptor that look for no links by themselves."""

    def __init__(self, *, nat: Nat | None = None, is_firewalled: bool = False) -> None:
        self.spied = Spied()
        self.world = RecordedWorld(1, Constant(D), make_core=self._make_core)
        self.dialler = self.world.add(UNTESTED)
        self.acceptor = self.world.add(nat=nat, is_firewalled=is_firewalled)
        still(self.dialler, self.acceptor)

    def _make_core(self, node: SimNode, seed: int, now: float, unix_offset_s: float) -> NodeCore:
        core = self.spied(node, seed, now, unix_offset_s)
        core.overlay.walks.stop()
        return core

    def dial(self, address: Address | None = None, expected: PeerId | None = None) -> None:
        """One dial, by the machines; nobody dials again when it fails."""
        node = self.dialler
        node.do(node.core.probe(address or self.acceptor.address, expected, node.time()))

    def when(self, node: SimNode, what: str) -> list[float]:
        """When the machines of a node were told of it, in crossings."""
        return [round(call.at / D, 6) for call in self.spied.of(node, what)]

    @property
    def ended(self) -> list[ProbeEnded]:
        effects = self.world.recorder.effects[self.dialler]
        return [effect for effect in effects if isinstance(effect, ProbeEnded)]

    @property
    def is_opened(self) -> bool:
        effects = self.world.recorder.effects[self.dialler]
        return any(isinstance(effect, ProbeOpened) for effect in effects)

    def close(self) -> None:
        """End what has been opened."""
        for link in list(self.dialler.core.connections.links):
            self.dialler.do(self.dialler.core.close_link(link, self.dialler.time()))
        self.world.run(1)

    def check_at_rest(self) -> None:
        """Nothing is left at either end, except of a process that is gone."""
        for node in self.world.up:
            assert node.ends == {}
            assert node.dialling == {}
            assert node.core.statistics().links == 0
            assert node.core.statistics().half_open == 0


def test_a_dial_takes_the_round_trips_of_tcp_and_tls() -> None:
    scene = Scene()
    scene.dial()
    scene.world.run(1)
    assert scene.when(scene.acceptor, "admit") == [3]
    assert scene.when(scene.dialler, "secured") == [4]
    assert scene.when(scene.acceptor, "secured") == [5]
    # The hello follows on the heels of the handshake; the answer to it opens the link.
    assert scene.when(scene.acceptor, "receive")[0] == 5
    assert scene.when(scene.dialler, "receive")[0] == 6
    assert scene.is_opened
    (secured,) = scene.spied.of(scene.dialler, "secured")
    assert secured.given[1:4] == (
        scene.acceptor.id,
        scene.acceptor.address,
        scene.dialler.host,
    )
    (secured,) = scene.spied.of(scene.acceptor, "secured")
    assert secured.given[1] == scene.dialler.id
    assert secured.given[2].host == scene.dialler.host
    assert secured.given[2].port != scene.dialler.address.port
    assert scene.world.dials == {"established": 1}
    scene.close()
    scene.check_at_rest()


def test_a_dial_to_oneself() -> None:
    scene = Scene()
    scene.dial(scene.dialler.address)
    scene.world.run(3)
    (ended,) = scene.ended
    assert "myself" in ended.text
    scene.check_at_rest()


# Those that are answered.


def refuse(scene: Scene) -> None:
    scene.acceptor.listens = False


def crash(scene: Scene) -> None:
    scene.world.crash(scene.acceptor)


@pytest.mark.parametrize("prepare", [refuse, crash])
def test_nobody_listens(prepare: Callable[[Scene], None]) -> None:
    scene = Scene()
    prepare(scene)
    scene.dial()
    scene.world.run(1)
    (ended,) = scene.ended
    assert ended.text == "nobody listens there"
    assert not ended.not_admitted
    assert scene.when(scene.dialler, "lost") == [4]
    assert scene.world.dials == {"refused": 1}
    scene.check_at_rest()


def test_another_peer_is_there_than_expected() -> None:
    scene = Scene()
    scene.dial(expected=PeerId(bytes([7]) * 32))
    scene.world.run(1)
    (ended,) = scene.ended
    assert ended.not_admitted
    assert scene.when(scene.acceptor, "lost") == [3]
    assert not scene.when(scene.acceptor, "secured")
    assert scene.world.dials == {"not admitted": 1}
    scene.check_at_rest()


def test_the_peer_that_is_expected() -> None:
    scene = Scene()
    scene.dial(expected=scene.acceptor.id)
    scene.world.run(1)
    assert scene.is_opened


def test_a_full_node_closes_unread() -> None:
    scene = Scene()
    one = Config(connections=ConnectionConfig(per_host_max=1))
    scene.acceptor = scene.world.add(one)
    scene.dial()
    scene.dial()
    scene.world.run(1)
    assert scene.acceptor.core.statistics().refused == {"host": 1}
    (ended,) = scene.ended
    assert "it may be full" in ended.text
    assert scene.world.dials == {"established": 1, "refused": 1}


# Those that nobody answers: the dialler's machines give up.


def vanish(scene: Scene) -> None:
    scene.world.crash(scene.acceptor, silently=True)


def sleep(scene: Scene) -> None:
    scene.world.sleep(scene.acceptor)


def cut(scene: Scene) -> None:
    scene.world.partition([scene.dialler], [scene.acceptor])


def cut_there(scene: Scene) -> None:
    scene.world.conditions.clog(scene.dialler.host, scene.acceptor.host)


def cut_back(scene: Scene) -> None:
    scene.world.conditions.clog(scene.acceptor.host, scene.dialler.host)


def firewall(scene: Scene) -> None:
    scene.acceptor.is_firewalled = True


def lose_all(scene: Scene) -> None:
    scene.world.conditions.set_dial_loss(1.0)


SILENT = [vanish, sleep, cut, cut_there, cut_back, firewall, lose_all]


@pytest.mark.parametrize("prepare", SILENT)
def test_silence(prepare: Callable[[Scene], None]) -> None:
    scene = Scene()
    prepare(scene)
    scene.dial()
    scene.world.run(60)
    (ended,) = scene.ended
    assert ended.text == "no answer in time"
    (shut,) = [call.at for call in scene.spied.of(scene.dialler, "tick")][:1]
    assert shut == pytest.approx(PATIENCE_S)
    assert scene.world.dials == {"silence": 1}
    assert scene.when(scene.acceptor, "admit") == []
    scene.check_at_rest()


def test_nobody_has_that_address() -> None:
    scene = Scene()
    scene.dial(Address("10.9.9.9", 1))
    scene.world.run(60)
    (ended,) = scene.ended
    assert ended.text == "no answer in time"


def test_a_firewalled_host_refuses_nothing_while_its_node_runs_only() -> None:
    scene = Scene(is_firewalled=True)
    scene.world.crash(scene.acceptor)
    scene.dial()
    scene.world.run(1)
    assert [ended.text for ended in scene.ended] == ["nobody listens there"]


@pytest.mark.parametrize(("pause_s", "at_s"), [(0.5, 1.0), (2.0, 3.0), (5.0, 7.0)])
def test_a_lost_syn_is_sent_again(pause_s: float, at_s: float) -> None:
    """RFC 6298: after 1 second, then after twice as long each time."""
    scene = Scene()
    cut(scene)
    scene.dial()
    scene.world.run(pause_s)
    scene.world.partition()
    scene.world.run(PATIENCE_S)
    assert scene.when(scene.acceptor, "admit") == [round(at_s / D) + 3]
    assert scene.is_opened


def test_the_last_syn() -> None:
    scene = Scene()
    cut(scene)
    scene.dial()
    scene.world.run(7.5)
    scene.world.partition()
    scene.world.run(60)
    assert not scene.is_opened
    scene.check_at_rest()


# NATs.


KINDS = [Nat.full_cone, Nat.restricted_cone, Nat.port_restricted_cone, Nat.symmetric]


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_outside_reaches_an_address_behind_a_nat(
    kind: Callable[[str, Random], Nat],
) -> None:
    scene = Scene(nat=kind(EXTERNAL, Random(1)))
    scene.dial()
    scene.world.run(60)
    assert [ended.text for ended in scene.ended] == ["no answer in time"]
    assert scene.world.dials == {"silence": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_whoever_is_behind_a_nat_dials_out(kind: Callable[[str, Random], Nat]) -> None:
    scene = Scene(nat=kind(EXTERNAL, Random(1)))
    scene.dialler, scene.acceptor = scene.acceptor, scene.dialler
    scene.dial()
    scene.world.run(1)
    assert scene.is_opened
    (secured,) = scene.spied.of(scene.acceptor, "secured")
    assert secured.given[2].host == EXTERNAL, "as the acceptor sees it"


def test_neighbours_behind_one_nat_reach_each_other() -> None:
    nat = Nat.symmetric(EXTERNAL, Random(1))
    scene = Scene(nat=nat)
    scene.dialler = scene.world.add(nat=nat)
    scene.dial()
    scene.world.run(1)
    assert scene.is_opened
    (secured,) = scene.spied.of(scene.acceptor, "secured")
    assert secured.given[2].host == scene.dialler.host, "the NAT has nothing to do with it"
    assert nat.entry_count(scene.world.now) == 0


@pytest.mark.parametrize(
    ("kind", "friend", "stranger"),
    [
        (Nat.full_cone, True, True),
        (Nat.restricted_cone, True, False),
        (Nat.port_restricted_cone, False, False),
        (Nat.symmetric, False, False),
    ],
)
@pytest.mark.parametrize("who", ["friend", "stranger"])
def test_who_comes_in_by_a_mapping(
    kind: Callable[[str, Random], Nat], friend: bool, stranger: bool, who: str
) -> None:
    """The acceptor has sent something to the friend from the port that it listens at."""
    nat = kind(EXTERNAL, Random(1))
    scene = Scene(nat=nat)
    friend_node = scene.dialler
    if who == "stranger":
        scene.dialler = scene.world.add()
    inside = scene.acceptor.address
    seen = nat.outbound(inside.host, inside.port, friend_node.host, 1, scene.world.now)
    assert seen is not None
    scene.dial(Address(*seen))
    scene.world.run(60)
    assert scene.is_opened is (friend if who == "friend" else stranger)
    if not scene.is_opened:
        assert [ended.text for ended in scene.ended] == ["no answer in time"]


def test_a_nat_without_a_port_left() -> None:
    class Full:
        external_host = EXTERNAL

        def outbound(self, *given: object) -> None:
            return None

        inbound = outbound

    scene = Scene()
    scene.dialler = scene.world.add(nat=Full())
    scene.dial()
    scene.world.run(60)
    assert [ended.text for ended in scene.ended] == ["no answer in time"]
    assert scene.world.dials == {"silence": 1}


# Trouble in the middle of a handshake.


def run_to(scene: Scene, step: str) -> None:
    scene.dial()
    scene.world.run(UNDER_WAY[step])


@pytest.mark.parametrize("step", UNDER_WAY)
@pytest.mark.parametrize("restarts", [False, True])
def test_the_acceptor_crashes(step: str, restarts: bool) -> None:
    scene = Scene()
    run_to(scene, step)
    scene.world.crash(scene.acceptor)
    if restarts:
        scene.world.restart(scene.acceptor)
    scene.world.run(8 * D)
    if restarts and step in ("SYN", "ClientHello"):
        assert scene.is_opened, "the new process takes the connection"
        scene.close()
    else:
        assert len(scene.ended) == 1, "a reset comes, and no time-out is waited for"
        assert not scene.is_opened
    scene.check_at_rest()


@pytest.mark.parametrize("step", UNDER_WAY)
def test_the_acceptor_vanishes(step: str) -> None:
    scene = Scene()
    run_to(scene, step)
    scene.world.crash(scene.acceptor, silently=True)
    scene.world.run(4)
    assert scene.ended == []
    scene.world.run(PATIENCE_S)
    assert len(scene.ended) == 1
    assert not scene.is_opened
    scene.check_at_rest()


@pytest.mark.parametrize("step", UNDER_WAY)
@pytest.mark.parametrize("restarts", [False, True])
def test_the_dialler_crashes(step: str, restarts: bool) -> None:
    scene = Scene()
    run_to(scene, step)
    scene.world.crash(scene.dialler)
    if restarts:
        scene.world.restart(scene.dialler)
    scene.world.run(3 * D)
    scene.check_at_rest()
    admitted, lost = scene.when(scene.acceptor, "admit"), scene.when(scene.acceptor, "lost")
    assert len(admitted) == len(lost) == (0 if step in ("SYN", "ClientHello") else 1)
    assert scene.ended == []


@pytest.mark.parametrize("step", UNDER_WAY)
def test_the_dialler_vanishes(step: str) -> None:
    """The acceptor hears nothing more, and gives up after its time for a handshake or a hello."""
    scene = Scene()
    run_to(scene, step)
    scene.world.crash(scene.dialler, silently=True)
    scene.world.run(3 * D)
    is_admitted = step not in ("SYN", "ClientHello")
    assert scene.acceptor.core.statistics().links == is_admitted
    scene.world.run(60)
    scene.check_at_rest()


@pytest.mark.parametrize("step", UNDER_WAY)
def test_the_dialler_gives_up(step: str) -> None:
    scene = Scene()
    run_to(scene, step)
    node = scene.dialler
    (link,) = node.core.connections.links
    node.do(node.core.close_link(link, node.time()))
    scene.world.run(1)
    scene.check_at_rest()
    assert not scene.is_opened


def test_the_acceptor_gives_up() -> None:
    """The server's flight and what follows it take longer than it waits for the end of them."""
    scene = Scene()
    scene.world.conditions.set_delay(4.5, scene.acceptor.host, scene.dialler.host)
    scene.world.conditions.set_delay(1.0, scene.dialler.host, scene.acceptor.host)
    scene.dial()
    scene.world.run(9)
    assert len(scene.when(scene.dialler, "secured")) == 1
    assert scene.acceptor.core.statistics().half_open == 0
    scene.world.run(60)
    assert scene.when(scene.acceptor, "secured") == []
    assert not scene.is_opened
    scene.check_at_rest()


@pytest.mark.parametrize("obstacle", ["partition", "sleep"])
def test_the_last_of_the_handshake_waits(obstacle: str) -> None:
    scene = Scene()
    run_to(scene, "Finished")
    if obstacle == "sleep":
        scene.world.sleep(scene.acceptor)
    else:
        cut(scene)
    scene.world.run(2)
    assert scene.when(scene.acceptor, "secured") == []
    if obstacle == "sleep":
        scene.acceptor.wake()
    else:
        scene.world.partition()
    scene.world.run(3 * D)
    assert len(scene.when(scene.acceptor, "secured")) == 1
    assert scene.is_opened
    scene.close()
    scene.check_at_rest()


def test_the_acceptor_gives_up_what_waits_too_long() -> None:
    scene = Scene()
    run_to(scene, "Finished")
    cut(scene)
    scene.world.run(60)
    assert scene.when(scene.acceptor, "secured") == []
    scene.world.partition()
    scene.world.run(1)
    scene.check_at_rest()


@pytest.mark.parametrize("step", ["SYN", "ClientHello", "server's flight"])
def test_a_path_that_is_cut_in_the_middle(step: str) -> None:
    scene = Scene()
    run_to(scene, step)
    cut(scene)
    scene.world.run(60)
    assert len(scene.ended) == 1
    scene.world.partition()
    scene.world.run(1)
    scene.check_at_rest()


@pytest.mark.parametrize("step", UNDER_WAY)
def test_the_dialler_falls_asleep(step: str) -> None:
    scene = Scene()
    run_to(scene, step)
    scene.world.sleep(scene.dialler)
    scene.world.run(3600)
    scene.dialler.wake()
    scene.world.run(60)
    assert scene.world.run_until(lambda: len(scene.ended) == 1, 60)
    scene.world.run(1)
    scene.check_at_rest()
