"""Private addresses stay where they mean something: by walks and searches, own ones and others'."""

from __future__ import annotations

import pytest

from meshwalk.proto.link import Link
from meshwalk.proto.overlay.effects import Found, Say
from meshwalk.wire.address import Address
from meshwalk.wire.frames import Purpose
from meshwalk.wire.messages import FindPeer, JoinOutcome, JoinReply, JoinRequest, PeerFound

from .bench import Bench, connects, host_of, peer_of, record_of, request, says

FAR = Address("203.0.113.5", 40_000)
PRIVATE = record_of(60, "tcp://192.168.1.9:1")
MIXED = record_of(60, "tcp://192.168.1.9:1", "tcp://198.51.100.6:1", "tcp://127.0.0.1:6379")
PUBLIC = record_of(60, "tcp://198.51.100.6:1")


def public_neighbour(bench: Bench, peer: int, host: str = FAR.host) -> Link:
    link = bench.link(peer, record=record_of(peer, f"tcp://{host}:1"))
    link.remote = Address(host, 40_000)
    bench.open(link)
    return link


def carried(body: JoinRequest | FindPeer) -> tuple[Bench, Link, Link, Say]:
    """A message of a public neighbour that goes on to a private one: those two, and it."""
    bench = Bench(1, 3)
    private = bench.neighbour(1)
    public = public_neighbour(bench, 2)
    (onward,) = says(bench.hear(public, body, id=77))
    assert onward.link == private.number
    return bench, private, public, onward


@pytest.mark.parametrize(
    ("outcome", "record", "told", "told_record"),
    [
        (JoinOutcome.DIAL_ME, PUBLIC, JoinOutcome.DIAL_ME, PUBLIC),
        (JoinOutcome.DIAL_ME, PRIVATE, JoinOutcome.NO_PLACE, b""),
        (JoinOutcome.DIAL_ME, MIXED, JoinOutcome.NO_PLACE, b""),
        (JoinOutcome.DIAL_ME, b"junk", JoinOutcome.NO_PLACE, b""),
        (JoinOutcome.LINKED, PRIVATE, JoinOutcome.LINKED, b""),
        (JoinOutcome.BUSY, b"", JoinOutcome.BUSY, b""),
    ],
)
def test_the_answer_to_a_walk_tells_a_public_origin_no_private_address(
    outcome: JoinOutcome, record: bytes, told: JoinOutcome, told_record: bytes
) -> None:
    walk = request(
        50, reach=FAR.host, hops=5, forced=3, record=record_of(50, f"tcp://{FAR.host}:1")
    )
    bench, private, public, onward = carried(walk)
    effects = bench.hear(private, JoinReply(outcome, 1, record), to=onward.id)
    (answer,) = says(effects)
    assert (answer.link, answer.in_reply_to) == (public.number, 77)
    assert answer.body == JoinReply(told, 2, told_record)
    assert bench.overlay.carrier.counts["not passed on"] == (record != told_record)


@pytest.mark.parametrize("record", [PRIVATE, MIXED, PUBLIC], ids=["private", "mixed", "public"])
def test_the_answer_to_a_search_tells_a_public_asker_no_private_address(record: bytes) -> None:
    bench, private, public, onward = carried(FindPeer(bytes(peer_of(60)), 9))
    (answer,) = says(bench.hear(private, PeerFound(record, 1), to=onward.id))
    assert answer.link == public.number
    assert answer.body == PeerFound(PUBLIC if record == PUBLIC else b"", 2)


def test_who_is_told_of_by_a_public_peer_is_dialled_at_public_addresses() -> None:
    """Others would have us dial whatever stands in our own network."""
    for record, dialled in ((MIXED, [Address("198.51.100.6", 1)]), (PRIVATE, [])):
        bench = Bench(2, 4)
        link = bench.link(2)
        link.remote = FAR
        walk = next(s for s in says(bench.open(link)) if isinstance(s.body, JoinRequest))
        effects = bench.hear(link, JoinReply(JoinOutcome.DIAL_ME, 1, record), to=walk.id)
        assert [c.address for c in connects(effects)] == dialled
        entry = bench.overlay.book.entries.get(peer_of(60))
        assert (list(entry.addresses) if entry is not None else []) == dialled


def test_a_search_believes_no_private_address_of_a_public_peer() -> None:
    for record, believed in ((MIXED, (Address("198.51.100.6", 1),)), (PRIVATE, ())):
        bench = Bench(1, 4)
        link = public_neighbour(bench, 2)
        (asked,) = says(bench.overlay.find(peer_of(60), 0.0))
        effects = bench.hear(link, PeerFound(record, 1), to=asked.id)
        (found,) = (e for e in effects if isinstance(e, Found))
        assert found.addresses == believed


def test_a_full_node_between_public_neighbours_takes_a_private_newcomer() -> None:
    """A defect: it may tell none of them of the newcomer, so none could be asked to split."""
    bench = Bench(2, 4)
    for number in range(4):
        public_neighbour(bench, 100 + number, f"203.{number}.113.5")
    link = bench.link(7, Purpose.JOIN_REQUEST)
    bench.open(link)
    record = record_of(7, f"tcp://{host_of(7)}:1")
    effects = bench.hear(link, JoinRequest(record, b"t", "", 3, 10))
    (answer,) = (s.body for s in says(effects) if isinstance(s.body, JoinReply))
    assert answer.outcome is JoinOutcome.DIAL_ME
    standing = bench.link(7, Purpose.STANDING, token=b"t")
    assert bench.overlay.asked(standing, bench.hello(standing), 1.0) is None
    bench.open(standing, 1.0)
    assert peer_of(7) in bench.overlay.membership.neighbours
    assert len(bench.overlay.membership) == 4
