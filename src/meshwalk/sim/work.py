"""What applications of simulated nodes do: broadcast, send, ask, answer and converse, at rates by
the plan.

Every body says who sent it, in which life, and a number, so that the checks know each again.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final, TypeAlias

from meshwalk.errors import Refused
from meshwalk.proto.effects import Ask, Effect, PeerReached, PeerUnreached
from meshwalk.sim.checks import Checks
from meshwalk.sim.node import SimNode
from meshwalk.sim.plan import Plan
from meshwalk.sim.talks import Talks
from meshwalk.sim.world import World
from meshwalk.wire.frames import ContentType
from meshwalk.wire.messages import RefusalCode
from meshwalk.wire.peerid import PeerId

ANSWERED: Final = 0.9  # guess: of ten requests, one is refused
ANSWERS_AFTER_S: Final = (0.0, 0.0, 0.1, 2.0, 15.0)  # guess: at once, or after the asker gave up
ASLEEP_LOOK_S: Final = 1.0  # guess: soon enough after its machine woke up

WITH_ITSELF: Final = 0.05  # guess: seldom, as applications that need not know who is who
WITH_NEIGHBOURS: Final = 0.5  # guess: of conversations, the others are with anyone
AT_ONCE: Final = (1, 1, 1, 5)  # guess: conversations that are opened with a peer at once
DOWN: Final = 0.1  # guess: the share of peers that are chosen without regard to whether they run

Rhythm: TypeAlias = tuple[float, Callable[[SimNode], None]]
"""How often a second, by the whole network, and what."""
Say: TypeAlias = Callable[[SimNode, PeerId], None]
"""Says something to a peer that there is a link to."""


class Work:
    """The applications of all nodes of a world."""

    def __init__(self, world: World, checks: Checks, plan: Plan, rng: Random) -> None:
        self._world = world
        self._checks = checks
        self._plan = plan
        self._rng = rng
        self._number = 0
        self._ends = False
        self._reaching: dict[tuple[str, int, PeerId], list[Say]] = {}
        """What is to be said once a link is there, by host and life of the speaker, and peer."""
        self._talks = Talks(world, checks.conversed, plan, rng, checks.asked)
        checks.when_asked(self._asked)
        checks.when_told(self._told, self._stopped)

    def begin(self) -> None:
        """Work from now on."""
        plan = self._plan
        for rate, action in (
            (plan.broadcasts_per_s, self._broadcast),
            (plan.sends_per_s, self._send),
            (plan.requests_per_s, self._request),
            (plan.conversations_per_s, self._converse),
        ):
            if rate:
                self._next((rate, action))

    def end(self) -> None:
        """No more of it."""
        self._ends = True

    def broadcast(self, node: SimNode, count: int) -> bytes:
        """So many broadcasts at once; the body of the last."""
        body = b""
        for _ in range(count):
            body = self._body(node)
            self._checks.broadcast(node, body)
            node.broadcast(body)
        return body

    def converse(self, node: SimNode, peer: PeerId) -> None:
        """Have a node open a conversation with a peer that nothing stands in the way of."""
        self._talks.open_calmly(node, peer)

    def _next(self, rhythm: Rhythm) -> None:
        rate, _ = rhythm
        at = self._world.now + self._rng.expovariate(rate)
        self._world.timeline.add(at, self._turn, rhythm)

    def _turn(self, rhythm: Rhythm) -> None:
        if self._ends:
            return
        _, action = rhythm
        awake = [node for node in self._world.up if not (node.is_asleep or node.is_leaving)]
        if awake:
            action(self._rng.choice(awake))
        self._next(rhythm)

    def _body(self, node: SimNode) -> bytes:
        self._number += 1
        name = f"{node.name}/{node.life} {self._number} ".encode()
        most = self._plan.body_bytes_max
        return name + bytes(min(self._rng.randrange(most), max(0, most - len(name))))

    def _broadcast(self, node: SimNode) -> None:
        self.broadcast(node, 1)

    def _send(self, node: SimNode) -> None:
        self._to_somebody(node, self._send_to)

    def _request(self, node: SimNode) -> None:
        self._to_somebody(node, self._request_to)

    def _converse(self, node: SimNode) -> None:
        luck = self._rng.random()
        if luck < WITH_ITSELF:
            peer = node.id
        elif luck < WITH_ITSELF + WITH_NEIGHBOURS and node.neighbours:
            peer = self._rng.choice(node.neighbours)
        else:
            peer = self._anyone().id
        for _ in range(self._rng.choice(AT_ONCE)):
            self._talks.open(node, peer)

    def _anyone(self) -> SimNode:
        """Any node, but seldom one that is down."""
        is_any = self._rng.random() < DOWN
        return self._rng.choice(self._world.nodes if is_any else self._world.up)

    def _to_somebody(self, node: SimNode, say: Say) -> None:
        """Say it to a neighbour, or, if the plan has it so, to anyone once there is a link."""
        to_anyone = self._plan.to_anyone
        if to_anyone and self._rng.random() < to_anyone:
            peer = self._anyone().id
            if node.core.link_to(peer) is None:
                self._checks.conversed.wants(node, peer)
                self._reaching.setdefault((node.name, node.life, peer), []).append(say)
                node.reach(peer)
            else:
                say(node, peer)
        elif node.neighbours:
            say(node, self._rng.choice(node.neighbours))

    def _send_to(self, node: SimNode, peer: PeerId) -> None:
        if node.core.must_wait(peer):
            return  # pacing holds so much back that a writer waits: this one goes away
        body = self._body(node)
        self._checks.sent(node, peer, body)
        try:
            effects = node.core.send(peer, "", ContentType.BYTES, body, node.time())
        except Refused:  # too many long ones are under way
            return
        node.do(effects)

    def _request_to(self, node: SimNode, peer: PeerId) -> None:
        if node.core.must_wait(peer):
            return
        body = self._body(node)
        timeout_s = self._plan.config.requests.timeout_s
        asked = node.core.request(peer, "echo", ContentType.BYTES, body, timeout_s, node.time())
        if asked is not None:
            id, effects = asked
            self._checks.asked(node, peer, id, body[::-1])
            node.do(effects)

    def _told(self, node: SimNode, effect: Effect) -> None:
        if type(effect) is PeerReached or type(effect) is PeerUnreached:
            waiting = self._reaching.pop((node.name, node.life, effect.peer), [])
            if type(effect) is PeerReached:
                for say in waiting:
                    what = (node, node.life, effect.peer, say)
                    self._world.timeline.add(self._world.now, self._say_now, what)
        else:
            self._talks.told(node, effect)

    def _stopped(self, node: SimNode) -> None:
        for key in [key for key in self._reaching if key[0] == node.name]:
            del self._reaching[key]
        self._talks.stopped(node)

    def _say_now(self, what: tuple[SimNode, int, PeerId, Say]) -> None:
        node, life, peer, say = what
        is_able = node.life == life and node.is_up and not (node.is_leaving or node.is_asleep)
        if is_able and node.core.link_to(peer) is not None:
            say(node, peer)

    def _asked(self, node: SimNode, ask: Ask) -> None:
        after_s = self._rng.choice(ANSWERS_AFTER_S)
        self._world.timeline.add(
            self._world.now + after_s, self._answer, (node, node.life, ask, self._rng.random())
        )

    def _answer(self, what: tuple[SimNode, int, Ask, float]) -> None:
        node, life, ask, luck = what
        if node.life != life or not node.is_up or node.is_leaving:
            return
        if node.is_asleep:  # so is the application
            self._world.timeline.add(self._world.now + ASLEEP_LOOK_S, self._answer, what)
            return
        now = node.time()
        if luck < ANSWERED:
            body = ask.body[::-1]
            node.do(node.core.reply(ask.peer, ask.id, ContentType.BYTES, body, now))
        else:
            code = RefusalCode.NO_HANDLER
            node.do(node.core.refuse(ask.peer, ask.id, code, "no", now))
