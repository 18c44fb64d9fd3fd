"""Plans carried out: each fault does what it says, defects are found, and a run is repeatable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import ClassVar

import msgspec
import pytest

from meshwalk.config import BroadcastConfig, Config, HistoryConfig, OverlayConfig, RequestConfig
from meshwalk.proto.broadcast.origins import Origins
from meshwalk.proto.dispatch.dispatch import Dispatch
from meshwalk.proto.effects import Deliver, Effect
from meshwalk.proto.node import NodeCore
from meshwalk.proto.overlay.beacons import Beacons
from meshwalk.proto.overlay.healing import Healing
from meshwalk.proto.overlay.probing import Probing
from meshwalk.proto.overlay.walks import Walks
from meshwalk.sim.checks import components
from meshwalk.sim.node import SimNode
from meshwalk.sim.plan import Fault, Kind, NodePlan, Plan, Step
from meshwalk.sim.storm import Storm
from meshwalk.wire.frames import Frame

CONFIG = Config(
    overlay=OverlayConfig(links_min=2, links_max=4),
    requests=RequestConfig(timeout_s=1.0),
    broadcast=BroadcastConfig(remembered_s=300.0, age_max_s=300.0),
    history=HistoryConfig(age_s=300.0),
)


def plan(
    *steps: Step,
    nodes: int = 5,
    kinds: dict[int, Kind] | None = None,
    behaviours: dict[int, str] | None = None,
    duration_s: float = 20.0,
    rate: float = 0.0,
) -> Plan:
    kinds, behaviours = kinds or {}, behaviours or {}
    return Plan(
        seed=1,
        config=CONFIG,
        latency="constant:10ms",
        nodes=[
            NodePlan(0.1 * at, 0, kinds.get(at, Kind.PLAIN), at % 2, behaviours.get(at, ""))
            for at in range(nodes)
        ],
        steps=list(steps),
        duration_s=duration_s,
        broadcasts_per_s=rate,
        sends_per_s=rate,
        requests_per_s=rate,
        body_bytes_max=100,
    )


def test_a_run_without_trouble() -> None:
    verdict = Storm(plan(rate=2.0)).run()
    assert verdict.findings == []
    assert (verdict.nodes, verdict.up, verdict.pieces) == (5, 5, 1)
    assert verdict.mended_s is not None
    # Each of about forty broadcasts reaches the four others, and so do the last five.
    assert verdict.deliveries > 4 * 20


def seen_at(storm: Storm, at: float, look: Callable[[Storm], object]) -> object:
    """What `look` finds at this time of the run."""
    found: list[object] = []
    storm.world.timeline.add(at, lambda _: found.append(look(storm)), None)
    storm.run()
    return found[0]


def node(storm: Storm, number: int) -> SimNode:
    return storm.world.nodes[number]


@pytest.mark.parametrize("fault", [Fault.CRASH, Fault.VANISH, Fault.FORGET, Fault.LEAVE])
def test_a_node_stops_and_comes_back(fault: Fault) -> None:
    def look(storm: Storm) -> tuple[bool, bool]:
        return node(storm, 2).is_up, bool(node(storm, 2).stored)

    storm = Storm(plan(Step(5.0, fault, 2, value=4.0)))
    assert seen_at(storm, 7.5, look) == (False, fault is not Fault.FORGET)
    assert node(storm, 2).is_up
    assert node(storm, 2).life == 2
    assert len(node(storm, 2).neighbours) >= 2
    assert storm.checks.findings == []


def test_a_node_stays_away_if_the_plan_has_it_so() -> None:
    storm = Storm(plan(Step(5.0, Fault.CRASH, 2)))
    verdict = storm.run()
    assert (verdict.nodes, verdict.up, verdict.findings) == (5, 4, [])


def test_many_crash_at_once() -> None:
    verdict = Storm(plan(Step(5.0, Fault.MASS_CRASH, value=0.5), nodes=8)).run()
    assert verdict.up == 4


@pytest.mark.parametrize(("fault", "slept_s"), [(Fault.SLEEP, 3.0), (Fault.STOP, 0.0)])
def test_a_machine_sleeps_and_a_process_stops(fault: Fault, slept_s: float) -> None:
    storm = Storm(plan(Step(5.0, fault, 2, value=3.0)))
    assert seen_at(storm, 6.0, lambda storm: node(storm, 2).is_asleep) is True
    assert not node(storm, 2).is_asleep
    assert storm.world.now - node(storm, 2).time() == pytest.approx(slept_s)


@pytest.mark.parametrize(
    ("fault", "crosses"),
    [
        (Fault.CLOG, (False, True)),
        (Fault.ISOLATE, (False, False)),
        (Fault.DEAF, (True, False)),
        (Fault.GROUPS, (False, False)),
    ],
)
def test_paths_are_blocked_for_a_while(fault: Fault, crosses: tuple[bool, bool]) -> None:
    def look(storm: Storm) -> tuple[bool, bool]:
        here, there = node(storm, 2).host, node(storm, 3).host
        conditions = storm.world.conditions
        return conditions.can_cross(here, there), conditions.can_cross(there, here)

    step = Step(5.0, fault, 2, 3, 4.0)
    assert seen_at(Storm(plan(step)), 6.0, look) == crosses
    assert seen_at(Storm(plan(step)), 9.5, look) == (True, True)


def test_an_earlier_fault_does_not_end_a_later_one() -> None:
    def look(storm: Storm) -> bool:
        return storm.world.conditions.can_cross(node(storm, 2).host, node(storm, 3).host)

    clogs = [Step(5.0, Fault.CLOG, 2, 3, 4.0), Step(7.0, Fault.CLOG, 2, 3, 4.0)]
    cuts = [Step(5.0, Fault.PARTITION, value=4.0), Step(7.0, Fault.ISOLATE, 2, value=4.0)]
    for steps in (clogs, cuts):
        assert seen_at(Storm(plan(*steps)), 10.0, look) is False
        assert seen_at(Storm(plan(*steps)), 11.5, look) is True


def test_who_is_to_stay_down_does_not_come_back_by_an_earlier_fault() -> None:
    """A node that leaves is still up for two seconds, in which all crash."""
    steps = [Step(5.0, Fault.LEAVE, 2, value=3.0), Step(6.0, Fault.MASS_CRASH, value=1.0)]
    assert Storm(plan(*steps)).run().up == 0


class Answering(NodeCore):
    """Notes whether its machine was asleep when its application answered."""

    node: SimNode
    answered_asleep: ClassVar[list[bool]] = []

    def reply(self, *arguments: object) -> list[Effect]:
        self.answered_asleep.append(self.node.is_asleep)
        return super().reply(*arguments)  # type: ignore[arg-type]


def test_applications_of_machines_asleep_answer_when_they_wake() -> None:
    def make_core(node: SimNode, seed: int, now: float, unix_offset_s: float) -> NodeCore:
        core = Answering(node.signatures, node.config, Random(seed), now, unix_offset_s)
        core.node = node
        return core

    Answering.answered_asleep.clear()
    steps = [Step(3.0 + 3 * turn, Fault.SLEEP, turn % 5, value=2.0) for turn in range(5)]
    assert Storm(plan(*steps, rate=20.0), make_core).run().findings == []
    assert len(Answering.answered_asleep) > 100
    assert not any(Answering.answered_asleep)


@pytest.mark.parametrize(
    ("fault", "value"),
    [
        (Fault.LOSS, 0.2),
        (Fault.JITTER, 0.3),
        (Fault.BANDWIDTH, 20_000.0),
        (Fault.SLOW_PATH, 0.5),
    ],
)
def test_paths_get_worse_until_the_end_of_the_faults(fault: Fault, value: float) -> None:
    step = Step(5.0, fault, 2, 3, value)
    assert seen_at(Storm(plan(step)), 6.0, lambda storm: storm.world.conditions.is_plain) is False
    assert seen_at(Storm(plan(step)), 21.0, lambda storm: storm.world.conditions.is_plain) is True


def test_bursts_newcomers_and_entries() -> None:
    quiet = Storm(plan()).run()
    burst = Storm(plan(Step(5.0, Fault.BURST, 2, value=30.0))).run()
    assert burst.deliveries == quiet.deliveries + 30 * 4
    joined = Storm(plan(Step(5.0, Fault.JOIN, 2), Step(6.0, Fault.REJOIN, 1, 3))).run()
    assert (joined.nodes, joined.up, joined.pieces, joined.findings) == (6, 6, 1, [])


def test_all_kinds_of_nodes_and_an_attacker() -> None:
    kinds = {2: Kind.FIREWALLED, 3: Kind.DEAF_PORT, 4: Kind.NAT}
    storm = Storm(plan(nodes=12, kinds=kinds, behaviours={5: "black hole"}, rate=1.0))
    verdict = storm.run()
    assert verdict.findings == []
    assert len(storm.honest) == 11
    assert all(len(each.neighbours) >= 2 for each in storm.honest)


def test_the_same_plan_runs_the_same() -> None:
    steps = [Step(5.0, Fault.CRASH, 2, value=3.0), Step(6.0, Fault.LOSS, value=0.1)]
    one, other = (Storm(plan(*steps, rate=2.0)).run() for _ in range(2))
    assert one == other


def test_a_node_moves() -> None:
    storm = Storm(plan(Step(5.0, Fault.MOVE, 2)))
    assert seen_at(storm, 5.1, lambda storm: node(storm, 2).host) == "10.0.0.6"
    assert node(storm, 2).name == "10.0.0.3"
    assert len(node(storm, 2).neighbours) >= 2
    assert storm.checks.findings == []


def long_apart() -> Storm:
    """Two halves, longer than any time-out: each is content with itself."""
    return Storm(plan(Step(5.0, Fault.PARTITION, value=100.0), nodes=10, duration_s=100.0))


def test_fragments_find_each_other() -> None:
    storm = long_apart()
    apart = seen_at(storm, 99.0, lambda storm: len(components(storm.honest)))
    assert apart == 2
    assert len(components(storm.honest)) == 1
    assert storm.checks.findings == []


def test_a_long_cut_comes_after_the_faults_and_heals() -> None:
    storm = Storm(msgspec.structs.replace(plan(nodes=10), cut_s=100.0))
    apart = seen_at(storm, 119.0, lambda storm: len(components(storm.honest)))
    assert apart == 2
    assert storm.world.conditions.is_plain
    assert len(components(storm.honest)) == 1
    assert storm.checks.findings == []


def test_fragments_that_know_of_each_other_and_do_not_join_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Healing, "told", lambda *_: True)
    verdict = long_apart().run()
    assert verdict.fragments == 2
    assert verdict.healed_s is None
    assert "in pieces, though some know who is in the others" in verdict.findings[0].text
    assert verdict.pieces == 1, "they were told"


def test_fragments_that_know_nobody_else_are_told_of_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Probing, "_probe_of_entry", lambda _: None)  # nor does a person
    storm = long_apart()

    def forget(_: object) -> None:
        for piece in components(storm.honest):
            inside = {each.id for each in piece}
            for each in piece:
                book = each.core.overlay.book
                for entry in [e for e in book.entries.values() if e.peer not in inside]:
                    book._forget(entry, "failed")

    storm.world.timeline.add(80.0, forget, None)  # the dials under way must have ended, too
    verdict = storm.run()
    assert verdict.fragments == 2
    assert verdict.pieces == 1
    assert verdict.excused == ["healing"]
    assert verdict.findings == []


def test_two_leaders_in_one_piece_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Beacons, "heard", lambda *_: None)
    assert "[5] leaders in its pieces" in texts(Storm(plan()))


# Defects that are put in.


def texts(storm: Storm) -> str:
    return "\n".join(finding.text for finding in storm.run().findings)


def test_a_node_that_looks_for_no_links_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    refill_until(monkeypatch, 4.0)
    steps = [Step(5.0, Fault.CRASH, number) for number in (0, 2, 3, 4, 6)]
    found = texts(Storm(plan(*steps, nodes=8)))
    assert "links after" in found or "in 2 pieces" in found


def refill_until(monkeypatch: pytest.MonkeyPatch, until: float) -> None:
    """From then on nobody looks for links, nor finds another fragment."""
    refill = Walks.refill
    monkeypatch.setattr(Healing, "told", lambda *_: True)

    def lazily(walks: Walks, now: float) -> None:
        if now < until:
            refill(walks, now)

    monkeypatch.setattr(Walks, "refill", lazily)


def test_a_starved_node_is_found_though_the_network_was_parted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What may part a network is no excuse if it is in one piece."""
    refill_until(monkeypatch, 4.0)
    steps = [Step(5.0, Fault.CRASH, 2), Step(8.0, Fault.PARTITION, value=0.001)]
    storm = Storm(plan(*steps))
    verdict = storm.run()
    assert verdict.pieces == 1
    assert "1 links after" in "\n".join(finding.text for finding in verdict.findings)
    assert verdict.mended_s is None


