"""What many conversations cost a node, and what one peer's cost the others: bounded, and given
back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from meshwalk.config import Config, RequestConfig
from meshwalk.proto.dispatch.table import FINISHED_PEERS_MAX
from meshwalk.proto.effects import ConversationOver, Unanswered, Why
from meshwalk.wire.frames import (
    MARK_MORE,
    MARK_OPENS,
    Channel,
    CloseReason,
    Message,
)
from meshwalk.wire.messages import RefusalCode, decode_refusal
from meshwalk.wire.peerid import PeerId

from .checks import check_bounds, check_nothing_is_left
from .pair import BYTES, End, Pair, Wire
from .smallnodes import FIRST_WINDOW, small, small_windows

THIRD = PeerId(bytes([9]) * 32)


@pytest.fixture(autouse=True, scope="module")
def windows() -> Iterator[None]:
    with small_windows():
        yield


def begin(pair: Pair, wire: Wire, id: int, *, body: bytes = b"x", sequence: int = 1) -> End:
    """End 0 says a part of a first message that is not the last."""
    pair.keeps_books = False
    marks = MARK_MORE | (MARK_OPENS if sequence == 1 else 0)
    regards = 0 if sequence == 1 else id
    wire.to[1].append(
        Message(id, 0, Channel.APPLICATION, body, 0, regards, BYTES, sequence=sequence, marks=marks)
    )
    pair.deliver(wire, 1)
    return pair.ends[1]


def refusals(wire: Wire) -> list[int]:
    frames = [frame for frame in wire.to[0] if isinstance(frame, Message)]
    wire.to[0].clear()
    return [decode_refusal(frame.body).code for frame in frames]


def test_peers_leave_half_of_all_conversations_to_the_node_itself() -> None:
    pair = Pair(small(total_max=20))
    wire = pair.connect()
    for id in range(1, 31):
        victim = begin(pair, wire, id)
    assert refusals(wire) == [RefusalCode.BUSY] * 20
    machine = victim.machine
    opened = [
        machine.conversations.open(machine.party(THIRD), "t", BYTES, b"", None, pair.now)
        for _ in range(20)
    ]
    assert [number is not None for number in opened] == [True] * 10 + [False] * 10
    machine.wanted.clear()
    check_bounds(victim)


def test_a_place_that_a_peer_gives_back_is_anothers() -> None:
    pair = Pair(small(total_max=2))
    pair.connect()
    first, second = pair.ends[0].open(), pair.ends[0].open()
    assert first is not None
    assert second is not None
    pair.deliver_all()
    assert (first.over, second.over) == (
        None,
        ConversationOver(second.number, Why.REFUSED, 3, "too many conversations are open"),
    )
    pair.ends[0].leave(first)
    pair.deliver_all()
    third = pair.ends[0].open()
    assert third is not None
    pair.deliver_all()
    assert third.over is None


def test_a_first_message_that_stays_unfinished_is_refused() -> None:
    pair = Pair()
    wire = pair.connect()
    victim = begin(pair, wire, 1)
    pair.wait(29.0)
    begin(pair, wire, 1, sequence=2)
    pair.wait(30.5)
    assert refusals(wire) == []  # something came
    pair.wait(30.0)
    assert refusals(wire) == [RefusalCode.TOO_LATE]
    assert not victim.effects
    assert victim.machine.conversations.counts["never opened"] == 1
    check_nothing_is_left(victim)


def test_a_first_message_that_this_end_holds_up_is_waited_for() -> None:
    pair = Pair(small(message_bytes_max=40_000, assembling_bytes_max=40_000))
    wire = pair.connect()
    victim = begin(pair, wire, 1)
    begin(pair, wire, 2, body=bytes(FIRST_WINDOW // 2))
    for sequence in range(2, 6):
        pair.wait(25.0)
        begin(pair, wire, 1, sequence=sequence)  # it takes its time, and the other has to wait
    assert list(victim.machine.conversations.open_now) == [1, 2]
    pair.wait(100.0)  # the first stops, and after that the second
    assert refusals(wire) == [RefusalCode.TOO_LATE] * 2
    check_nothing_is_left(victim)


def test_a_first_message_is_waited_for_while_there_is_no_link() -> None:
    pair = Pair()
    wire = pair.connect()
    victim = begin(pair, wire, 1)
    pair.cut(wire)
    pair.wait(100.0)
    assert list(victim.machine.conversations.open_now) == [1]
    pair.connect()
    pair.wait(61.0)
    assert not victim.machine.conversations.open_now


def test_a_conversation_that_is_heard_of_has_no_such_deadline() -> None:
    pair = Pair()
    pair.connect()
    talk = pair.ends[0].open(bytes(3000))
    assert talk is not None
    pair.flow()
    pair.wait(100.0)
    pair.deliver_all()
    assert talk.over is None
    pair.finish()
    for end in pair.ends:
        check_nothing_is_left(end)


def test_openings_that_never_went_out_are_neither_kept_nor_refused() -> None:
    pair = Pair()
    sender = pair.ends[0]
    wire = pair.connect()
    wire.links[0].room = 0
    for _ in range(100):
        talk = sender.open(b"never said")
        assert talk is not None
        sender.leave(talk)
    late = sender.open(b"never said", 1.0)
    assert late is not None
    pair.wait(2.0)
    assert late.over is not None
    assert not wire.to[1]
    assert not sender.machine.parties[sender.other.peer].turns
    check_nothing_is_left(sender)


def test_a_peer_that_holds_more_tells_soon_enough_for_one_that_says_less() -> None:
    """Neither end says more than it would hold itself: what is scarce is scarce at both."""
    window = 64 << 10
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("meshwalk.proto.dispatch.credit.FIRST_WINDOW_BYTES", window)
        pair = Pair(small(shared_window_bytes=window), small(shared_window_bytes=1 << 20))
        pair.connect()
        sender, reader = pair.ends
        for _ in range(20):
            talk = sender.open()
            assert talk is not None
            for _ in range(20):  # of which a quarter of its window would hold most
                sender.say(talk, bytes(900))
        while pair.deliver_all() + pair.read_all():
            pass  # no time passes
        assert {talk.heard for talk in reader.talks.values()} == {21}


def test_a_peer_may_say_all_that_this_node_has_said_it_holds() -> None:
    """Even one that holds less itself: not to say so much is its own affair."""
    pair = Pair(small(shared_window_bytes=4 * FIRST_WINDOW))
    wire = pair.connect()
    victim = pair.ends[1]
    victim.machine.link_opened(wire.links[1], FIRST_WINDOW, pair.now)
    for id in range(1, 6):
        begin(pair, wire, id, body=bytes(1024))
        for sequence in range(2, 4):
            begin(pair, wire, id, body=bytes(1024), sequence=sequence)
    assert refusals(wire) == []
    assert not pair.faults


def asked_in_each(count: int) -> tuple[Pair, End]:
    config = small(per_peer_max=count)
    requests = RequestConfig(pending_max=2 * count)
    config = Config(conversations=config.conversations, requests=requests)
    pair = Pair(config)
    pair.connect()
    sender = pair.ends[0]
    for _ in range(count):
        talk = sender.open()
        assert talk is not None
        party = sender.machine.party(sender.other.peer)
        id = sender.machine.request(party, "t", BYTES, b"q", 60.0, pair.now, talk.number)
        assert id is not None
        sender.waiting[id] = None
    sender.perform()
    return pair, sender


def test_what_was_asked_in_a_conversation_ends_with_it_and_nothing_else() -> None:
    pair, sender = asked_in_each(3)
    waiting = list(sender.waiting)
    party = sender.machine.parties[sender.other.peer]
    first, second, _ = sender.talks.values()
    sender.leave(first)
    assert [e for e in sender.effects if type(e) is Unanswered] == [
        Unanswered(waiting[0], Why.LINK_LOST)
    ]
    assert list(party.asked) == waiting[1:]
    assert sender.machine.requests.abandon(waiting[1])
    del sender.waiting[waiting[1]]
    sender.leave(second)
    assert list(party.asked) == waiting[2:]
    pair.cut_all()
    assert list(party.asked) == waiting[2:]  # the conversation goes on, and so may the answer
    pair.wait(60.0)
    assert not party.asked


def test_the_end_of_many_conversations_looks_at_each_question_once() -> None:
    _, sender = asked_in_each(300)
    requests = sender.machine.requests
    looks = 0

    class Counted(dict[int, object]):
        """Notes each time that somebody goes through it."""

        def items(self) -> object:  # type: ignore[override]
            nonlocal looks
            looks += len(self)
            return super().items()

    requests.waiting = Counted(requests.waiting)  # type: ignore[assignment]
    party = sender.machine.parties[sender.other.peer]
    party.asked = Counted(party.asked)  # type: ignore[assignment]
    (link,) = party.links
    sender.do(lambda: sender.machine.link_gone(link, CloseReason.LEAVING, "left", sender.pair.now))
    assert not sender.waiting
    assert looks <= 300


def test_peers_whose_conversations_ended_last_are_remembered() -> None:
    pair = Pair()
    sender = pair.ends[0]
    machine = sender.machine
    first = PeerId(bytes(32))

    def once(peer: PeerId) -> None:
        number = machine.conversations.open(machine.party(peer), "t", BYTES, b"", None, pair.now)
        assert number is not None
        machine.conversations.leave(number, 100, "", pair.now)

    once(first)
    for n in range(1, FINISHED_PEERS_MAX):
        once(PeerId(n.to_bytes(32, "big")))
    once(first)
    once(THIRD)
    finished = machine.hearing._table.finished
    assert len(finished) == FINISHED_PEERS_MAX
    assert first in finished
    assert PeerId((1).to_bytes(32, "big")) not in finished
