"""The join rules, against what can be said of them without running them."""

from __future__ import annotations

from random import Random

import pytest

from meshwalk.config import OverlayConfig
from meshwalk.errors import InvalidArgument
from meshwalk.sim.graphs import are_mutual, components
from meshwalk.sim.joinrules import (
    ENTRY,
    JOIN_RULES,
    REQUESTS_PER_LINK_MAX,
    Growth,
    Lost,
    Network,
    Walked,
    by_links,
    even_chance,
    exactly,
    fixed_length,
    grow,
    mixed_length,
    ours,
)


def links_of(growth: Growth) -> list[int]:
    return [len(neighbours) for neighbours in growth.adjacency]


@pytest.mark.parametrize("name", JOIN_RULES)
def test_every_rule_gives_a_graph_that_its_seed_decides(name: str) -> None:
    walk = JOIN_RULES[name].walk
    grown = [grow(walk, 150, 5, Random(seed)) for seed in (1, 1, 2)]
    assert are_mutual(grown[0].adjacency)
    assert len(grown[0].adjacency) == 150
    assert [join.node for join in grown[0].joins] == list(range(1, 150))
    assert grown[0] == grown[1]
    if name not in ("exactly-d", "fixed-length"):  # these leave nothing to chance
        assert grown[0].adjacency != grown[2].adjacency


@pytest.mark.parametrize("name", JOIN_RULES)
def test_requests_add_up(name: str) -> None:
    growth = grow(JOIN_RULES[name].walk, 150, 5, Random(4))
    for join in growth.joins:
        accepted = join.requests - sum(join.lost.values())
        wanted = min(5, join.node)
        assert accepted <= wanted
        if accepted < wanted and name != "ours-model":  # there, a split gives two
            gave_up = join.requests == 5 * REQUESTS_PER_LINK_MAX
            assert gave_up or join.lost[Lost.NOBODY_FREE] == 1


def test_even_chance_puts_most_requests_and_all_nodes_at_the_entry() -> None:
    growth = grow(even_chance, 2_000, 5, Random(1))
    firsts = [join.first_acceptor for join in growth.joins]
    # One half at once; of those that go on, a few come back.
    assert 0.48 < firsts.count(ENTRY) / len(firsts) < 0.60
    assert len(growth.adjacency[ENTRY]) > 0.95 * 2_000


def test_even_chance_loses_requests_while_the_entry_is_alone() -> None:
    first_joins = [grow(even_chance, 2, 1, Random(seed)).joins[0] for seed in range(200)]
    dead_ends = [join.lost[Lost.DEAD_END] for join in first_joins]
    assert 60 < sum(map(bool, dead_ends)) < 140  # one half
    assert all(join.requests == dead + 1 for join, dead in zip(first_joins, dead_ends, strict=True))


@pytest.mark.parametrize("links", [1, 5])
def test_by_links_the_entry_grows_with_the_root_of_all_requests(links: int) -> None:
    # Each of k N requests comes by once at least and is accepted with chance 1/(n+1), so that
    # n grows like the root of 2 k N; those that come by again add to it.
    growth = grow(by_links, 4_000, links, Random(1))
    root = (2 * links * 4_000) ** 0.5
    assert 0.9 * root < len(growth.adjacency[ENTRY]) < 1.5 * root
    assert min(links_of(growth)) >= links


def test_walks_of_one_length_give_a_star() -> None:
    growth = grow(fixed_length, 60, 5, Random(1))
    assert links_of(growth) == [59] + [1] * 59
    assert growth.joins[40].lost == {Lost.NEIGHBOUR: 5 * REQUESTS_PER_LINK_MAX - 1}


def test_walks_of_mixed_length_favour_those_that_came_early() -> None:
    growth = grow(mixed_length, 3_000, 5, Random(1))
    links = links_of(growth)
    assert min(links) == 5
    early, late = sum(links[:100]) / 100, sum(links[-1000:]) / 1000
    assert early > 6 * late
    # Chance by links: nodes with at least x links become rarer with the square of x.
    share = [sum(n >= x for n in links) / 3_000 for x in (10, 40)]
    assert 8 < share[0] / share[1] < 32
    assert any(join.lost[Lost.AT_ORIGIN] for join in growth.joins)
    assert growth.returns > 0


@pytest.mark.parametrize("links", [1, 3, 5])
def test_exactly_d_is_stuck_after_d_plus_one(links: int) -> None:
    growth = grow(exactly, 40, links, Random(1))
    assert links_of(growth) == [links] * (links + 1) + [0] * (39 - links)
    assert len(components(growth.adjacency)[0]) == links + 1
    assert all(join.lost == {Lost.NOBODY_FREE: 1} for join in growth.joins[links:])


def test_ours_keeps_its_bounds_and_stays_in_one_part() -> None:
    config = OverlayConfig()
    growth = grow(ours(config), 2_000, config.links_min, Random(1))
    links = links_of(growth)
    assert min(links[config.links_min :]) >= config.links_min
    assert max(links) <= config.links_max
    assert len(components(growth.adjacency)) == 1


def test_ours_splits_links_when_all_are_full() -> None:
    config = OverlayConfig(links_min=2, links_max=4)
    network = Network(2, Random(1))
    for _ in range(4):
        network.add_node()
    for one in range(5):
        for other in range(one):
            network.link(one, other)
    origin = network.add_node()
    walked = ours(config)(network, origin)
    assert walked.hops == config.walk_hops
    assert walked.lost is None
    assert walked.acceptor is not None
    network.link(origin, walked.acceptor)  # as the caller does
    assert [len(near) for near in network.adjacency] == [4, 4, 4, 4, 4, 2]
    assert are_mutual(network.adjacency)


def test_watched_joins_tell_where_their_links_end() -> None:
    growth = grow(fixed_length, 10, 2, Random(1), watched={3, 7})
    assert [join.distances for join in growth.joins if join.node in (3, 7)] == [[0], [0]]
    assert growth.joins[0].distances is None
    growth = grow(by_links, 300, 5, Random(1), watched={299})
    distances = growth.joins[-1].distances
    assert distances is not None
    assert len(distances) == 5
    assert 0 <= min(distances) <= max(distances) <= 4


def test_who_gets_no_link_gives_up() -> None:
    def never(network: Network, origin: int) -> Walked:
        return Walked(7, lost=Lost.HOP_LIMIT)

    growth = grow(never, 4, 2, Random(1))
    assert links_of(growth) == [0, 0, 0, 0]
    assert growth.joins[2].lost == {Lost.HOP_LIMIT: 2 * REQUESTS_PER_LINK_MAX}
    assert growth.hops == 7 * 3 * 2 * REQUESTS_PER_LINK_MAX


@pytest.mark.parametrize(("count", "links"), [(0, 5), (10, 0)])
def test_what_cannot_grow(count: int, links: int) -> None:
    with pytest.raises(InvalidArgument, match="one node on"):
        grow(by_links, count, links, Random(1))
