"""Measures of graphs, against graphs whose measures are known."""

from __future__ import annotations

from random import Random

import pytest

from meshwalk.errors import InvalidArgument
from meshwalk.sim.graphs import (
    UNREACHED,
    Adjacency,
    are_mutual,
    clustering_coefficient,
    components,
    degree_histogram,
    distance_histogram,
    distances_from,
    everyone_up,
    fail_at_random,
    fail_highest_degrees,
    flood,
    largest_component_share,
    mean_flood_reliability,
    mean_shortest_path,
    random_regular,
    surviving_share,
)

RING = [[5, 1], [0, 2], [1, 3], [2, 4], [3, 5], [4, 0]]
TRIANGLE_WITH_TAIL = [[1, 2], [0, 2], [0, 1, 3], [2]]
STAR = [[1, 2, 3, 4], [0], [0], [0], [0]]
TWO_PARTS = [[1], [0, 2], [1], [4], [3], []]


@pytest.fixture(scope="module")
def five_regular() -> Adjacency:
    return random_regular(10_000, 5, Random(7))


def test_degrees() -> None:
    assert degree_histogram(STAR) == [(1, 4), (4, 1)]
    assert degree_histogram([]) == []


def test_mutual() -> None:
    assert all(map(are_mutual, (RING, STAR, TWO_PARTS)))
    assert not are_mutual([[1], []])
    assert not are_mutual([[0]])
    assert not are_mutual([[1, 1], [0, 0]])


def test_clustering() -> None:
    assert clustering_coefficient(STAR) == 0
    assert clustering_coefficient([[1, 2], [0, 2], [0, 1]]) == 1
    # 1 + 1 + one of three pairs + 0, over four nodes.
    assert clustering_coefficient(TRIANGLE_WITH_TAIL) == pytest.approx((2 + 1 / 3) / 4)


def test_components_come_largest_first_and_without_the_failed() -> None:
    assert components(TWO_PARTS) == [[0, 1, 2], [3, 4], [5]]
    assert components(RING, bytearray([1, 1, 0, 1, 1, 0])) == [[0, 1], [3, 4]]
    assert largest_component_share(TWO_PARTS) == 0.5
    assert largest_component_share(RING, bytearray([1, 1, 0, 1, 0, 0])) == pytest.approx(2 / 3)
    assert largest_component_share(RING, bytearray(6)) == 0


def test_distances() -> None:
    assert distances_from(RING, 0) == [0, 1, 2, 3, 2, 1]
    assert distances_from(RING, 0, bytearray([1, 0, 1, 1, 1, 1])) == [0, UNREACHED, 4, 3, 2, 1]
    assert distances_from(RING, 1, bytearray([1, 0, 1, 1, 1, 1])) == [UNREACHED] * 6
    assert distance_histogram([0, 1, 1, UNREACHED]) == [(UNREACHED, 1), (0, 1), (1, 2)]
    assert mean_shortest_path(RING, Random(1)) == pytest.approx(9 / 5)
    assert mean_shortest_path(STAR, Random(1), sources=5) == pytest.approx((4 + 4 * 7) / 20)
    assert mean_shortest_path([[], []], Random(1)) == 0


def test_failures_take_down_the_same_number() -> None:
    assert fail_highest_degrees(STAR, 0.2) == bytearray([0, 1, 1, 1, 1])
    assert fail_highest_degrees(RING, 0.5) == bytearray([0, 0, 0, 1, 1, 1])
    up = fail_at_random(RING, 0.5, Random(3))
    assert sum(up) == 3
    assert up == fail_at_random(RING, 0.5, Random(3))
    assert any(up != fail_at_random(RING, 0.5, Random(seed)) for seed in range(20))
    assert sum(fail_at_random(RING, 1, Random(1))) == 0
    with pytest.raises(InvalidArgument, match="from 0 to 1"):
        fail_highest_degrees(RING, 1.5)


