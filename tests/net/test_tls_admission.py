"""Attacks on the handshake, by hand-made TLS contexts and raw bytes against a live listener.

After each attack the listener still admits an honest peer, the attacker's place is free, and the
loop's exception handler was not called. The standard library's `ssl` refuses to load a stolen leaf
with another key (a test below says so); that attack is made by hand in test_stolen_leaf.py.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from attackers import ATTACKER, BAD, FOREIGN, NETWORK, context_of, good

from meshwalk.config import LinkConfig
from meshwalk.errors import NotAdmitted, TimedOut, Unreachable
from meshwalk.identity.certificate import authority_der
from meshwalk.identity.keys import KeyPair
from meshwalk.net.tcp import TcpListener, TcpTransport
from meshwalk.net.transport import Pipe
from meshwalk.wire.address import Address

SERVER = KeyPair(b"\x01" * 32)
HONEST = KeyPair(b"\x02" * 32)

TIMEOUT_S = 20.0  # guess: a hundred times what the longest test takes
PATIENT = LinkConfig(close_timeout_s=0.2)
HASTY = LinkConfig(close_timeout_s=0.2, handshake_timeout_s=0.2, connect_timeout_s=0.2)


class Silent:
    """A reader that waits for the end only."""

    def __init__(self) -> None:
        self.lost_because: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def received(self, data: memoryview) -> None:
        raise AssertionError("no attacker gets a byte through")

    def stalled(self) -> None:
        raise AssertionError

    def resumed(self) -> None:
        raise AssertionError

    def lost(self, why: str) -> None:
        self.lost_because.set_result(why)


class Gate:
    """Admits every socket; says what became of it."""

    def __init__(self) -> None:
        self.count = 0
        self.outcomes: asyncio.Queue[Pipe | str] = asyncio.Queue()

    def admit(self, remote: Address) -> int | None:
        self.count += 1
        return self.count

    def handshake_failed(self, link: int, why: str) -> None:
        assert why
        assert "\n" not in why
        self.outcomes.put_nowait(why)

    def accepted(self, link: int, pipe: Pipe) -> None:
        pipe.start(Silent())
        self.outcomes.put_nowait(pipe)


class Target:
    """A listening node, and an honest dialler."""

    def __init__(self, gate: Gate, listener: TcpListener) -> None:
        self.gate = gate
        self.listener = listener
        self.honest = TcpTransport(HONEST, NETWORK, PATIENT)

    @property
    def place(self) -> tuple[str, int]:
        return self.listener.address.host, self.listener.address.port

    async def refused(self) -> str:
        outcome = await self.gate.outcomes.get()
        assert isinstance(outcome, str), "an attacker was accepted"
        return outcome

    async def admits_the_honest(self) -> None:
        pipe = await self.honest.dial(self.listener.address, SERVER.peer_id)
        accepted = await self.gate.outcomes.get()
        assert not isinstance(accepted, str), accepted
        assert accepted.peer == HONEST.peer_id
        accepted.abort()
        pipe.abort()


@asynccontextmanager
async def target(config: LinkConfig = PATIENT) -> AsyncIterator[Target]:
    gate = Gate()
    transport = TcpTransport(SERVER, NETWORK, config)
    listener = cast("TcpListener", await transport.listen(Address("127.0.0.1", 0), gate))
    try:
        yield Target(gate, listener)
    finally:
        await listener.close()
    for _ in range(5):
        await asyncio.sleep(0)  # what was aborted is closed within a few turns


def uvloop_factory() -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = pytest.importorskip("uvloop").new_event_loop()
    return loop


@pytest.fixture(params=[asyncio.new_event_loop, uvloop_factory], ids=["asyncio", "uvloop"])
def play(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Runs a coroutine on either loop and wants the loop to have nothing to complain of."""

    def run(steps: Coroutine[Any, Any, None]) -> None:
        complaints: list[dict[str, Any]] = []

        async def watched() -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: complaints.append(context))
            async with asyncio.timeout(TIMEOUT_S):
                await steps

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(watched())
        gc.collect()
        assert complaints == []

    return run


Play = Callable[[Coroutine[Any, Any, None]], None]


