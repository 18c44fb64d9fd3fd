"""A simulated dial: the round trips of TCP and TLS 1.3, and all the ways in which one fails.

    dialler                                  acceptor
       | --SYN-->  <--SYN-ACK--  --ClientHello-->|  admits it, or closes it unread   (3 crossings)
       |<-- the server's flight -----------------|
       | secured                                 |                                   (4)
       |-- Finished, then what it has to say --->|  secured                          (5)

RFC 8446 section 2 is the handshake. A machine that is up refuses where nobody listens; nothing is
heard from one that is gone or asleep, behind a firewall or NAT that drops, or across a cut path:
then the machines' own time-outs end the dial.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from meshwalk.proto.effects import Dial
from meshwalk.sim.pipe import FINISHED, LOST, PipeEnd
from meshwalk.wire.address import Address

if TYPE_CHECKING:
    from meshwalk.sim.node import SimNode
    from meshwalk.sim.world import World

CROSSINGS_AFTER_SYN: Final = 2  # SYN-ACK, and ClientHello on the heels of the ACK


class Dialling:
    """One dial under way."""

    __slots__ = (
        "dial",
        "life",
        "link_there",
        "node",
        "remote",
        "target",
        "target_life",
        "there",
        "world",
    )

    def __init__(self, world: World, node: SimNode, dial: Dial) -> None:
        self.world = world
        self.node = node
        self.life = node.life
        self.dial = dial
        self.remote: Address
        """Where the acceptor sees the dialler."""
        self.target: SimNode
        self.target_life = 0
        self.link_there = 0
        self.there: PipeEnd | None = None
        """The acceptor's end, which waits for the last of the handshake."""

    def begin(self) -> None:
        """Send the first SYN."""
        world, node, dial = self.world, self.node, self.dial
        node.dialling[dial.link] = self
        seen = world.leaves(node, dial.address)
        target = world.find(node, dial.address, seen)
        if seen is None or target is None:
            world.dials["silence"] += 1
        else:
            self.remote, self.target = seen, target
            self._try(1)

    def _try(self, tries: int) -> None:
        world, node, target = self.world, self.node, self.target
        outcome = world.conditions.dial_outcome(world.now, node.host, target.host, tries)
        if outcome.arrives_at is not None:
            at = outcome.arrives_at + sum(
                world.delay_s(node, target) for _ in range(CROSSINGS_AFTER_SYN)
            )
            world.timeline.add(at, self._arrives, None)
        elif outcome.try_again_at is not None:
            world.timeline.add(outcome.try_again_at, self._try_again, tries + 1)
        else:
            world.dials["silence"] += 1

    def _try_again(self, tries: int) -> None:
        if self._is_wanted:
            self._try(tries)

    @property
    def _is_wanted(self) -> bool:
        node = self.node
        return node.is_up and node.life == self.life and node.dialling.get(self.dial.link) is self

    def _arrives(self, _: None) -> None:
        world, target, dial = self.world, self.target, self.dial
        if not self._is_wanted or not self._is_heard():
            world.dials["silence"] += 1
            return
        if not target.is_up or not target.listens:
            self._refuse("nobody listens there", False)
            return
        link = target.core.admit(self.remote, target.time())
        target.arm()
        if link is None:
            self._refuse("the other end closed the connection at once: it may be full", False)
        elif dial.expected is not None and dial.expected != target.id:
            target.do(target.core.lost(link, "the handshake failed", target.time()))
            self._refuse("another peer answered", True)
        else:
            self.link_there, self.target_life = link, target.life
            target.dialling[link] = self
            at = world.now + world.delay_s(target, self.node)
            world.timeline.add(at, self._established, None)

    def _is_heard(self) -> bool:
        target, conditions = self.target, self.world.conditions
        return not (
            target.has_vanished
            or target.is_asleep
            or self.node.is_asleep
            or (target.is_firewalled and target.is_up)
            or not conditions.can_cross(self.node.host, target.host)
            or not conditions.can_cross(target.host, self.node.host)
        )

    def _established(self, _: None) -> None:
        world, node, target, dial = self.world, self.node, self.target, self.dial
        there = PipeEnd(target, self.link_there, self.target_life)
        here = PipeEnd(node, dial.link, self.life)
        here.other, there.other = there, here
        self.there = there
        if not self._is_wanted or node.is_asleep or here.is_blocked:
            world.dials["given up"] += 1
            here.is_open = False
            if not node.has_vanished:
                world.transmit(there, LOST)  # a reset: nobody at the other end waits for long
            return
        world.dials["established"] += 1
        del node.dialling[dial.link]
        node.ends[dial.link] = here
        world.transmit(there, FINISHED)
        node.do(node.core.secured(dial.link, target.id, dial.address, node.host, node.time()))

    def accepted_end(self, node: SimNode, link: int) -> PipeEnd | None:
        """The end of this link at the acceptor; None if the link is the dialler's, or too young."""
        there = self.there
        is_there = there is not None and there.node is node and there.link == link
        return there if is_there else None

    def release(self) -> None:
        """Take what waits at the acceptor's end, if the way is free again."""
        if self.there is not None:
            self.there.release()

    def finished(self, there: PipeEnd) -> None:
        """The last of the handshake has come to the acceptor."""
        target = self.target
        target.ends[there.link] = there
        target.do(
            target.core.secured(there.link, self.node.id, self.remote, target.host, target.time())
        )

    def _refuse(self, why: str, not_admitted: bool) -> None:
        self.world.dials["not admitted" if not_admitted else "refused"] += 1
        at = self.world.now + self.world.delay_s(self.target, self.node)
        self.world.timeline.add(at, self._refused, (why, not_admitted))

    def _refused(self, said: tuple[str, bool]) -> None:
        if self._is_wanted and not self.node.is_asleep:
            why, not_admitted = said
            node, link = self.node, self.dial.link
            del node.dialling[link]
            node.do(node.core.lost(link, why, node.time(), not_admitted=not_admitted))
