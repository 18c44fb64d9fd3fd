"""The table of a node's connections: who may connect, limits, and the life of each link.

It knows nothing of neighbours or walks. Inputs come from the driver by link number; what a link
has to say is returned as (link, news) for the node to route.

Limits, and what happens at them: an incoming connection beyond any of them is closed unread and
counted in `refused`; an own dial beyond its limit ends at once as `Ended`, like one that failed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TypeAlias

from meshwalk.config import Config
from meshwalk.proto.effects import Dial, Effect, Send, Shut
from meshwalk.proto.link import OPEN, Ended, Link, LinkState, News, Opened
from meshwalk.proto.pinging import Recovered, Suspected
from meshwalk.proto.rate import TokenBucket
from meshwalk.proto.timers import Timers
from meshwalk.wire.address import Address
from meshwalk.wire.frames import (
    PROTOCOL_VERSION,
    CloseReason,
    Frame,
    Hello,
    Message,
    Purpose,
)
from meshwalk.wire.peerid import PeerId

TIMER = "link"

LinkNews: TypeAlias = tuple[Link, News] | None


class Connections:
    """All links of one node, by number."""

    __slots__ = (
        "_accept_rate",
        "_agent",
        "_config",
        "_dialling",
        "_half_open",
        "_hosts",
        "_new_id",
        "_next_link",
        "_out",
        "_own_record",
        "_ping_phase_s",
        "_timers",
        "ended",
        "links",
        "me",
        "refused",
        "silences",
    )

    def __init__(
        self,
        me: PeerId,
        config: Config,
        timers: Timers,
        out: list[Effect],
        new_id: Callable[[], int],
        own_record: Callable[[Address], bytes],
        agent: str,
    ) -> None:
        self.me = me
        self.links: dict[int, Link] = {}
        self.refused: Counter[str] = Counter()
        """Incoming connections closed unread, by the limit that refused them."""
        self.ended: Counter[str] = Counter()
        """Links that ended, by reason."""
        self.silences: Counter[str] = Counter()
        """Silences of neighbours, by what came of them: `suspected`, and then `recovered` or
        `idle`."""
        self._config = config
        # By the PeerId, so that nodes whose clocks began together do not all ping at once.
        share = int.from_bytes(me[:4], "big") / 2.0**32
        self._ping_phase_s = share * config.link.ping_interval_s
        self._timers = timers
        self._out = out
        self._new_id = new_id
        self._own_record = own_record
        self._agent = agent
        self._accept_rate = TokenBucket(
            config.connections.accepts_per_s, config.connections.accepts_burst
        )
        self._next_link = 1
        self._hosts: Counter[str] = Counter()
        self._half_open = 0
        self._dialling = 0

    # Inputs.

    def admit(self, remote: Address, now: float) -> int | None:
        """A stranger's connection, before it is read: the number of its link, or None: refused."""
        limits = self._config.connections
        # Strangers never take the room in which this node dials for links of its own.
        if len(self.links) >= limits.total_max - self._config.overlay.links_max:
            self.refused["total"] += 1
        elif self._half_open >= limits.half_open_max:
            self.refused["half open"] += 1
        elif self._hosts[remote.host] >= limits.per_host_max and not remote.is_loopback:
            self.refused["host"] += 1
        elif not self._accept_rate.take(now):
            self.refused["rate"] += 1
        else:
            return self._add(outbound=False, remote=remote, now=now).number
        return None

    def dial(
        self,
        address: Address,
        expected: PeerId | None,
        purpose: Purpose,
        token: bytes,
        now: float,
    ) -> Link | None:
        """Begin a connection. None: too many are under way; try later."""
        limits = self._config.connections
        if self._dialling >= limits.dialling_max or len(self.links) >= limits.total_max:
            self.refused["dialling"] += 1
            return None
        link = self._add(
            outbound=True,
            remote=address,
            now=now,
            purpose=purpose,
            token=token,
            expected=expected,
        )
        self._out.append(Dial(link.number, address, expected))
        return link

    def secured(
        self, number: int, peer: PeerId, remote: Address, now: float, *, local_host: str = ""
    ) -> LinkNews:
        """The pipe of a link is there, and its peer proven; hosts are numbers."""
        link = self.links.get(number)
        if link is None or link.state is not LinkState.SECURING:
            return None
        if link.expected is not None and peer != link.expected:
            self._out.append(Shut(number, at_once=True))
            return self._after(link, link.lost("another peer answered", not_admitted=True))
        self._forget_host(link)
        link.remote, link.local_host = remote, local_host
        self._hosts[remote.host] += 1
        hello = self._hello(link, now) if link.outbound and peer != self.me else None
        link.secured(peer, hello, now)
        if peer == self.me:
            # The acceptor end hears of it by this close; both ends are this node.
            return self._after(link, link.close(CloseReason.SELF, "this is myself", now))
        return self._after(link, None)

    def receive(self, number: int, frame: Frame, now: float) -> LinkNews:
        """A frame from the peer."""
        link = self.links.get(number)
        if link is None:
            return None
        return self._after(link, link.receive(frame, now))

    def malformed(self, number: int, why: str, now: float) -> LinkNews:
        """The peer sent bytes that are no frame."""
        link = self.links.get(number)
        if link is None:
            return None
        return self._after(link, link.close(CloseReason.MALFORMED, why, now))

    def lost(self, number: int, why: str, *, not_admitted: bool = False) -> LinkNews:
        """The pipe is gone, or the dial or handshake failed."""
        link = self.links.get(number)
        if link is None:
            return None
        return self._after(link, link.lost(why, not_admitted=not_admitted))

    def moved(self, link: Link) -> LinkNews:
        """The machine no longer has the host that this end of a link uses: nothing can come over it
        any more. The peer is not told, since nothing can be."""
        self._out.append(Shut(link.number, at_once=True))
        return self._after(link, link.lost("this machine has moved"))

    def stalled(self, number: int, now: float) -> None:
        """The peer does not read, and much waits to be sent."""
        link = self.links.get(number)
        if link is not None and link.stalled_at is None:
            link.stalled_at = now
            self._after(link, None)

    def progressed(self, number: int, now: float) -> None:
        """The peer reads, if slowly: the time that it may take nothing begins anew."""
        link = self.links.get(number)
        if link is not None and link.stalled_at is not None:
            link.stalled_at = now

    def resumed(self, number: int) -> None:
        """The peer reads again."""
        link = self.links.get(number)
        if link is not None:
            link.stalled_at = None

    def overflowed(self, number: int, now: float) -> LinkNews:
        """More waits to be sent than is allowed: end the link."""
        link = self.links.get(number)
        if link is None:
            return None
        return self._after(link, link.close(CloseReason.SLOW, "the peer reads too slowly", now))

    def tick(self, number: int, now: float) -> LinkNews:
        """A link's deadline has come."""
        link = self.links.get(number)
        if link is None:
            return None
        news = link.tick(now)
        if news is None and link.state is OPEN:  # nearly always: it has sent a ping
            self._timers.set((TIMER, number), link.deadline_open())
            return None
        return self._after(link, news)

    def doubt(self, late_s: float, now: float) -> None:
        """The machine slept, or this process stood still for `late_s`: see `Link.doubt`."""
        for link in list(self.links.values()):
            link.doubt(late_s, now)
            self._after(link, None)

    # Commands of the machines above.

    def consent(self, link: Link, now: float) -> None:
        """Let a dialler in."""
        link.consent(self._hello(link, now), now)
        self._half_open -= 1
        self._after(link, None)

    def close(self, link: Link, reason: CloseReason, text: str, now: float) -> LinkNews:
        """End a link for a reason that the peer is told."""
        return self._after(link, link.close(reason, text, now))

    def measure(self, link: Link, now: float) -> None:
        """Ping an open link now; its silence is judged from here."""
        link.measure(now)
        self._after(link, None)

    def send(self, link: Link, message: Message) -> None:
        """Send a message; the link must be open."""
        link.messages_out += 1
        self._out.append(Send(link.number, message))

    @property
    def half_open(self) -> int:
        """Accepted connections that have not greeted yet."""
        return self._half_open

    # What the above share.

    def _add(
        self,
        *,
        outbound: bool,
        remote: Address,
        now: float,
        purpose: Purpose = Purpose.STANDING,
        token: bytes = b"",
        expected: PeerId | None = None,
    ) -> Link:
        link = Link(
            self._next_link,
            self._config.link,
            self._out,
            self._new_id,
            outbound=outbound,
            remote=remote,
            now=now,
            purpose=purpose,
            token=token,
            expected=expected,
            detection=self._config.detection,
            phase_s=self._ping_phase_s,
        )
        self._next_link += 1
        self.links[link.number] = link
        self._hosts[remote.host] += 1
        if outbound:
            self._dialling += 1
        else:
            self._half_open += 1
        self._after(link, None)
        return link

    def _after(self, link: Link, news: News | None) -> LinkNews:
        if news is not None:
            if type(news) is Ended:
                self.ended[news.reason.name.lower() if news.reason is not None else "lost"] += 1
                if not news.was_open:
                    self._never_opened(link)
                elif news.by_us and news.reason is CloseReason.IDLE and link.is_standing:
                    self.silences["idle"] += 1
            elif type(news) is Suspected:
                self.silences["suspected"] += 1
            elif type(news) is Recovered:
                self.silences["recovered"] += 1
            elif link.outbound and type(news) is Opened:
                self._dialling -= 1
        at = link.deadline()
        if at is None:
            self._remove(link)  # it is closed
        else:
            self._timers.set((TIMER, link.number), at)
        return (link, news) if news is not None else None

    def _never_opened(self, link: Link) -> None:
        if link.outbound:
            self._dialling -= 1
        else:
            self._half_open -= 1

    def _remove(self, link: Link) -> None:
        if self.links.pop(link.number, None) is None:
            return
        self._timers.cancel((TIMER, link.number))
        self._forget_host(link)

    def _forget_host(self, link: Link) -> None:
        self._hosts[link.remote.host] -= 1
        if not self._hosts[link.remote.host]:
            del self._hosts[link.remote.host]

    def _hello(self, link: Link, now: float) -> Hello:
        return Hello(
            PROTOCOL_VERSION,
            link.purpose,
            int(now * 1e6),
            str(link.remote) if not link.outbound else "",
            self._own_record(link.remote),
            link.token if link.outbound else b"",
            self._agent,
            self._config.conversations.shared_window_bytes,
        )
