"""One node with hand-written peers: what it lets through, and what it says."""

from __future__ import annotations

from random import Random

import pytest

from meshwalk.config import Config
from meshwalk.errors import Closed, InvalidArgument, NotANeighbour, TooBig
from meshwalk.events import LinkResumed, LinkStalled
from meshwalk.identity.keys import open_record, sign_record
from meshwalk.proto.effects import (
    Answered,
    Ask,
    ConversationOver,
    Deliver,
    Dial,
    Effect,
    Happened,
    Measured,
    PeerReached,
    ProbeEnded,
    ProbeOpened,
    Send,
    Shut,
    Unanswered,
    Why,
)
from meshwalk.proto.node import NodeCore
from meshwalk.sim.node import UNIX_START_S
from meshwalk.sim.signatures import CheapSignatures
from meshwalk.wire.address import Address
from meshwalk.wire.frames import (
    PROTOCOL_VERSION,
    Channel,
    Close,
    CloseReason,
    ContentType,
    Frame,
    Hello,
    Message,
    Ping,
    Pong,
    Purpose,
)
from meshwalk.wire.gossip import Broadcast, Graft, decode_gossip, encode_gossip
from meshwalk.wire.messages import JoinOutcome, JoinReply, RefusalCode, encode
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import PeerRecord

from .broadcast.scene import copy_of, payload_of

REMOTE = Address("10.0.0.2", 55555)

UNASKED = encode(JoinReply(JoinOutcome.BUSY, 1))