def connect_and_listen(place: tuple[str, int], context: ssl.SSLContext) -> str:
    """The client's side of an attack, in a thread: what the listener let it see."""
    with socket.create_connection(place, timeout=TIMEOUT_S) as plain:
        try:
            with context.wrap_socket(plain) as channel:
                return "read" if channel.recv(1) else "ended"
        except ssl.SSLError as error:
            return error.reason or "ended"
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, "ended")


def names(value: object) -> str:
    return getattr(value, "__name__", "")


@pytest.mark.parametrize(("make", "why"), BAD.items(), ids=names)
def test_a_bad_certificate_is_not_admitted(play: Play, tmp_path: Path, make: Any, why: str) -> None:
    async def steps() -> None:
        context = context_of(tmp_path, make())
        async with target() as node:
            seen = await asyncio.to_thread(connect_and_listen, node.place, context)
            assert seen != "read"
            assert why in await node.refused()
            await node.admits_the_honest()

    play(steps())


@pytest.mark.parametrize(("make", "why"), BAD.items(), ids=names)
def test_a_bad_certificate_is_not_dialled(play: Play, tmp_path: Path, make: Any, why: str) -> None:
    context = context_of(tmp_path, make(), server=True)

    async def steps() -> None:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context)
        loop = asyncio.get_running_loop()
        watch, loop_handler = loop.get_exception_handler(), lambda *_: None
        loop.set_exception_handler(loop_handler)  # stock servers do complain
        address = Address(*server.sockets[0].getsockname())
        dialler = TcpTransport(HONEST, NETWORK, PATIENT)
        with pytest.raises(NotAdmitted) as refusal:
            await dialler.dial(address, None)
        assert why in str(refusal.value)
        assert str(address) in str(refusal.value)
        server.close()
        await server.wait_closed()
        for _ in range(10):
            await asyncio.sleep(0)
        loop.set_exception_handler(watch)

    play(steps())


def test_the_honest_context_would_be_admitted(play: Play, tmp_path: Path) -> None:
    """Or the other tests of this file would show nothing."""

    async def steps() -> None:
        context = context_of(tmp_path, good())
        async with target() as node:
            attack = asyncio.create_task(asyncio.to_thread(connect_and_listen, node.place, context))
            pipe = await node.gate.outcomes.get()
            assert not isinstance(pipe, str)
            assert pipe.peer == ATTACKER.peer_id
            pipe.close()
            assert await attack == "ended"

    play(steps())


def test_a_leaf_cannot_even_be_loaded_with_another_key(tmp_path: Path) -> None:
    _, certificates = good()
    with pytest.raises(ssl.SSLError, match="KEY_VALUES_MISMATCH"):
        context_of(tmp_path, (HONEST.private_key, certificates))


def _tls_12(context: ssl.SSLContext) -> None:
    context.maximum_version = ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("chain", "alpn", "change", "why"),
    [
        (None, None, None, "showed no certificate"),
        (good, [], None, "not the protocol"),
        (good, ["h2", "meshwalk/0"], None, "not the protocol"),
        (good, None, _tls_12, "unsupported protocol"),
    ],
    ids=["no certificate", "no ALPN", "wrong ALPN", "TLS 1.2"],
)
def test_other_ways_to_speak_tls(
    play: Play, tmp_path: Path, chain: Any, alpn: Any, change: Any, why: str
) -> None:
    async def steps() -> None:
        context = context_of(tmp_path, chain() if chain else None, alpn=alpn)
        if change is not None:
            change(context)
        async with target() as node:
            assert await asyncio.to_thread(connect_and_listen, node.place, context) != "read"
            assert why in await node.refused()
            await node.admits_the_honest()

    play(steps())


GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "zeros": bytes(100_000),
    "noise": bytes((n * 167 + 13) % 256 for n in range(100_000)),
    "long record": b"\x16\x03\x01\xff\xff" + bytes(70_000),
    "alert": b"\x15\x03\x03\x00\x02\x02\x28",
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_refused(play: Play, data: bytes) -> None:
    async def steps() -> None:
        async with target() as node:
            _, writer = await asyncio.open_connection(*node.place)
            writer.write(data)
            await node.refused()
            await node.admits_the_honest()
            writer.transport.abort()

    play(steps())


