"""`meshwalk trace`: send a broadcast that tells of its way, and show the tree that it took.

Of the running node; or, with an entry to join by, of a passing one that leaves afterwards. With
`as_json` the answer of /v1/trace as it is. The exit code; raises `TimedOut` when nobody answered.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final

from meshwalk.cli.control_client import ControlClient
from meshwalk.cli.options import NodeOptions, make_node
from meshwalk.cli.proving import Proving
from meshwalk.cli.queries import PIPE_COLUMNS, print_json, print_line, print_lines
from meshwalk.cli.render import as_text
from meshwalk.cli.trace_tree import summary, tree
from meshwalk.errors import NotRunning, TimedOut
from meshwalk.net.control import TRACE_TIMEOUT_MAX_S, TraceRequest, trace_answer
from meshwalk.net.node import JOIN_TIMEOUT_S

# A running node that must first prove work may take long, and does not say how long.
PROVING_TIMEOUT_S: Final = 3600.0  # guess: after as long a broadcast would be stale
SETTLING_S: Final = 1.0  # guess: further links after the first; a tree of one branch says little


async def trace(
    options: NodeOptions, entry: str | None, timeout_s: float | None, *, as_json: bool
) -> int:
    """Trace a broadcast of the running node, or of a passing one that joins by `entry`."""
    if entry is None:
        answer = await _of_running(options, timeout_s)
    else:
        answer = await _of_passing(options, entry, timeout_s)
    if as_json:
        print_json(answer)
    else:
        _show(answer)
    if not answer["peers"]:
        raise TimedOut("no peer answered; `meshwalk status` tells whether there are neighbours")
    return 0


async def _of_running(options: NodeOptions, timeout_s: float | None) -> dict[str, Any]:
    try:
        async with ControlClient(options.data) as client:
            status = await client.get("status")
            takes_s = TRACE_TIMEOUT_MAX_S if timeout_s is None else timeout_s
            if status.get("difficulty"):
                takes_s += PROVING_TIMEOUT_S
            return await client.post("trace", TraceRequest(timeout_s), takes_s)
    except NotRunning as error:
        raise NotRunning(f"{error}, or give an address or invite with --join") from error


async def _of_passing(options: NodeOptions, entry: str, timeout_s: float | None) -> dict[str, Any]:
    node = make_node(options, is_passing=True)
    node.check_entry(entry)  # before anything is started
    async with node:
        await node.join(entry, JOIN_TIMEOUT_S)
        await asyncio.sleep(SETTLING_S)
        with Proving() as proving:
            return await trace_answer(node, timeout_s, proving.told)


def _show(answer: dict[str, Any]) -> None:
    table = tree(answer)
    if sys.stdout.isatty():
        from rich.console import Console

        Console(highlight=False).print(table)
    else:
        print_lines(as_text(table, PIPE_COLUMNS))
    for line in summary(answer):
        print_line(line)
