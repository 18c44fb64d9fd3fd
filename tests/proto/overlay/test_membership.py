"""The table of neighbours: its bounds, and which of two links survives."""

from __future__ import annotations

from itertools import count
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwalk.config import LinkConfig, OverlayConfig
from meshwalk.proto.link import Link
from meshwalk.proto.overlay.membership import Added, Membership, Place
from meshwalk.wire.address import Address

from .bench import peer_of

CONFIG = OverlayConfig(links_min=2, links_max=4)


def membership(me: int = 10) -> Membership:
    return Membership(peer_of(me), CONFIG, Random(0))


def link_to(peer: int, *, outbound: bool = False, number: int = 1) -> Link:
    link = Link(
        number,
        LinkConfig(),
        [],
        count().__next__,
        outbound=outbound,
        remote=Address("10.0.0.1", 1),
        now=0.0,
    )
    link.peer = peer_of(peer)
    return link


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("me", "other"), [(1, 2), (2, 1)])
def test_both_ends_keep_the_link_of_the_smaller(me: int, other: int, first: bool) -> None:
    """Whatever order they open in at this end."""
    table = membership(me)
    links = [link_to(other, outbound=first), link_to(other, outbound=not first)]
    assert table.add(links[0]) == (Added.NEW, None)
    added, dropped = table.add(links[1])
    kept = table.neighbours[peer_of(other)].link
    assert kept.outbound == (me < other)
    assert dropped is next(link for link in links if link is not kept)
    assert added is (Added.REPLACED if kept is links[1] else Added.SURPLUS)


def test_two_links_of_one_direction_keep_the_first() -> None:
    table = membership()
    first, second = link_to(1), link_to(1)
    table.add(first)
    assert table.add(second) == (Added.SURPLUS, second)


steps = st.lists(
    st.tuples(st.sampled_from(["add", "remove", "promise", "expire"]), st.integers(0, 9)),
    max_size=100,
)


@given(steps)
def test_never_above_the_maximum(steps: list[tuple[str, int]]) -> None:
    table, links, now = membership(99), dict[int, Link](), 0.0
    for what, number in steps:
        if what == "add":
            links[number] = link_to(number, outbound=bool(number % 2))
            full = table.is_full and peer_of(number) not in table.neighbours
            added, _ = table.add(links[number])
            assert (added is Added.FULL) == full
        elif what == "remove" and number in links:
            present = table.neighbours.get(peer_of(number))
            was_it = present is not None and present.link is links[number]
            assert table.remove(links[number]) == was_it
        elif what == "promise" and table.has_room:
            table.promise(bytes([number]), Place(peer_of(50 + number), now + number))
        elif what == "expire":
            now += number
            table.expire_places(now)
        assert len(table) <= CONFIG.links_max
        assert all(place.expires_at > now - 10 for place in table.places.values())


def test_who_is_known() -> None:
    table = membership(3)
    table.add(link_to(1))
    table.promise(b"t", Place(peer_of(2), 1.0))
    assert [table.knows(peer_of(n)) for n in range(5)] == [False, True, True, True, False]
    table.drop_places(peer_of(2))
    assert not table.knows(peer_of(2))


def test_chance_is_one_in_n_plus_one() -> None:
    table = membership()
    for n in range(3):
        table.add(link_to(n))
    accepted = sum(table.accepts_by_chance() for _ in range(4000))
    assert 900 < accepted < 1100


def test_random_neighbour_leaves_out() -> None:
    table = membership()
    assert table.random_neighbour() is None
    table.add(link_to(1))
    table.add(link_to(2))
    found = [table.random_neighbour(peer_of(1), None) for _ in range(20)]
    assert all(n is not None and n.peer == peer_of(2) for n in found)
