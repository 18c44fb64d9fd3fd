"""One node: its inputs from the driver. Those from the application are in `commands.py`; what both
lead to is routed in `machines.py`, and decided by the machines.

Inputs take `now`, machine time in seconds that never goes back, and return effects for the driver
to perform in order. After each input the driver asks `deadline()` and calls `tick` then.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshwalk.events import LinkResumed, LinkStalled
from meshwalk.proto import connections as connections_machine
from meshwalk.proto import ownrecord as ownrecord_machine
from meshwalk.proto import reaching as reaching_machine
from meshwalk.proto.broadcast import gossip as gossip_machine
from meshwalk.proto.commands import Commands
from meshwalk.proto.dispatch import dispatch as dispatch_machine
from meshwalk.proto.effects import Effect, Happened, KeepBroadcast
from meshwalk.proto.link import OPEN
from meshwalk.proto.machines import APPLICATION
from meshwalk.proto.overlay.addressbook import BookEntry
from meshwalk.proto.statistics import NodeStatistics, statistics_of
from meshwalk.wire.address import Address
from meshwalk.wire.frames import CloseReason, Frame, Message, Ping, Pong, Purpose
from meshwalk.wire.peerid import PeerId

LATE_S = 3.0  # guess: longer than a busy process takes for a turn, shorter than any time-out


class NodeCore(Commands):
    """All machines of one node, as a driver uses them."""

    # Inputs from the driver.

    def listening(self, addresses: tuple[Address, ...], now: float) -> None:
        """The node accepts connections there."""
        self.own_record.listening(addresses, now)

    def hosts(self, hosts: tuple[str, ...], now: float) -> list[Effect]:
        """All addresses that this machine has now, for a node that listens on every interface."""
        gone = set(self.own_record.hosts).difference(hosts)
        has_moved = self.own_record.hosts_are(hosts, now)
        self._mind_own_record(now)
        if has_moved:
            self._on_moving(gone, now)
        return self._flush()

    def start(
        self, known: list[BookEntry], now: float, broadcasts: Sequence[KeepBroadcast] = ()
    ) -> list[Effect]:
        """Begin, with the peers and the broadcasts that the store kept, these oldest first."""
        if broadcasts:
            self.gossip.restore(broadcasts, now)
        self._renew_own_record(now)
        self._on_overlay(self.overlay.start(known, now), now)
        return self._flush()

    def admit(self, remote: Address, now: float) -> int | None:
        """A connection before it is read: its link's number, or None to close it."""
        return self.connections.admit(remote, now)

    def secured(
        self, link: int, peer: PeerId, remote: Address, local_host: str, now: float
    ) -> list[Effect]:
        """The pipe of a link is there and its peer proven."""
        self.own_record.connected_from(local_host, now)
        self._mind_own_record(now)
        news = self.connections.secured(link, peer, remote, now, local_host=local_host)
        self._on_link(news, now)
        return self._flush()

    def lost(self, link: int, why: str, now: float, *, not_admitted: bool = False) -> list[Effect]:
        """The pipe of a link has ended, or its dial or handshake has failed."""
        self._on_link(self.connections.lost(link, why, not_admitted=not_admitted), now)
        return self._flush()

    def receive(self, link: int, frames: Sequence[Frame], now: float) -> list[Effect]:
        """Frames from a peer, in order."""
        message: Message | None = None
        dispatch, links = self.dispatch, self._links
        for frame in frames:
            found = links.get(link)
            if found is None:
                break
            if found.state is not OPEN:
                self._on_link(self.connections.receive(link, frame, now), now)
            elif type(frame) is Message:
                # The hot path: what `Connections.receive` would do, without its detours.
                message = frame
                found.heard_at = found.used_at = now
                found.messages_in += 1
                if frame.channel is not APPLICATION or not found.may_converse:
                    self._on_message(found, frame, now)
                elif frame.in_regards_to:
                    dispatch.in_conversation(found, frame, now)
                    if dispatch.wanted or dispatch.sending.local:
                        self._after_dispatch(now)
                elif frame.wants_reply or frame.in_reply_to or frame.sequence or frame.marks:
                    self._on_message(found, frame, now)
                else:
                    self._out.append(dispatch.one_way(found, frame, now))
            elif type(frame) is Ping:  # no news, nor from a pong; and no deadline comes earlier
                found.pinged(frame, now)
            elif type(frame) is Pong:
                if found.ponged(frame, now) and found.is_tested:
                    self._on_overlay(self.overlay.measured(found, now), now)
            else:
                self._on_link(self.connections.receive(link, frame, now), now)
        if message is not None and found is not None:
            found.arrived(message.sent_at_us, now)
        return self._flush()

    def malformed(self, link: int, why: str, now: float) -> list[Effect]:
        """The peer sent bytes that are no frame."""
        self._on_link(self.connections.malformed(link, why, now), now)
        return self._flush()

    def stalled(self, link: int, now: float) -> list[Effect]:
        """Much waits to be sent to a peer that does not read."""
        found = self._links.get(link)
        if found is not None and found.stalled_at is None and found.is_open:
            assert found.peer is not None
            self._out.append(Happened(LinkStalled(found.peer)))
        self.connections.stalled(link, now)
        return self._flush()

    def resumed(self, link: int) -> list[Effect]:
        """It reads again."""
        found = self._links.get(link)
        if found is not None and found.stalled_at is not None and found.is_open:
            assert found.peer is not None
            self._out.append(Happened(LinkResumed(found.peer)))
        self.connections.resumed(link)
        return self._flush()

    def room(self, link: int, size: int, now: float) -> list[Effect]:
        """Asked for by `WantRoom`: the link's pipe can take so many bytes more."""
        found = self._links.get(link)
        if found is not None and found.is_open:
            self.dispatch.room(found, size, now)
            self._after_dispatch(now)
        return self._flush()

    def progressed(self, link: int, now: float) -> None:
        """It still has much to read, and has read some."""
        self.connections.progressed(link, now)

    def calendar_set(self, unix_offset_s: float, now: float) -> list[Effect]:
        """Unix time is `now` plus this from here on: the machine slept, or its clock was set."""
        gone_on_s = unix_offset_s - self.unix_offset_s
        self.unix_offset_s = unix_offset_s
        self.gossip.calendar_set(unix_offset_s)
        self.own_record.unix_offset_s = unix_offset_s
        self.overlay.book.unix_offset_s = unix_offset_s
        self.dispatch.calendar_set(unix_offset_s)
        self._renew_own_record(now)
        if gone_on_s > LATE_S:  # machine time stands still while a machine sleeps
            self._on_waking(now)
        return self._flush()

    def woke(self, now: float) -> list[Effect]:
        """The machine slept, or this process stood still; or it is elsewhere than before."""
        self._on_waking(now)
        return self._flush()

    def overflowed(self, link: int, now: float) -> list[Effect]:
        """More waits to be sent than is allowed."""
        self._on_link(self.connections.overflowed(link, now), now)
        return self._flush()

    def tick(self, now: float) -> list[Effect]:
        """The deadline has come."""
        at = self.timers.next()
        if at is not None and now > at + LATE_S:
            self._on_waking(now)  # first: what was not heard meanwhile is nobody's silence
        for machine, what in self.timers.due(now):
            if machine == connections_machine.TIMER:
                assert isinstance(what, int)
                self._note_use(what, now)
                if (news := self.connections.tick(what, now)) is not None:
                    self._on_link(news, now)
            elif machine in gossip_machine.TIMERS:
                self._on_gossip(self.gossip.tick(machine, what, now), now)
            elif machine in dispatch_machine.TIMERS:
                self.dispatch.tick((machine, what), now)
                self._after_dispatch(now)
            elif machine == reaching_machine.TIMER:
                self._on_reaching(self.reaching.tick(now), now)
            elif machine == ownrecord_machine.TIMER:
                self._renew_own_record(now)
            else:
                self._on_overlay(self.overlay.tick(what, now), now)
        return self._flush()

    def deadline(self) -> float | None:
        """When `tick` is due, by machine time."""
        return self.timers.next()

    # Links.

    def ping(self, link: int, now: float) -> tuple[int, list[Effect]] | None:
        """Measure a link; `Measured` with the returned id follows. None: the link is not open."""
        found = self.connections.links.get(link)
        if found is None or not found.is_open:
            return None
        return found.ping(now), self._flush()

    def probe(self, address: Address, expected: PeerId | None, now: float) -> list[Effect]:
        """Dial to exchange pings; the effects begin with the `Dial`. Empty: too many dials."""
        self.connections.dial(address, expected, Purpose.PROBE, b"", now)
        return self._flush()

    def close_link(self, link: int, now: float) -> list[Effect]:
        """End a temporary link that has served its purpose."""
        found = self.connections.links.get(link)
        if found is not None:
            self._on_link(self.connections.close(found, CloseReason.DONE, "", now), now)
        return self._flush()

    def leave(self, now: float) -> list[Effect]:
        """Close every link, telling the peers."""
        self._on_gossip(self.gossip.leave(now), now)
        self.dispatch.leave()
        self._on_reaching(self.reaching.stop(), now)
        self._on_overlay(self.overlay.leave(now), now)
        for link in list(self.connections.links.values()):
            self._on_link(self.connections.close(link, CloseReason.LEAVING, "", now), now)
        self.timers.cancel(ownrecord_machine.RENEWAL)
        return self._flush()

    def statistics(self) -> NodeStatistics:
        """A snapshot."""
        return statistics_of(self)
