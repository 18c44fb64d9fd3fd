"""Each attacker in a small network: the honest nodes stay linked, and the attack does something."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import get_args

import pytest

from meshwalk.sim.attackers import ABUSES, BEHAVIOURS, COPIES, FLOOD, INVENTED
from meshwalk.sim.checks import Checks, components
from meshwalk.sim.node import Behaviour, SimNode
from meshwalk.sim.world import World
from meshwalk.wire.codec import encode_frame
from meshwalk.wire.frames import Channel, Close, ContentType, Frame, Message, Ping, Pong
from meshwalk.wire.gossip import (
    Broadcast,
    Gone,
    GossipMessage,
    Graft,
    Have,
    Held,
    Prune,
    Want,
    decode_gossip,
    encode_gossip,
)
from meshwalk.wire.messages import (
    JoinOutcome,
    JoinReply,
    JoinRequest,
    OverlayMessage,
    decode_overlay,
    encode,
)
from meshwalk.wire.records import (
    BroadcastMessage,
    BroadcastPayload,
    Domain,
    decode_broadcast_head,
    decode_broadcast_payload,
)
from meshwalk.wire.records import encode as encode_record

ROUNDS = 20


def kind_of(frame: Frame | bytes) -> str:
    """What a frame is for: its class; of a message, its channel and what the overlay means."""
    if type(frame) is not Message:
        return type(frame).__name__
    if frame.channel is not Channel.OVERLAY:
        return frame.channel.name.lower()
    return type(decode_overlay(frame.body)).__name__


class Watched(Behaviour):
    """A behaviour whose departures are counted, by the kind of frame that it was given."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.given: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.changed: Counter[str] = Counter()
        self.added: Counter[str] = Counter()

    def sends(self, node: SimNode, link: int, frame: Frame) -> list[Frame | bytes]:
        out = self.behaviour.sends(node, link, frame)
        kind = kind_of(frame)
        self.given[kind] += 1
        self.dropped[kind] += not out
        self.changed[kind] += bool(out) and out[0] != frame
        self.added[kind] += len(out[1:])
        return out


class Scene:
    """Twelve nodes, of which two turn hostile; then newcomers, and broadcasts by everyone."""

    def __init__(self, behaviour: Callable[[Random], Behaviour], seed: int = 4) -> None:
        self.checks = Checks()
        self.world = World(seed, observer=self.checks)
        self.checks.world = self.world
        self.world.grow(12)
        self.world.run(20)
        self.attackers = self.world.nodes[3:5]
        self.watched = []
        for number, node in enumerate(self.attackers):
            node.behaviour = watched = Watched(behaviour(Random(number)))
            self.watched.append(watched)
            self.checks.hostile.add(node.id)
        for _ in range(3):
            self.world.add().join(self.world.nodes[0])
        # One that has to begin with an attacker.
        self.victim = self.world.add()
        self.victim.join(self.attackers[0])
        self.world.run(30)
        # Newcomers may not have been there for the first words; from here on all should hear all.
        self.bodies: list[bytes] = []
        for number in range(ROUNDS):
            for node in self.honest[::3]:
                body = f"{node.host} {number}".encode()
                self.bodies.append(body)
                self.checks.broadcast(node, body)
                node.broadcast(body)
            self.world.run(2)
        self.world.run(10)

    @property
    def honest(self) -> list[SimNode]:
        return [n for n in self.world.nodes if n.behaviour is None and n is not self.victim]

    def sum_of(self, name: str, kind: str = "") -> int:
        """How many frames of a kind, or of any, the attackers have dropped, added and so on."""
        counters = [getattr(watched, name) for watched in self.watched]
        return sum(c[kind] if kind else c.total() for c in counters)

    def ended(self, reason: str) -> int:
        """For how many links of honest nodes this was the reason to end."""
        return sum(node.core.statistics().ended.get(reason, 0) for node in self.honest)

    def samples(self) -> list[int]:
        """How many round trips honest nodes have measured on each link with an attacker."""
        links = [n.core.link_of(a.id) for n in self.honest for a in self.attackers]
        return [len(link.round_trips.samples) for link in links if link is not None]


