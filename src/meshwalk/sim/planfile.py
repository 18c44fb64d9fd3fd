"""Plans as JSON: kept for a regression, or made smaller by hand.

A plan holds all that a run follows from, every setting included: it means the same after the
defaults and the drawing have changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from meshwalk.errors import InvalidArgument
from meshwalk.sim.attackers import BEHAVIOURS
from meshwalk.sim.latency import parse_latency
from meshwalk.sim.plan import Fault, Plan, Step

NODES_MAX: Final = 10_000  # guess: minutes for each virtual one
SECONDS_MAX: Final = 1e6  # eleven days
RATE_MAX: Final = 1e6  # guess: more than a machine can compute
NAME_BYTES_MAX: Final = 64  # as work.py: each body begins with its sender and a number
WORK_BYTES_MAX: Final = 4 << 30  # guess: a hundred times what a drawn plan has

_SHARES: Final = {Fault.LOSS, Fault.MASS_CRASH}


def as_json(plan: Plan) -> bytes:
    """The plan as a file has it."""
    return msgspec.json.format(msgspec.json.encode(plan), indent=1) + b"\n"


def read_plan(path: Path) -> Plan:
    """The plan in a file. Raises `InvalidArgument`, which names the file; `OSError`."""
    try:
        plan = msgspec.json.decode(path.read_bytes(), type=Plan)
        _check(plan)
    except (msgspec.MsgspecError, InvalidArgument, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"{path} holds no plan of a simulated run: {error}") from None
    return plan


def _check(plan: Plan) -> None:
    """Raises `InvalidArgument` for what no run can begin with."""
    if not 1 <= len(plan.nodes) <= NODES_MAX:
        raise InvalidArgument(f"a plan has 1 to {NODES_MAX:,} nodes, not {len(plan.nodes)}")
    parse_latency(plan.latency, plan.seed)
    _within("duration_s", plan.duration_s, SECONDS_MAX)
    _check_work(plan)
    for node in plan.nodes:
        _within("joins_at", node.joins_at, SECONDS_MAX)
        if not 0 <= node.group < 256:
            raise InvalidArgument(f"group is 0 to 255, not {node.group}")
        if node.behaviour and node.behaviour not in BEHAVIOURS:
            known = ", ".join(BEHAVIOURS)
            raise InvalidArgument(f"no attacker is called {node.behaviour!r}; there are: {known}")
    if not any(node.joins_at <= plan.duration_s for node in plan.nodes):
        raise InvalidArgument("no node joins before duration_s is over")
    for step in plan.steps:
        _check_step(step)


def _check_work(plan: Plan) -> None:
    bodies = plan.config.broadcast.body_bytes_max
    if bodies < NAME_BYTES_MAX:
        raise InvalidArgument(
            f"broadcast.body_bytes_max is at least {NAME_BYTES_MAX} here, not {bodies}"
        )
    _within("body_bytes_max", plan.body_bytes_max, bodies, least=1)
    for name in ("broadcasts_per_s", "sends_per_s", "requests_per_s", "conversations_per_s"):
        _within(name, getattr(plan, name), RATE_MAX)
    _within("to_anyone", plan.to_anyone, 1.0)
    longest = plan.config.conversations.message_bytes_max - NAME_BYTES_MAX
    _within("conversation_bytes_max", plan.conversation_bytes_max, longest, least=1)
    _within("conversation_messages_max", plan.conversation_messages_max, RATE_MAX, least=1)
    per_s = plan.broadcasts_per_s + plan.sends_per_s + plan.requests_per_s
    bursts = sum(max(0.0, step.value) for step in plan.steps if step.fault is Fault.BURST)
    total = (bursts + per_s * plan.duration_s) * max(plan.body_bytes_max, NAME_BYTES_MAX)
    said = plan.conversations_per_s * plan.duration_s * plan.conversation_messages_max
    total += said * max(plan.conversation_bytes_max, NAME_BYTES_MAX)
    if not total <= WORK_BYTES_MAX:
        raise InvalidArgument(
            f"bursts and rates come to {total:.2g} bytes, and {WORK_BYTES_MAX:,} are allowed;"
            " lower them, duration_s or body_bytes_max"
        )


def _check_step(step: Step) -> None:
    _within("at", step.at, SECONDS_MAX)
    if step.fault in _SHARES:
        _within(f"the value of {step.fault}", step.value, 1.0)
    else:
        _within(f"the value of {step.fault}", step.value, RATE_MAX)
    if step.fault is Fault.BANDWIDTH and not step.value:
        raise InvalidArgument("the value of bandwidth is above 0")


def _within(what: str, value: float, most: float, least: float = 0.0) -> None:
    if not least <= value <= most:
        raise InvalidArgument(f"{what} is {least:g} to {most:g}, not {value:g}")
