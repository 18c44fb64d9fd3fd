"""Makes a failing plan smaller while it still fails: less to read, and sooner at the defect.

Halves first, then one by one, as delta debugging does (Zeller and Hildebrandt, IEEE TSE 28(2),
2002). A plan that is smaller by one step draws other numbers all along, and a defect that needs
luck may hide; so each smaller plan is tried with a few seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from meshwalk.config import Config
from meshwalk.errors import InvalidArgument
from meshwalk.sim.plan import NodePlan, Plan, Step

RUNS_MAX: Final = 200  # guess: minutes
SEEDS: Final = 3  # guess: a defect that shows in half of all runs is missed once in eight
PLAIN_LATENCY: Final = "constant:10ms"  # the first that is drawn
DURATION_LEAST_S: Final = 1.0  # guess: the first links stand by then
NODES_LEAST: Final = 2  # one alone has nobody to fail with


def shrink(plan: Plan, still_fails: Callable[[Plan], bool], runs_max: int = RUNS_MAX) -> Plan:
    """The smallest plan found for which `still_fails`; the plan itself when there is none.

    `still_fails` carries the plan out, and should say no to another failure than the first one's.
    It is called `runs_max` times at most.
    """
    return _Shrinking(plan, still_fails, runs_max).run()


class _Shrinking:
    """What is left of the plan, and of the runs."""

    def __init__(self, plan: Plan, still_fails: Callable[[Plan], bool], runs_max: int) -> None:
        self._plan = plan
        self._still_fails = still_fails
        self._runs_left = runs_max

    def run(self) -> Plan:
        """Round by round, since a plan with fewer nodes may need fewer steps."""
        before = None
        while before != self._plan and self._runs_left > 0:
            before = self._plan
            self._fewer_steps()
            self._fewer_nodes()
            self._shorter()
            self._plainer()
        return self._plan

    def _try(self, **changes: object) -> bool:
        """Whether the plan with these changes still fails; then it is the plan."""
        smaller = msgspec.structs.replace(self._plan, **changes)
        if smaller == self._plan:
            return False
        for more in range(SEEDS):
            if self._runs_left <= 0:
                return False
            self._runs_left -= 1
            tried = msgspec.structs.replace(smaller, seed=smaller.seed + more)
            if self._still_fails(tried):
                self._plan = tried
                return True
        return False

    def _fewer_steps(self) -> None:
        size = len(self._plan.steps)
        while size:
            start = 0
            while start < len(self._plan.steps):
                steps = self._plan.steps
                if not self._try(steps=steps[:start] + steps[start + size :]):
                    start += size
            size //= 2

    def _fewer_nodes(self) -> None:
        """From the end, so that the others keep their numbers."""
        size = len(self._plan.nodes) // 2
        while size:
            left = len(self._plan.nodes) - size
            if left < NODES_LEAST or not self._try(nodes=self._plan.nodes[:left]):
                size //= 2

    def _shorter(self) -> None:
        """Without what comes after the last step; then half of it, with the steps."""
        plan = self._plan
        last = max([0.0, *(step.at for step in plan.steps), *(n.joins_at for n in plan.nodes)])
        self._try(duration_s=last + DURATION_LEAST_S)
        while self._plan.duration_s > DURATION_LEAST_S and self._try(**_halved(self._plan)):
            pass

    def _plainer(self) -> None:
        """Less of everything else."""
        for rate in ("broadcasts_per_s", "sends_per_s", "requests_per_s"):
            self._try(**{rate: 0.0})
        self._try(body_bytes_max=1)
        self._try(latency=PLAIN_LATENCY)
        self._try(nodes=[NodePlan(node.joins_at, 0) for node in self._plan.nodes])
        self._try(nodes=[msgspec.structs.replace(n, behaviour="") for n in self._plan.nodes])
        self._try(steps=[_rounded(step) for step in self._plan.steps])
        defaults = Config()
        for layer in Config.__struct_fields__:
            plain = {layer: getattr(defaults, layer)}
            try:
                config = msgspec.structs.replace(self._plan.config, **plain)
            except InvalidArgument:  # it does not go with another layer that could not be plain
                continue
            self._try(config=config)


def _halved(plan: Plan) -> dict[str, object]:
    replace = msgspec.structs.replace
    return {
        "duration_s": plan.duration_s / 2,
        "nodes": [replace(node, joins_at=node.joins_at / 2) for node in plan.nodes],
        "steps": [replace(step, at=step.at / 2) for step in plan.steps],
    }


def _rounded(step: Step) -> Step:
    """For people: the fraction of a second says nothing in most cases."""
    value = float(round(step.value)) if step.value > 1.0 else step.value
    return msgspec.structs.replace(step, at=round(step.at, 1), value=value)