def black_hole(scene: Scene) -> None:
    assert scene.sum_of("dropped", "broadcast") == scene.sum_of("given", "broadcast") > 100
    assert scene.sum_of("dropped") == scene.sum_of("dropped", "broadcast")
    assert scene.samples(), "it keeps its links"


def degrader(scene: Scene) -> None:
    given, dropped = scene.sum_of("given", "broadcast"), scene.sum_of("dropped", "broadcast")
    assert 0.4 * given < dropped < 0.6 * given
    assert scene.sum_of("dropped") == dropped


def repeater(scene: Scene) -> None:
    assert scene.sum_of("added", "broadcast") > 20
    assert scene.sum_of("added") > scene.sum_of("added", "broadcast") - 1
    assert scene.sum_of("dropped") == scene.sum_of("changed") == 0


def corruptor(scene: Scene) -> None:
    assert 0 < scene.sum_of("changed") < 0.03 * scene.sum_of("given")
    seen = [node.core.statistics() for node in scene.honest]
    noticed = sum(s.broadcast.get("forged", 0) + s.broadcast.get("malformed", 0) for s in seen)
    assert scene.ended("malformed") + scene.ended("protocol") + noticed > 0


def babbler(scene: Scene) -> None:
    assert 0 < scene.sum_of("added") < 0.03 * scene.sum_of("given")
    assert scene.ended("malformed") > 0


def liar(scene: Scene) -> None:
    assert scene.sum_of("changed", "JoinReply") > 0
    assert scene.sum_of("changed") == scene.sum_of("changed", "JoinReply")


def swallower(scene: Scene) -> None:
    assert scene.sum_of("dropped", "JoinRequest") > 0
    assert scene.sum_of("dropped", "broadcast") == 0
    assert scene.victim.neighbours == [], "who knows nobody else is kept out"


def walker(scene: Scene) -> None:
    added = scene.sum_of("added", "JoinRequest")
    assert added == (COPIES - 1) * scene.sum_of("given", "JoinRequest") > 0
    assert added == scene.sum_of("added")


def mute(scene: Scene) -> None:
    assert scene.sum_of("dropped", "Pong") == scene.sum_of("given", "Pong") > 50
    assert scene.samples(), "its own pings keep its links"
    fresh = [n.core.link_of(a.id) for n in scene.world.nodes[12:] for a in scene.attackers]
    assert all(not link.round_trips.samples for link in fresh if link is not None)


def pinger(scene: Scene) -> None:
    pings = scene.sum_of("given", "Ping")
    assert scene.sum_of("added") == (COPIES - 1) * pings > 500
    assert scene.world.frames[Pong] >= COPIES * pings * 0.9, "each is answered"


def quitter(scene: Scene) -> None:
    assert scene.sum_of("changed") > 0
    messages = {kind.__name__ for kind in get_args(OverlayMessage)}
    changed = {kind for kind, n in scene.watched[0].changed.items() if n}
    assert changed <= {"broadcast", "application", *messages}


MEASURES: dict[str, Callable[[Scene], None]] = {
    "black hole": black_hole,
    "degrader": degrader,
    "repeater": repeater,
    "corruptor": corruptor,
    "babbler": babbler,
    "liar": liar,
    "swallower": swallower,
    "walker": walker,
    "mute": mute,
    "pinger": pinger,
    "quitter": quitter,
}


def test_each_attacker_is_measured() -> None:
    assert list(MEASURES) == list(BEHAVIOURS)


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_attacker(name: str) -> None:
    scene = Scene(BEHAVIOURS[name])
    assert [str(finding) for finding in scene.checks.findings] == []
    honest = scene.honest
    assert len(components(honest)) == 1
    for node in honest:
        # Whoever swallows walks leaves some in want of a link or two.
        assert len(node.neighbours) >= (3 if name == "swallower" else 5)
        heard = [body for body in scene.bodies if scene.checks.has_heard(node, body)]
        assert len(heard) == len(scene.bodies)
    MEASURES[name](scene)