def test_flood_counts_hops_and_copies() -> None:
    # Each of the ring sends on once, the source twice: 7 copies for 5 that got one.
    around = flood(RING, 0)
    assert (around.reached, around.last_hop, around.copies) == (6, 3, 7)
    assert around.redundancy == pytest.approx(7 / 5 - 1)
    assert flood(STAR, 1).redundancy == 0
    assert flood(TWO_PARTS, 5).redundancy == 0
    assert flood(RING, 1, bytearray([1, 0, 1, 1, 1, 1])).reached == 0


@pytest.mark.parametrize(
    ("count", "degree"), [(2, 1), (6, 5), (6, 4), (6, 2), (9, 6), (9, 4), (50, 3), (501, 8)]
)
def test_random_regular_is_regular(count: int, degree: int) -> None:
    for seed in range(5):
        graph = random_regular(count, degree, Random(seed))
        assert degree_histogram(graph) == [(degree, count)]
        assert are_mutual(graph)


def test_random_regular_is_random_by_its_seed() -> None:
    assert random_regular(50, 3, Random(1)) == random_regular(50, 3, Random(1))
    assert random_regular(50, 3, Random(1)) != random_regular(50, 3, Random(2))


@pytest.mark.parametrize(("count", "degree"), [(5, 3), (4, 4), (4, -2)])
def test_impossible_regular_graphs(count: int, degree: int) -> None:
    with pytest.raises(InvalidArgument, match="even product"):
        random_regular(count, degree, Random(1))


def test_a_flood_without_failures_is_as_in_the_papers(five_regular: Adjacency) -> None:
    # The Plumtree paper floods 10,000 nodes with 5 links: redundancy 3; HyParView: 9 hops.
    done = flood(five_regular, 0)
    assert done.reached == 10_000
    assert done.redundancy == pytest.approx(3, abs=0.001)
    assert 7 <= done.last_hop <= 9


# Reliability among survivors of a random 5-regular graph of 10,000 nodes: the mean of 30 floods,
# from an own earlier computation. Each that starts outside the giant component moves it by 3 %.
@pytest.mark.parametrize(
    ("failing", "reliability", "tolerance"),
    [(0.3, 0.997, 0.01), (0.5, 0.89, 0.04), (0.6, 0.70, 0.05), (0.7, 0.186, 0.1)],
)
def test_percolation(
    five_regular: Adjacency, failing: float, reliability: float, tolerance: float
) -> None:
    is_up = fail_at_random(five_regular, failing, Random(11))
    measured = mean_flood_reliability(five_regular, is_up)
    assert measured == pytest.approx(reliability, abs=tolerance)


@pytest.mark.parametrize(("failing", "tolerance"), [(0.3, 0.002), (0.5, 0.01), (0.6, 0.02)])
def test_percolation_is_as_in_theory(
    five_regular: Adjacency, failing: float, tolerance: float
) -> None:
    is_up = fail_at_random(five_regular, failing, Random(11))
    share = largest_component_share(five_regular, is_up)
    assert share == pytest.approx(surviving_share(5, failing), abs=tolerance)


def test_theory_has_its_threshold() -> None:
    assert surviving_share(5, 0.0) == 1
    assert surviving_share(5, 0.7) > 0.4
    assert surviving_share(5, 0.76) < 0.001


def test_last_hop_grows_with_failures(five_regular: Adjacency) -> None:
    is_up = fail_at_random(five_regular, 0.5, Random(11))
    source = components(five_regular, is_up)[0][0]
    assert 16 <= flood(five_regular, source, is_up).last_hop <= 22  # 18.5 in the mean


def test_mean_reliability_is_the_mean_over_sources() -> None:
    graph = random_regular(200, 3, Random(5))
    is_up = fail_at_random(graph, 0.4, Random(6))
    sources = [node for node in range(200) if is_up[node]]
    mean = sum(flood(graph, s, is_up).reached for s in sources) / len(sources) ** 2
    assert mean_flood_reliability(graph, is_up) == pytest.approx(mean)
    assert mean_flood_reliability(graph, everyone_up(graph)) == 1
