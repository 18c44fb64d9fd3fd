"""Each check of conversations fires when what it watches is broken, else it is silent."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from meshwalk.proto.effects import (
    ConversationEnded,
    ConversationHeard,
    ConversationOpened,
    ConversationOver,
    PeerReached,
    Why,
)
from meshwalk.sim.heard import Conversed, Said, filled, name_of
from meshwalk.sim.node import SimNode
from meshwalk.sim.world import World
from meshwalk.wire.frames import ContentType
from meshwalk.wire.peerid import PeerId

FIRST: Said = (b"a 1 ", 10)
BYTES = ContentType.BYTES


class Scene:
    """Three nodes that never speak: what happens to a conversation is made up here."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.hostile: set[PeerId] = set()
        self.conversed = Conversed(lambda _, text: self.texts.append(text), self.hostile)
        world = World(1)
        self.a, self.b, self.c = (world.add() for _ in range(3))
        self.conversed.opens(self.a, 1, self.b.id, FIRST, None)

    def opened(self, node: SimNode, body: bytes = filled(*FIRST), number: int = 7) -> None:
        effect = ConversationOpened(number, self.a.id, 5, "talk", BYTES, body, 0.0, 0.0)
        self.conversed.told(node, effect)

    def heard(self, node: SimNode, body: bytes, number: int = 7) -> None:
        effect = ConversationHeard(number, 6, "", BYTES, body, 70, False, 0.0, 0.0)
        self.conversed.told(node, effect)

    def ended(self, node: SimNode, number: int = 7) -> None:
        self.conversed.told(node, ConversationEnded(number))

    def over(self, node: SimNode, number: int = 7, why: Why | None = None) -> None:
        self.conversed.told(node, ConversationOver(number, why))


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_body_is_its_name_over_and_over() -> None:
    assert filled(b"a 1 ", 10) == b"a 1 a 1 a "
    assert filled(b"a 1 ", 2) == b"a 1 "
    assert name_of(filled(b"10.0.0.1/2 c17 ", 300)) == b"10.0.0.1/2 c17 "


def test_nothing_is_found_when_all_is_well(scene: Scene) -> None:
    conversed, a, b = scene.conversed, scene.a, scene.b
    scene.opened(b)
    conversed.says(a, 1, (b"a 2 ", 4))
    conversed.says_loosely(a, 1, (b"a 3 ", 4))
    conversed.says_loosely(a, 1, (b"a 4 ", 4))
    conversed.says(b, 7, (b"b 1 ", 30))
    scene.heard(b, b"a 4 ")  # the other one is lost
    scene.heard(b, b"a 2 ")
    scene.heard(a, filled(b"b 1 ", 30), 1)
    conversed.ends_saying(a, 1)
    scene.ended(b)
    conversed.ends_saying(b, 7)
    scene.ended(a, 1)
    scene.over(a, 1)
    scene.over(b)
    conversed.rest()
    assert scene.texts == []
    assert (conversed.opened_count, conversed.accepted_count) == (1, 1)
    assert (conversed.heard_count, conversed.ended_well) == (3, 2)


def test_a_new_life_of_the_peer_may_hear_the_opening_again(scene: Scene) -> None:
    conversed, a, b = scene.conversed, scene.a, scene.b
    scene.opened(b)
    conversed.stopped(b)
    b.life += 1
    scene.opened(b)
    conversed.says(b, 7, (b"b2 1 ", 5))
    scene.heard(a, b"b2 1 ", 1)
    assert scene.texts == []


def out_of_order(scene: Scene) -> None:
    scene.opened(scene.b)
    for number in (2, 3):
        scene.conversed.says(scene.a, 1, (b"a %d " % number, 4))
    scene.heard(scene.b, b"a 3 ")


def twice(scene: Scene) -> None:
    scene.opened(scene.b)
    scene.heard(scene.b, filled(*FIRST))


def loosely_twice(scene: Scene) -> None:
    scene.opened(scene.b)
    scene.conversed.says_loosely(scene.a, 1, (b"a 2 ", 4))
    scene.heard(scene.b, b"a 2 ")
    scene.heard(scene.b, b"a 2 ")


def not_whole(scene: Scene) -> None:
    scene.opened(scene.b, filled(*FIRST)[:-1])


def parts_in_disorder(scene: Scene) -> None:
    scene.opened(scene.b)
    scene.conversed.says(scene.a, 1, (b"a 2 ", 11))
    scene.heard(scene.b, filled(b"a 2 ", 11)[:5] + filled(b"a 2 ", 11)[:6])


def by_another(scene: Scene) -> None:
    scene.opened(scene.c)


def invented(scene: Scene) -> None:
    scene.opened(scene.b, b"x 1 ")


def of_two_lives(scene: Scene) -> None:
    """What the peer said before it crashed, and then what it says in its next life."""
    conversed, b = scene.conversed, scene.b
    scene.opened(b)
    conversed.says(b, 7, (b"b 1 ", 4))
    scene.heard(scene.a, b"b 1 ", 1)
    conversed.stopped(b)
    b.life += 1
    scene.opened(b)
    conversed.says(b, 7, (b"b2 1 ", 5))
    scene.heard(scene.a, b"b2 1 ", 1)


