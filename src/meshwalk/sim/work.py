"""What applications of simulated nodes do: broadcast, send, ask and answer, at rates by the plan.

Every body says who sent it, in which life, and a number, so that the checks know each again.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final, TypeAlias

from meshwalk.proto.effects import Ask
from meshwalk.sim.checks import Checks
from meshwalk.sim.node import SimNode
from meshwalk.sim.plan import Plan
from meshwalk.sim.world import World
from meshwalk.wire.frames import ContentType
from meshwalk.wire.messages import RefusalCode

ANSWERED: Final = 0.9  # guess: of ten requests, one is refused
ANSWERS_AFTER_S: Final = (0.0, 0.0, 0.1, 2.0, 15.0)  # guess: at once, or after the asker gave up
ASLEEP_LOOK_S: Final = 1.0  # guess: soon enough after its machine woke up

Rhythm: TypeAlias = tuple[float, Callable[[SimNode], None]]
"""How often a second, by the whole network, and what."""


class Work:
    """The applications of all nodes of a world."""

    def __init__(self, world: World, checks: Checks, plan: Plan, rng: Random) -> None:
        self._world = world
        self._checks = checks
        self._plan = plan
        self._rng = rng
        self._number = 0
        self._ends = False
        checks.when_asked(self._asked)

    def begin(self) -> None:
        """Work from now on."""
        plan = self._plan
        for rate, action in (
            (plan.broadcasts_per_s, self._broadcast),
            (plan.sends_per_s, self._send),
            (plan.requests_per_s, self._request),
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
        name = f"{node.host}/{node.life} {self._number} ".encode()
        most = self._plan.body_bytes_max
        return name + bytes(min(self._rng.randrange(most), max(0, most - len(name))))

    def _broadcast(self, node: SimNode) -> None:
        self.broadcast(node, 1)

    def _send(self, node: SimNode) -> None:
        if not node.neighbours:
            return
        peer, body = self._rng.choice(node.neighbours), self._body(node)
        self._checks.sent(node, peer, body)
        node.do(node.core.send(peer, "", ContentType.BYTES, body, node.time()))

    def _request(self, node: SimNode) -> None:
        if not node.neighbours:
            return
        peer, body = self._rng.choice(node.neighbours), self._body(node)
        timeout_s = self._plan.config.requests.timeout_s
        asked = node.core.request(peer, "echo", ContentType.BYTES, body, timeout_s, node.time())
        if asked is not None:
            id, effects = asked
            self._checks.asked(node, peer, id, body[::-1])
            node.do(effects)

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
            node.do(node.core.reply(ask.link, ask.id, ContentType.BYTES, body, now))
        else:
            code = RefusalCode.NO_HANDLER
            node.do(node.core.refuse(ask.link, ask.id, code, "no", now))