def test_without_attackers_nothing_is_measured() -> None:
    """So that what the measures find comes from the attack."""
    scene = Scene(lambda _: Behaviour())
    for what in ("dropped", "changed", "added"):
        assert scene.sum_of(what) == 0
    assert scene.sum_of("given") > 1000
    for reason in ("malformed", "protocol"):
        assert scene.ended(reason) == 0
    assert len(scene.victim.neighbours) >= 5
    for measure in MEASURES.values():
        with pytest.raises(AssertionError):
            measure(scene)


# What each does to a frame.


def message(channel: Channel, body: bytes) -> Message:
    return Message(1, 0, channel, body, content=ContentType.BYTES)


def overlay(body: OverlayMessage) -> Message:
    return message(Channel.OVERLAY, encode(body))


PING, PONG = Ping(1, 0), Pong(1, 0, 0, 0)
BROADCAST = message(Channel.BROADCAST, b"text")
REPLY = overlay(JoinReply(JoinOutcome.NO_PLACE, 3))
REQUEST = overlay(JoinRequest(b"record", bytes(16), "", 3, 10))
GARBLED = message(Channel.OVERLAY, b"\xff")


@pytest.mark.parametrize("name", [*BEHAVIOURS, *ABUSES])
@pytest.mark.parametrize("frame", [PING, PONG, BROADCAST, REPLY, REQUEST, GARBLED])
def test_every_frame_is_taken(name: str, frame: Frame) -> None:
    world = World(1)
    node = world.add()
    behaviour = {**BEHAVIOURS, **ABUSES}[name](Random(1))
    for _ in range(20):
        for out in behaviour.sends(node, 1, frame):
            assert isinstance(out, bytes) or encode_frame(out)


def test_a_flipped_bit_is_one() -> None:
    node = World(1).add()
    behaviour = BEHAVIOURS["corruptor"](Random(1))
    right = encode_frame(BROADCAST)
    wrong = [
        out
        for _ in range(2000)
        for out in behaviour.sends(node, 1, BROADCAST)
        if isinstance(out, bytes)
    ]
    assert 5 < len(wrong) < 50
    for data in wrong:
        flipped = int.from_bytes(data, "big") ^ int.from_bytes(right, "big")
        assert flipped.bit_count() == 1


def test_a_quitter_says_goodbye_instead_of_a_message() -> None:
    node = World(1).add()
    behaviour = BEHAVIOURS["quitter"](Random(1))
    out = [behaviour.sends(node, 1, BROADCAST) for _ in range(1000)]
    closes = [frames for frames in out if isinstance(frames[0], Close)]
    assert 2 < len(closes) < 30
    assert behaviour.sends(node, 1, PING) == [PING]


# Abuse of broadcasts.

KEY, OTHER_KEY = bytes([1]) * 32, bytes([2]) * 32
HAVE = Have([Held(KEY, 7, [1, 3], 2, 500)])
WANT = Want(KEY, 7, [1, 1])
GONE = Gone(KEY, 7, [1, 1])


def copy_of(number: int, origin: bytes = KEY) -> Broadcast:
    messages = [BroadcastMessage(b"text", ContentType.BYTES)]
    payload = encode_record(BroadcastPayload(origin, 7, number, 1000, number, messages))
    return Broadcast(payload, bytes(64), 2)


class Abuser:
    """A node with one behaviour, and what comes out of it."""

    def __init__(self, name: str) -> None:
        self.node = World(1).add()
        self.behaviour = ABUSES[name](Random(1))

    def says(self, body: GossipMessage) -> list[GossipMessage]:
        frame = message(Channel.BROADCAST, encode_gossip(body))
        return [self._read(out) for out in self.behaviour.sends(self.node, 1, frame)]

    def pings(self, link: int = 1) -> list[GossipMessage]:
        first, *others = self.behaviour.sends(self.node, link, PING)
        assert first == PING
        return [self._read(out) for out in others]

    def _read(self, out: Frame | bytes) -> GossipMessage:
        assert type(out) is Message
        assert out.channel is Channel.BROADCAST
        return decode_gossip(out.body)


