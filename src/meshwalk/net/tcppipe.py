"""A pipe of TLS over TCP: an asyncio protocol between the loop's socket and a `TlsChannel`.

All work is done within the loop's callbacks, with no task and no queue. Nothing is kept here but
what comes before `start`: bytes to be sent wait in the loop's transport, so that its count and its
marks are the true ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import sys
from typing import Any, cast

from meshwalk.config import LinkConfig
from meshwalk.errors import NotAdmitted, Unreachable
from meshwalk.net.tls import LEFT_OVER_BYTES, SLICE_BYTES, TlsChannel, explain
from meshwalk.net.transport import PipeReader
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId

RECEIVE_BYTES = 256 << 10
"""Read from a socket at once. measured, TLS on loops; asyncio's own size."""
BACKLOG_BYTES_MAX = 256 << 10
"""Kept for an owner that has not called `start`; then the peer must wait. guess: one read."""
SYSTEM_UNSENT_BYTES = 128 << 10
"""What the system takes beyond what is on its way. measured, bulk on loopback: no slower."""
_NOT_SENT_LOWAT: int | None = getattr(socket, "TCP_NOTSENT_LOWAT", None)
"""Linux and macOS have it."""
CLOSE_ROUNDS_MAX = 10
"""A closing end waits `close_timeout_s` so often, as long as the peer goes on reading. guess."""

_ABORTED = "this node ended it at once"
_REFUSED = (
    "the peer ended the connection right after the handshake: it may have refused this node "
    "(another network or secret, or a wrong clock)"
)


class Buffers:
    """What is read into: ciphertext as it comes, and plaintext. Shared by all pipes of a node.

    That is safe where the loop asks for the buffer, reads and reports within one step, as uvloop
    and the selector loops do. Windows' proactor loop reads while others run: buffers for each.
    """

    __slots__ = ("plain", "wire")

    is_shared = sys.platform != "win32"

    def __init__(self) -> None:
        self.wire = memoryview(bytearray(RECEIVE_BYTES))
        self.plain = memoryview(bytearray(RECEIVE_BYTES + LEFT_OVER_BYTES))

    def of_a_pipe(self) -> Buffers:
        """The buffers for one more pipe."""
        return self if self.is_shared else Buffers()


