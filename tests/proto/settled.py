"""Networks that have settled, and what must be true of one."""

from __future__ import annotations

from meshwalk.config import Config
from meshwalk.proto.link import LinkState
from meshwalk.sim.node import SimNode
from meshwalk.wire.frames import Purpose
from recorder import RecordedWorld

PERIODIC = 6  # of a node: its record, anchors, beacons, tests, trades, and news to tell


def grown(count: int, seed: int, config: Config | None = None) -> RecordedWorld:
    network = RecordedWorld(seed)
    network.grow(count, config)
    assert network.run_until(network.is_settled, 30)
    return network


def places_of(node: SimNode) -> int:
    """How many links a node may have, those between two fragments included."""
    config = node.core.config.overlay
    return config.links_max + config.healing_places


def check_books_balance(network: RecordedWorld) -> None:
    """Events tell each node's neighbours, and nothing is left of what has ended."""
    for node in network.up:
        balance = {peer: n for peer, n in network.recorder.net_changes(node).items() if n}
        assert balance == dict.fromkeys(node.neighbours, 1)
        core = node.core
        young = [
            link
            for link in core.connections.links.values()
            if link.state in (LinkState.SECURING, LinkState.GREETING)
        ]
        assert core.connections.half_open == sum(not link.outbound for link in young)
        assert core.connections._dialling == sum(link.outbound for link in young)
        assert sum(core.connections._hosts.values()) == len(core.connections.links)
        assert network.recorder.most_links[node] <= places_of(node)


def check_at_rest(network: RecordedWorld) -> None:
    """Nothing is under way but tests, and nothing is left of what has been."""
    check_books_balance(network)
    for node in network.up:
        overlay = node.core.overlay
        carrier, walks, membership = overlay.carrier, overlay.walks, overlay.membership
        assert not carrier.acceptances
        assert not carrier.carried
        assert not carrier.splits
        assert not walks.walks
        assert not walks.late
        assert not walks.attempts
        assert not membership.places
        assert membership.walks_under_way == 0
        assert not overlay.vouching._suspicions
        assert not overlay.vouching._inquiries
        assert not overlay.trading.attempts
        assert not overlay.parting._heirs
        assert not overlay.healing.attempts
        links = node.core.connections.links
        # What it is for stands in the greeting: a test may be about to begin.
        links = {n: link for n, link in links.items() if link.outbound or link.is_open}
        others = [link for link in links.values() if not link.is_standing]
        assert {link.purpose for link in others} <= {Purpose.PROBE}
        assert len(links) == len(node.neighbours) + len(others)
        for numbers in (
            carrier._rates,
            overlay.beacons._rates,
            overlay.vouching._rates,
            overlay.healing._questions,
        ):
            assert set(numbers) <= set(links)
        assert set(overlay.exchange._counterparties) == set(node.neighbours)
        # One timer a link: nothing ticks for what has ended.
        assert node.core.statistics().timers <= len(links) + PERIODIC + 1


def check_broadcasts(network: RecordedWorld, origin: SimNode, count: int) -> None:
    before = {node: len(network.recorder.deliveries[node]) for node in network.up}
    for n in range(count):
        origin.broadcast(n.to_bytes(4, "big"))
    network.run(5)
    for node in network.up:
        got = [
            d.body
            for d in network.recorder.deliveries[node][before[node] :]
            if d.origin == origin.id
        ]
        wanted = 0 if node is origin else count
        assert got == [n.to_bytes(4, "big") for n in range(wanted)]
