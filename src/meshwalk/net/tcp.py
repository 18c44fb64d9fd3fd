"""Pipes of TLS over TCP: dialling, and listening with one task per handshake.

What a pipe does with its bytes is in `tcppipe.py`; nothing here or there decides anything about
the protocol on top.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import ipaddress
import os
import socket
from typing import Any

from meshwalk.config import LinkConfig
from meshwalk.errors import AddressInUse, InvalidArgument, NotAdmitted, TimedOut, Unreachable
from meshwalk.identity.keys import KeyPair
from meshwalk.identity.network import Network
from meshwalk.net.tcppipe import Buffers, TcpPipe, address_of
from meshwalk.net.tls import TlsChannel, TlsContexts
from meshwalk.net.transport import Acceptor, Listener, Pipe
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId

LISTEN_BACKLOG = 256
"""Connections that the system completes before we look. guess: above `accepts_burst`."""
ACCEPTS_PER_TURN = 64
"""Accepted before other work has its turn. guess: 10 µs each."""
ACCEPT_PAUSE_S = 0.1
"""After the system had no room for another connection. guess; asyncio waits for 1 s."""


class TcpTransport:
    """Makes pipes as the node of `keys` in `network`. Implements `transport.Transport`.

    Raises `LocalError` when the temporary folder cannot be written.
    """

    def __init__(self, keys: KeyPair, network: Network, config: LinkConfig) -> None:
        self._config = config
        self._contexts = TlsContexts(keys, network)
        self._buffers = Buffers()

    async def listen(self, address: Address, acceptor: Acceptor) -> Listener:
        """As `Transport.listen`. A name is listened at on all its addresses, with one port."""
        loop = asyncio.get_running_loop()
        sockets: list[socket.socket] = []
        port = address.port
        try:
            found = await loop.getaddrinfo(
                address.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            for family, _, _, _, where in dict.fromkeys(found):
                sockets.append(_listening(family, (where[0], port, *where[2:])))
                port = sockets[0].getsockname()[1]
        except (OSError, UnicodeError) as error:
            for each in sockets:
                each.close()
            raise _cannot_listen(address, error) from error
        return TcpListener(sockets, acceptor, self)

    async def dial(self, address: Address, expected: PeerId | None) -> Pipe:
        """As `Transport.dial`. The addresses of a name are tried one after the other."""
        pipe = self.make_pipe(address, server_side=False, expected=expected)
        try:
            async with asyncio.timeout(self._config.connect_timeout_s):
                await _connect(address, pipe, self._config.connect_timeout_s)
            async with asyncio.timeout(self._config.handshake_timeout_s):
                await pipe.established()
        except TimeoutError:
            pipe.abort()
            raise TimedOut(f"{address} did not answer in time") from None
        except (NotAdmitted, Unreachable) as error:
            raise type(error)(f"{address}: {error}") from error
        except (OSError, UnicodeError) as error:
            raise _cannot_dial(address, error) from error
        except asyncio.CancelledError:
            pipe.abort()
            raise
        return pipe

    def make_pipe(
        self, remote: Address, *, server_side: bool, expected: PeerId | None = None
    ) -> TcpPipe:
        """A pipe without a connection yet: for this transport and its listeners."""
        channel = TlsChannel(self._contexts, server_side=server_side, expected=expected)
        return TcpPipe(channel, self._buffers.of_a_pipe(), self._config, remote)

    async def answer(self, connection: socket.socket, pipe: TcpPipe) -> None:
        """The answering half of a handshake. Raises what `established` does, or `TimeoutError`."""
        async with asyncio.timeout(self._config.handshake_timeout_s):
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(lambda: pipe, connection)
            await pipe.established()


class TcpListener:
    """Where a `TcpTransport` listens. Implements `transport.Listener`."""

    def __init__(
        self, sockets: list[socket.socket], acceptor: Acceptor, transport: TcpTransport
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sockets = sockets
        self._acceptor = acceptor
        self._transport = transport
        self._handshakes: set[asyncio.Task[None]] = set()
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        self._address = address_of(sockets[0].getsockname())
        self._accepting: list[asyncio.Task[None]] = []
        for each in sockets:
            self._watch(each)

    @property
    def address(self) -> Address:
        """As `Listener.address`."""
        return self._address

    async def close(self) -> None:
        """As `Listener.close`. May be called again."""
        sockets, self._sockets = self._sockets, []
        for pause in self._pauses.values():
            pause.cancel()
        accepting = [*self._accepting]
        for each in sockets:
            if not accepting:
                self._loop.remove_reader(each)
                each.close()
        tasks = [*accepting, *self._handshakes]
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for each in sockets:
                each.close()

    def _watch(self, listening: socket.socket) -> None:
        try:
            # Not `sock_accept`: cancelling that can lose a connection which was just accepted.
            self._loop.add_reader(listening, self._accept_some, listening)
        except NotImplementedError:  # Windows' proactor loop
            task = self._loop.create_task(self._accept_for_ever(listening))
            self._accepting.append(task)

    def _accept_some(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                connection, name = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue  # it was gone before we came
            except OSError:
                # Out of descriptors or memory: the socket stays readable, so look away a while.
                self._loop.remove_reader(listening)
                self._pauses[listening] = self._loop.call_later(
                    ACCEPT_PAUSE_S, self._watch, listening
                )
                return
            self._take(connection, name)

    async def _accept_for_ever(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, name = await self._loop.sock_accept(listening)
            except OSError:
                await asyncio.sleep(ACCEPT_PAUSE_S)
            else:
                self._take(connection, name)

    def _take(self, connection: socket.socket, name: tuple[Any, ...]) -> None:
        remote = address_of(name)
        try:
            link = self._acceptor.admit(remote)
        except BaseException:
            connection.close()
            raise
        if link is None:
            connection.close()
            return
        connection.setblocking(False)
        pipe = self._transport.make_pipe(remote, server_side=True)
        task = self._loop.create_task(self._transport.answer(connection, pipe))
        self._handshakes.add(task)
        task.add_done_callback(functools.partial(self._answered, connection, pipe, link))

    def _answered(
        self, connection: socket.socket, pipe: TcpPipe, link: int, task: asyncio.Task[None]
    ) -> None:
        self._handshakes.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None and not task.cancelled():
            self._acceptor.accepted(link, pipe)
            return
        pipe.abort()
        if not pipe.is_connected:
            connection.close()  # cancelled before the loop could take the connection over
        self._acceptor.handshake_failed(link, _why_failed(error))
        if error is not None and not isinstance(error, OSError | NotAdmitted | Unreachable):
            raise error  # a mistake in this library: the loop reports it


def _why_failed(error: BaseException | None) -> str:
    if error is None:
        return "this node stopped listening"
    if isinstance(error, TimeoutError):
        return "the handshake took too long"
    return str(error) or type(error).__name__


async def _connect(address: Address, pipe: TcpPipe, timeout_s: float) -> None:
    """Give `pipe` a connection to any of the host's addresses, with a share of the time for each.

    Raises the last one's `OSError`; a `TimeoutError` is one.
    """
    loop = asyncio.get_running_loop()
    hosts = [address.host]
    if address.ip is None:
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        hosts = list(dict.fromkeys(str(where[0]) for *_, where in found))
    share_s = timeout_s / len(hosts)  # an address that says nothing must not use up the others'
    while hosts:
        host = hosts.pop(0)
        try:
            async with asyncio.timeout(share_s):
                await loop.create_connection(lambda: pipe, host, address.port)
        except OSError:
            if not hosts:
                raise
        else:
            return


def _listening(family: int, where: tuple[Any, ...]) -> socket.socket:
    """A socket that listens there. Raises `OSError`."""
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            # Else a restarted node would have to wait for its old connections to time out. On
            # Windows the same option lets two programs share a port.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            is_any = ipaddress.IPv6Address(where[0]).is_unspecified
            is_dual = is_any and socket.has_dualstack_ipv6()
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not is_dual)
        listening.setblocking(False)
        listening.bind(where)
        listening.listen(LISTEN_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _cannot_listen(address: Address, error: Exception) -> AddressInUse | InvalidArgument:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRINUSE:
        return AddressInUse(f"port {address.port} at {address.host} is taken; choose another")
    if number in (errno.EACCES, errno.EPERM):
        return InvalidArgument(f"this user may not listen on port {address.port}; use 1024 or more")
    return InvalidArgument(f"{address.host} is no address of this machine: {_text(error)}")


def _cannot_dial(address: Address, error: Exception) -> Unreachable:
    if isinstance(error, ConnectionRefusedError):
        return Unreachable(f"nobody listens at {address}")
    if isinstance(error, socket.gaierror | UnicodeError):
        return Unreachable(f"the name {address.host} leads to no address: {_text(error)}")
    return Unreachable(f"no way to {address}: {_text(error)}")


def _text(error: Exception) -> str:
    strerror = error.strerror if isinstance(error, OSError) else None
    return (strerror or str(error) or type(error).__name__).splitlines()[0]
