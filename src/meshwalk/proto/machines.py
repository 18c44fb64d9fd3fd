"""All machines of one node, and how they feed each other. Decides nothing.

    frames ---> connections --> dispatch --> application
                     |    `---> broadcast -> application and other links
                     `--------> overlay ---> connections
                 dispatch ----> reaching --> connections, overlay

`node.py` has the inputs. Effects for the driver gather in `_out`; what a machine wants of another
is routed here, at once.
"""

from __future__ import annotations

from itertools import count
from random import Random
from typing import Final, assert_never

from meshwalk.config import Config
from meshwalk.events import Event, LinkClosed, LinkOpened, NeighbourDown, NeighbourUp
from meshwalk.identity.keys import Signatures
from meshwalk.proto.broadcast.effects import Blame, GossipEffect, Pass
from meshwalk.proto.broadcast.gossip import Gossip
from meshwalk.proto.connections import Connections, LinkNews
from meshwalk.proto.dispatch.dispatch import Dispatch
from meshwalk.proto.dispatch.effects import Fault, Reach
from meshwalk.proto.effects import (
    Effect,
    ForgetPeer,
    Happened,
    PeerReached,
    PeerUnreached,
    ProbeEnded,
    ProbeOpened,
    SavePeer,
    Why,
)
from meshwalk.proto.link import Arrived, Asked, Ended, Link, Opened
from meshwalk.proto.overlay.effects import (
    Connect,
    Disconnect,
    Found,
    Measure,
    NotFound,
    OverlayEffect,
    Say,
    Tell,
)
from meshwalk.proto.overlay.overlay import Overlay
from meshwalk.proto.ownrecord import RENEWAL, OwnRecord
from meshwalk.proto.pinging import Suspected
from meshwalk.proto.reaching import (
    DialPeer,
    FindIt,
    Reached,
    Reaching,
    ReachingEffect,
    Unreached,
)
from meshwalk.proto.timers import Timers
from meshwalk.wire.frames import Channel, CloseReason, Credit, Hello, Message, Purpose
from meshwalk.wire.gossip import Broadcast, encode_gossip
from meshwalk.wire.messages import encode
from meshwalk.wire.peerid import PeerId

# A global is found faster than a class's attribute.
APPLICATION: Final = Channel.APPLICATION
_OVERLAY: Final = Channel.OVERLAY
_BROADCAST: Final = Channel.BROADCAST

ID_START_BITS = 31  # ids of another run rarely meet ours, and still encode in five bytes


