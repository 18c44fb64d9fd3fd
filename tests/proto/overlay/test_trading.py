"""Links are traded for closer ones, and nobody of the three loses what it must keep."""

from __future__ import annotations

import pytest

from meshwalk.config import Config, TradingConfig
from meshwalk.proto.overlay.effects import Say
from meshwalk.wire.frames import CloseReason, Purpose
from meshwalk.wire.messages import PartReply, PartRequest

from .knowing import Net, Node, config

TRADING = TradingConfig(interval_s=10.0, stay_s=60.0)
CONFIG = config(links_min=2, links_max=6, links_random_min=1, trading=TRADING)
LOOK_S = 1.5 * TRADING.interval_s  # by when a next look has been


class Scene:
    """A trader with a far and a near neighbour, and a close peer that it knows well.

    Everybody has one link more than it must have, all of them random.
    """

    def __init__(self, settings: Config = CONFIG, *, stays_s: float = TRADING.stay_s) -> None:
        self.net = net = Net()
        self.trader = net.add(settings)
        self.far, self.close = net.add(settings), net.add(settings)
        self.near = net.add(settings)
        self.others = [net.add(settings) for _ in range(4)]
        self.distance(self.trader, self.far, 0.5)
        self.distance(self.trader, self.close, 0.05)
        self.distance(self.trader, self.near, 0.06)
        net.link(self.trader, self.far)
        net.link(self.trader, self.near)
        for other in self.others[:2]:
            net.link(self.far, other)
        for other in self.others[2:]:
            net.link(self.close, other)
        net.run(stays_s)
        net.said.clear()
        net.knows_well(self.trader, self.close)
        self.trader.overlay.trading.start(net.now)

    def distance(self, one: Node, two: Node, rtt_s: float) -> None:
        self.net.rtts_s[frozenset({one.number, two.number})] = rtt_s

    @property
    def counts(self) -> dict[str, int]:
        return dict(self.trader.overlay.trading.counts)


def traded(net: Net) -> list[tuple[int, object]]:
    return [(n.number, link.peer) for _, n, link, why in net.closed if why is CloseReason.TRADED]


def randoms(node: Node) -> int:
    return node.overlay.membership.randoms


# One trade.


def test_a_far_neighbour_is_let_go_for_a_close_peer() -> None:
    scene = Scene()
    net, trader = scene.net, scene.trader
    least = [10]
    net.watch = lambda: least.append(len(trader.neighbours))
    net.run(LOOK_S + 2)
    assert trader.neighbours == {scene.close.number, scene.near.number}
    assert scene.far.neighbours == {4, 5}
    assert min(least) == 2  # it makes before it breaks
    assert traded(net) == [(0, scene.far.id)]
    assert scene.counts == {"begun": 1, "traded": 1}
    kept = trader.overlay.membership.neighbours[scene.close.id]
    assert kept.link.purpose is Purpose.CLOSER
    assert not kept.is_random
    assert not scene.close.overlay.membership.neighbours[trader.id].is_random
    assert not trader.overlay.trading.attempts


@pytest.mark.parametrize(("rtt_s", "is_traded"), [(0.36, False), (0.34, True)])
def test_it_has_to_be_closer_by_a_good_share(rtt_s: float, is_traded: bool) -> None:
    scene = Scene()
    scene.net.knows_well(scene.trader, scene.close, rtt_s)
    scene.net.run(LOOK_S + 2)
    assert bool(traded(scene.net)) is is_traded


def test_a_link_stays_for_a_while() -> None:
    scene = Scene(stays_s=TRADING.stay_s / 2)
    scene.net.run(TRADING.stay_s / 2 - 1)
    assert scene.counts == {}
    scene.net.run(LOOK_S + 2)
    assert scene.counts == {"begun": 1, "traded": 1}


def test_who_has_not_been_tested_lately_is_no_choice() -> None:
    scene = Scene()
    entry = scene.trader.overlay.book.entries[scene.close.id]
    entry.tested_at = scene.net.now - 2 * CONFIG.book.retest_s
    scene.net.run(3 * LOOK_S)
    assert scene.counts == {}


