"""Broadcasts in a network of real processes: along the tree, as a flood, and beside gossipsub.

    python benchmarks/broadcast.py [--stack tree flood libp2p] [--members 30] [--json]

Every member is a process of its own on this machine with TLS over loopback and its stack's default
settings. Three runs in one network, each by one sender: a hundred messages a second, whose delays
count; then small messages as fast as they can be sent; then large ones. The rate of a receiver is
what it got by the time of its last message. After each run the parent waits until everybody has
everything, or until nothing has come to anybody for a while.

Whatever was sent must be delivered or counted as lost: by the reader's queue (dropped), or as
broadcasts that nobody had any more (missed). Those are bundles, of which it is not known how many
messages they had, so they are counted twice: bundles by what the nodes count, and messages by what
the readers got. What neither explains is unaccounted for, and fails the run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import random
import statistics
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

FOLDER: Final = Path(__file__).parent / "stacks"
FILES: Final = {"tree": "meshwalk_member.py", "flood": "meshwalk_member.py"} | {
    "libp2p": "libp2p_member.py"
}
JOIN_S: Final = 60.0  # guess: 30 processes start in 10 s on two cores
SETTLE_S: Final = 1.0  # guess: neighbours have measured each other by then
QUIET_S: Final = 8.0  # guess: longer than whoever misses something asks for it, in vain
LOOK_S: Final = 0.5
ANSWER_S: Final = 120.0
LEAST_LINKS: Final = 3  # guess: fewer is not settled yet
LIBP2P_LINKS: Final = 4  # that each opens: eight a member on the average, as meshwalk has
LINE_BYTES: Final = 1 << 20  # longest answer


class Kind(NamedTuple):
    """One run of one sender."""

    number: int
    seconds: float
    size: int
    rate: float


class Member:
    """One process."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._to, self._from = process.stdin, process.stdout
        self._one_at_a_time = asyncio.Lock()
        self.address = ""

    @classmethod
    async def start(cls, stack: str) -> Member:
        command = [sys.executable, str(FOLDER / FILES[stack]), stack]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, limit=LINE_BYTES
        )
        member = cls(process)
        member.address = (await member._from.readline()).decode().strip()
        if not member.address:
            raise RuntimeError(f"a member of {stack} did not start")
        return member

    async def ask(self, do: str, **more: Any) -> Any:
        async with self._one_at_a_time, asyncio.timeout(ANSWER_S):
            self._to.write(json.dumps({"do": do, **more}).encode() + b"\n")
            line = await self._from.readline()
        if not line:
            raise RuntimeError(f"a member ended with {await self._process.wait()}")
        return json.loads(line)

    async def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


async def of_all(members: Sequence[Member], do: str, **more: Any) -> list[Any]:
    return list(await asyncio.gather(*(member.ask(do, **more) for member in members)))


async def grown(stack: str, count: int, members: list[Member]) -> None:
    """Start a network and wait until it has settled."""
    members += await asyncio.gather(*(Member.start(stack) for _ in range(count)))
    draw = random.Random(1)
    if stack == "libp2p":
        for index, member in enumerate(members[1:], 1):
            earlier = members[:index]
            for entry in draw.sample(earlier, min(LIBP2P_LINKS, index)):
                await member.ask("join", address=entry.address)
    else:
        for member in members[1:]:
            await member.ask("join", address=members[0].address)
    until = time.monotonic() + JOIN_S
    while time.monotonic() < until:
        reports = await of_all(members, "report", run=0)
        if min(report["links"] for report in reports) >= min(LEAST_LINKS, count - 1):
            break
        await asyncio.sleep(LOOK_S)
    await asyncio.sleep(SETTLE_S)


async def run_of(kind: Kind, members: list[Member]) -> dict[str, Any]:
    """One run, and what came of it."""
    sender, receivers = members[-1], members[:-1]
    before = await of_all(members, "report", run=kind.number)
    order = {"run": kind.number, "seconds": kind.seconds, "size": kind.size, "rate": kind.rate}
    began_ns = time.monotonic_ns()
    sent = await sender.ask("send", **order)
    had, quiet_since = -1, time.monotonic()
    while time.monotonic() < quiet_since + QUIET_S:
        counts = [each["count"] for each in await of_all(receivers, "count", run=kind.number)]
        if min(counts) >= sent["sent"]:
            break
        if sum(counts) > had:
            had, quiet_since = sum(counts), time.monotonic()
        await asyncio.sleep(LOOK_S)
    after = await of_all(members, "report", run=kind.number)
    return figures(sent, began_ns, before, after)


