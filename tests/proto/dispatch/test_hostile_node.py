"""A whole node hears whatever frames a peer makes up: effects and closed links, never an error."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from meshwalk.config import Config, ConversationConfig, RequestConfig
from meshwalk.proto.effects import ConversationHeard, ConversationOpened, Send
from meshwalk.proto.node import NodeCore
from meshwalk.sim.signatures import CheapSignatures
from meshwalk.wire.address import Address
from meshwalk.wire.codec import encode_frame
from meshwalk.wire.frames import (
    FLOOR_BYTES,
    PROTOCOL_VERSION,
    Channel,
    ContentType,
    Credit,
    Frame,
    Hello,
    Message,
    Purpose,
)
from meshwalk.wire.messages import Refusal, encode
from meshwalk.wire.peerid import PeerId

CONFIG = Config(
    conversations=ConversationConfig(per_peer_max=4, total_max=6),
    requests=RequestConfig(pending_max=4, served_per_peer_max=4),
)
PEER = PeerId(bytes([9]) * 32)
HOST = Address("10.9.9.9", 999)

SMALL = st.integers(0, 5)
NUMBERS = st.one_of(SMALL, st.sampled_from([1 << 31, 1 << 63, (1 << 64) - 1]))
BODIES = st.one_of(
    st.binary(max_size=8),
    st.sampled_from([bytes(100_000), bytes(200_000)]),
    st.builds(Refusal, st.integers(0, 12), st.just("")).map(encode),
)
MESSAGES = st.builds(
    Message,
    NUMBERS,
    NUMBERS,
    st.sampled_from([Channel.APPLICATION, Channel.APPLICATION, Channel.REFUSAL]),
    BODIES,
    SMALL,
    SMALL,
    st.sampled_from(ContentType),
    st.sampled_from(["", "t"]),
    st.booleans(),
    NUMBERS,
    st.integers(0, 40),
)
CREDITS = st.builds(Credit, SMALL, st.booleans(), NUMBERS, NUMBERS, NUMBERS)
FRAMES = st.one_of(MESSAGES, MESSAGES, CREDITS)


class Listener:
    """A node and the link of one hostile peer to it, made anew when the node has closed it."""

    def __init__(self) -> None:
        self.core = NodeCore(CheapSignatures(PeerId(bytes([1]) * 32)), CONFIG, Random(1), 0.0, 0.0)
        self.now = 0.0
        self.link = 0
        self.links = 0
        self.unread: list[ConversationHeard] = []

    def hear(self, frame: Frame) -> None:
        core = self.core
        if self.link not in core.connections.links:
            link = core.admit(HOST, self.now)
            assert link is not None
            self.link, self.links = link, self.links + 1
            core.secured(link, PEER, HOST, "", self.now)
            hello = Hello(PROTOCOL_VERSION, Purpose.CONVERSATION, 0, "", window=self.links % 3)
            core.receive(link, [hello], self.now)
            assert core.connections.links[link].is_open
        for effect in core.receive(self.link, [frame], self.now):
            if type(effect) is Send:
                encode_frame(effect.frame)  # what is sent can be read
            elif type(effect) is ConversationHeard:
                self.unread.append(effect)
            elif type(effect) is ConversationOpened and effect.conversation % 2:
                core.say(effect.conversation, "", ContentType.BYTES, bytes(3000), self.now)
        self.check()

    def check(self) -> None:
        dispatch, limits = self.core.dispatch, CONFIG.conversations
        assert len(dispatch.conversations.open_now) <= limits.per_peer_max
        assert len(dispatch.requests.serving) <= 4
        assert len(dispatch.parties) <= 2
        for party in dispatch.parties.values():
            assert party.shared_in.used <= limits.shared_window_bytes
            assert party.shared_out.used >= 0
            assert 0 <= party.ahead <= limits.assembling_bytes_max
            held = sum(c.incoming.window.held for c in party.conversations.values())
            assert held <= limits.shared_window_bytes + limits.per_peer_max * FLOOR_BYTES


@given(st.lists(st.one_of(FRAMES, st.sampled_from(["read", "wait", "ask"])), max_size=40))
def test_made_up_frames_raise_nothing(steps: list[Frame | str]) -> None:
    listener = Listener()
    core = listener.core
    for step in steps:
        if not isinstance(step, str):
            listener.hear(step)
            continue
        if step == "read" and listener.unread:
            heard = listener.unread.pop(0)
            core.read(heard.conversation, 1, heard.cost, listener.now)
        elif step == "wait":
            listener.now += 1.5
            core.tick(listener.now)
        elif step == "ask" and core.link_to(PEER) is not None:
            core.request(PEER, "", ContentType.BYTES, bytes(100_000), 3.0, listener.now)
        listener.check()
    for _ in range(400):
        listener.now += 1.0
        core.tick(listener.now)
    assert not core.dispatch.requests.waiting
    assert not core.dispatch.requests.serving
    assert not core.dispatch.conversations.open_now
    assert len(core.dispatch.parties) == 0