def test_a_far_neighbour_that_needs_the_link_keeps_it() -> None:
    scene = Scene()
    scene.net.lose(scene.far, scene.others[0])
    scene.net.run(LOOK_S + 2)
    assert scene.counts == {"begun": 1, "refused": 1}
    assert scene.far.overlay.trading.counts == {"not granted": 1}
    assert [c.purpose for _, _, c in scene.net.dials] == []


def test_a_far_neighbour_keeps_its_random_links() -> None:
    scene = Scene()
    for neighbour in scene.far.overlay.membership.neighbours.values():
        neighbour.is_random = neighbour.peer == scene.trader.id
    scene.net.run(LOOK_S + 2)
    assert scene.counts == {"begun": 1, "refused": 1}


def test_a_trader_keeps_its_own_random_links() -> None:
    scene = Scene()
    scene.trader.overlay.membership.neighbours[scene.near.id].is_random = False
    scene.net.run(3 * LOOK_S)
    assert scene.counts == {}


def test_a_trader_below_its_minimum_looks_for_links_first() -> None:
    scene = Scene()
    scene.net.lose(scene.trader, scene.near)
    scene.net.run(3 * LOOK_S)
    assert scene.counts == {}


def test_a_close_peer_without_room_refuses_and_the_far_link_stays() -> None:
    scene = Scene()
    net, close = scene.net, scene.close
    while len(close.neighbours) < CONFIG.overlay.links_max:
        net.link(close, net.add(CONFIG))
    net.run(LOOK_S + 2)
    assert scene.counts == {"begun": 1, "close peer refused": 1}
    assert scene.trader.neighbours == {scene.far.number, scene.near.number}


def test_a_close_peer_keeps_room_for_random_links() -> None:
    scene = Scene()
    net, close = scene.net, scene.close
    others = CONFIG.overlay.links_max - CONFIG.overlay.random_min
    for neighbour in close.overlay.membership.neighbours.values():
        neighbour.is_random = False
    while len(close.neighbours) < others:
        net.link(close, net.add(CONFIG), Purpose.CLOSER)
    assert close.overlay.membership.has_room
    net.run(LOOK_S + 2)
    assert scene.counts == {"begun": 1, "close peer refused": 1}


def test_a_close_peer_that_is_gone_counts_as_a_failure_and_the_far_link_stays() -> None:
    scene = Scene()
    scene.net.crash(scene.close)
    scene.net.run(LOOK_S + 2)
    assert scene.counts == {"begun": 1, "dial failed": 1}
    assert scene.trader.overlay.book.entries[scene.close.id].failures == 1
    assert scene.far.number in scene.trader.neighbours


def test_a_far_neighbour_that_does_not_answer_is_not_waited_for() -> None:
    scene = Scene()
    scene.far.is_silent = True
    scene.net.run(LOOK_S + TRADING.promise_s)
    assert scene.counts["timed out"] >= 1
    scene.far.is_silent = False
    scene.net.run(2 * LOOK_S)
    assert scene.counts["traded"] == 1


def test_a_far_link_that_ends_meanwhile_is_no_trade() -> None:
    scene = Scene()
    net = scene.net

    def lose() -> None:
        if any(c.purpose is Purpose.CLOSER for _, _, c in net.dials):
            net.watch = lambda: None
            net.lose(scene.trader, scene.far)

    net.watch = lose
    net.run(LOOK_S + 2)
    assert scene.counts == {"begun": 1, "far link gone": 1}
    assert scene.trader.neighbours == {scene.close.number, scene.near.number}


def test_a_neighbour_lost_meanwhile_is_made_up_for_and_the_far_link_stays() -> None:
    """Letting the far one go would leave fewer than the minimum."""
    scene = Scene(config(links_min=2, links_max=6, links_random_min=0, trading=TRADING))
    net = scene.net

    def lose() -> None:
        if any(c.purpose is Purpose.CLOSER for _, _, c in net.dials):
            net.watch = lambda: None
            net.lose(scene.trader, scene.near)

    net.watch = lose
    net.run(LOOK_S + 2)
    assert scene.trader.neighbours == {scene.close.number, scene.far.number}
    assert traded(net) == []


# Promises.


def ask(net: Net, one: Node, two: Node) -> bool:
    """Whether a neighbour may part."""
    before = len(list(net.of(PartReply)))
    net.say(one, two, PartRequest())
    net.run(0.2)
    return list(net.of(PartReply))[before].body.is_granted