def figures(
    sent: dict[str, Any], began_ns: int, before: list[Any], after: list[Any]
) -> dict[str, Any]:
    """What one run was: rates, costs, and what became of every message."""
    runs = [report["run"] for report in after[:-1]]
    rates = [r["count"] / max(1e-9, (r["last_ns"] - began_ns) / 1e9) for r in runs]
    cpu = [a["cost"]["cpu_s"] - b["cost"]["cpu_s"] for a, b in zip(after, before, strict=True)]
    per_1000 = [c / max(1, r["count"]) * 1000 for c, r in zip(cpu, runs, strict=False)]
    delays = [r["delay_us"] for r in runs if r["delay_us"]]
    last_ns = max((r["last_ns"] for r in runs), default=0)
    return {
        "sent": sent["sent"],
        "sent_per_s": sent["sent"] / sent["seconds"],
        "delivered": spread([r["count"] for r in runs]),
        "delivered_per_s": spread(rates),
        "all_have_it_s": max(0.0, (last_ns - sent["ended_ns"]) / 1e9),
        "p50_ms": statistics.median([d["p50"] for d in delays]) / 1e3 if delays else None,
        "p99_ms": spread([d["p99"] / 1e3 for d in delays]) if delays else None,
        "cpu_s": spread(cpu[:-1]),
        "cpu_s_sender": cpu[-1],
        "cpu_s_per_1000": spread(per_1000),
        "rss_before_mib": spread([b["cost"]["rss"] / 2**20 for b in before]),
        "rss_after_mib": spread([a["cost"]["rss"] / 2**20 for a in after]),
        "rss_peak_mib": spread([a["cost"]["peak"] / 2**20 for a in after]),
        "twice": sum(r["twice"] for r in runs),
        "disordered": sum(r["disordered"] for r in runs),
        **account(sent["sent"], before, after),
    }


def account(sent: int, before: list[Any], after: list[Any]) -> dict[str, Any]:
    """What became of all that was sent, and what each kind of event was counted."""
    found: dict[str, Any] = {"undelivered": sum(sent - r["run"]["count"] for r in after[:-1])}
    if "broadcast" not in after[0]:
        return found
    changes = [changed(b["broadcast"], a["broadcast"]) for b, a in zip(before, after, strict=True)]
    bundles = changes[-1].get("sent", 0)
    dropped = missed = bundles_unaccounted = messages_unaccounted = 0
    for b, a, change in zip(before[:-1], after[:-1], changes[:-1], strict=True):
        here_dropped = a["dropped"] - b["dropped"]
        here_missed = change.get("missed", 0)
        dropped, missed = dropped + here_dropped, missed + here_missed
        came = change.get("delivered", 0)
        bundles_unaccounted += max(0, bundles - came - here_missed)
        read = a["run"]["count"] + here_dropped
        messages_unaccounted += abs(change.get("messages delivered", 0) - read)
    counts: dict[str, int] = {}
    for change in changes[:-1]:
        for name, value in change.items():
            counts[name] = counts.get(name, 0) + value
    partings = [text for report in after for text in report["partings"]]
    return found | {
        "bundles": bundles,
        "dropped": dropped,
        "missed_bundles": missed,
        "unaccounted_bundles": bundles_unaccounted,
        "unaccounted_messages": messages_unaccounted,
        "links": spread([report["links"] for report in after]),
        "branches": spread([report["branches"] for report in after]),
        "counts": dict(sorted(counts.items())),
        "sender_counts": changes[-1],
        "partings": partings[-5:],
        "trust": [report["trust"] for report in after if report["trust"]][:5],
        "waiting": [w for r in after if any((w := dict(r["waiting"], kept=0)).values())][:5],
    }


def changed(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """By how much counts have grown; only those that have."""
    grown_by = {name: value - before.get(name, 0) for name, value in after.items()}
    return {name: value for name, value in grown_by.items() if value}


def spread(values: Sequence[float]) -> list[float]:
    """The least, the median and the most."""
    if not values:
        return []
    return [round(v, 4) for v in (min(values), statistics.median(values), max(values))]


async def measured(stack: str, count: int, kinds: Sequence[tuple[str, Kind]]) -> dict[str, Any]:
    members: list[Member] = []
    try:
        await grown(stack, count, members)
        found: dict[str, Any] = {}
        for name, kind in kinds:
            if found:
                await asyncio.sleep(SETTLE_S)
            found[name] = await run_of(kind, members)
        return found
    finally:
        await asyncio.gather(*(member.stop() for member in members))


def as_text(stack: str, found: dict[str, Any]) -> str:
    lines = []
    for name, result in found.items():
        lines.append(f"{stack}, {name}")
        for key, value in result.items():
            if isinstance(value, list) and value and isinstance(value[0], int | float):
                value = " / ".join(f"{v:,.6g}" for v in value)
            elif isinstance(value, float):
                value = f"{value:,.6g}"
            lines.append(f"    {key:22} {value}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--stack", nargs="+", choices=list(FILES), default=["tree", "flood"])
    parser.add_argument("--members", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=10.0, help="of small messages")
    parser.add_argument("--runs", nargs="+", default=["paced", "small", "large"])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    all_kinds = {
        "warm": Kind(1, 1.0, 100, 50),
        "paced": Kind(2, 5.0, 100, 100),
        "small": Kind(3, arguments.seconds, 100, 0),
        "large": Kind(4, 3.0, 256 << 10, 0),
    }
    kinds = [(name, all_kinds[name]) for name in ("warm", *arguments.runs)]
    failed = False
    for stack in arguments.stack:
        if stack == "libp2p" and importlib.util.find_spec("libp2p") is None:
            print("libp2p is not installed", file=sys.stderr)
            continue
        found = asyncio.run(measured(stack, arguments.members, kinds))
        print(json.dumps({stack: found}) if arguments.json else as_text(stack, found), flush=True)
        for result in found.values():
            failed |= bool(result.get("unaccounted_bundles") or result.get("unaccounted_messages"))
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
