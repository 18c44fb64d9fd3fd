"""Smaller plans: what the failure does not need goes, what it needs stays, and runs are few."""

from __future__ import annotations

from meshwalk.config import Config
from meshwalk.sim.plan import Fault, NodePlan, Plan, Step
from meshwalk.sim.shrinking import DURATION_LEAST_S, PLAIN_LATENCY, shrink
from meshwalk.sim.soaking import plan_of

LARGE = plan_of(1)


def large(*faults: Fault) -> Plan:
    """Twelve nodes and many faults, with these among them."""
    others = [Step(float(at), Fault.JITTER, at, at, 0.25) for at in range(20)]
    steps = sorted(
        [*others, *(Step(7.5 + at, fault, at) for at, fault in enumerate(faults))],
        key=lambda step: step.at,
    )
    return Plan(
        seed=5,
        config=LARGE.config,
        latency="plane:4",
        nodes=[NodePlan(float(at), 0) for at in range(12)],
        steps=steps,
        duration_s=100.0,
        broadcasts_per_s=1.0,
        sends_per_s=1.0,
        requests_per_s=1.0,
        body_bytes_max=1000,
    )


def has(plan: Plan, *faults: Fault) -> bool:
    return {*faults} <= {step.fault for step in plan.steps}


def test_only_what_the_failure_needs_is_left() -> None:
    plan = large(Fault.SLEEP, Fault.CRASH)

    def still_fails(smaller: Plan) -> bool:
        return has(smaller, Fault.SLEEP, Fault.CRASH) and len(smaller.nodes) >= 5

    small = shrink(plan, still_fails)
    assert [step.fault for step in small.steps] == [Fault.SLEEP, Fault.CRASH]
    assert len(small.nodes) == 5
    assert small.duration_s <= 2 * DURATION_LEAST_S
    assert small.steps[-1].at <= small.duration_s
    assert (small.broadcasts_per_s, small.sends_per_s, small.requests_per_s) == (0.0, 0.0, 0.0)
    assert (small.body_bytes_max, small.latency, small.config) == (1, PLAIN_LATENCY, Config())


def test_the_layers_of_the_configuration_are_tried_one_by_one() -> None:
    plan = large()
    assert plan.config.overlay != Config().overlay

    small = shrink(plan, lambda smaller: smaller.config.overlay == plan.config.overlay)
    assert small.config.overlay == plan.config.overlay
    assert small.config.link == Config().link
    assert small.config.broadcast == Config().broadcast


def test_a_plan_that_cannot_be_smaller_stays() -> None:
    plan = large(Fault.CRASH)
    assert shrink(plan, lambda smaller: False) == plan


def test_a_failure_that_needs_luck_gets_other_seeds() -> None:
    plan = large(Fault.CRASH)
    small = shrink(plan, lambda smaller: smaller.seed % 3 == 1 and has(smaller, Fault.CRASH))
    assert len(small.steps) == 1
    assert small.seed % 3 == 1


def test_no_more_runs_than_were_granted() -> None:
    tried: list[Plan] = []

    def still_fails(smaller: Plan) -> bool:
        tried.append(smaller)
        return len(tried) % 2 == 0

    shrink(large(Fault.CRASH), still_fails, runs_max=17)
    assert len(tried) == 17
