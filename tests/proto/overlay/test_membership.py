"""The table of neighbours: its bounds, and which of two links survives."""

from __future__ import annotations

from itertools import count
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwalk.config import Config, LinkConfig, OverlayConfig
from meshwalk.proto.link import Link
from meshwalk.proto.overlay.membership import Added, Membership, Place
from meshwalk.wire.address import Address
from meshwalk.wire.frames import Purpose

from .bench import peer_of

CONFIG = Config(overlay=OverlayConfig(links_min=2, links_max=4))


def membership(me: int = 10) -> Membership:
    return Membership(peer_of(me), CONFIG, Random(0))


def link_to(
    peer: int,
    *,
    outbound: bool = False,
    number: int = 1,
    purpose: Purpose = Purpose.JOIN_ACCEPT,
) -> Link:
    link = Link(
        number,
        LinkConfig(),
        [],
        count().__next__,
        outbound=outbound,
        remote=Address("10.0.0.1", 1),
        now=0.0,
        purpose=purpose,
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
        assert len(table) <= CONFIG.overlay.links_max
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


def test_a_full_node_misses_random_links_too() -> None:
    table = membership()
    for n in range(4):
        table.add(link_to(n), is_random=False)
    assert table.is_full
    assert table.missing == 2


def test_who_gives_way_to_a_random_link() -> None:
    table = membership()
    assert table.least_wanted() is None
    for n, purpose in enumerate((Purpose.CLOSER, Purpose.CLOSER, Purpose.HEALING, Purpose.HEALING)):
        link = link_to(n)
        link.purpose, link.since = purpose, float(n)
        table.add(link)
    order = []
    while (found := table.least_wanted()) is not None:
        order.append(found.peer)
        table.remove(found.link)
    assert order == [peer_of(n) for n in (1, 0, 2, 3)]
    for n in (4, 5):
        table.add(link_to(n), is_random=True)
    table.add(link_to(6), is_random=False)
    assert table.least_wanted() is None, "it has as many random ones as it wants"


def test_few_places_are_for_bridges() -> None:
    table = membership()
    added = [table.add(link_to(n, purpose=Purpose.HEALING))[0] for n in range(5)]
    assert added == [Added.NEW] * 3 + [Added.FULL] * 2
    assert not table.has_healing_place
    assert table.has_room, "for others"


def test_one_for_one_is_no_link_too_many() -> None:
    table = membership()
    for n in range(4):
        table.add(link_to(n))
    assert table.add(link_to(4))[0] is Added.FULL
    assert table.remove(table.neighbours[peer_of(0)].link)
    assert table.add(link_to(4), is_instead=True)[0] is Added.NEW
    assert len(table) == 4


def test_who_is_gone_is_nobodys_neighbour() -> None:
    table = membership()
    for n in (1, 2, 3):
        table.add(link_to(n))
        table.neighbours[peer_of(n)].told_of |= {peer_of(1), peer_of(2)}
    table.remove(table.neighbours[peer_of(1)].link)
    assert {n.told_of for n in table.neighbours.values()} == {frozenset({peer_of(2)})}


def test_random_neighbour_leaves_out() -> None:
    table = membership()
    assert table.random_neighbour() is None
    table.add(link_to(1))
    table.add(link_to(2))
    found = [table.random_neighbour(peer_of(1), None) for _ in range(20)]
    assert all(n is not None and n.peer == peer_of(2) for n in found)
