"""Going back to neighbours after time has passed unseen."""

from __future__ import annotations

import pytest

from meshwalk.config import LinkConfig
from meshwalk.wire.frames import Purpose

from .knowing import Net, Node, config

CONFIG = config()
IDLE_S = LinkConfig().idle_timeout_s


def with_anchors() -> tuple[Net, Node, list[Node]]:
    """A node and two neighbours that it has dialled, and noted."""
    net = Net()
    one, *others = (net.add(CONFIG) for _ in range(3))
    for other in others:
        net.hears_of(one, other)
        net.link(one, other)
    net.run(1)
    one.overlay.anchors.note()
    assert {entry.peer for entry in one.overlay.book.anchors()} == {o.id for o in others}
    net.dials.clear()
    return net, one, others


def goes_back_to(net: Net, one: Node) -> set[object]:
    return {
        connect.expected
        for _, node, connect in net.dials
        if node is one and connect.purpose is Purpose.RETURNING
    }


@pytest.mark.parametrize("later_s", [0.0, 0.2, IDLE_S - 1.0])
def test_it_goes_back_when_waking_turns_out_to_have_cost_all_links(later_s: float) -> None:
    net, one, others = with_anchors()
    net.do(one, one.overlay.woke(net.now))
    net.run(later_s)
    assert goes_back_to(net, one) == set()
    net.lose(one, others[0])
    assert goes_back_to(net, one) == set(), "there is one left"
    net.lose(one, others[1])
    assert goes_back_to(net, one) == {other.id for other in others}
    net.run(5)
    assert one.overlay.anchors.counts["returned"] >= 1


def test_links_that_end_for_other_reasons_are_no_waking() -> None:
    net, one, others = with_anchors()
    net.do(one, one.overlay.woke(net.now))
    net.run(IDLE_S + 1.0)
    for other in others:
        net.lose(one, other)
    net.run(5)
    assert goes_back_to(net, one) == set()


def test_no_more_return_than_a_node_has_anchors() -> None:
    """Who was only tested has been connected to as well: attackers could take all the places."""
    net = Net()
    one, *others = (net.add(CONFIG) for _ in range(CONFIG.book.anchors + 2))
    for other in others:
        net.hears_of(one, other)
        one.overlay.book.connected(other.id, net.now)
    for number, other in enumerate(others):
        assert one.overlay.anchors.may_return(other.id) is (number < CONFIG.book.anchors)
        net.link(other, one, purpose=Purpose.RETURNING)
        net.run(1)
