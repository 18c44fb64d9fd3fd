"""Drawn plans: the same for a seed, all kinds of trouble among them, and none too dear to run."""

from __future__ import annotations

import pytest

from meshwalk.sim.attackers import BEHAVIOURS
from meshwalk.sim.latency import parse_latency
from meshwalk.sim.plan import DURATION_S, FAULTS_MAX, NODES_MAX, Fault, Kind, Plan, Step, draw
from meshwalk.sim.soaking import plan_of

PLANS = [plan_of(seed) for seed in range(300)]


def test_a_seed_has_one_plan() -> None:
    assert [plan_of(seed) for seed in range(20)] == PLANS[:20]
    assert len({plan.seed for plan in PLANS}) == len(PLANS)


def test_all_that_may_happen_is_drawn() -> None:
    assert {step.fault for plan in PLANS for step in plan.steps} == set(Fault)
    assert {node.kind for plan in PLANS for node in plan.nodes} == set(Kind)
    assert {node.behaviour for plan in PLANS for node in plan.nodes} == {"", *BEHAVIOURS}
    assert any(not plan.steps for plan in PLANS)


def test_conversations_are_drawn_and_whatever_limits_them() -> None:
    talkative = [plan for plan in PLANS if plan.conversations_per_s]
    assert 0.6 < len(talkative) / len(PLANS) < 0.9
    assert any(not plan.to_anyone for plan in talkative)
    assert any(plan.to_anyone for plan in talkative)
    assert any(plan.config.pacing.is_on for plan in talkative)
    assert any(plan.config.conversations.per_peer_max < 10 for plan in talkative)
    longer = [
        plan
        for plan in talkative
        if plan.conversation_bytes_max > plan.config.conversations.part_bytes_max
    ]
    assert len(longer) > 20, "some have messages that go in parts"


def said(plan: Plan) -> float:
    """About how many bytes in conversations."""
    count = plan.conversations_per_s * plan.duration_s * plan.conversation_messages_max
    return count * 0.15 * plan.conversation_bytes_max / 2


def test_no_conversation_is_too_dear() -> None:
    assert max(said(plan) for plan in PLANS) < 50_000_000


def test_whole_kinds_of_faults_are_left_out_of_a_run() -> None:
    long = [plan for plan in PLANS if len(plan.steps) > 20]
    kinds = [len({step.fault for step in plan.steps}) for plan in long]
    assert max(kinds) < len(Fault)
    assert min(kinds) <= 3


def test_attackers_come_only_when_they_are_named() -> None:
    assert not any(node.behaviour for seed in range(50) for node in draw(seed).nodes)
    with_attackers = [plan for plan in PLANS if any(node.behaviour for node in plan.nodes)]
    assert 0.1 < len(with_attackers) / len(PLANS) < 0.4
    assert not any(plan.nodes[0].behaviour for plan in PLANS)  # others have to enter through it


@pytest.mark.parametrize("seed", range(0, 300, 10))
def test_a_plan_is_within_its_bounds(seed: int) -> None:
    plan = PLANS[seed]
    parse_latency(plan.latency, plan.seed)
    assert 3 <= len(plan.nodes) <= NODES_MAX
    assert len(plan.steps) <= FAULTS_MAX
    assert DURATION_S[0] - 0.001 < plan.duration_s <= DURATION_S[1]
    assert all(0.0 <= step.at <= plan.duration_s for step in plan.steps)
    assert [step.at for step in plan.steps] == sorted(step.at for step in plan.steps)
    assert all(0.0 <= node.joins_at <= plan.duration_s for node in plan.nodes)


def flooded(plan: Plan) -> float:
    """About how many frames its broadcasts are."""
    bursts = sum(step.value for step in plan.steps if step.fault is Fault.BURST)
    links = len(plan.nodes) * min(plan.config.overlay.links_min + 1, len(plan.nodes) - 1) / 2
    return (bursts + plan.broadcasts_per_s * plan.duration_s) * 2 * links


def test_no_plan_is_too_dear() -> None:
    assert max(flooded(plan) for plan in PLANS) < 200_000
    assert max(flooded(plan) * plan.body_bytes_max for plan in PLANS) < 300_000_000


def test_walks_have_the_time_that_the_network_takes() -> None:
    slow = [plan for plan in PLANS if plan.latency == "uniform:5ms-200ms"]
    assert slow
    for plan in slow:
        overlay = plan.config.overlay
        assert overlay.walk_timeout_s >= overlay.walk_hops * 0.2
        assert overlay.place_timeout_s >= overlay.walk_hops * 0.2


def test_most_plans_demand_much() -> None:
    """Order until the first fault that delays; last words unless senders are forgotten."""
    assert 0.02 < sum(plan.forgets_senders for plan in PLANS) / len(PLANS) < 0.15
    assert sum(plan.keeps_order for plan in PLANS) / len(PLANS) > 0.5


def test_faults_that_delay_are_told_from_others() -> None:
    assert Step(1.0, Fault.LOSS).is_delaying
    assert not Step(1.0, Fault.CRASH).is_delaying
