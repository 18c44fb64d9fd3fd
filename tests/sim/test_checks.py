"""Each check fires when what it watches is broken on purpose, and is silent when nothing is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from meshwalk.config import BroadcastConfig, Config, HistoryConfig
from meshwalk.events import Delivery, NeighbourUp
from meshwalk.proto.effects import Answered, Ask, Happened, Unanswered, Why
from meshwalk.proto.overlay.membership import Place
from meshwalk.sim.checks import (
    FINDINGS_MAX,
    TIMERS_BESIDE_LINKS,
    Checks,
    Finding,
    components,
    unrest,
)
from meshwalk.sim.latency import Constant
from meshwalk.sim.node import SimNode
from meshwalk.sim.world import World
from meshwalk.wire.address import Address
from meshwalk.wire.frames import ContentType
from meshwalk.wire.peerid import PeerId

STRANGER = PeerId(bytes([9]) * 32)


class Scene:
    """A settled network at rest, whose applications say what they do."""

    def __init__(self, count: int = 7) -> None:
        self.checks = Checks()
        self.world = World(1, Constant(0.02), observer=self.checks)
        self.checks.world = self.world
        self.world.grow(count)
        self.world.run(60)
        self.nodes = self.world.nodes
        self.a, self.b = self.nodes[:2]
        self.b = next(node for node in self.nodes if node.id == self.a.neighbours[0])

    @property
    def texts(self) -> list[str]:
        return [finding.text for finding in self.checks.findings]

    def broadcast(self, body: bytes, sequence: int = 1, to: SimNode | None = None) -> None:
        """Have a broadcast of a delivered at b, whatever the machines would say."""
        delivery = Delivery(self.a.id, body, ContentType.BYTES, True, sequence=sequence)
        self.checks.delivered(to or self.b, delivery)

    def direct(self, body: bytes, origin: PeerId | None = None) -> None:
        delivery = Delivery(origin or self.a.id, body, ContentType.BYTES, False)
        self.checks.delivered(self.b, delivery)


@pytest.fixture
def scene() -> Scene:
    return Scene()


# All is well.


def test_nothing_is_found_in_a_network_that_works(scene: Scene) -> None:
    world, checks, a, b = scene.world, scene.checks, scene.a, scene.b

    def answer(node: SimNode, ask: Ask) -> None:
        node.do(node.core.reply(ask.peer, ask.id, ContentType.BYTES, b"answer", node.time()))

    checks.when_asked(answer)
    for number in range(3):
        body = b"run %d" % number
        checks.broadcast(a, body)
        a.broadcast(body)
    checks.sent(a, b.id, b"to you")
    a.do(a.core.send(b.id, "", ContentType.BYTES, b"to you", a.time()))
    asked = a.core.request(b.id, "", ContentType.BYTES, b"question", 5.0, a.time())
    assert asked is not None
    request, effects = asked
    checks.asked(a, b.id, request, b"answer")
    a.do(effects)
    world.run(1)
    checks.calm(scene.nodes, scene.nodes)
    assert scene.texts == []
    assert checks.delivered_count == 3 * (len(scene.nodes) - 1) + 1
    assert all(checks.has_heard(node, b"run 2") for node in scene.nodes)
    assert not checks.has_heard(a, b"run 3")


# During a run.


def test_delivered_twice(scene: Scene) -> None:
    scene.checks.broadcast(scene.a, b"run text")
    scene.broadcast(b"run text", 1)
    assert scene.texts == []
    scene.broadcast(b"run text", 2)
    assert scene.texts == ["delivered twice: b'run text'"]


def test_a_new_life_may_hear_it_again(scene: Scene) -> None:
    scene.checks.broadcast(scene.a, b"run text")
    scene.broadcast(b"run text")
    assert scene.checks.has_heard(scene.b, b"run text")
    scene.world.crash(scene.b)
    scene.world.restart(scene.b)
    assert not scene.checks.has_heard(scene.b, b"run text")
    scene.broadcast(b"run text")
    assert scene.texts == []


def test_a_broadcast_that_nobody_sent(scene: Scene) -> None:
    scene.broadcast(b"run invented")
    assert scene.texts == ["a broadcast that nobody sent: b'run invented'"]


def test_a_broadcast_under_another_name(scene: Scene) -> None:
    scene.checks.broadcast(scene.b, b"run text")
    scene.broadcast(b"run text", to=scene.nodes[3])
    assert scene.texts == ["a broadcast that nobody sent: b'run text'"]


def test_broadcasts_out_of_order(scene: Scene) -> None:
    for text in (b"run 4", b"run 5", b"run 6"):
        scene.checks.broadcast(scene.a, text)
    scene.broadcast(b"run 4", 4)
    scene.broadcast(b"run 6", 6)
    assert scene.texts == []
    scene.broadcast(b"run 5", 5)
    assert scene.texts == ["number 5 of a sender came after 6"]


def test_the_order_of_a_sender_begins_anew_once_it_may_have_been_forgotten(scene: Scene) -> None:
    scene.checks.counts_late = False
    scene.b.config = Config(
        broadcast=BroadcastConfig(remembered_s=60.0, age_max_s=60.0, order_wait_s=1.0),
        history=HistoryConfig(age_s=60.0),
    )
    for number in (4, 6, 8):
        scene.checks.broadcast(scene.a, b"run %d" % number)
    scene.broadcast(b"run 4", 4)
    scene.world.run(61)
    scene.broadcast(b"run 8", 8)
    scene.broadcast(b"run 6", 6)
    assert scene.texts == []


def test_order_where_it_is_not_expected_and_of_another_life(scene: Scene) -> None:
    for text in (b"run1 1", b"run1 2", b"run2 1", b"run2 2"):
        scene.checks.broadcast(scene.a, text)
    scene.broadcast(b"run1 2", 2)
    scene.broadcast(b"run2 1", 1)
    scene.checks.expects_order = False
    scene.broadcast(b"run1 1", 1)
    assert scene.texts == []


def test_a_message_that_nobody_sent_here_so(scene: Scene) -> None:
    checks, a, b = scene.checks, scene.a, scene.b
    checks.sent(a, b.id, b"mine")
    scene.direct(b"mine")
    assert scene.texts == []
    scene.direct(b"invented")
    checks.sent(a, scene.nodes[3].id, b"for another")
    scene.direct(b"for another")
    checks.sent(a, b.id, b"from another")
    scene.direct(b"from another", STRANGER)
    assert scene.texts == [
        "a message that nobody sent here so: b'invented'",
        "a message that nobody sent here so: b'for another'",
        "a message that nobody sent here so: b'from another'",
    ]


def test_attackers_may_say_what_they_please_in_their_own_name_only(scene: Scene) -> None:
    scene.checks.hostile.add(scene.a.id)
    scene.direct(b"invented")
    scene.direct(b"invented")
    assert scene.texts == []
    scene.broadcast(b"run invented")
    scene.direct(b"other", scene.nodes[3].id)
    assert len(scene.texts) == 2


def answered(request: int, body: bytes) -> Answered:
    return Answered(request, ContentType.BYTES, body)


def test_answers(scene: Scene) -> None:
    checks, a, b = scene.checks, scene.a, scene.b
    for request in (1, 2, 3):
        checks.asked(a, b.id, request, b"answer")
    checks.told(a, answered(1, b"answer"))
    checks.told(a, Unanswered(2, Why.TIMED_OUT))
    assert scene.texts == []
    checks.told(a, answered(1, b"answer"))
    checks.told(a, answered(2, b"answer"))
    checks.told(a, answered(7, b"answer"))
    checks.told(b, answered(3, b"answer"))
    assert [text.split(":")[0] for text in scene.texts] == [
        "an answer to nothing, or the second"
    ] * 4
    checks.findings.clear()
    checks.told(a, answered(3, b"rewsna"))
    assert scene.texts == ["another answer than was given: b'rewsna'"]


def test_a_request_that_ends_twice(scene: Scene) -> None:
    scene.checks.asked(scene.a, scene.b.id, 1, b"answer")
    scene.checks.told(scene.a, Unanswered(1, Why.REFUSED))
    scene.checks.told(scene.a, Unanswered(1, Why.TIMED_OUT))
    assert scene.texts == ["a request has ended twice"]


def test_attackers_may_answer_what_they_please_but_once(scene: Scene) -> None:
    scene.checks.hostile.add(scene.b.id)
    scene.checks.asked(scene.a, scene.b.id, 1, b"answer")
    scene.checks.told(scene.a, answered(1, b"nonsense"))
    assert scene.texts == []
    scene.checks.told(scene.a, answered(1, b"nonsense"))
    assert len(scene.texts) == 1


def test_a_request_without_an_end(scene: Scene) -> None:
    scene.checks.asked(scene.a, scene.b.id, 1, b"answer")
    scene.checks.calm(scene.nodes, [])
    assert scene.texts == [f"request 1 of {scene.a.host} in life 1 has never ended"]
    scene.checks.findings.clear()
    scene.world.crash(scene.a)  # which ends what it waited for
    scene.checks.calm([], [])
    assert scene.texts == []


def news_of_a_link(scene: Scene) -> None:
    event = NeighbourUp(STRANGER, Address("10.9.9.9", 1), 1)
    scene.checks.told(scene.a, Happened(event))


def test_too_many_neighbours(scene: Scene) -> None:
    news_of_a_link(scene)
    assert scene.texts == []
    neighbours = scene.a.core.overlay.membership.neighbours
    some = next(iter(neighbours.values()))
    for number in range(12 - len(neighbours)):  # two places are for links between fragments
        neighbours[PeerId(number.to_bytes(32, "big"))] = some
    news_of_a_link(scene)
    assert scene.texts == []
    neighbours[STRANGER] = some
    news_of_a_link(scene)
    assert scene.texts == ["13 neighbours, and 12 are allowed"]


def test_too_many_connections(scene: Scene) -> None:
    links = scene.a.core.connections.links
    some = next(iter(links.values()))
    links.update(dict.fromkeys(range(1000, 1256 - len(links)), some))
    news_of_a_link(scene)
    assert scene.texts == []
    links[2000] = some
    news_of_a_link(scene)
    assert scene.texts == ["257 connections, and 256 are allowed"]


def test_findings_have_a_bound(scene: Scene) -> None:
    for number in range(2 * FINDINGS_MAX):
        scene.broadcast(b"run %d" % number, number + 1)
    assert len(scene.checks.findings) == FINDINGS_MAX


def test_a_finding_says_when_and_where(scene: Scene) -> None:
    scene.checks.found(scene.a, "something")
    scene.checks.found(None, "something")
    here, everywhere = map(str, scene.checks.findings)
    assert here == f"{scene.world.now:10.3f} s  {scene.a.host:<12} something"
    assert "network" in everywhere
    assert scene.checks.findings[0] == Finding(scene.world.now, scene.a.host, "something")


# After a run.


def half_open(scene: Scene) -> None:
    assert scene.a.core.admit(Address("10.9.9.9", 1), scene.a.time()) is not None


def dial(scene: Scene) -> None:
    node = scene.a
    node.do(node.core.join(Address("10.9.9.9", 1), None, node.time()))


def endless_test(scene: Scene) -> None:
    node = scene.a
    node.do(node.core.probe(Address("10.9.9.9", 1), None, node.time()))
    (link,) = [known for known in node.core.connections.links.values() if not known.is_open]
    link.since = -1e9


def place(scene: Scene) -> None:
    scene.a.core.overlay.membership.places[b"token"] = Place(STRANGER, 1e9)


def request(scene: Scene) -> None:
    node = scene.a
    assert node.core.request(scene.b.id, "", ContentType.BYTES, b"", 5.0, node.time())


def asked_by_another(scene: Scene) -> None:
    asked = scene.b.core.request(scene.a.id, "", ContentType.BYTES, b"", 50.0, scene.b.time())
    assert asked is not None
    scene.checks.asked(scene.b, scene.a.id, asked[0], b"")
    scene.b.do(asked[1])
    scene.world.run(1)


def walk_of_another(scene: Scene) -> None:
    scene.a.core.overlay.carrier.carried[1] = object()  # type: ignore[assignment]


def split(scene: Scene) -> None:
    scene.a.core.overlay.carrier.splits[1] = object()  # type: ignore[assignment]


def acceptance(scene: Scene) -> None:
    scene.a.core.overlay.carrier.acceptances[1] = object()  # type: ignore[assignment]


def own_walk(scene: Scene) -> None:
    scene.a.core.overlay.walks.walks[b"token"] = object()  # type: ignore[assignment]


def held_broadcast(scene: Scene) -> None:
    scene.a.core.gossip.ordering._held = 1


def lost_pipe(scene: Scene) -> None:
    scene.a.ends.popitem()


def timers(scene: Scene) -> None:
    for number in range(TIMERS_BESIDE_LINKS + 1):
        scene.a.core.timers.set(("link", 1000 + number), 1e9)


def conversation(scene: Scene) -> None:
    assert scene.a.open(scene.b.id, "talk", b"") is not None


def wanted_peer(scene: Scene) -> None:
    scene.a.reach(STRANGER)


def stranger(scene: Scene) -> None:
    scene.a.core.dispatch.party(STRANGER)


def shared_credit(scene: Scene) -> None:
    scene.a.core.dispatch.party(scene.b.id).shared_out.used = 5


def assembled(scene: Scene) -> None:
    scene.a.core.dispatch.party(scene.b.id).ahead = 7


def deadline(scene: Scene) -> None:
    scene.a.core.timers.set(("conversation", 9), 1e9)


@pytest.mark.parametrize(
    ("break_it", "text"),
    [
        (conversation, "1 conversations are left over"),
        (wanted_peer, "1 peers to be reached are left over"),
        (wanted_peer, "1 searches are left over"),
        (stranger, "1 peers without a link that something is kept for are left over"),
        (shared_credit, "5 bytes of shared credit used are left over"),
        (assembled, "7 bytes of unread messages are left over"),
        (deadline, "1 timers of dispatch are left over"),
        (half_open, "1 half-open links are left over"),
        (dial, "1 dials are left over"),
        (endless_test, "1 tests that last too long are left over"),
        (place, "1 promised places are left over"),
        (request, "1 requests are left over"),
        (asked_by_another, "1 requests of others are left over"),
        (walk_of_another, "1 walks of others are left over"),
        (own_walk, "1 walks of its own are left over"),
        (split, "1 splits are left over"),
        (acceptance, "1 acceptances are left over"),
        (held_broadcast, "1 broadcasts held are left over"),
        (half_open, "{more} links for {links} neighbours"),
        (lost_pipe, "{less} pipes for {links} links"),
        (timers, "timers for {links} links"),
    ],
)
def test_what_is_left_over(scene: Scene, break_it: Callable[[Scene], None], text: str) -> None:
    assert unrest(scene.a) == []
    links = len(scene.a.neighbours)
    break_it(scene)
    text = text.format(links=links, more=links + 1, less=links - 1)
    assert any(found.endswith(text) for found in unrest(scene.a)), unrest(scene.a)
    assert unrest(scene.nodes[3]) == []


def test_a_node_without_rest_is_found(scene: Scene) -> None:
    place(scene)
    scene.checks.calm(scene.nodes, [])
    assert scene.texts == []
    scene.checks.calm(scene.nodes, [scene.a])
    assert [(f.host, f.text) for f in scene.checks.findings] == [
        (scene.a.host, "1 promised places are left over")
    ]


def test_a_link_that_one_end_knows_of(scene: Scene) -> None:
    scene.b.core.overlay.walks.stop()  # or it would look for a link in place of this one
    scene.b.core.overlay.membership.neighbours.pop(scene.a.id)
    scene.checks.calm(scene.nodes, [])
    assert [(f.host, f.text) for f in scene.checks.findings] == [
        (scene.a.host, f"links with {scene.b.host}, which does not know of it")
    ]
    scene.checks.findings.clear()
    scene.checks.calm([node for node in scene.nodes if node is not scene.b], [])
    assert scene.texts == [], "whoever is not honest is not asked"


def test_a_link_that_one_end_does_not_know_of_yet(scene: Scene) -> None:
    """The other end hears half a round trip later: that is no finding."""
    node = scene.world.add()
    node.join(scene.a)
    scene.world.run_until(lambda: bool(node.neighbours), 5, look_s=0.001)
    scene.checks.calm(scene.nodes, [])
    assert scene.texts == []


# The pieces of a network.


def test_components() -> None:
    scene = Scene(9)
    nodes = scene.nodes
    assert [len(piece) for piece in components(nodes)] == [9]
    assert components([]) == []
    for node in nodes:
        node.core.overlay.walks.stop()
    few = nodes[:3]
    scene.world.conditions.partition([node.host for node in few])
    scene.world.run(60)
    large, small = components(nodes)
    assert sorted(map(repr, small)) == sorted(map(repr, few))
    assert len(large) == 6
    assert [len(piece) for piece in components(nodes[:4])] == [3, 1]
