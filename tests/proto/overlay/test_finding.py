"""Searches for a peer: own ones, the part in others', and what liars and floods can do."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwalk.proto.link import Link
from meshwalk.proto.overlay.effects import Found, NotFound, OverlayEffect, Say
from meshwalk.proto.overlay.statistics import statistics_of
from meshwalk.wire.address import Address
from meshwalk.wire.frames import CloseReason, Purpose
from meshwalk.wire.messages import HOPS_MAX, FindPeer, PeerFound

from .bench import SEQUENCE, Bench, disconnects, host_of, peer_of, record_of, says

SOUGHT = 50
OTHER_NETWORK = bytes(31) + b"x"
LIES = {
    "junk": b"junk",
    "forged": record_of(SOUGHT, signer=SOUGHT + 1),
    "other network": record_of(SOUGHT, network_id=OTHER_NETWORK),
    "another peer": record_of(SOUGHT + 1),
}


def with_neighbours(count: int, **limits: float) -> tuple[Bench, dict[int, Link]]:
    """A node that has these neighbours, by link number, and lacks none."""
    bench = Bench(links_min=1, links_max=12)
    bench.config = msgspec.structs.replace(bench.config, **limits)
    bench.overlay.finding._config = bench.config
    links = [bench.neighbour(number) for number in range(1, count + 1)]
    return bench, {link.number: link for link in links}


def find(bench: Bench, peer: int = SOUGHT, now: float = 0.0) -> list[OverlayEffect]:
    return bench.overlay.find(peer_of(peer), now)


def question(peer: int = SOUGHT, hops: int = 5, newer_than: int = 0) -> FindPeer:
    return FindPeer(bytes(peer_of(peer)), hops, newer_than)


def outcomes(effects: list[OverlayEffect]) -> list[Found | NotFound]:
    return [e for e in effects if isinstance(e, Found | NotFound)]


def answers(effects: list[OverlayEffect]) -> list[tuple[int, int, PeerFound]]:
    """Link, id of the question, and answer."""
    said = says(effects)
    return [(s.link, s.in_reply_to, s.body) for s in said if isinstance(s.body, PeerFound)]


def questions(effects: list[OverlayEffect]) -> list[tuple[Say, FindPeer]]:
    return [(s, s.body) for s in says(effects) if isinstance(s.body, FindPeer)]


def is_idle(bench: Bench) -> bool:
    finding = bench.overlay.finding
    return not (finding.searches or finding.carried or finding._search_of)


# Own searches.


def test_a_search_asks_different_neighbours_and_the_first_good_answer_ends_it() -> None:
    bench, links = with_neighbours(5)
    asked = questions(find(bench))
    assert len({say.link for say, _ in asked}) == bench.config.find_walks == 3
    assert {body for _, body in asked} == {question(hops=bench.config.find_hops - 1)}
    first, second = asked[0][0], asked[1][0]
    blob = record_of(SOUGHT, "tcp://10.9.9.9:5", "tcp://10.9.9.8:5")
    effects = bench.hear(links[first.link], PeerFound(blob, 4), 1.0, to=first.id)
    where = (Address("10.9.9.9", 5), Address("10.9.9.8", 5))
    assert outcomes(effects) == [Found(peer_of(SOUGHT), blob, where, 4)]
    assert bench.overlay.book.entries[peer_of(SOUGHT)].met == "query"
    assert bench.overlay.addresses_of(peer_of(SOUGHT)) == list(where)
    assert is_idle(bench)
    # The answers that come yet are for nobody, whatever they say.
    assert bench.hear(links[second.link], PeerFound(b"junk", 4), 1.0, to=second.id) == []


def test_it_has_failed_when_all_say_so() -> None:
    bench, links = with_neighbours(5)
    asked = [say for say, _ in questions(find(bench))]
    effects: list[OverlayEffect] = []
    for say in asked:
        assert outcomes(effects) == []
        effects = bench.hear(links[say.link], PeerFound(b"", 9), 1.0, to=say.id)
    assert outcomes(effects) == [NotFound(peer_of(SOUGHT), "nobody asked knows one")]
    assert is_idle(bench)


def test_it_has_failed_when_the_time_is_over() -> None:
    bench, links = with_neighbours(5)
    find(bench)
    assert outcomes(bench.tick_until(bench.config.find_timeout_s - 0.01)) == []
    effects = bench.tick_until(bench.config.find_timeout_s)
    assert outcomes(effects) == [NotFound(peer_of(SOUGHT), "no answer came")]
    assert is_idle(bench)
    assert len(links) == 5  # silence costs nobody its link
    assert disconnects(effects) == []


def test_it_has_failed_when_everybody_asked_is_gone() -> None:
    bench, links = with_neighbours(2)
    asked = [say.link for say, _ in questions(find(bench))]
    assert outcomes(bench.end(links[asked[0]])) == []
    assert outcomes(bench.end(links[asked[1]])) == [NotFound(peer_of(SOUGHT), "no answer came")]
    assert is_idle(bench)


def test_one_search_serves_for_all_who_seek_the_same() -> None:
    bench, _ = with_neighbours(3)
    find(bench)
    assert find(bench, now=1.0) == []
    assert len(outcomes(bench.tick_until(60))) == 1


def test_nobody_to_ask() -> None:
    bench, _ = with_neighbours(0)
    assert find(bench) == [NotFound(peer_of(SOUGHT), "there is no neighbour to ask")]
    assert find(bench, 0) == [NotFound(peer_of(0), "it is this node itself")]


def test_too_many_searches_are_refused_at_once() -> None:
    bench, _ = with_neighbours(3)
    limit = bench.config.finds_max
    effects = [e for n in range(limit + 2) for e in find(bench, 100 + n)]
    assert [(o.peer, type(o)) for o in outcomes(effects)] == [
        (peer_of(100 + limit), NotFound),
        (peer_of(101 + limit), NotFound),
    ]
    assert statistics_of(bench.overlay).own_finds == {"too many": 2}
    assert statistics_of(bench.overlay).finds_under_way == limit
    bench.tick_until(60)
    assert is_idle(bench)
    assert questions(find(bench, 100, 60.0))


def test_only_a_record_that_is_newer_than_ours_ends_a_search() -> None:
    """Or whoever has the old one, or keeps it to do harm, would hide the new one."""
    bench, links = with_neighbours(3)
    old, new = (
        record_of(SOUGHT, sequence=SEQUENCE),
        record_of(SOUGHT, "tcp://10.7.7.7:7", sequence=SEQUENCE + 1),
    )
    bench.open(bench.link(SOUGHT, Purpose.PROBE, record=old))
    asked = questions(find(bench))
    assert [body.newer_than for _, body in asked] == [SEQUENCE] * 3
    (one, _), (two, _), _ = asked
    assert outcomes(bench.hear(links[one.link], PeerFound(old, 1), to=one.id)) == []
    (found,) = outcomes(bench.hear(links[two.link], PeerFound(new, 1), to=two.id))
    assert isinstance(found, Found)
    assert found.addresses == (Address("10.7.7.7", 7),)
    assert bench.overlay.book.entries[peer_of(SOUGHT)].blob == new


@pytest.mark.parametrize("ends_by", ["itself", "another answer", "time"])
def test_an_old_record_is_better_than_none(ends_by: str) -> None:
    bench, links = with_neighbours(2)
    old = record_of(SOUGHT)
    bench.open(bench.link(SOUGHT, Purpose.PROBE, record=old))
    (one, _), (two, _) = questions(find(bench))
    last = PeerFound(b"", 1)
    first = PeerFound(old, 1)
    if ends_by == "itself":
        first, last = last, first
    assert outcomes(bench.hear(links[one.link], first, to=one.id)) == []
    if ends_by != "time":
        effects = bench.hear(links[two.link], last, to=two.id)
    else:
        effects = bench.tick_until(60)
    (found,) = outcomes(effects)
    assert isinstance(found, Found)
    assert found.record == old


@pytest.mark.parametrize("blob", LIES.values(), ids=LIES.keys())
def test_a_lie_costs_the_link_and_is_not_believed(blob: bytes) -> None:
    bench, links = with_neighbours(2)
    (one, _), (two, _) = questions(find(bench))
    effects = bench.hear(links[one.link], PeerFound(blob, 1), to=one.id)
    assert [(d.link, d.reason) for d in disconnects(effects)] == [(one.link, CloseReason.PROTOCOL)]
    assert outcomes(effects) == []
    assert statistics_of(bench.overlay).own_finds == {"lie": 1}
    assert not {peer_of(SOUGHT), peer_of(SOUGHT + 1)} & set(bench.overlay.book.entries)
    effects = bench.hear(links[two.link], PeerFound(record_of(SOUGHT), 1), to=two.id)
    assert [type(o) for o in outcomes(effects)] == [Found]


def test_an_answer_counts_only_from_whom_was_asked() -> None:
    bench, links = with_neighbours(4)
    asked = [say for say, _ in questions(find(bench))]
    other = next(link for number, link in links.items() if number != asked[0].link)
    for blob in (record_of(SOUGHT), b"junk"):
        assert bench.hear(other, PeerFound(blob, 1), to=asked[0].id) == []
    assert bench.hear(other, PeerFound(record_of(SOUGHT), 1), to=4711) == []


def test_a_record_has_no_more_addresses_than_are_tried() -> None:
    bench, links = with_neighbours(1)
    ((say, _),) = questions(find(bench))
    blob = record_of(SOUGHT, *(f"tcp://10.9.9.{n}:5" for n in range(8)))
    (found,) = outcomes(bench.hear(links[say.link], PeerFound(blob, 1), to=say.id))
    assert isinstance(found, Found)
    assert len(found.addresses) == bench.config.addresses_per_peer_max


def test_leaving_ends_searches() -> None:
    bench, _ = with_neighbours(3)
    find(bench)
    effects = bench.overlay.leave(1.0)
    assert outcomes(effects) == [NotFound(peer_of(SOUGHT), "the node is stopping")]
    assert outcomes(find(bench, now=1.0)) == [NotFound(peer_of(SOUGHT), "the node is stopping")]
    assert is_idle(bench)
    assert len(bench.timers) == 0


def test_addresses_of_a_peer_are_all_that_it_signed() -> None:
    """A greeting is believed about its own host only, until the application names the peer."""
    bench, _ = with_neighbours(0)
    blob = record_of(SOUGHT, "tcp://192.0.2.66:80", f"tcp://{host_of(SOUGHT)}:7")
    bench.open(bench.link(SOUGHT, Purpose.PROBE, record=blob))
    known = bench.overlay.addresses_of(peer_of(SOUGHT))
    assert known == [Address(host_of(SOUGHT), 7), Address("192.0.2.66", 80)]
    assert bench.overlay.addresses_of(peer_of(SOUGHT + 1)) == []


# Searches of others.


def test_a_node_tells_its_own_record() -> None:
    bench, links = with_neighbours(2)
    for newer_than in (0, 1, 2**64 - 1):
        effects = bench.hear(links[1], question(0, hops=0, newer_than=newer_than), id=77)
        assert answers(effects) == [(1, 77, PeerFound(record_of(0), 1))]


def test_a_node_tells_of_its_neighbours_and_of_its_book() -> None:
    bench, links = with_neighbours(2)
    homeless = record_of(3, "tcp://[::]:1")  # no address to note: in no book
    bench.open(bench.link(3, record=homeless))
    bench.open(bench.link(SOUGHT, Purpose.PROBE))
    for peer, blob in ((2, record_of(2)), (3, homeless), (SOUGHT, record_of(SOUGHT))):
        effects = bench.hear(links[1], question(peer, hops=0), id=77)
        assert answers(effects) == [(1, 77, PeerFound(blob, 1))]
    assert statistics_of(bench.overlay).others_finds == {"told": 3}


def test_others_are_asked_one_hop_less() -> None:
    bench, links = with_neighbours(4)
    for _ in range(10):
        ((say, body),) = questions(bench.hear(links[1], question(hops=5, newer_than=9)))
        assert say.link in links
        assert say.link != 1
        assert body == question(hops=4, newer_than=9)


def test_a_neighbour_whose_record_is_too_old_is_asked_itself() -> None:
    bench, links = with_neighbours(4)
    ((say, body),) = questions(bench.hear(links[1], question(3, hops=0, newer_than=SEQUENCE)))
    assert (say.link, body) == (3, question(3, hops=0, newer_than=SEQUENCE))
    effects = bench.hear(links[3], question(3, hops=0, newer_than=SEQUENCE))  # but not by itself
    assert [a.record for _, _, a in answers(effects)] == [b""]


def test_hops_of_a_question_are_bounded() -> None:
    bench, links = with_neighbours(4)
    ((_, body),) = questions(bench.hear(links[1], question(hops=HOPS_MAX)))
    assert body.hops_left == bench.config.find_hops - 1


def test_at_a_dead_end_the_question_turns_round() -> None:
    bench, links = with_neighbours(1)
    ((say, body),) = questions(bench.hear(links[1], question(hops=5), id=77))
    assert (say.link, body.hops_left) == (1, 4)


def test_nobody_further_to_ask() -> None:
    bench, links = with_neighbours(4)
    effects = bench.hear(links[1], question(hops=0), id=77)
    assert answers(effects) == [(1, 77, PeerFound(b"", 1))]
    assert is_idle(bench)


def test_an_answer_goes_back_once_and_only_from_whom_was_asked() -> None:
    bench, links = with_neighbours(4)
    ((say, _),) = questions(bench.hear(links[1], question(), id=77))
    good = PeerFound(record_of(SOUGHT), HOPS_MAX)
    other = next(link for number, link in links.items() if number not in (1, say.link))
    assert bench.hear(other, good, to=say.id) == []
    assert answers(bench.hear(links[say.link], good, to=say.id)) == [(1, 77, good)]
    assert bench.hear(links[say.link], good, to=say.id) == []
    assert peer_of(SOUGHT) not in bench.overlay.book.entries  # nobody here has asked


@pytest.mark.parametrize("blob", LIES.values(), ids=LIES.keys())
def test_lies_are_not_passed_on(blob: bytes) -> None:
    """Whoever did would be blamed for them."""
    bench, links = with_neighbours(4)
    ((say, _),) = questions(bench.hear(links[1], question(), id=77))
    effects = bench.hear(links[say.link], PeerFound(blob, 3), to=say.id)
    assert answers(effects) == [(1, 77, PeerFound(b"", 4))]
    assert [(d.link, d.reason) for d in disconnects(effects)] == [(say.link, CloseReason.PROTOCOL)]


def test_loss_of_the_onward_link_is_answered() -> None:
    bench, links = with_neighbours(4)
    ((say, _),) = questions(bench.hear(links[1], question(), id=77))
    assert answers(bench.end(links[say.link])) == [(1, 77, PeerFound(b"", 1))]
    assert is_idle(bench)


def test_loss_of_the_way_back_ends_it() -> None:
    bench, links = with_neighbours(4)
    ((say, _),) = questions(bench.hear(links[1], question(), id=77))
    assert answers(bench.end(links[1])) == []
    assert is_idle(bench)
    good = PeerFound(record_of(SOUGHT), 1)
    assert bench.hear(links[say.link], good, to=say.id) == []


def test_carried_searches_expire_by_themselves() -> None:
    bench, links = with_neighbours(4)
    bench.hear(links[1], question(), 1.0)
    bench.tick_until(bench.config.find_timeout_s + 0.99)
    assert len(bench.overlay.finding.carried) == 1
    assert answers(bench.tick_until(bench.config.find_timeout_s + 1)) == []
    assert is_idle(bench)


def test_a_flood_of_questions_is_answered_without_work() -> None:
    bench, links = with_neighbours(4)
    effects = [e for n in range(1000) for e in bench.hear(links[1], question(100 + n))]
    burst = bench.config.finds_per_link_burst
    assert len(questions(effects)) == burst
    assert {a.record for _, _, a in answers(effects)} == {b""}
    assert statistics_of(bench.overlay).others_finds == {"busy": 1000 - burst, "carried": burst}
    assert statistics_of(bench.overlay).finds_carried == burst
    assert questions(bench.hear(links[2], question()))  # others are heard
    bench.end(links[1])
    assert set(bench.overlay.finding._rates) == {2}


def test_searches_carried_are_bounded() -> None:
    bench, links = with_neighbours(4, finds_carried_max=3)
    effects = [e for n in range(5) for e in bench.hear(links[1], question(100 + n))]
    assert len(questions(effects)) == len(bench.overlay.finding.carried) == 3
    assert [a.record for _, _, a in answers(effects)] == [b"", b""]
    told = bench.hear(links[1], question(2))  # what needs no carrying is told all the same
    assert [a.record for _, _, a in answers(told)] == [record_of(2)]


@pytest.mark.parametrize("body", [question(), PeerFound(b"", 0)], ids=["question", "answer"])
@pytest.mark.parametrize("purpose", [Purpose.JOIN_REQUEST, Purpose.PROBE, Purpose.CONVERSATION])
def test_searches_are_for_neighbours(purpose: Purpose, body: FindPeer | PeerFound) -> None:
    bench, _ = with_neighbours(2)
    link = bench.link(SOUGHT, purpose)
    bench.open(link)
    effects = bench.hear(link, body)
    assert [d.reason for d in disconnects(effects)] == [CloseReason.PROTOCOL]
    assert answers(effects) == []


# Everything at once.

numbers = st.integers(0, 9)
blobs = st.sampled_from([b"", *LIES.values(), *(record_of(n) for n in range(5, 10))])
events = st.one_of(
    st.tuples(st.just("find"), numbers),
    st.tuples(
        st.just("question"),
        numbers,
        st.builds(question, numbers, st.integers(0, HOPS_MAX), st.integers(0, 2)),
    ),
    st.tuples(st.just("answer"), numbers, st.builds(PeerFound, blobs, st.integers(0, HOPS_MAX))),
    st.tuples(st.just("end"), numbers),
    st.tuples(st.just("wait"), st.floats(0, 4)),
)


@settings(deadline=None)
@given(st.lists(events, max_size=60))
def test_any_order_keeps_the_bounds_and_leaves_nothing(sequence: list[tuple[object, ...]]) -> None:
    bench, links = with_neighbours(4, finds_max=3, finds_carried_max=5)
    finding, now = bench.overlay.finding, 0.0
    begun, ended, blamed = 0, 0, 0
    asked: list[Say] = []
    come: dict[tuple[int, int], int] = {}
    ids = iter(range(10_000, 20_000))
    for what, value, *more in sequence:
        effects: list[OverlayEffect] = []
        if what == "wait":
            assert isinstance(value, float)
            now += value
            effects = bench.tick_until(now)
        elif what == "find":
            assert isinstance(value, int)
            begun += peer_of(value) not in finding.searches
            effects = find(bench, value, now)
        elif links:
            assert isinstance(value, int)
            link = list(links.values())[value % len(links)]
            id, to = next(ids), asked[value % len(asked)] if asked else None
            if what == "end":
                del links[link.number]
                effects = bench.end(link, now=now)
            elif what == "answer" and to is not None:
                body = more[0]
                assert isinstance(body, PeerFound)
                link = links.get(to.link, link)
                effects = bench.hear(link, body, now, to=to.id)
            elif what == "question":
                body = more[0]
                assert isinstance(body, FindPeer)
                come[link.number, id] = 0
                effects = bench.hear(link, body, now, id=id)
        for closed in disconnects(effects):
            blamed += 1
            if closed.link in links:
                effects += bench.end(links.pop(closed.link), closed.reason, now, by_us=True)
        asked += [say for say, _ in questions(effects)]
        ended += len(outcomes(effects))
        for number, id, _ in answers(effects):
            come[number, id] += 1
        assert len(finding.searches) <= 3
        assert len(finding.carried) <= 5
        assert set(finding._rates) <= set(links)
    ended += len(outcomes(bench.tick_until(now + 60)))
    assert begun == ended
    assert blamed == finding.own["lie"]
    assert all(count <= 1 for count in come.values())
    assert is_idle(bench)
