"""The connection table: limits, and counters that return to zero whatever happens."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meshwalk.config import Config, ConnectionConfig, OverlayConfig
from meshwalk.proto.connections import Connections
from meshwalk.proto.effects import Dial, Effect, Shut
from meshwalk.proto.link import Asked, Ended, LinkState
from meshwalk.proto.timers import Timers
from meshwalk.wire.address import Address
from meshwalk.wire.frames import (
    PROTOCOL_VERSION,
    Channel,
    Close,
    CloseReason,
    Hello,
    Message,
    Ping,
    Pong,
    Purpose,
)
from meshwalk.wire.peerid import PeerId

ME = PeerId(bytes(32))
OTHER = PeerId(bytes(31) + b"\x01")
THIRD = PeerId(bytes(31) + b"\x02")
SMALL = Config(
    connections=ConnectionConfig(
        total_max=12, half_open_max=4, per_host_max=3, dialling_max=3, accepts_burst=1000
    ),
    overlay=OverlayConfig(links_min=2, links_max=4),
)
HELLO = Hello(PROTOCOL_VERSION, Purpose.STANDING, 0, "")
FRAMES = [
    HELLO,
    Hello(9, Purpose.PROBE, 0, ""),
    Hello(PROTOCOL_VERSION, Purpose.PROBE, 0, ""),
    Ping(1, 0),
    Pong(1, 0, 0, 0),
    Close(0),
    Close(99),
    Message(1, 0, Channel.APPLICATION, b""),
]


def table(config: Config = SMALL) -> tuple[Connections, list[Effect], Timers]:
    out: list[Effect] = []
    timers = Timers()
    ids = count(1).__next__
    return Connections(ME, config, timers, out, ids, lambda remote: b"", ""), out, timers


class AnyOrder(RuleBasedStateMachine):
    """Inputs in any order, also for links that are gone or never were."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out, self.timers = table()
        self.now = 0.0
        self.ends: list[int] = []

    links = st.integers(1, 12)

    def note(self, news: object) -> None:
        if news is None:
            return
        assert isinstance(news, tuple)
        link, what = news
        if isinstance(what, Ended):
            assert link.number not in self.ends, "Ended comes once"
            self.ends.append(link.number)

    @rule(host=st.sampled_from(["10.0.0.1", "10.0.0.2", "127.0.0.1"]))
    def admit(self, host: str) -> None:
        self.table.admit(Address(host, 1), self.now)

    @rule(host=st.sampled_from(["a.example", "10.0.0.2"]), expects=st.booleans())
    def dial(self, host: str, expects: bool) -> None:
        expected = OTHER if expects else None
        self.table.dial(Address(host, 1), expected, Purpose.STANDING, b"t", self.now)

    @rule(number=links, peer=st.sampled_from([OTHER, OTHER, OTHER, THIRD, ME]))
    def secured(self, number: int, peer: PeerId) -> None:
        self.note(self.table.secured(number, peer, Address("10.0.0.2", 5), self.now))

    @rule(number=links, frame=st.sampled_from(FRAMES), consents=st.booleans())
    def receive(self, number: int, frame: Message, consents: bool) -> None:
        news = self.table.receive(number, frame, self.now)
        self.note(news)
        if news is not None and isinstance(news[1], Asked):
            if consents:
                self.table.consent(news[0], self.now)
            else:
                self.note(self.table.close(news[0], CloseReason.FULL, "", self.now))

    @rule(number=links, what=st.sampled_from(["lost", "malformed", "overflowed", "stalled"]))
    def misfortune(self, number: int, what: str) -> None:
        if what == "lost":
            self.note(self.table.lost(number, "gone"))
        elif what == "malformed":
            self.note(self.table.malformed(number, "junk", self.now))
        elif what == "overflowed":
            self.note(self.table.overflowed(number, self.now))
        else:
            self.table.stalled(number, self.now)

    @rule(number=links, reason=st.sampled_from(CloseReason))
    def close(self, number: int, reason: CloseReason) -> None:
        link = self.table.links.get(number)
        if link is not None:
            self.note(self.table.close(link, reason, "", self.now))

    @rule(number=links)
    def resume(self, number: int) -> None:
        self.table.resumed(number)

    @rule(seconds=st.floats(0.1, 20))
    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        for _ in range(1000):
            at = self.timers.next()
            if at is None or at > end:
                break
            self.now = max(self.now, at)
            for _, number in self.timers.due(self.now):
                assert isinstance(number, int)
                self.note(self.table.tick(number, self.now))
        else:
            raise AssertionError("a timer that loops")
        self.now = end

    @rule(late_s=st.floats(0, 100))
    def doubt(self, late_s: float) -> None:
        self.now += late_s
        self.table.doubt(late_s, self.now)

    @precondition(lambda self: self.table.links)
    @rule()
    def end_all(self) -> None:
        for number in list(self.table.links):
            self.note(self.table.lost(number, "the end"))
        assert len(self.timers) == 0
        assert not self.table._hosts

    @invariant()
    def counters_tell_the_truth(self) -> None:
        young = [
            link
            for link in self.table.links.values()
            if link.state in (LinkState.SECURING, LinkState.GREETING)
        ]
        assert self.table.half_open == sum(not link.outbound for link in young)
        assert self.table._dialling == sum(link.outbound for link in young)
        assert sum(self.table._hosts.values()) == len(self.table.links)
        assert 0 <= self.table.half_open <= SMALL.connections.half_open_max
        assert 0 <= self.table._dialling <= SMALL.connections.dialling_max
        assert len(self.table.links) <= SMALL.connections.total_max
        silences = self.table.silences
        assert silences["recovered"] <= silences["suspected"]
        # Whatever may be waited for has a timer, so that no link stays for ever.
        assert len(self.timers) == len(self.table.links)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