def peer_of(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def record_of(number: int) -> bytes:
    record = PeerRecord(bytes(peer_of(number)), 1, [str(REMOTE)])
    return sign_record(record, CheapSignatures(peer_of(number)))


def hello(purpose: Purpose, token: bytes = b"", number: int = 1) -> Hello:
    return Hello(PROTOCOL_VERSION, purpose, 0, "tcp://10.0.0.1:1", record_of(number), token)


def frames(effects: list[Effect], link: int) -> list[Frame]:
    return [e.frame for e in effects if isinstance(e, Send) and e.link == link]


def messages(effects: list[Effect], link: int) -> list[Message]:
    return [frame for frame in frames(effects, link) if isinstance(frame, Message)]


class Bench:
    """A node, at a time of the test's choosing."""

    def __init__(self, config: Config | None = None, *, listens: bool = True) -> None:
        self.core = NodeCore(
            CheapSignatures(peer_of(0)), config or Config(), Random(0), 0.0, UNIX_START_S
        )
        if listens:
            self.core.listening((Address("10.0.0.1", 55555),), 0.0)

    def dialled(
        self, purpose: Purpose, token: bytes = b"", number: int = 1
    ) -> tuple[int, list[Effect]]:
        """A peer dials and greets."""
        link = self.core.admit(REMOTE, 0.0)
        assert link is not None
        effects = self.core.secured(link, peer_of(number), REMOTE, "10.0.0.1", 0.0)
        effects += self.core.receive(link, [hello(purpose, token, number)], 0.0)
        return link, effects

    def neighbour(self, number: int = 1) -> int:
        """A peer that the node has walked to: its standing link."""
        walks = self.core.overlay.walks.walks
        if not walks:
            dials = self.core.join(Address("10.0.9.9", number), None, 0.0)
            (dial,) = [e for e in dials if isinstance(e, Dial)]
            self.core.secured(dial.link, peer_of(99), dial.address, "", 0.0)
            self.core.receive(dial.link, [hello(Purpose.STANDING, number=99)], 0.0)
        token = next(iter(walks))
        link, _ = self.dialled(Purpose.JOIN_ACCEPT, token, number)
        assert peer_of(number) in self.core.overlay.membership.neighbours
        return link


def application(body: bytes = b"x", **more: bool) -> Message:
    return Message(77, 0, Channel.APPLICATION, body, **more)  # type: ignore[arg-type]


def broadcast(number: int = 5) -> Message:
    copy = copy_of(payload_of(number), number)
    return Message(1, 0, Channel.BROADCAST, encode_gossip(copy))


@pytest.mark.parametrize("purpose", [Purpose.STANDING, Purpose.JOIN_ACCEPT, Purpose.JOIN_SPLIT])
def test_an_uninvited_peer_is_refused_and_not_heard(purpose: Purpose) -> None:
    """A defect: its broadcasts and messages got through while it was shown the door."""
    bench = Bench()
    bench.neighbour(3)
    link, effects = bench.dialled(purpose, b"guess")
    (close,) = frames(effects, link)
    assert isinstance(close, Close)
    assert close.reason == CloseReason.UNINVITED
    effects = bench.core.receive(
        link, [broadcast(), application(), application(wants_reply=True)], 0.0
    )
    assert effects == []


@pytest.mark.parametrize("purpose", [Purpose.JOIN_REQUEST, Purpose.PROBE, Purpose.CONVERSATION])
def test_broadcasts_are_for_neighbours(purpose: Purpose) -> None:
    bench = Bench()
    link, _ = bench.dialled(purpose)
    effects = bench.core.receive(link, [broadcast()], 0.0)
    (close,) = frames(effects, link)
    assert isinstance(close, Close)
    assert close.reason == CloseReason.PROTOCOL
    assert not [e for e in effects if isinstance(e, Deliver)]


def test_broadcast_goes_on_to_all_but_the_sender() -> None:
    bench = Bench()
    links = [bench.neighbour(n) for n in (1, 2, 3)]
    graft = Message(1, 0, Channel.BROADCAST, encode_gossip(Graft()))
    for link in links:
        bench.core.receive(link, [graft], 0.0)
    effects = bench.core.receive(links[0], [broadcast(), broadcast()], 0.0)
    copies = [
        link
        for link in links
        for message in messages(effects, link)
        if isinstance(decode_gossip(message.body), Broadcast)
    ]
    assert copies == links[1:]
    assert sum(isinstance(e, Deliver) for e in effects) == 1


@pytest.mark.parametrize(
    "flood",
    [
        [Ping(n, 0) for n in range(500)],
        [Pong(n, 0, 0, 0) for n in range(500)],
        [Close(0), Close(0), Close(0)],
        [hello(Purpose.STANDING), hello(Purpose.STANDING)],
        [Message(n, 0, Channel.OVERLAY, b"\xc1") for n in range(50)],
        [Message(n, 0, Channel.REFUSAL, b"", in_reply_to=5) for n in range(50)],
        [
            Message(n, 0, Channel.OVERLAY, encode(JoinReply(JoinOutcome.BUSY, 1)), 3)
            for n in range(50)
        ],
    ],
    ids=["ping", "pong", "close", "hello", "junk", "refusal", "reply"],
)
def test_floods_get_no_more_than_they_bring(flood: list[Frame]) -> None:
    bench = Bench()
    link = bench.neighbour()
    other = bench.neighbour(2)
    before = bench.core.statistics()
    effects = bench.core.receive(link, flood, 0.0)
    assert len(frames(effects, link)) <= len(flood)
    walks = [f for f in frames(effects, other) if isinstance(f, Message)]
    assert len(walks) <= 5, "at most its own search for another link"
    after = bench.core.statistics()
    assert after.requests_waiting == after.requests_served == 0
    assert after.links <= before.links + 1
    assert after.timers <= before.timers + 2
    # Whatever came of it, the other link is well.
    assert bench.core.ping(other, 1.0) is not None


def test_requests_both_ways() -> None:
    bench = Bench()
    core, link = bench.core, bench.neighbour()
    out = core.request(peer_of(1), "t", ContentType.TEXT, b"q", 5.0, 0.0)
    assert out is not None
    id, effects = out
    (sent,) = frames(effects, link)
    assert isinstance(sent, Message)
    assert (sent.id, sent.wants_reply) == (id, True)
    answer = Message(1, 0, Channel.APPLICATION, b"a", id)
    assert core.receive(link, [answer, answer], 0.1) == [Answered(id, ContentType.BYTES, b"a")]
    (ask,) = core.receive(link, [application(wants_reply=True)], 0.2)
    assert isinstance(ask, Ask)
    (sent,) = frames(core.refuse(peer_of(1), 77, RefusalCode.BUSY, "\ud800" * 999, 0.3), link)
    assert isinstance(sent, Message)
    assert sent.channel is Channel.REFUSAL
    assert core.reply(peer_of(1), 77, ContentType.BYTES, b"", 0.4) == []


def test_requests_end_with_their_link() -> None:
    bench = Bench()
    link = bench.neighbour()
    out = bench.core.request(peer_of(1), "t", ContentType.BYTES, b"", 5.0, 0.0)
    assert out is not None
    effects = bench.core.lost(link, "", 0.1)
    assert sum(isinstance(e, Unanswered) for e in effects) == 1
    with pytest.raises(NotANeighbour):
        bench.core.send(peer_of(1), "", ContentType.BYTES, b"", 0.2)


@pytest.mark.parametrize("timeout_s", [-1.0, float("nan"), float("inf")])
def test_deadlines_that_are_none(timeout_s: float) -> None:
    """A defect: NaN put the heap of timers out of order."""
    bench = Bench()
    bench.neighbour()
    with pytest.raises(InvalidArgument):
        bench.core.request(peer_of(1), "t", ContentType.BYTES, b"", timeout_s, 0.0)


@pytest.mark.parametrize("label", ["x" * 256, "\ud800"])
def test_labels_that_cannot_be_sent(label: str) -> None:
    """A defect: text that UTF-8 cannot write failed only when the frame was written."""
    bench = Bench()
    bench.neighbour()
    with pytest.raises(InvalidArgument):
        bench.core.send(peer_of(1), label, ContentType.BYTES, b"", 0.0)
    with pytest.raises(InvalidArgument):
        bench.core.broadcast(label, ContentType.BYTES, b"", 0.0)
    sequence, _ = bench.core.broadcast("ü", ContentType.BYTES, b"", 0.0)
    assert sequence == 1, "what was refused was not counted"


def test_bodies_that_are_too_big() -> None:
    bench = Bench()
    bench.neighbour()
    with pytest.raises(TooBig):
        bench.core.broadcast("", ContentType.BYTES, bytes((256 << 10) + 1), 0.0)
    with pytest.raises(TooBig):
        bench.core.send(peer_of(1), "", ContentType.BYTES, bytes((16 << 20) + 1), 0.0)
    with pytest.raises(TooBig):
        bench.core.open(peer_of(1), "", ContentType.BYTES, bytes((16 << 20) + 1), None, 0.0)
    assert bench.core.statistics().conversations_open == 0


def test_links_from_a_host_that_has_gone_are_dropped_and_others_kept() -> None:
    bench = Bench()
    bench.core.listening((Address("0.0.0.0", 55555),), 0.0)
    from_gone = bench.neighbour(1)
    other = bench.core.admit(REMOTE, 0.0)
    assert other is not None
    bench.core.secured(other, peer_of(2), REMOTE, "10.0.0.2", 0.0)
    bench.core.hosts(("10.0.0.1", "10.0.0.2"), 0.0)
    effects = bench.core.hosts(("10.0.0.2", "10.0.0.3"), 1.0)
    assert Shut(from_gone, at_once=True) in effects
    assert frames(effects, from_gone) == [], "nothing can be told over it"
    assert [e.link for e in effects if isinstance(e, Shut)] == [from_gone]
    assert peer_of(1) not in bench.core.overlay.membership.neighbours
    assert other in bench.core.connections.links


def test_a_node_that_never_listens_has_a_record() -> None:
    """A defect: without a call of `listening` its join requests were refused as forged."""
    bench = Bench(listens=False)
    record = open_record(bench.core.own_record.blob, CheapSignatures(peer_of(0)))
    assert record.addresses == []


def test_probe() -> None:
    bench = Bench()
    core = bench.core
    (dial,) = core.probe(REMOTE, peer_of(1), 0.0)
    assert isinstance(dial, Dial)
    core.secured(dial.link, peer_of(1), REMOTE, "", 0.1)
    effects = core.receive(dial.link, [hello(Purpose.STANDING)], 0.2)
    assert ProbeOpened(dial.link, peer_of(1)) in effects
    assert not core.overlay.membership.neighbours
    pinged = core.ping(dial.link, 1.0)
    assert pinged is not None
    assert core.receive(dial.link, [Pong(pinged[0], 0, 0, 0)], 1.5) == [Measured(pinged[0], 0.5)]
    effects = core.close_link(dial.link, 2.0)
    assert ProbeEnded(dial.link, "", False) in effects
    assert core.ping(dial.link, 2.0) is None


def test_probe_that_reaches_nobody_or_oneself() -> None:
    bench = Bench()
    core = bench.core
    (dial,) = core.probe(REMOTE, None, 0.0)
    assert isinstance(dial, Dial)
    assert ProbeEnded(dial.link, "no", True) in core.lost(dial.link, "no", 0.1, not_admitted=True)
    (dial,) = core.probe(REMOTE, None, 0.0)
    assert isinstance(dial, Dial)
    effects = core.secured(dial.link, peer_of(0), REMOTE, "", 0.1)
    assert ProbeEnded(dial.link, "this is myself", False) in effects


def test_stalled_for_too_long_and_overflowed() -> None:
    bench = Bench()
    link = bench.neighbour()
    bench.core.stalled(link, 1.0)
    while (at := bench.core.deadline()) is not None and at < 10.9:
        bench.core.tick(at)
    bench.core.receive(link, [Ping(1, 0)], 10.9)
    assert Shut(link, at_once=True) in bench.core.tick(11.0)
    bench = Bench()
    link = bench.neighbour()
    assert Shut(link, at_once=True) in bench.core.overflowed(link, 1.0)


def test_inputs_for_links_that_never_were() -> None:
    core = Bench().core
    assert core.receive(9, [Ping(1, 0)], 0.0) == []
    assert core.lost(9, "", 0.0) == []
    assert core.malformed(9, "", 0.0) == []
    assert core.overflowed(9, 0.0) == []
    assert core.secured(9, peer_of(1), REMOTE, "", 0.0) == []
    assert core.close_link(9, 0.0) == []
    assert core.stalled(9, 0.0) == []
    assert core.resumed(9) == []
    assert core.room(9, 1 << 20, 0.0) == []
    core.abandon(9)


def test_inputs_for_conversations_that_never_were() -> None:
    core = Bench().core
    assert core.read(9, 1, 64, 0.0) == []
    assert core.end(9, 0.0) == []
    assert core.close_conversation(9, 0.0) == []
    assert core.leave_conversation(9, RefusalCode.CANCELLED, "", 0.0) == []
    assert core.refuse_said(9, 1, RefusalCode.NOT_UNDERSTOOD, "", 0.0) == []
    assert core.say_unreliably(9, "", ContentType.BYTES, b"", 0.0) == (False, [])
    assert core.conversation_id(9) == 0
    assert core.conversation_number(peer_of(1), 9, is_mine=True) == 0
    with pytest.raises(Closed):
        core.say(9, "", ContentType.BYTES, b"", 0.0)
    with pytest.raises(Closed):
        core.request(peer_of(1), "", ContentType.BYTES, b"", 1.0, 0.0, conversation=9)


def test_links_that_stall_and_resume_are_told_once() -> None:
    bench = Bench()
    link = bench.neighbour()
    assert bench.core.stalled(link, 1.0) == [Happened(LinkStalled(peer_of(1)))]
    assert bench.core.stalled(link, 2.0) == []
    assert bench.core.resumed(link) == [Happened(LinkResumed(peer_of(1)))]
    assert bench.core.resumed(link) == []


def test_a_message_that_regards_something_is_never_taken_for_another() -> None:
    """A defect: without a place in a sequence it was delivered as one that goes one way."""
    bench = Bench()
    link = bench.neighbour()
    stray = Message(7, 0, Channel.APPLICATION, b"x", in_regards_to=5)
    effects = bench.core.receive(link, [stray], 0.0)
    assert not [e for e in effects if isinstance(e, Deliver)]
    (refused,) = frames(effects, link)
    assert isinstance(refused, Message)
    assert (refused.channel, refused.in_regards_to) == (Channel.REFUSAL, 5)


def test_a_conversation_with_somebody_who_is_no_neighbour() -> None:
    """It is opened at once; what it says waits until the peer has been reached."""
    bench = Bench()
    bench.neighbour()
    opened = bench.core.open(peer_of(5), "chat", ContentType.BYTES, b"hi", None, 0.0)
    assert opened is not None
    number, effects = opened
    assert [type(f) for e in effects if isinstance(e, Send) for f in [e.frame]] == [Message]
    assert bench.core.conversation_id(number) != 0
    link, effects = bench.dialled(Purpose.CONVERSATION, number=5)
    assert PeerReached(peer_of(5)) in effects
    said = [f for f in frames(effects, link) if isinstance(f, Message)]
    assert [(m.type, m.body, m.sequence) for m in said] == [("chat", b"hi", 1)]
    assert bench.core.statistics().reaching.wanted == 0


def test_a_conversation_with_somebody_who_cannot_be_found() -> None:
    bench = Bench()
    opened = bench.core.open(peer_of(5), "chat", ContentType.BYTES, b"hi", None, 0.0)
    assert opened is not None
    number, effects = opened
    (over,) = [e for e in effects if isinstance(e, ConversationOver)]
    assert (over.conversation, over.why) == (number, Why.UNREACHABLE)
    statistics = bench.core.statistics()
    assert (statistics.conversations_open, statistics.parties) == (0, 0)


def test_leave_closes_everything_and_dials_nobody() -> None:
    bench = Bench()
    links = [bench.neighbour(n) for n in (1, 2)]
    effects = bench.core.leave(1.0)
    for link in links:
        assert Close(CloseReason.LEAVING) in frames(effects, link)
    effects += bench.core.tick(5.0)
    assert not [e for e in effects if isinstance(e, Dial)]
    assert bench.core.statistics().links == 0
    assert bench.core.deadline() is None