class TcpPipe(asyncio.BufferedProtocol):
    """Implements `transport.Pipe`; `connection_made` and what follows it are for the loop.

    After `close` or `abort` nothing more is `received`.
    """

    __slots__ = (
        "_backlog",
        "_buffers",
        "_channel",
        "_close_rounds",
        "_config",
        "_deadline",
        "_has_heard",
        "_is_ending",
        "_is_full",
        "_is_gone",
        "_is_told_full",
        "_local",
        "_loop",
        "_raw",
        "_reader",
        "_ready",
        "_remote",
        "_unsent_before",
        "_why",
    )

    def __init__(
        self, channel: TlsChannel, buffers: Buffers, config: LinkConfig, remote: Address
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._channel = channel
        self._buffers = buffers
        self._config = config
        self._remote = remote
        self._local = Address("0.0.0.0", 0)  # noqa: S104 # until connected; no socket is bound
        self._raw: asyncio.Transport | None = None
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._reader: PipeReader | None = None
        self._backlog: bytearray | None = bytearray()  # None once the reader has it
        self._has_heard = False
        self._is_ending = False
        self._is_gone = False
        self._is_full = False
        self._is_told_full = False
        self._deadline: asyncio.TimerHandle | None = None
        self._close_rounds = 0
        self._unsent_before = 0
        self._why: str | None = None

    # What the owner calls.

    @property
    def peer(self) -> PeerId:
        """As `Pipe.peer`."""
        peer = self._channel.peer
        assert peer is not None, "the pipe is given to an owner after its handshake"
        return peer

    @property
    def remote(self) -> Address:
        """As `Pipe.remote`."""
        return self._remote

    @property
    def local(self) -> Address:
        """As `Pipe.local`."""
        return self._local

    @property
    def unsent_bytes(self) -> int:
        """As `Pipe.unsent_bytes`, encrypted: 22 bytes more for each 16 KiB."""
        return 0 if self._raw is None or self._is_gone else self._raw.get_write_buffer_size()

    @property
    def is_connected(self) -> bool:
        """Whether the loop has given its connection to this pipe."""
        return self._raw is not None

    def start(self, reader: PipeReader) -> None:
        """As `Pipe.start`."""
        assert self._reader is None, "start is called once"
        self._reader = reader
        self._loop.call_soon(self._deliver_backlog)

    def write(self, data: bytes | bytearray) -> None:
        """As `Pipe.write`."""
        raw = self._raw
        if self._is_ending or not data or raw is None or raw.is_closing():
            return
        if len(data) <= SLICE_BYTES:
            raw.write(self._channel.encrypt(data))
            return
        view = memoryview(data)
        for start in range(0, len(data), SLICE_BYTES):
            raw.write(self._channel.encrypt(view[start : start + SLICE_BYTES]))

    def close(self) -> None:
        """As `Pipe.close`. A peer that stops reading is given up after `close_timeout_s`."""
        raw = self._raw
        if self._is_ending or raw is None:
            return
        self._forget_backlog()
        self._say_goodbye(raw)
        # Not closed yet: the system would answer what the peer still sends with a reset, and that
        # could overtake what we sent. The peer closes when it reads the goodbye.
        raw.resume_reading()
        self._set_deadline()

    def abort(self) -> None:
        """As `Pipe.abort`. Before the handshake is done it ends that."""
        self._forget_backlog()
        self._is_ending = True
        self._why = self._why or _ABORTED
        if not self._ready.done():
            self._ready.cancel()
        elif not self._ready.cancelled():
            self._ready.exception()  # seen; or the loop would complain that nobody looked
        if self._raw is not None:
            self._raw.abort()

    async def established(self) -> None:
        """Wait for the end of the handshake.

        Raises `NotAdmitted`, or `Unreachable` when the other end said nothing at all.
        """
        await self._ready

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The TCP connection stands: begin the handshake."""
        raw = self._raw = cast("asyncio.Transport", transport)
        if self._is_ending:
            raw.abort()
            return
        # Either is None when the connection was gone before the system could be asked.
        if remote := raw.get_extra_info("peername"):
            self._remote = address_of(remote)
        if local := raw.get_extra_info("sockname"):
            self._local = address_of(local)
        with contextlib.suppress(OSError):  # macOS: the peer has already gone
            # Small messages must not wait for acknowledgements; asyncio sees to it for some
            # sockets only, and not for those that were accepted by others.
            system_socket = raw.get_extra_info("socket")
            system_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if _NOT_SENT_LOWAT is not None:
                # What waits for a slow path is to wait here, where small messages get their turn,
                # and not behind some MiB of bulk in the system's buffer.
                system_socket.setsockopt(socket.IPPROTO_TCP, _NOT_SENT_LOWAT, SYSTEM_UNSENT_BYTES)
        high = self._config.send_buffer_high_bytes
        raw.set_write_buffer_limits(high=high, low=high // 2)
        self._shake(raw)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the loop is to read into."""
        return self._buffers.wire

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes from the socket: the rest of the handshake, or records to decrypt."""
        channel, raw, wire = self._channel, self._raw, self._buffers.wire[:nbytes]
        assert raw is not None
        if nbytes == RECEIVE_BYTES and self._backlog is None and raw.is_reading():
            # There is more. libuv would read it up to 32 times over before anybody else's turn:
            # some MiB for each link, while timers are late and readers of messages wait.
            raw.pause_reading()
            self._loop.call_soon(self._read_on)
        if channel.peer is None:
            if self._is_ending:
                return
            self._has_heard = True
            channel.feed(wire)
            if not self._shake(raw):
                return
            self._has_heard = False  # from here on: whether anything came after the handshake
            wire = wire[:0]  # but the channel may hold records that came along
        if channel.is_over():
            return
        plain = self._buffers.plain
        if count := channel.decrypt(wire, plain):
            self._has_heard = True
            if not self._is_ending:
                self._deliver(plain[:count])
        if answer := channel.take_outgoing():
            raw.write(answer)
        if channel.is_over():
            self._end(raw)

    def eof_received(self) -> None:
        """The other end sends no more. The loop closes the transport when this returns."""
        if self._channel.peer is None:
            self._fail(self._cut_off())
        elif self._why is None:
            self._why = self._unclean("the peer ended the connection without a goodbye")
        self._is_ending = True
        self._set_deadline()

    def pause_writing(self) -> None:
        """More than the high mark waits."""
        self._flow_changed(is_full=True)

    def resume_writing(self) -> None:
        """Less than the low mark waits."""
        self._flow_changed(is_full=False)

    def connection_lost(self, error: Exception | None) -> None:
        """The socket is gone. Always the last call of the loop."""
        self._is_gone = self._is_ending = True
        if self._deadline is not None:
            self._deadline.cancel()
        if self._channel.peer is None:
            self._fail(self._cut_off())
            return
        if self._why is None:
            strerror = error.strerror if isinstance(error, OSError) else None
            self._why = self._unclean(f"the connection broke: {strerror or 'no reason is given'}")
        if self._backlog is None and self._reader is not None:
            self._reader.lost(self._why)

    # Steps.

    def _shake(self, raw: asyncio.Transport) -> bool:
        """Go on with the handshake; True when it is done."""
        channel = self._channel
        try:
            is_done = channel.handshake()
        except ssl.SSLError as error:
            raw.write(channel.take_outgoing())  # the alert
            self._fail(NotAdmitted(explain(error)))
            raw.close()
            return False
        except NotAdmitted as error:
            self._fail(error)
            raw.abort()
            return False
        if outgoing := channel.take_outgoing():
            raw.write(outgoing)
        if is_done and not self._ready.done():
            self._ready.set_result(None)
        return is_done

    def _fail(self, error: NotAdmitted | Unreachable) -> None:
        self._is_ending = True
        if not self._ready.done():
            self._ready.set_exception(error)

    def _cut_off(self) -> NotAdmitted | Unreachable:
        if self._has_heard:
            return NotAdmitted("the other end broke off the handshake")
        if self._channel.is_dialler:
            return Unreachable("the other end closed the connection at once: it may be full")
        return Unreachable("the other end closed the connection and said nothing")

    def _unclean(self, why: str) -> str:
        # In TLS 1.3 the dialler is done before its certificate has been looked at, so that a
        # refusal comes later (RFC 8446 section 4.4.2.4), and a reset can overtake the alert.
        return why if self._has_heard or not self._channel.is_dialler else _REFUSED

    def _deliver(self, data: memoryview) -> None:
        if self._backlog is None:
            assert self._reader is not None
            self._reader.received(data)
            return
        self._backlog += data
        if len(self._backlog) > BACKLOG_BYTES_MAX and self._raw is not None:
            self._raw.pause_reading()

    def _deliver_backlog(self) -> None:
        backlog, reader, raw = self._backlog, self._reader, self._raw
        assert reader is not None
        assert raw is not None
        self._backlog = None
        if backlog:
            try:
                reader.received(memoryview(backlog))
            except BaseException:  # a mistake of the reader; the loop reports it
                self.abort()
                raise
        if self._is_gone:
            reader.lost(self._why or "")
            return
        raw.resume_reading()
        self._tell_flow()

    def _read_on(self) -> None:
        if self._raw is not None and not self._raw.is_closing() and not self._raw.is_reading():
            self._raw.resume_reading()

    def _forget_backlog(self) -> None:
        if self._backlog is not None:
            self._backlog = bytearray()

    def _flow_changed(self, *, is_full: bool) -> None:
        # May come from within our own `write`, where the reader must not be called.
        if self._is_full != is_full:
            self._is_full = is_full
            self._loop.call_soon(self._tell_flow)

    def _tell_flow(self) -> None:
        if self._backlog is not None or self._is_ending or self._is_told_full == self._is_full:
            return
        assert self._reader is not None
        self._is_told_full = self._is_full
        if self._is_full:
            self._reader.stalled()
        else:
            self._reader.resumed()

    def _end(self, raw: asyncio.Transport) -> None:
        """The peer said goodbye or broke the channel."""
        if self._channel.failure is not None:
            if self._why is None:
                self._why = explain(self._channel.failure)
        elif not self._is_ending:
            self._say_goodbye(raw)
        raw.close()
        self._is_ending = True
        self._set_deadline()

    def _say_goodbye(self, raw: asyncio.Transport) -> None:
        self._is_ending = True
        self._why = self._why or ""
        if not raw.is_closing() and (goodbye := self._channel.goodbye()):
            raw.write(goodbye)

    def _set_deadline(self) -> None:
        if self._deadline is None and not self._is_gone:
            self._unsent_before = self.unsent_bytes
            self._deadline = self._loop.call_later(self._config.close_timeout_s, self._give_up)

    def _give_up(self) -> None:
        """The end takes long: wait on as long as the peer reads, but not for ever."""
        self._deadline = None
        self._close_rounds += 1
        unsent = self.unsent_bytes
        if 0 < unsent < self._unsent_before and self._close_rounds < CLOSE_ROUNDS_MAX:
            self._set_deadline()
            return
        if unsent:
            self._why = f"the peer did not read the last {unsent:,} bytes in time"
        if self._raw is not None:
            self._raw.abort()


def address_of(name: tuple[Any, ...]) -> Address:
    """A socket's name as an Address. IPv4 by way of a dual-stack socket is IPv4."""
    host, port = name[0], name[1]
    if ":" not in host:
        return Address(host, port)
    ip = ipaddress.IPv6Address(host)
    if ip.is_link_local and ip.scope_id is None and len(name) > 3 and name[3]:
        return Address(f"{host}%{name[3]}", port)  # a link-local address is one on an interface
    return Address(str(ip.ipv4_mapped or ip), port)