def open_inbound(connections: Connections, host: str, purpose: Purpose = Purpose.PROBE) -> int:
    number = connections.admit(Address(host, 1), 0.0)
    assert number is not None
    connections.secured(number, OTHER, Address(host, 1), 0.0)
    news = connections.receive(number, Hello(PROTOCOL_VERSION, purpose, 0, ""), 0.0)
    assert news is not None
    connections.consent(news[0], 0.0)
    return number


def test_limits_and_their_counts() -> None:
    connections, _, _ = table()
    for _ in range(3):
        assert connections.admit(Address("10.0.0.1", 1), 0.0) is not None
    assert connections.admit(Address("10.0.0.1", 1), 0.0) is None
    assert connections.admit(Address("127.0.0.1", 1), 0.0) is not None
    assert connections.admit(Address("127.0.0.1", 1), 0.0) is None
    assert connections.refused == {"host": 1, "half open": 1}


def test_strangers_leave_room_for_own_dials() -> None:
    """A defect: strangers could fill the table, and the node could not dial any more."""
    connections, _, _ = table()
    for n in range(8):
        open_inbound(connections, f"10.0.0.{n}")
    assert connections.admit(Address("10.0.1.1", 1), 0.0) is None
    assert connections.refused == {"total": 1}
    assert connections.dial(Address("10.0.1.1", 1), None, Purpose.STANDING, b"", 0.0) is not None


def test_own_dials_are_bounded() -> None:
    connections, out, _ = table()
    made = [
        connections.dial(Address("10.0.0.1", 1), None, Purpose.STANDING, b"", 0.0) for _ in range(5)
    ]
    assert [link is not None for link in made] == [True] * 3 + [False] * 2
    assert sum(isinstance(e, Dial) for e in out) == 3


def test_rate_of_accepts() -> None:
    config = Config(connections=ConnectionConfig(accepts_per_s=1.0, accepts_burst=2))
    connections, _, _ = table(config)
    taken = [connections.admit(Address("10.0.0.1", n), 0.0) for n in range(3)]
    assert [number is not None for number in taken] == [True, True, False]
    assert connections.admit(Address("10.0.0.1", 9), 1.0) is not None


@pytest.mark.parametrize("outbound", [True, False])
def test_a_pipe_to_oneself(outbound: bool) -> None:
    connections, out, _ = table()
    if outbound:
        link = connections.dial(Address("10.0.0.1", 1), None, Purpose.STANDING, b"", 0.0)
        assert link is not None
        number = link.number
    else:
        admitted = connections.admit(Address("10.0.0.1", 1), 0.0)
        assert admitted is not None
        number = admitted
    news = connections.secured(number, ME, Address("10.0.0.1", 1), 0.0)
    assert news is not None
    assert isinstance(news[1], Ended)
    assert news[1].reason is CloseReason.SELF
    assert Shut(number, at_once=False) in out


def test_another_peer_than_expected_is_not_greeted() -> None:
    connections, out, _ = table()
    link = connections.dial(Address("10.0.0.1", 1), OTHER, Purpose.STANDING, b"", 0.0)
    assert link is not None
    out.clear()
    news = connections.secured(link.number, THIRD, Address("10.0.0.1", 1), 0.0)
    assert news is not None
    assert isinstance(news[1], Ended)
    assert news[1].not_admitted
    assert out == [Shut(link.number, at_once=True)]


def test_messages_on_an_open_link_are_no_dials_that_ended() -> None:
    machine, _, _ = table()
    link = machine.dial(Address("10.0.0.2", 1), OTHER, Purpose.STANDING, b"t", 0.0)
    assert link is not None
    machine.secured(link.number, OTHER, Address("10.0.0.2", 1), 0.1)
    machine.receive(link.number, HELLO, 0.2)
    for _ in range(5):
        machine.receive(link.number, Message(1, 0, Channel.APPLICATION, b""), 0.3)
    assert machine._dialling == 0