def client_hello(folder: Path) -> bytes:
    outgoing = ssl.MemoryBIO()
    channel = context_of(folder, good()).wrap_bio(ssl.MemoryBIO(), outgoing)
    with pytest.raises(ssl.SSLWantReadError):
        channel.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("how", ["end", "reset"])
def test_a_client_that_leaves_in_mid_handshake(
    play: Play, tmp_path: Path, share: float, how: str
) -> None:
    async def steps() -> None:
        hello = client_hello(tmp_path)
        async with target() as node:
            with socket.create_connection(node.place) as client:
                client.sendall(hello[: int(len(hello) * share)])
                if how == "reset":
                    linger = struct.pack("ii", 1, 0)
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            await node.refused()
            await node.admits_the_honest()

    play(steps())


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_client_that_stalls_loses_its_place(play: Play, tmp_path: Path, share: float) -> None:
    async def steps() -> None:
        hello = client_hello(tmp_path)
        async with target(HASTY) as node:
            with socket.create_connection(node.place) as client:
                client.sendall(hello[: int(len(hello) * share)])
                assert "too long" in await node.refused()
                await node.admits_the_honest()

    play(steps())


def test_a_stalled_handshake_does_not_outlive_its_listener(play: Play) -> None:
    async def steps() -> None:
        async with target() as node:
            with socket.create_connection(node.place) as client:
                while node.gate.count == 0:
                    await asyncio.sleep(0)
                await node.listener.close()
                assert "stopped listening" in await node.refused()
                client.settimeout(TIMEOUT_S)
                assert client.recv(1) == b""

    play(steps())


def test_dialling_something_else(play: Play) -> None:
    async def steps() -> None:
        async def chatter(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mail.example ESMTP\r\n")
            writer.close()

        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()  # the client hello, and no answer until the client has gone
            writer.close()

        async def closing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        expected = ((chatter, NotAdmitted), (mute, TimedOut), (closing, Unreachable))
        for answer, error in expected:
            server = await asyncio.start_server(answer, "127.0.0.1", 0)
            address = Address(*server.sockets[0].getsockname())
            with pytest.raises(error, match=str(address)):
                await TcpTransport(HONEST, NETWORK, HASTY).dial(address, None)
            server.close()
            await server.wait_closed()

    play(steps())


def test_a_dialler_that_is_refused_later_hears_why(play: Play, tmp_path: Path) -> None:
    """In TLS 1.3 the dialler is done before the listener has looked at its certificate."""
    context = context_of(tmp_path, good(), server=True)
    context.verify_mode = ssl.CERT_REQUIRED
    strict = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    strict.verify_mode = ssl.CERT_REQUIRED
    strict.load_verify_locations(cadata=authority_der(FOREIGN))
    strict.set_alpn_protocols(["meshwalk/1"])
    strict.load_cert_chain(tmp_path / "chain.pem")

    def answer(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection, pytest.raises(ssl.SSLError):
            strict.wrap_socket(connection, server_side=True)

    async def steps() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            server = asyncio.create_task(asyncio.to_thread(answer, listening))
            dialler = TcpTransport(HONEST, NETWORK, PATIENT)
            pipe = await dialler.dial(Address(*listening.getsockname()), ATTACKER.peer_id)
            reader = Silent()
            pipe.start(reader)
            assert "refused this node" in await reader.lost_because
            await server

    play(steps())


def test_accepting_goes_on_after_the_system_had_no_room(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.socket.accept
    troubles = [errno.EMFILE, errno.ECONNABORTED, errno.ENOBUFS]

    def accept(self: socket.socket) -> tuple[socket.socket, Any]:
        if troubles:
            number = troubles.pop(0)
            raise OSError(number, os.strerror(number))
        return real(self)

    async def steps() -> None:
        async with target() as node:
            monkeypatch.setattr(socket.socket, "accept", accept)
            await node.admits_the_honest()
            assert troubles == []

    play(steps())


def test_a_loop_without_readers_accepts_too(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, where the loop can only wait for one connection at a time."""

    def refuse(*_: object) -> None:
        raise NotImplementedError

    async def steps() -> None:
        loop = asyncio.get_running_loop()
        if type(loop).__module__.startswith("uvloop"):
            pytest.skip("its methods cannot be replaced")
        monkeypatch.setattr(loop, "add_reader", refuse)
        async with target() as node:
            await node.admits_the_honest()

    play(steps())