def of_nobody(scene: Scene) -> None:
    scene.heard(scene.a, b"b 1 ", 1)


def after_the_end(scene: Scene) -> None:
    scene.opened(scene.b)
    scene.over(scene.b, why=Why.REFUSED)
    scene.heard(scene.b, b"a 2 ")


def closed(scene: Scene) -> None:
    scene.opened(scene.b)
    scene.conversed.closes(scene.b, 7)
    scene.conversed.says(scene.a, 1, (b"a 2 ", 4))
    scene.heard(scene.b, b"a 2 ")


def last_word_too_early(scene: Scene) -> None:
    scene.opened(scene.b)
    scene.conversed.says(scene.a, 1, (b"a 2 ", 4))
    scene.conversed.ends_saying(scene.a, 1)
    scene.ended(scene.b)


def last_word_invented(scene: Scene) -> None:
    scene.opened(scene.b)
    scene.ended(scene.b)


def last_word_twice(scene: Scene) -> None:
    scene.opened(scene.b)
    scene.conversed.ends_saying(scene.a, 1)
    scene.ended(scene.b)
    scene.ended(scene.b)


def over_too_early(scene: Scene) -> None:
    scene.over(scene.a, 1)


def over_before_the_other_ends(scene: Scene) -> None:
    scene.conversed.ends_saying(scene.a, 1)
    scene.over(scene.a, 1)


def over_twice(scene: Scene) -> None:
    scene.over(scene.a, 1, Why.REFUSED)
    scene.over(scene.a, 1, Why.REFUSED)


def too_late(scene: Scene) -> None:
    scene.conversed.opens(scene.a, 2, scene.b.id, (b"a 9 ", 4), -1.0)
    scene.over(scene.a, 2, Why.TIMED_OUT)


def came_to_nothing(scene: Scene) -> None:
    scene.conversed.ends[scene.a.host, 1, 1].must_end_well = True
    scene.over(scene.a, 1, Why.UNREACHABLE)


def never(scene: Scene) -> None:
    scene.conversed.rest()


def never_reached(scene: Scene) -> None:
    scene.over(scene.a, 1, Why.REFUSED)
    for peer in (scene.b.id, scene.c.id):
        scene.conversed.wants(scene.a, peer)
    scene.conversed.told(scene.a, PeerReached(scene.b.id))
    scene.conversed.rest()


@pytest.mark.parametrize(
    ("break_it", "text"),
    [
        (out_of_order, "heard 4 bytes b'a 3 ', not the 4 of b'a 2 '"),
        (twice, "heard more than was said"),
        (loosely_twice, "heard more than was said"),
        (not_whole, "heard 9 bytes"),
        (parts_in_disorder, "heard 11 bytes"),
        (by_another, "opened with another"),
        (invented, "nobody opened so"),
        (of_two_lives, "heard more than was said"),
        (of_nobody, "nobody said it here"),
        (after_the_end, "heard in a conversation that is over"),
        (closed, "heard in a conversation that was closed"),
        (last_word_too_early, "the last word after 1 of 2"),
        (last_word_invented, "the last word of a conversation that goes on"),
        (last_word_twice, "a conversation has ended twice"),
        (over_too_early, "over that this end has not ended"),
        (over_before_the_other_ends, "over that the other end has not ended"),
        (over_twice, "a conversation is over twice"),
        (too_late, "after its deadline"),
        (came_to_nothing, "came to nothing: UNREACHABLE"),
        (never, "conversation 1 of 10.0.0.1 in life 1 has never ended"),
        (never_reached, "10.0.0.1 in life 1 never heard whether"),
    ],
)
def test_what_must_not_be(scene: Scene, break_it: Callable[[Scene], None], text: str) -> None:
    break_it(scene)
    (found,) = scene.texts
    assert text in found


@pytest.mark.parametrize("spoils", ["a", "b"])
@pytest.mark.parametrize("break_it", [out_of_order, not_whole, last_word_too_early])
def test_an_attacker_may_spoil_what_it_says_and_what_is_said_to_it(
    scene: Scene, break_it: Callable[[Scene], None], spoils: str
) -> None:
    scene.hostile.add(getattr(scene, spoils).id)
    break_it(scene)
    assert scene.texts == []


def test_one_search_in_vain_may_be_chance_and_two_are_not(scene: Scene) -> None:
    text = "no address of peer is known, and nobody asked knows one"
    for number in (21, 22):
        assert scene.texts == []
        scene.conversed.opens(scene.a, number, scene.b.id, (b"a 9 ", 4), None)
        scene.conversed.ends[scene.a.host, 1, number].must_end_well = True
        scene.conversed.told(scene.a, ConversationOver(number, Why.UNREACHABLE, 0, text))
    (found,) = scene.texts
    assert "nobody asked knows one" in found