@pytest.mark.parametrize("name", ABUSES)
def test_an_abuser_keeps_to_the_rest_of_the_protocol(name: str) -> None:
    abuser = Abuser(name)
    for frame in (PONG, REPLY, REQUEST, GARBLED, message(Channel.BROADCAST, b"\xff")):
        assert abuser.behaviour.sends(abuser.node, 1, frame) == [frame]
    assert abuser.says(WANT) == [WANT]


def test_a_flooder_has_new_and_genuine_broadcasts_for_each_neighbour() -> None:
    abuser = Abuser("flooder")
    one, again, other = abuser.pings(1), abuser.pings(1), abuser.pings(2)
    numbers = []
    for copy in (*one, *again):
        assert type(copy) is Broadcast
        payload = decode_broadcast_payload(copy.payload)
        numbers.append(payload.sequence)
        assert payload.origin == abuser.node.id
        assert abuser.node.signatures.verify(
            Domain.BROADCAST, payload.origin, copy.signature, copy.payload
        )
    assert numbers == list(range(1, 2 * FLOOD + 1))
    assert len(other) == FLOOD
    assert abuser.says(copy_of(1)) == [copy_of(1)]


def test_a_litterer_sends_bytes_that_mean_nothing() -> None:
    abuser = Abuser("litterer")
    out = abuser.behaviour.sends(abuser.node, 1, PING)
    assert len(out) == 1 + COPIES
    bodies = {frame.body for frame in out if type(frame) is Message}
    assert len(bodies) == COPIES


def test_a_forger_changes_one_bit_and_not_which_broadcast_it_is() -> None:
    abuser, right = Abuser("forger"), copy_of(3)
    places = set()
    for _ in range(50):
        (forged,) = abuser.says(right)
        assert type(forged) is Broadcast
        changed = [
            int.from_bytes(a, "big") ^ int.from_bytes(b, "big")
            for a, b in ((forged.payload, right.payload), (forged.signature, right.signature))
        ]
        assert sum(bits.bit_count() for bits in changed) == 1
        places.add(bool(changed[0]))
        assert decode_broadcast_head(forged.payload).sequence == 3
    assert places == {True, False}
    assert abuser.says(HAVE) == [HAVE]


def test_a_replayer_sends_all_that_it_has_seen_again() -> None:
    abuser = Abuser("replayer")
    assert abuser.pings() == []
    copies = [copy_of(1), copy_of(2)]
    assert [abuser.says(copy) for copy in copies] == [[copy] for copy in copies]
    assert abuser.pings() == abuser.pings() == copies


@pytest.mark.parametrize(("name", "answers"), [("promiser", True), ("staller", False)])
def test_a_promiser_tells_of_what_it_never_sends(name: str, answers: bool) -> None:
    abuser = Abuser(name)
    assert abuser.says(copy_of(5)) == [Have([Held(KEY, 7, [5, 5], 1, 0)])]
    (told,) = abuser.pings()
    assert type(told) is Have
    assert told.held[0] == Held(KEY, 7, [6, 5 + INVENTED], 1, 0)
    assert told.held[1].origin != KEY, "and of an origin that there is not"
    assert bool(abuser.says(GONE)) == answers


def test_a_hoarder_asks_and_tells_nothing() -> None:
    abuser = Abuser("hoarder")
    assert abuser.says(copy_of(1)) == abuser.says(HAVE) == []
    for asking in (WANT, Graft(), Prune()):
        assert abuser.says(asking) == [asking]
    assert abuser.pings() == []


def test_a_waverer_makes_and_ends_branches() -> None:
    abuser = Abuser("waverer")
    assert abuser.says(copy_of(1, OTHER_KEY)) == [copy_of(1, OTHER_KEY)]
    out = abuser.pings()
    assert Counter(type(each) for each in out) == {Graft: COPIES, Prune: COPIES}
    scopes = {each.scope for each in out if isinstance(each, Graft | Prune)}
    assert scopes == {b"", OTHER_KEY}
