"""No way to a link leads past the bound on links to one address group, whoever dials."""

from __future__ import annotations

import pytest

from meshwalk.config import BookConfig, Config
from meshwalk.proto.overlay.effects import Say
from meshwalk.sim.world import World
from meshwalk.wire.messages import (
    JoinOutcome,
    JoinReply,
    JoinRequest,
)

from .bench import Bench, connects, peer_of, record_of, says

GROUPED = Config(book=BookConfig(groups_private=True))


def with_enough_of_one_group() -> tuple[Bench, list[Say]]:
    """A node that lacks links and has two neighbours, both of 10.0; and what it said."""
    bench = Bench(links_min=4, links_max=8, others=GROUPED)
    assert bench.settings.overlay.links_per_group_max == 2
    effects = bench.open(bench.link(1))
    effects += bench.open(bench.link(2))
    return bench, says(effects)


def test_an_acceptor_that_is_to_be_dialled() -> None:
    """A defect: who answers DIAL_ME got a link whatever its group."""
    bench, said = with_enough_of_one_group()
    walk = next(s for s in said if isinstance(s.body, JoinRequest))
    neighbours = bench.overlay.membership.neighbours.values()
    link = next(n.link for n in neighbours if n.link.number == walk.link)
    near = JoinReply(JoinOutcome.DIAL_ME, 1, record_of(5))
    assert connects(bench.hear(link, near, to=walk.id)) == []
    assert bench.overlay.walks.failures == 1

    bench, said = with_enough_of_one_group()
    walk = next(s for s in said if isinstance(s.body, JoinRequest))
    neighbours = bench.overlay.membership.neighbours.values()
    link = next(n.link for n in neighbours if n.link.number == walk.link)
    far = JoinReply(JoinOutcome.DIAL_ME, 1, record_of(5, "tcp://10.9.0.5:1"))
    assert [c.expected for c in connects(bench.hear(link, far, to=walk.id))] == [peer_of(5)]


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_a_network_within_few_groups_grows_all_the_same(groups: int) -> None:
    config = Config(book=BookConfig(groups_private=True))
    world = World(groups, encodes=False)
    for number in range(30):
        node = world.add(config, group=number % groups)
        if number:
            node.join(world.nodes[0])
        world.run(0.3)
    world.run(20)
    least = min(len(node.neighbours) for node in world.nodes)
    assert least >= config.overlay.links_min
    assert max(len(node.neighbours) for node in world.nodes) <= config.overlay.links_max


def test_fragments_within_one_group_are_joined() -> None:
    """A defect: all had links enough of the group that the other fragment was of as well."""
    world = World(3, encodes=False)
    for number in range(24):
        node = world.add(GROUPED)
        if number:
            node.join(world.nodes[0])
        world.run(0.3)
    world.run(120)
    half = world.nodes[:12]
    world.conditions.partition([n.host for n in half], [n.host for n in world.nodes[12:]])
    world.changed()
    world.run(200)
    ours = {node.id for node in half}
    assert all(set(node.neighbours) <= ours for node in half)
    world.conditions.rejoin()
    world.changed()
    assert world.run_until(lambda: any(set(n.neighbours) - ours for n in half), 120)
