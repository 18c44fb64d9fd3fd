"""The way of a traced broadcast as a tree with times: pure functions over the answer of /v1/trace.

peer            hops  on the link  since sent  link RTT
you (k3v7abcd)
├ x2k7qw3a         1      0.21 ms     0.21 ms   0.42 ms
│ └ b4mwq2ta       2      0.35 ms     0.56 ms   0.61 ms  repaired
└ 5hqyl2na         1      0.24 ms     0.24 ms   0.40 ms
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
from rich.table import Table
from rich.text import Text

from meshwalk.cli.render import colour_of, counted, printable, round_trip
from meshwalk.wire.peerid import SHORT_CHARACTERS, PeerId

ROWS_MAX: Final = 200  # guess: more than anyone reads; --json has them all
INDENT_MAX: Final = 16  # guess: deeper ones stand below each other; a tree of 10,000 has 8 levels
SILENT_SHOWN_MAX: Final = 5  # guess: a line of 80 columns


class Row(msgspec.Struct, frozen=True):
    """One line of the tree; `hop` is None for a peer that told nothing of itself."""

    guides: str
    peer: str
    hop: Mapping[str, Any] | None


def rows_of(answer: Mapping[str, Any]) -> Iterator[Row]:
    """The lines, each peer below the one that it had the broadcast from, the fastest first."""
    by_parent: dict[str, list[Mapping[str, Any]]] = {}
    for hop in answer["hops"]:
        by_parent.setdefault(hop["parent"], []).append(hop)
    for children in by_parent.values():
        children.sort(key=lambda hop: (hop["took_s"], hop["peer"]), reverse=True)
    told = {hop["peer"] for hop in answer["hops"]}
    roots = [answer["origin"], *(parent for parent in by_parent if parent not in told)]
    # What is left below no root goes in a circle: somebody has invented it.
    for root in dict.fromkeys([*roots, *by_parent]):
        if root != answer["origin"] and root not in by_parent:
            continue
        yield Row("", root, None)
        # Not by recursion: what strangers tell may be deeper than the stack.
        waiting = [("", hop, at == 0) for at, hop in enumerate(by_parent.pop(root, ()))]
        while waiting:
            guides, hop, is_last = waiting.pop()
            yield Row(guides + ("└ " if is_last else "├ "), hop["peer"], hop)
            below = guides + ("  " if is_last else "│ ")
            if len(below) > 2 * INDENT_MAX:
                below = guides
            waiting += [
                (below, child, at == 0) for at, child in enumerate(by_parent.pop(hop["peer"], ()))
            ]


def tree(answer: Mapping[str, Any]) -> Table:
    """The tree, for a rich console of any width."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("peer", no_wrap=True)
    for heading in ("hops", "on the link", "since sent", "link RTT"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    for number, row in enumerate(rows_of(answer)):
        if number == ROWS_MAX:
            table.add_row(f"… {len(answer['hops']) - number + 1:,} more; --json has them all")
            break
        table.add_row(*_cells(row, answer["origin"]))
    return table


def summary(answer: Mapping[str, Any]) -> list[str]:
    """What is to be said below the tree."""
    hops = answer["hops"]
    parts = [f"{counted(answer['peers'], 'peer')} answered"]
    if not answer["is_complete"]:
        parts.append("not all receipts came in time")
    if hops:
        parts.append(f"the last {counted(max(hop['hops'] for hop in hops), 'hop')} away")
    timed = [hop for hop in hops if hop["total_s"] is not None]
    if timed:
        slowest = max(timed, key=lambda hop: (hop["total_s"], hop["peer"]))
        parts.append(
            f"the slowest {_short(slowest['peer'])} after {round_trip(slowest['total_s'])}"
        )
    if repaired := sum(hop["was_repaired"] for hop in hops):
        parts.append(f"{repaired:,} by a repair")
    lines = ["; ".join(parts)]
    if answer["peers"] > len(hops):
        quiet = answer["peers"] - len(hops)
        lines.append(f"{counted(quiet, 'peer')} answered without a word of the way")
    if silent := answer["silent"]:
        names = ", ".join(map(_short, silent[:SILENT_SHOWN_MAX]))
        more = f" and {len(silent) - SILENT_SHOWN_MAX:,} more" * (len(silent) > SILENT_SHOWN_MAX)
        lines.append(f"no report of {names}{more}")
    return lines


def _cells(row: Row, origin: str) -> list[Text]:
    name = Text(row.guides, style="#808080")
    name.append(_short(row.peer), style=colour_of(PeerId.parse(row.peer)))
    hop = row.hop
    if hop is None:
        if row.peer == origin:
            return [Text("you (").append_text(name).append(")")]
        return [name, *map(Text, ("-", "-", "-", "-", "told nothing of itself"))]
    total_s = hop["total_s"]
    return [
        name,
        Text(f"{hop['hops']}"),
        Text(round_trip(hop["took_s"])),
        Text(round_trip(total_s)),
        Text(round_trip(hop["rtt_s"])),
        Text("repaired" if hop["was_repaired"] else ""),
    ]


def _short(peer: str) -> str:
    return printable(peer[:SHORT_CHARACTERS])