def test_what_can_be_spared_once_is_promised_once() -> None:
    scene = Scene()
    net, far = scene.net, scene.far
    assert ask(net, scene.others[0], far)
    assert not ask(net, scene.others[1], far)
    net.run(TRADING.promise_s)
    assert ask(net, scene.others[1], far)


def test_nobody_can_hold_a_promise_for_ever() -> None:
    """It would keep who has promised from trading links of its own."""
    scene = Scene()
    net, far, other = scene.net, scene.far, scene.others[0]
    granted = []
    scene.trader.overlay.trading.stop()
    while net.now < TRADING.stay_s + 1.5 * TRADING.again_s:
        granted += [net.now] * ask(net, other, far)
        net.run(5)
    assert len(granted) == 2
    assert granted[1] - granted[0] > TRADING.again_s - 5


def test_who_was_promised_and_did_not_trade_does_not_ask_in_vain() -> None:
    scene = Scene()
    scene.net.crash(scene.close)
    scene.net.run(TRADING.again_s / 2)
    assert scene.counts == {"begun": 1, "dial failed": 1}
    assert scene.far.overlay.trading.counts == {"granted": 1}


def test_a_promise_ends_with_its_link() -> None:
    scene = Scene()
    net, far = scene.net, scene.far
    net.link(far, net.add(CONFIG))
    assert ask(net, scene.others[0], far)
    net.lose(scene.others[0], far)
    assert ask(net, scene.others[1], far)
    assert len(far.neighbours) == 3


def test_a_random_link_that_is_promised_away_is_not_counted_on() -> None:
    """A node has promised one random link, and must not trade its other one away."""
    scene = Scene()
    net, trader = scene.net, scene.trader
    third = net.add(CONFIG)
    net.link(trader, third, Purpose.CLOSER)
    # Three links, of which the far and the near one are random; the near one may part.
    assert ask(net, scene.near, trader)
    net.run(LOOK_S + 2)
    net.lose(scene.near, trader)  # as it has been promised
    assert randoms(trader) >= CONFIG.overlay.random_min


def test_the_link_that_is_about_to_go_is_not_counted_on() -> None:
    """While one random link is traded, the other one is not given away."""
    scene = Scene()
    net, trader, far = scene.net, scene.trader, scene.far
    net.link(trader, net.add(CONFIG), Purpose.CLOSER)
    far.is_silent = True  # so that the trade takes long
    net.run(LOOK_S)
    assert scene.counts == {"begun": 1}
    assert not ask(net, scene.near, trader)


def test_two_ends_that_would_trade_the_same_link_keep_it() -> None:
    scene = Scene()
    net, far = scene.net, scene.far
    closer = net.add(CONFIG)
    for other in scene.others[2:]:
        net.link(closer, other)
    scene.distance(far, closer, 0.05)
    net.knows_well(far, closer)
    far.overlay.trading.start(net.now)
    for node in (scene.trader, far):  # both look at once
        node.overlay.trading._next_at = net.now
        net.do(node, node.overlay.tick("trading", net.now))
    net.run(0.5)
    assert len(list(net.of(PartRequest))) == 2
    assert [said.body.is_granted for said in net.of(PartReply)] == [False, False]


def test_replies_to_no_question_are_ignored() -> None:
    scene = Scene()
    net, trader = scene.net, scene.trader
    for _ in range(10):
        net.say(scene.near, trader, PartReply(is_granted=True), in_reply_to=1)
    net.run(0.5)
    assert net.dials == []
    scene.far.is_silent = True
    net.run(LOOK_S)
    assert scene.counts["begun"] == 1
    trade = trader.overlay.trading._trade
    assert trade is not None
    net.say(scene.near, trader, PartReply(is_granted=True), in_reply_to=trade.asked)
    net.run(0.5)
    assert net.dials == []


def test_asking_a_thousand_times_costs_an_answer_each_and_no_more() -> None:
    scene = Scene()
    net, far = scene.net, scene.far
    for _ in range(1000):
        end = scene.trader.ends[scene.trader.link_to(far).number]
        net.do(scene.trader, [Say(end.link.number, 1, PartRequest())])
    net.run(1)
    assert len(far.overlay.trading._promised) == 1