def test_links_that_are_lost_after_all_was_well_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    at = 90.0  # after the last words
    refill_until(monkeypatch, at)
    storm = Storm(plan())
    storm.world.timeline.add(at, lambda _: storm.world.crash(node(storm, 2)), None)
    assert "1 links after there were enough" in texts(storm)


def test_what_is_excused_is_said() -> None:
    hidden = dict.fromkeys((1, 2, 3, 4), Kind.DEAF_PORT)  # they cannot dial each other
    assert Storm(plan()).run().excused == []
    assert Storm(plan(behaviours={2: "black hole"})).run().excused == ["last words", "rest"]
    assert "links" in Storm(plan(kinds=hidden)).run().excused


class Swapping(NodeCore):
    """Hands over each second broadcast before the first, from a time until another."""

    from_s, until_s = 0.0, 0.0

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.first: dict[bytes, Effect] = {}

    def receive(self, link: int, frames: Sequence[Frame], now: float) -> list[Effect]:
        out: list[Effect] = []
        for effect in super().receive(link, frames, now):
            swaps = type(effect) is Deliver and self.from_s <= now < self.until_s
            if type(effect) is not Deliver:
                out.append(effect)
            elif effect.delivery.origin in self.first:
                out += [effect, self.first.pop(effect.delivery.origin)]
            elif swaps:
                self.first[effect.delivery.origin] = effect
            else:
                out.append(effect)
        return out


