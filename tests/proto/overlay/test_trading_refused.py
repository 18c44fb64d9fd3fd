"""Whom a trader asks after a refusal, and how a full node trades."""

from __future__ import annotations

from meshwalk.config import TradingConfig
from meshwalk.wire.frames import Purpose

from .knowing import config
from .test_trading import CONFIG, LOOK_S, TRADING, Scene, randoms, traded


def test_after_a_refusal_the_next_farthest_has_its_turn() -> None:
    """One that needs its link is no reason to keep all others."""
    scene = Scene()
    net, trader = scene.net, scene.trader
    scene.net.lose(scene.far, scene.others[0])
    middle = net.add(CONFIG)
    for other in scene.others[2:]:
        net.link(middle, other)
    scene.distance(trader, middle, 0.3)
    net.link(trader, middle)
    net.run(TRADING.stay_s)
    assert trader.neighbours == {scene.far.number, scene.close.number, scene.near.number}
    assert scene.counts["refused"] == 1
    assert scene.counts["traded"] == 1


def test_after_a_refusal_the_next_closest_has_its_turn() -> None:
    scene = Scene()
    net, close = scene.net, scene.close
    while len(close.neighbours) < CONFIG.overlay.links_max:
        net.link(close, net.add(CONFIG))
    second = net.add(CONFIG)
    scene.distance(scene.trader, second, 0.1)
    net.knows_well(scene.trader, second)
    net.run(LOOK_S + 2)  # one look: the far neighbour's promise is still good
    assert scene.counts == {"begun": 1, "close peer refused": 1, "traded": 1}
    assert second.number in scene.trader.neighbours
    assert scene.far.number not in scene.trader.neighbours


def test_whoever_refused_is_asked_again_after_a_while() -> None:
    settings = config(
        links_min=2,
        links_max=6,
        links_random_min=1,
        trading=TradingConfig(interval_s=10.0, stay_s=60.0, again_s=40.0),
    )
    scene = Scene(settings)
    net = scene.net
    net.lose(scene.far, scene.others[0])
    net.run(40)
    assert scene.counts == {"begun": 1, "refused": 1}
    net.link(scene.far, scene.others[0])
    net.run(40)
    assert scene.counts == {"begun": 2, "refused": 1, "traded": 1}


def test_a_full_node_trades_without_ever_having_a_link_too_many() -> None:
    scene = Scene()
    net, trader = scene.net, scene.trader
    most = CONFIG.overlay.links_max
    while len(trader.neighbours) < most:
        net.link(trader, net.add(CONFIG))
    seen = {len(trader.neighbours)}
    net.watch = lambda: seen.add(len(trader.neighbours))
    net.run(LOOK_S + 2)
    assert seen <= {most - 1, most}
    assert scene.counts == {"begun": 1, "traded": 1}
    assert traded(net) == [(0, scene.far.id)]
    assert scene.close.number in trader.neighbours
    assert len(trader.neighbours) == most


def fill(scene: Scene, purpose: Purpose = Purpose.CLOSER, count: int = 6) -> None:
    """Give the trader so many links."""
    while len(scene.trader.neighbours) < count:
        scene.net.link(scene.trader, scene.net.add(CONFIG), purpose)


def test_a_full_trader_whose_close_peer_refuses_keeps_the_far_one() -> None:
    scene = Scene()
    net, close = scene.net, scene.close
    fill(scene)
    while len(close.neighbours) < CONFIG.overlay.links_max:
        net.link(close, net.add(CONFIG))
    net.run(LOOK_S + 2)
    assert scene.counts == {"begun": 1, "close peer refused": 1}
    assert scene.far.number in scene.trader.neighbours


def test_a_node_with_links_beyond_its_maximum_parts_until_it_has_the_maximum() -> None:
    """It dials nobody: a close peer would be turned away as well."""
    scene = Scene()
    net, trader, most = scene.net, scene.trader, CONFIG.overlay.links_max
    fill(scene)
    fill(scene, Purpose.HEALING, count=most + 2)
    for node in net.nodes[7:]:
        net.link(node, net.add(CONFIG))  # they can spare the trader
        net.link(node, net.add(CONFIG))
    scene.distance(trader, net.nodes[7], 0.4)
    trader.overlay.trading.stop()
    net.run(TRADING.stay_s)
    net.knows_well(trader, scene.close)
    trader.overlay.trading.start(net.now)
    seen = {len(trader.neighbours)}
    net.watch = lambda: seen.add(len(trader.neighbours))
    for links in (most + 1, most):
        net.run(LOOK_S)
        net.knows_well(trader, scene.close)
        if links > most:
            assert [c for _, n, c in net.dials if n is trader] == []
    net.run(5 * LOOK_S)
    assert min(seen) == most
    assert len(trader.neighbours) == most
    assert randoms(trader) >= CONFIG.overlay.random_min
    assert scene.counts["parted"] == 2
    assert "full" not in scene.counts
    assert traded(net)[0] == (trader.number, scene.far.id), "the farthest goes first"


def test_whoever_parts_from_too_many_keeps_what_chance_chose() -> None:
    scene = Scene()
    net, trader = scene.net, scene.trader
    fill(scene)
    for neighbour in trader.overlay.membership.neighbours.values():
        neighbour.is_random = neighbour.peer == scene.far.id
    fill(scene, Purpose.HEALING, count=CONFIG.overlay.links_max + 1)
    net.run(10 * LOOK_S)
    assert scene.far.number in trader.neighbours


def test_a_link_that_has_just_healed_stays_for_a_while() -> None:
    scene = Scene(stays_s=0.0)
    fill(scene)
    fill(scene, Purpose.HEALING, count=CONFIG.overlay.links_max + 1)
    scene.net.run(TRADING.stay_s - 1)
    assert scene.counts == {}
