"""The experiments that there are, in the order in which `meshwalk sim list` shows them."""

from __future__ import annotations

from collections.abc import Sequence

from meshwalk.errors import InvalidArgument
from meshwalk.sim.experiment import Experiment
from meshwalk.sim.experiments import (
    abuse,
    broadcast_cost,
    churn,
    closer,
    detection,
    eclipse,
    healing,
    join_rules,
    mass_failure,
    privacy,
    scale,
    spreading,
)

EXPERIMENTS: tuple[Experiment, ...] = (
    join_rules.EXPERIMENT,
    mass_failure.EXPERIMENT,
    broadcast_cost.EXPERIMENT,
    spreading.EXPERIMENT,
    privacy.EXPERIMENT,
    abuse.EXPERIMENT,
    scale.EXPERIMENT,
    churn.EXPERIMENT,
    detection.EXPERIMENT,
    closer.EXPERIMENT,
    healing.EXPERIMENT,
    eclipse.EXPERIMENT,
)

ALL = "all"  # instead of names: every one of them


def find(names: Sequence[str]) -> list[Experiment]:
    """The experiments of these names, each once, in the order given; "all" stands for every one.

    Raises `InvalidArgument` with the list of names when one is unknown.
    """
    known = {experiment.name: experiment for experiment in EXPERIMENTS}
    wanted = [real for name in names for real in (known if name == ALL else [name])]
    for name in wanted:
        if name not in known:
            raise InvalidArgument(
                f"there is no experiment {name!r}; there are {', '.join([*known, ALL])}"
            )
    return [known[name] for name in dict.fromkeys(wanted)]
