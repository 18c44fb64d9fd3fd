"""What becomes of the reports of a traced broadcast, true and invented."""

from __future__ import annotations

import pytest

from meshwalk.net import tracing
from meshwalk.net.tracing import Trace, hops_of, silent_of
from meshwalk.wire.gossip import HopSeen
from meshwalk.wire.peerid import PeerId


def peer(number: int) -> PeerId:
    return PeerId(bytes([number]) * 32)


def seen(number: int, parent: int, hops: int = 1, took_us: int = 1000, rtt_us: int = 0) -> HopSeen:
    return HopSeen(peer(number), peer(parent), hops, took_us, rtt_us, False)


def traced(*told: HopSeen) -> Trace:
    hops = hops_of(told, peer(0))
    return Trace(peer(0), 1, len(told), tuple(hops), (), True)


def test_parents_come_first_whatever_the_order_of_the_reports() -> None:
    told = [seen(3, 2, 3), seen(4, 1, 2), seen(2, 1, 2), seen(1, 0)]
    assert [hop.peer for hop in hops_of(told, peer(0))] == [peer(1), peer(4), peer(2), peer(3)]


def test_a_path_adds_up_its_times() -> None:
    trace = traced(seen(1, 0, 1, 1000, 2000), seen(2, 1, 2, 500), seen(9, 0))
    path = trace.path(peer(2))
    assert [hop.peer for hop, _ in path] == [peer(1), peer(2)]
    assert [total_s for _, total_s in path] == pytest.approx([0.001, 0.0015])
    assert [hop.rtt_s for hop, _ in path] == [0.002, None]
    assert trace.path(peer(0)) == trace.path(peer(7)) == []


def test_a_way_with_a_gap_or_in_a_circle_is_none() -> None:
    trace = traced(seen(2, 1, 2), seen(5, 6), seen(6, 5), seen(7, 7))
    assert {hop.peer for hop in trace.hops} == {peer(2), peer(5), peer(6), peer(7)}
    for number in (2, 5, 6, 7):
        assert trace.path(peer(number)) == []


def test_each_peer_counts_once_and_nobody_speaks_for_the_origin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = [seen(1, 0), seen(1, 2), seen(0, 1), seen(3, 1)]
    found = hops_of(told, peer(0))
    assert [(hop.peer, hop.parent) for hop in found] == [(peer(1), peer(0)), (peer(3), peer(1))]
    monkeypatch.setattr(tracing, "HOPS_KEPT_MAX", 1)
    assert [hop.peer for hop in hops_of(told, peer(0))] == [peer(1)]


def test_who_says_nothing_of_itself() -> None:
    hops = hops_of([seen(2, 1, 2), seen(3, 0)], peer(0))
    assert silent_of(hops, peer(0), [peer(3), peer(4)]) == (peer(4), peer(1))
