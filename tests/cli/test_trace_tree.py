"""The tree of a traced broadcast: shapes true and invented, widths, and the words below it."""

from __future__ import annotations

from typing import Any

import pytest

from meshwalk.cli import trace_tree
from meshwalk.cli.render import as_text
from meshwalk.cli.trace_tree import rows_of, summary, tree
from meshwalk.wire.peerid import PeerId


def peer(number: int) -> str:
    return PeerId(number.to_bytes(32, "little")).text


def short(number: int) -> str:
    return peer(number)[:8]


def hop(number: int, parent: int, hops: int, *, took_s: float = 0.001, **more: Any) -> Any:
    told = {"peer": peer(number), "parent": peer(parent), "hops": hops, "took_s": took_s}
    return {**told, "total_s": hops * 0.001, "rtt_s": 0.002, "was_repaired": False, **more}


def answer(*hops: Any, **more: Any) -> dict[str, Any]:
    told = {"origin": peer(0), "number": 1, "peers": len(hops), "is_complete": True, "silent": []}
    return {**told, "hops": list(hops), **more}


def test_a_tree() -> None:
    told = answer(
        hop(1, 0, 1, took_s=0.5),
        hop(2, 0, 1, rtt_s=None),
        hop(3, 2, 2, was_repaired=True, total_s=0.0123),
        hop(4, 2, 2, took_s=0.002),
    )
    assert as_text(tree(told), 80).splitlines() == [
        "peer            hops  on the link  since sent  link RTT",
        f"you ({short(0)})",
        f"├ {short(2)}         1      1.00 ms     1.00 ms         -",
        f"│ ├ {short(3)}       2      1.00 ms       12 ms   2.00 ms  repaired",
        f"│ └ {short(4)}       2      2.00 ms     2.00 ms   2.00 ms",
        f"└ {short(1)}         1       500 ms     1.00 ms   2.00 ms",
    ]
    assert summary(told) == [
        f"4 peers answered; the last 2 hops away; the slowest {short(3)} after 12 ms; 1 by a repair"
    ]


def test_what_hangs_on_nothing_is_shown_too() -> None:
    lost = hop(1, 9, 3, total_s=None)
    circle = [hop(5, 6, 1, total_s=None), hop(6, 5, 1, total_s=None)]
    rows = list(rows_of(answer(lost, *circle, hop(7, 7, 1, total_s=None))))
    told = [row.peer for row in rows if row.hop is not None]
    assert sorted(told) == sorted(map(peer, (1, 5, 6, 7)))
    assert [row.peer for row in rows if row.hop is None][:2] == [peer(0), peer(9)]
    shown = as_text(tree(answer(lost)), 80)
    assert "told nothing of itself" in shown
    assert "-" in shown.splitlines()[-1]


def test_a_way_deeper_than_the_stack_and_wider_than_a_screen() -> None:
    chain = [hop(number + 1, number, number + 1) for number in range(3000)]
    assert len(list(rows_of(answer(*chain)))) == 3001
    shown = as_text(tree(answer(*chain)), 120).splitlines()
    assert len(shown) == 1 + trace_tree.ROWS_MAX + 1
    assert "2,801 more; --json has them all" in shown[-1]
    assert max(map(len, shown)) <= 120


@pytest.mark.parametrize("columns", [80, 120])
def test_an_ordinary_depth_fits(columns: int) -> None:
    chain = [hop(number + 1, number, number + 1, was_repaired=True) for number in range(8)]
    shown = as_text(tree(answer(*chain)), columns).splitlines()
    assert len(shown) == 10
    assert all(line.endswith("repaired") for line in shown[2:])
    assert short(8) in shown[-1]


def test_who_said_nothing() -> None:
    silent = [peer(number) for number in range(1, 9)]
    told = answer(hop(9, 0, 1), peers=4, silent=silent, is_complete=False)
    first, second, third = summary(told)
    assert first.startswith("4 peers answered; not all receipts came in time; ")
    assert second == "3 peers answered without a word of the way"
    assert third.endswith("and 3 more")
    assert summary(answer()) == ["no peers answered"]