class Machines:
    """The machines of one node, joined."""

    def __init__(
        self,
        signatures: Signatures,
        config: Config,
        rng: Random,
        now: float,
        unix_offset_s: float,
        agent: str = "",
    ) -> None:
        """`unix_offset_s` plus machine time is Unix time."""
        self.me = signatures.peer_id
        self.network_id = signatures.network_id
        self.unix_offset_s = unix_offset_s
        self.config = config
        self._out: list[Effect] = []
        ids = count(rng.getrandbits(ID_START_BITS) + 1)
        self._new_id = ids.__next__
        self.timers = Timers()
        self.own_record = OwnRecord(signatures, config.book, unix_offset_s)
        self.own_record.listening((), now)  # nowhere yet; but whoever never listens is somebody too
        self._told_version = 0
        self.connections = Connections(
            self.me,
            config,
            self.timers,
            self._out,
            self._new_id,
            self.own_record.blob_for,
            agent,
        )
        self._links = self.connections.links
        self.overlay = Overlay(
            signatures,
            config,
            self.own_record.blob_for,
            lambda: bool(self.own_record.addresses),
            self._new_id,
            rng,
            self.timers,
            now,
            unix_offset_s,
        )
        self.gossip = Gossip(signatures, config, rng, self.timers, unix_offset_s, now)
        self.dispatch = Dispatch(
            self.me, config, self._new_id, self.timers, self._out, unix_offset_s
        )
        self.reaching = Reaching(config, self.overlay.addresses_of, self.timers)

    # Routing.

    def _on_link(self, news: LinkNews, now: float) -> None:
        if news is None:
            return
        link, what = news
        if type(what) is Arrived:
            self._on_message(link, what.message, now)
        elif isinstance(what, Asked):
            assert link.peer is not None
            reason = self.overlay.asked(link, what.hello, now)
            if link.is_standing and self.gossip.trust.is_refused(link.peer, now):
                reason = CloseReason.DISTRUSTED
            if reason is not None:
                self._on_link(self.connections.close(link, reason, "", now), now)
                return
            self.connections.consent(link, now)
            self._opened(link, what.hello, now)
        elif isinstance(what, Opened):
            assert link.peer is not None
            text = what.hello.seen_at
            self.own_record.seen_at(link.peer, link.number, link.remote, text, now)
            if link.purpose is Purpose.PROBE:
                self._out.append(ProbeOpened(link.number, link.peer))
            self._opened(link, what.hello, now)
            self._mind_own_record(now)
        elif isinstance(what, Ended):
            self._ended(link, what, now)
        elif isinstance(what, Suspected):
            self._on_overlay(self.overlay.suspected(link, now), now)

    def _opened(self, link: Link, hello: Hello, now: float) -> None:
        assert link.peer is not None
        purpose = link.purpose.name.lower().replace("_", " ")
        self._out.append(Happened(LinkOpened(link.peer, link.remote, purpose, link.outbound)))
        # Before the overlay, which may close the twin of this link: then messages go over this one.
        self.dispatch.link_opened(link, hello.window, now)
        self._on_overlay(self.overlay.opened(link, hello, now), now)
        self.dispatch.choose_link(link.peer, now)
        if self.dispatch.link_to(link.peer) is not None:
            self._on_reaching(self.reaching.linked(link.peer, now), now)
        self._after_dispatch(now)

    def _ended(self, link: Link, ended: Ended, now: float) -> None:
        if link.outbound and link.purpose is Purpose.PROBE:
            self._out.append(ProbeEnded(link.number, ended.text, ended.not_admitted))
        reason = ended.reason.name.lower() if ended.reason is not None else "lost"
        why = f"{reason}: {ended.text}" if ended.text else reason
        if ended.was_open:
            assert link.peer is not None
            purpose = link.purpose.name.lower().replace("_", " ")
            self._out.append(Happened(LinkClosed(link.peer, purpose, why, ended.by_us)))
        self._on_overlay(self.overlay.ended(link, ended, now), now)
        self.dispatch.link_gone(link, ended.reason, why, now)
        effects = self.reaching.dial_ended(link.number, ended.text, ended.not_admitted, now)
        self._on_reaching(effects, now)
        self._after_dispatch(now)
        if link.peer is not None:
            self.own_record.link_ended(link.peer, link.number, now)
            self._mind_own_record(now)

    def _note_use(self, link: int, now: float) -> None:
        """A link that is not to stay is kept for as long as something is going on over it."""
        found = self._links.get(link)
        if found is not None and not found.is_standing and self.dispatch.has_use_for(found):
            found.used_at = now

    def _renew_own_record(self, now: float) -> None:
        self.own_record.renew(now)
        self.timers.set(RENEWAL, self.own_record.renewal_at(now))
        self._mind_own_record(now)

    def _mind_own_record(self, now: float) -> None:
        """Have the neighbours told if the own record is another than they know."""
        version = self.own_record.version
        if version != self._told_version:
            self._told_version = version
            self._on_overlay(self.overlay.record_changed(now), now)

    def _on_message(self, link: Link, message: Message | Credit, now: float) -> None:
        link.used_at = now
        if type(message) is Credit:
            self.dispatch.credited(link, message, now)
            self._after_dispatch(now)
            return
        assert type(message) is Message
        channel = message.channel
        if channel is _BROADCAST:
            assert link.peer is not None
            if link.is_standing:
                effects = self.gossip.receive(link.peer, message.body, message.sent_at_us, now)
                self._on_gossip(effects, now)
            else:
                self._close(link, CloseReason.PROTOCOL, "broadcasts are for neighbours", now)
        elif channel is _OVERLAY:
            if link.is_open:
                self._on_overlay(self.overlay.heard(link, message, now), now)
        else:
            self.dispatch.receive(link, message, now)
            self._after_dispatch(now)

    def _on_gossip(self, effects: list[GossipEffect], now: float) -> None:
        for effect in effects:
            if type(effect) is Pass:
                self._pass(effect, now)
            elif type(effect) is Blame:
                link = self.link_of(effect.peer)
                if link is not None:
                    self._close(link, effect.reason, effect.text, now)
            else:
                self._out.append(effect)

    def _pass(self, given: Pass, now: float) -> None:
        # One frame for all links: the driver encodes it once.
        body = encode_gossip(given.message)
        message = Message(self._new_id(), int(now * 1e6), _BROADCAST, body)
        sending = self.dispatch.sending
        neighbours = self.overlay.membership.neighbours
        for peer in given.peers:
            neighbour = neighbours.get(peer)
            if neighbour is not None:
                self.connections.send(neighbour.link, message)
                if sending.is_paced:
                    # Own ones have waited for their turn before; what is passed on has not.
                    is_own = type(given.message) is Broadcast and given.message.hops == 1
                    pay = sending.borrow if is_own else sending.charge
                    pay(self.dispatch.parties.get(peer), len(body))

    def _mind_neighbours(self, event: Event, now: float) -> None:
        """Who becomes a neighbour, or is none any more, is a matter for broadcasts too."""
        if type(event) is NeighbourUp:
            neighbour = self.overlay.membership.neighbours.get(event.peer)
            if neighbour is not None:
                self._on_gossip(self.gossip.neighbour_up(neighbour, now), now)
        elif type(event) is NeighbourDown:
            self._on_gossip(self.gossip.neighbour_down(event.peer, now), now)

    def link_of(self, peer: PeerId) -> Link | None:
        """The standing link to a neighbour."""
        neighbour = self.overlay.membership.neighbours.get(peer)
        return neighbour.link if neighbour is not None else None

    def _after_dispatch(self, now: float) -> None:
        """See to what dispatch wants, and let the node's machines hear each other."""
        dispatch = self.dispatch
        while dispatch.wanted or dispatch.sending.local:
            dispatch.hear_local()
            wanted = dispatch.wanted[:]
            dispatch.wanted.clear()
            for effect in wanted:
                if type(effect) is Fault:
                    self._close(effect.link, effect.reason, effect.text, now)
                elif type(effect) is Reach:
                    self._on_reaching(self.reaching.want(effect.peer, now), now)
                else:
                    assert_never(effect)

    def _on_reaching(self, effects: list[ReachingEffect], now: float) -> None:
        for effect in effects:
            if type(effect) is DialPeer:
                link = self.connections.dial(
                    effect.address, effect.peer, Purpose.CONVERSATION, b"", now
                )
                if link is None:
                    self._on_reaching(self.reaching.not_dialled(effect.peer, now), now)
                else:
                    self.reaching.dialling(effect.peer, link.number)
            elif type(effect) is FindIt:
                self._on_overlay(self.overlay.find(effect.peer, now), now)
            elif type(effect) is Reached:
                self._out.append(PeerReached(effect.peer))
            elif type(effect) is Unreached:
                if effect.was_dialled:
                    self._on_overlay(list(self.overlay.book.failed(effect.peer, now)), now)
                self._out.append(PeerUnreached(effect.peer, effect.text, effect.not_admitted))
                why = Why.NOT_ADMITTED if effect.not_admitted else Why.UNREACHABLE
                self.dispatch.unreachable(effect.peer, why, effect.text)
            else:
                assert_never(effect)

    def _on_overlay(self, effects: list[OverlayEffect], now: float) -> None:
        for effect in effects:
            if type(effect) is Say:
                self._say(effect, now)
            elif type(effect) is Connect:
                self._connect(effect, now)
            elif type(effect) is Disconnect:
                link = self.connections.links.get(effect.link)
                if link is not None:
                    self._close(link, effect.reason, effect.text, now)
            elif type(effect) is Measure:
                link = self.connections.links.get(effect.link)
                if link is not None and link.is_open:
                    self.connections.measure(link, now)
            elif type(effect) is Tell:
                self._out.append(Happened(effect.event))
                self._mind_neighbours(effect.event, now)
            elif type(effect) is SavePeer or type(effect) is ForgetPeer:
                self._out.append(effect)
            elif type(effect) is Found:
                self._on_reaching(self.reaching.found(effect.peer, effect.addresses, now), now)
            elif type(effect) is NotFound:
                self._on_reaching(self.reaching.not_found(effect.peer, effect.why, now), now)
            else:
                assert_never(effect)

    def _on_moving(self, gone: set[str], now: float) -> None:
        """The machine has other hosts than before: links from those that have gone are dead."""
        for link in [link for link in self._links.values() if link.local_host in gone]:
            self._on_link(self.connections.moved(link), now)
        self._on_waking(now)  # what could not be reached from where it was, it may now

    def _on_waking(self, now: float) -> None:
        at = self.timers.next()
        self.connections.doubt(max(0.0, now - at) if at is not None else 0.0, now)
        self._on_overlay(self.overlay.woke(now), now)

    def _say(self, say: Say, now: float) -> None:
        link = self.connections.links.get(say.link)
        if link is not None and link.is_open:
            body = encode(say.body)
            message = Message(say.id, int(now * 1e6), _OVERLAY, body, say.in_reply_to)
            self.connections.send(link, message)

    def _connect(self, connect: Connect, now: float) -> None:
        link = None
        if connect.expected is None or not self.gossip.trust.is_refused(connect.expected, now):
            link = self.connections.dial(
                connect.address, connect.expected, connect.purpose, connect.token, now
            )
        if link is None:
            self._on_overlay(self.overlay.not_dialled(connect.attempt, now), now)
        else:
            link.attempt = connect.attempt

    def _close(self, link: Link, reason: CloseReason, text: str, now: float) -> None:
        self._on_link(self.connections.close(link, reason, text, now), now)

    def _flush(self) -> list[Effect]:
        # The list is shared with the connections, so it is emptied, not replaced.
        out = self._out[:]
        self._out.clear()
        return out