@pytest.mark.parametrize(
    ("from_s", "until_s", "is_found"),
    [
        (2.0, 9.0, True),  # before the fault that delays
        (11.0, 19.0, False),
        (40.0, 60.0, True),  # the last words
    ],
)
def test_a_false_order_is_found_where_nothing_was_delayed(
    from_s: float, until_s: float, is_found: bool
) -> None:
    def make_core(node: SimNode, seed: int, now: float, unix_offset_s: float) -> NodeCore:
        core = Swapping(node.signatures, node.config, Random(seed), now, unix_offset_s)
        core.from_s, core.until_s = (from_s, until_s) if node.host.endswith(".3") else (0.0, 0.0)
        return core

    storm = Storm(plan(Step(10.0, Fault.JITTER, value=0.1), rate=5.0), make_core)
    storm.checks.counts_late = False  # else the node's own count shows it
    assert ("of a sender came after" in texts(storm)) is is_found


@pytest.mark.parametrize("ends", [False, True])
def test_order_may_be_expected_until_a_link_changes(ends: bool) -> None:
    storm = Storm(plan())
    storm.checks.order_ends_with_links = ends
    storm.world.grow(2)
    storm.world.run(5.0)
    assert storm.checks.expects_order is not ends


def test_a_request_that_does_not_end_in_time_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some answers come later than the one second that their askers wait."""
    monkeypatch.setattr(Dispatch, "tick", lambda *_: [])
    assert "a request has taken " in texts(Storm(plan(rate=5.0)))


def test_senders_that_are_never_forgotten_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Origins, "_forget_one", lambda *_: None)
    assert "senders, and one has spoken" in texts(Storm(plan(rate=1.0)))


class Faulty(NodeCore):
    """Delivers each message `times` times."""

    times = 1

    def receive(self, *arguments: object) -> list[Effect]:
        effects = super().receive(*arguments)  # type: ignore[arg-type]
        return [e for e in effects for _ in range(self.times if type(e) is Deliver else 1)]


def with_one_faulty(times: int) -> Storm:
    """The third node delivers all so often."""

    def make_core(node: SimNode, seed: int, now: float, unix_offset_s: float) -> NodeCore:
        core = Faulty(node.signatures, node.config, Random(seed), now, unix_offset_s)
        core.times = times if node.host.endswith(".3") else 1
        return core

    return Storm(plan(), make_core)


@pytest.mark.parametrize(
    ("times", "text"), [(0, "has not heard the last broadcast"), (2, "delivered twice")]
)
def test_a_broadcast_that_comes_too_seldom_or_too_often_is_found(times: int, text: str) -> None:
    storm = with_one_faulty(times)
    assert text in texts(storm)
    assert {finding.host for finding in storm.checks.findings} == {node(storm, 2).host}
