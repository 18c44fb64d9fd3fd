"""Whatever two nodes say to each other, over links that die and are replaced, is heard once, in
order and whole, and nothing is left of it in the end."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from meshwalk.proto.effects import Why

from .checks import check_bounds, check_nothing_is_left
from .pair import BYTES, Pair, Talk, Wire
from .smallnodes import FIRST_WINDOW, small, small_windows

ENDS = st.integers(0, 1)
PICKS = st.integers(0, 1 << 16)
SIZES = st.one_of(
    st.integers(0, 200),
    st.sampled_from([959, 960, 961, 1024, 4032, 4096, 4097]),
    st.integers(0, 9000),
    st.sampled_from([60_000, 300_000]),
)
MANY_BYTES = 2_000_000  # said in one run: more only takes time


class Conversing(RuleBasedStateMachine):
    """Two nodes; see `pair.py` for what is checked at each message."""

    def __init__(self) -> None:
        super().__init__()
        self.windows = small_windows()
        self.windows.__enter__()
        self.pair = Pair()
        self.serial = 0
        self.bytes = 0
        self.is_troubled = False
        """A node has restarted, or was not reached: what was said may be lost."""

    def teardown(self) -> None:
        try:
            self.at_the_end()
        finally:
            self.windows.__exit__(None, None, None)

    # Choices.

    def body(self, size: int) -> bytes:
        self.serial += 1
        self.bytes += size
        if self.bytes > MANY_BYTES:
            size = min(size, 200)
        return (self.serial.to_bytes(4, "big") * (size // 4 + 1))[:size]

    def talk(self, index: int, pick: int) -> Talk | None:
        talks = list(self.pair.ends[index].talks.values())
        return talks[pick % len(talks)] if talks else None

    def wire(self, pick: int) -> Wire | None:
        wires = list(self.pair.wires.values())
        return wires[pick % len(wires)] if wires else None

    # Links.

    @initialize(may_be_troubled=st.booleans(), shared=st.sampled_from([FIRST_WINDOW, 16384]))
    def first_link(self, may_be_troubled: bool, shared: int) -> None:
        self.may_be_troubled = may_be_troubled
        self.pair = Pair(small(shared_window_bytes=shared))
        self.pair.connect()

    @precondition(lambda self: len(self.pair.wires) < 3)
    @rule(index=ENDS)
    def connect(self, index: int) -> None:
        self.pair.connect(index)

    @rule(pick=PICKS, index=ENDS)
    def retire(self, pick: int, index: int) -> None:
        if (wire := self.wire(pick)) is not None:
            self.pair.retire(wire, index)

    @rule(pick=PICKS)
    def cut(self, pick: int) -> None:
        if (wire := self.wire(pick)) is not None:
            self.pair.cut(wire)

    @rule(pick=PICKS, index=ENDS)
    def lose(self, pick: int, index: int) -> None:
        """One end has closed a link, the other does not know yet."""
        if (wire := self.wire(pick)) is not None:
            self.pair.lose(wire, index)

    @rule(pick=PICKS, index=ENDS)
    def deliver_some(self, pick: int, index: int) -> None:
        if (wire := self.wire(pick)) is not None:
            self.pair.deliver(wire, index, 1 + pick % 5)

    @rule()
    def deliver_all(self) -> None:
        self.pair.deliver_all()

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 5.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.pair.wait(seconds)

    @precondition(lambda self: self.may_be_troubled)
    @rule(index=ENDS)
    def restart(self, index: int) -> None:
        self.is_troubled = True
        self.pair.restart(index)

    @precondition(lambda self: self.may_be_troubled)
    @rule(index=ENDS)
    def is_not_reached(self, index: int) -> None:
        end = self.pair.ends[index]
        if end.is_sought and not self.pair.wires:
            self.is_troubled = True
            end.is_sought = False
            peer = end.other.peer
            end.do(lambda: end.machine.unreachable(peer, Why.UNREACHABLE, ""))

    # Conversations.

    @rule(index=ENDS, size=SIZES, timeout_s=st.sampled_from([None, None, 3.0, 100.0]))
    def open(self, index: int, size: int, timeout_s: float | None) -> None:
        self.pair.ends[index].open(self.body(size), timeout_s)

    @rule(index=ENDS, pick=PICKS, sizes=st.lists(SIZES, min_size=1, max_size=6))
    def say(self, index: int, pick: int, sizes: list[int]) -> None:
        talk = self.talk(index, pick)
        for size in sizes:
            if talk is None or talk.is_ending or talk.over is not None:
                return
            self.pair.ends[index].say(talk, self.body(size))

    @rule(index=ENDS, pick=PICKS)
    def say_unreliably(self, index: int, pick: int) -> None:
        talk = self.talk(index, pick)
        if talk is None:
            return
        end, body = self.pair.ends[index], self.body(8)
        machine, now = end.machine.conversations, self.pair.now
        if machine.say_unreliably(talk.number, "unreliable", BYTES, body, now):
            self.pair.unreliable.append(body)
        end.perform()

    @rule(index=ENDS, pick=PICKS, most=st.integers(1, 5))
    def read(self, index: int, pick: int, most: int) -> None:
        if (talk := self.talk(index, pick)) is not None:
            self.pair.ends[index].read(talk, most)

    @rule(index=ENDS, pick=PICKS, sizes=st.lists(SIZES, max_size=2))
    def end(self, index: int, pick: int, sizes: list[int]) -> None:
        self.say(index, pick, sizes)
        if (talk := self.talk(index, pick)) is not None:
            self.pair.ends[index].end(talk)

    @rule(index=ENDS, pick=PICKS, size=SIZES)
    def converse(self, index: int, pick: int, size: int) -> None:
        """What goes well: one end says all it has to say, and the other hears it."""
        end = self.pair.ends[index]
        talk = self.talk(index, pick) or end.open(self.body(size))
        if talk is not None and not talk.is_ending:
            end.say(talk, self.body(size))
            end.end(talk)
        self.pair.deliver_all()
        self.pair.read_all()

    @rule(index=ENDS, pick=PICKS)
    def close(self, index: int, pick: int) -> None:
        if (talk := self.talk(index, pick)) is not None:
            self.pair.ends[index].close(talk)

    @rule(index=ENDS, pick=PICKS)
    def leave(self, index: int, pick: int) -> None:
        if (talk := self.talk(index, pick)) is not None:
            self.pair.ends[index].leave(talk)

    @rule(index=ENDS, pick=PICKS)
    def refuse_what_was_said(self, index: int, pick: int) -> None:
        if (talk := self.talk(index, pick)) is not None and talk.questions:
            end, id = self.pair.ends[index], talk.questions.pop()
            machine = end.machine.conversations
            end.do(lambda: machine.refuse_said(talk.number, id, 4, "", self.pair.now))

    # Requests and messages that go one way.

    @rule(index=ENDS, size=SIZES, within=st.booleans(), pick=PICKS)
    def request(self, index: int, size: int, within: bool, pick: int) -> None:
        end, body, number = self.pair.ends[index], self.body(size), 0
        talk = self.talk(index, pick) if within else None
        if within and (talk is None or talk.is_ending):
            return
        party = end.machine.party(end.other.peer)
        if talk is not None:
            number = talk.number
        elif party.link is None:
            end.machine.forget_if_idle(party)
            return
        id = end.machine.request(party, "q", BYTES, body, 10.0, self.pair.now, number)
        if id is None:
            return
        end.waiting[id] = body
        if talk is not None:
            self.pair.said[talk.name, index].append(body)
        else:
            self.pair.asked[id] = body
        end.perform()

    @rule(index=ENDS, pick=PICKS, size=SIZES)
    def answer(self, index: int, pick: int, size: int) -> None:
        end = self.pair.ends[index]
        if end.asks:
            self.pair.answer(end, list(end.asks)[pick % len(end.asks)], self.body(size))

    @rule(index=ENDS, pick=PICKS)
    def abandon(self, index: int, pick: int) -> None:
        end = self.pair.ends[index]
        if end.waiting:
            id = list(end.waiting)[pick % len(end.waiting)]
            del end.waiting[id]
            end.machine.requests.abandon(id)

    @rule(index=ENDS, size=SIZES)
    def send(self, index: int, size: int) -> None:
        end, body = self.pair.ends[index], b"one way" + self.body(size)
        party = end.machine.party(end.other.peer)
        if party.link is None:
            end.machine.forget_if_idle(party)
            return
        if end.machine.send(party, "o", BYTES, body, self.pair.now):
            self.pair.one_way[body] += 1
        end.perform()

    # Truths.

    @invariant()
    def keeps_its_bounds(self) -> None:
        for end in self.pair.ends:
            check_bounds(end)
        assert not self.pair.faults

    def at_the_end(self) -> None:
        pair = self.pair
        if not pair.wires:
            pair.connect()
        pair.flow()
        for index in (0, 1):
            for talk in pair.ends[index].talks.values():
                if talk.is_closed or self.is_troubled:
                    continue
                assert talk.heard == len(pair.said[talk.name, 1 - index]), "it is stuck"
        pair.finish()
        for end in pair.ends:
            check_nothing_is_left(end)
        assert not pair.faults
        if self.is_troubled:
            return
        by_name = [{talk.name: talk for talk in end.past} for end in pair.ends]
        for index in (0, 1):
            for name, talk in by_name[index].items():
                other = by_name[1 - index].get(name)
                self.check_pair(talk, other, index)

    def check_pair(self, talk: Talk, other: Talk | None, index: int) -> None:
        """What came of a conversation where nothing but links were lost."""
        over = talk.over
        assert over is not None
        if over.why is None and not talk.is_closed and not (other and other.is_closed):
            assert other is not None
            assert talk.heard == len(self.pair.said[talk.name, 1 - index])
            assert other.heard == len(self.pair.said[talk.name, index])
        assert over.why in (None, Why.REFUSED, Why.TIMED_OUT, Why.LINK_LOST)


Conversing.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestConversing: Any = Conversing.TestCase
