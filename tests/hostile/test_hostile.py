"""Ten thousand hostile clients against one live node that has neighbours to serve meanwhile.

The node runs in a process of its own, so that its memory and its log are its own. What a case
sends is drawn from one seed. After each wave the node still answers its neighbours.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import struct
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from gossip_words import gossip_body

import meshwalk
from meshwalk.config import Config
from meshwalk.identity.keys import KeyPair, NodeSignatures, sign_beacon, sign_record
from meshwalk.identity.network import Network
from meshwalk.net.tcp import TcpTransport
from meshwalk.net.transport import Pipe
from meshwalk.wire.address import Address
from meshwalk.wire.codec import FrameReader, encode_frame
from meshwalk.wire.frames import (
    Channel,
    Close,
    Frame,
    Hello,
    Message,
    Ping,
    Pong,
    Purpose,
)
from meshwalk.wire.gossip import encode_gossip
from meshwalk.wire.messages import (
    Beacon,
    FindPeer,
    FragmentAsked,
    FragmentOutcome,
    FragmentTold,
    Handover,
    JoinOutcome,
    JoinReply,
    JoinRequest,
    OverlayMessage,
    PartReply,
    PartRequest,
    PeerFound,
    PeersTold,
    PeersWanted,
    RecordChanged,
    SplitReply,
    SplitRequest,
    VouchAsked,
    VouchOutcome,
    VouchTold,
    encode,
)
from meshwalk.wire.records import BeaconPayload, PeerRecord

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

SEED = 20_261_121
STRANGERS = 5_000  # cases that never get past TLS
FOREIGNERS = 500  # cases with keys of another network: a handshake each
MEMBERS = 4_600  # cases inside the network: a handshake each, then hostile frames
NEIGHBOURS = 150  # cases that become neighbours first
FLOOD = 300  # messages that each of these says at once
AT_ONCE = 40  # below the node's bound on half-open connections, so that each case is read
GROWTH_BYTES_MAX = 64 << 20  # more than every bounded buffer that these clients can fill


def check_counters(overlay: dict[str, dict[str, int]]) -> None:
    """Whoever looks after the node can see what was done to it."""
    assert overlay["exchange"]["told too fast"] > 0, overlay
    assert overlay["exchange"]["wanted too soon"] > 0, overlay
    assert overlay["beacons"]["too fast"] > 0, overlay
    assert overlay["suspicions"]["asked too much"] > 0, overlay
    assert overlay["handovers"]["too many"] > 0, overlay
    assert overlay["others_finds"]["busy"] > 0, overlay


class Victim:
    """The attacked process."""

    def __init__(self, process: asyncio.subprocess.Process, address: Address) -> None:
        self.process = process
        self.address = address

    async def report(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        async with asyncio.timeout(30):
            line = await self.process.stdout.readline()
        report: dict[str, Any] = json.loads(line)
        return report


@asynccontextmanager
async def running_victim() -> AsyncIterator[Victim]:
    """Start it; when it ends, its log must hold no trace of an unhandled error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("victim.py")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    log = asyncio.create_task(process.stderr.read())
    try:
        async with asyncio.timeout(30):
            line = (await process.stdout.readline()).decode().strip()
        yield Victim(process, Address.parse(line))
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(30):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        text = (await log).decode()
    assert process.returncode == 0, text
    assert "Traceback" not in text, text
    assert "exception" not in text.lower(), text


async def serves(nodes: list[meshwalk.Node], victim: meshwalk.PeerId) -> None:
    """Each neighbour of the victim gets an answer from it."""
    for node in nodes:
        assert victim in node.neighbours
        assert await node.request(victim, "still there?", type="echo", timeout_s=10) == (
            "still there?"
        )


async def in_waves(
    cases: int, attack: Callable[[int], Awaitable[None]], at_once: int = AT_ONCE
) -> None:
    """Run cases, a bounded number of them at once."""
    numbers = iter(range(cases))

    async def worker() -> None:
        for number in numbers:
            async with asyncio.timeout(30):
                await attack(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())


# Strangers: bytes before or instead of TLS.


def client_hello() -> bytes:
    """The first flight of a real TLS client."""
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="example.net")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def stranger_bytes(rng: Random, hello: bytes) -> bytes:
    match rng.randrange(8):
        case 0:
            return b""
        case 1:
            return rng.randbytes(rng.randrange(1, 2000))
        case 2:
            return hello[: rng.randrange(1, len(hello))]
        case 3:
            damaged = bytearray(hello)
            for _ in range(rng.randrange(1, 20)):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            return bytes(damaged)
        case 4:
            return b"GET / HTTP/1.1\r\nHost: example.net\r\n\r\n"
        case 5:
            return encode_frame(Ping(1, 1)) * rng.randrange(1, 50)
        case 6:
            return b"\x16\x03\x01" + struct.pack(">H", rng.randrange(65536)) + rng.randbytes(100)
        case _:
            return hello + rng.randbytes(rng.randrange(1, 5000))


async def attack_as_stranger(address: Address, rng: Random, hello: bytes) -> None:
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        data = stranger_bytes(rng, hello)
        if rng.randrange(10) == 0 and data:  # slowly: a byte at a time
            for byte in data[:20]:
                writer.write(bytes([byte]))
                await writer.drain()
        else:
            writer.write(data)
        match rng.randrange(3):
            case 0:
                writer.transport.abort()
            case 1:
                writer.write_eof()
                await reader.read(4096)
            case _:
                await asyncio.sleep(0)
    except OSError:
        pass  # the node may hang up first; that is its right
    finally:
        writer.transport.abort()


# Members: frames that no honest node sends.


class Attacker:
    """Reads what the node says until it hangs up."""

    def __init__(self) -> None:
        self.gone = asyncio.get_running_loop().create_future()
        self.first = b""
        self.spoken = asyncio.Event()

    def received(self, data: memoryview) -> None:
        self.first = self.first or bytes(data)
        self.spoken.set()

    def stalled(self) -> None: ...

    def resumed(self) -> None: ...

    def lost(self, why: str) -> None:
        self.spoken.set()
        if not self.gone.done():
            self.gone.set_result(why)


def text(rng: Random) -> str:
    return "".join(chr(rng.choice([0, 27, 65, 0x202E, 0x1F600])) for _ in range(rng.randrange(60)))


def signed_blobs() -> list[bytes]:
    """Records and beacons of many made-up peers, all of them genuine, and some signed elsewhere."""
    blobs: list[bytes] = []
    for number in range(40):
        keys, now_us = KeyPair(bytes([number]) * 32), int(time.time() * 1e6)
        network = Network("elsewhere") if number == 0 else Network()
        signatures = NodeSignatures(keys, network.network_id)
        addresses = [f"tcp://127.0.0.{number + 2}:{port}" for port in (9, 19)]
        record = PeerRecord(bytes(keys.peer_id), now_us + number, addresses)
        beacon = BeaconPayload(bytes(keys.peer_id), now_us // 1000 + number, number)
        blobs += [sign_record(record, signatures), sign_beacon(beacon, signatures)]
    return blobs


BLOBS = signed_blobs()
RECORDS, BEACONS = BLOBS[2::2], BLOBS[3::2]  # those of the victim's network
FLOODS: list[Callable[[Random], OverlayMessage]] = [
    lambda rng: FindPeer(rng.randbytes(32), 32),
    lambda rng: PeersWanted(rng.getrandbits(64)),
    lambda rng: PeersTold(rng.getrandbits(64), rng.sample(RECORDS, 16)),
    lambda rng: Beacon(rng.choice(BEACONS), [rng.getrandbits(64) for _ in range(32)], 9),
    lambda rng: VouchAsked(rng.choice(RECORDS)),
    lambda rng: PartRequest(),
    lambda rng: Handover(rng.choice(RECORDS), rng.randbytes(16), dials=rng.random() < 0.5),
    # These have places kept for nobody, so that few others are let in for some seconds: the last of
    # those that must be seen to have been let in.
    lambda rng: JoinRequest(rng.choice(RECORDS), rng.randbytes(16), "", 3, 10),
    lambda rng: overlay_body(rng),
]
"""What could be said, if it were not said all the time; and anything."""


def overlay_body(rng: Random) -> OverlayMessage:
    """Well formed, and hostile in what it says."""
    blob = rng.choice([rng.randbytes(rng.randrange(200)), *rng.sample(BLOBS, 3)])
    token, hops = rng.randbytes(rng.randrange(17)), rng.randrange(65)
    number = rng.choice([0, 1, rng.getrandbits(40), 2**63, 2**64 - 1])
    sketch = rng.choice([list(range(32)), [rng.getrandbits(64) for _ in range(32)], [7] * 32])
    bodies: list[OverlayMessage] = [
        JoinRequest(blob, token, text(rng), hops, rng.randrange(65)),
        JoinReply(rng.choice(list(JoinOutcome)), hops, blob),
        SplitRequest(blob, token, text(rng)),
        SplitReply(),
        FindPeer(rng.randbytes(32), hops, number),
        PeerFound(blob, hops),
        PeersWanted(number),
        PeersTold(number, [blob] * rng.randrange(17)),
        PeersTold(number, rng.sample(BLOBS[::2], 16)),
        RecordChanged(blob),
        Beacon(blob, sketch, number),
        Beacon(rng.choice(BLOBS[1::2]), sketch, number),
        FragmentAsked(rng.choice([b"", blob]), number, token),
        FragmentTold(blob, number, rng.choice(list(FragmentOutcome))),
        VouchAsked(blob),
        VouchTold(rng.choice(list(VouchOutcome))),
        PartRequest(),
        PartReply(is_granted=rng.random() < 0.5),
        Handover(blob, token, dials=rng.random() < 0.5),
    ]
    return rng.choice(bodies)


def body(rng: Random) -> bytes:
    """A body for one of the node's own machines."""
    choices = [encode(overlay_body(rng))] * 8
    choices += [encode_gossip(gossip_body(rng)) for _ in range(4)]
    choices.append(rng.randbytes(rng.randrange(300)))
    return rng.choice(choices)


def frame(rng: Random) -> Frame:
    number = rng.getrandbits(rng.choice([1, 8, 63]))
    frames: list[Frame] = [
        Ping(number, number),
        Pong(number, number, number, number),
        Close(rng.randrange(300), text(rng)),
        hello(rng),
        Message(number, number, rng.choice(list(Channel)), body(rng), rng.choice([0, number])),
        Message(number, 0, Channel.APPLICATION, b"x" * rng.randrange(3000), wants_reply=True),
    ]
    return rng.choice(frames)


def hello(rng: Random) -> Hello:
    version = rng.choice([1, 1, 1, 0, 2, 2**64 - 1])
    record = rng.randbytes(rng.choice([0, 0, 100]))
    purpose = rng.choice(list(Purpose))
    return Hello(version, purpose, 0, text(rng), record, rng.randbytes(rng.randrange(17)))


def member_bytes(rng: Random) -> bytes:
    """What a hostile member says, after its handshake."""
    first = b"" if rng.randrange(5) == 0 else encode_frame(hello(rng))
    match rng.randrange(6):
        case 0:
            return first + rng.randbytes(rng.randrange(1, 2000))
        case 1:
            return first + struct.pack(">I", rng.choice([0, 1, 1 << 20, (1 << 20) + 1, 2**32 - 1]))
        case 2:
            data = bytearray(b"".join(encode_frame(frame(rng)) for _ in range(5)))
            for _ in range(rng.randrange(1, 10)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            return first + bytes(data)
        case 3:
            nested = b"\x91" * rng.randrange(1, 5000)
            return first + struct.pack(">I", len(nested)) + nested
        case 4:
            return first + struct.pack(">I", 1 << 20) + rng.randbytes(rng.randrange(1 << 16))
        case _:
            return first + b"".join(encode_frame(frame(rng)) for _ in range(rng.randrange(40)))


async def let_in(transport: TcpTransport, address: Address) -> Pipe:
    """A pipe to the victim. Its limits may be reached for a moment, on a machine that is busy."""
    while True:
        try:
            return await transport.dial(address, None)
        except meshwalk.Unreachable as error:
            if "may be full" not in str(error):
                raise
            await asyncio.sleep(0.01)


async def attack_as_member(transport: TcpTransport, address: Address, rng: Random) -> None:
    pipe = await let_in(transport, address)
    attacker = Attacker()
    pipe.start(attacker)
    data = member_bytes(rng)
    if rng.randrange(10) == 0:  # slowly: in pieces that split every header
        for start in range(0, min(len(data), 60), 3):
            pipe.write(data[start : start + 3])
            await asyncio.sleep(0)
    else:
        pipe.write(data)
    if rng.randrange(4):
        try:
            async with asyncio.timeout(0.05):
                await attacker.spoken.wait()
        except TimeoutError:
            pass  # silence is an answer too
    pipe.abort()
    await attacker.gone


async def attack_as_neighbour(address: Address, number: int, rng: Random) -> bool:
    """Take a place by saying that one is close, and flood; whether there was a place."""
    transport = TcpTransport(KeyPair(rng.randbytes(32)), Network(), Config().link)
    pipe = await let_in(transport, address)
    attacker = Attacker()
    pipe.start(attacker)
    pipe.write(encode_frame(Hello(1, Purpose.CLOSER, 0, "", rng.choice(BLOBS))))
    async with asyncio.timeout(10):
        await attacker.spoken.wait()
    is_in = any(isinstance(said, Hello) for said in FrameReader().feed(attacker.first))
    if is_in:
        say = FLOODS[number * len(FLOODS) // NEIGHBOURS]
        for id in range(1, FLOOD + 1):
            message = Message(id, 0, Channel.OVERLAY, encode(say(rng)), rng.choice([0, id]))
            pipe.write(encode_frame(message))
        try:
            async with asyncio.timeout(0.2):
                await asyncio.shield(attacker.gone)
        except TimeoutError:
            pass
    if not attacker.gone.done():
        pipe.abort()
    await attacker.gone
    return is_in


async def test_ten_thousand_hostile_clients() -> None:
    rng = Random(SEED)
    first_flight = client_hello()
    async with (
        running_victim() as victim,
        meshwalk.Node(listen="127.0.0.1:0") as one,
        meshwalk.Node(listen="127.0.0.1:0") as two,
    ):
        await one.join(victim.address)
        await two.join(victim.address)
        async with asyncio.timeout(20):
            while not (shared := set(one.neighbours) & set(two.neighbours)):
                await asyncio.sleep(0.05)
        (peer,) = shared
        await serves([one, two], peer)
        before = await victim.report()

        async def as_stranger(_: int) -> None:
            await attack_as_stranger(victim.address, rng, first_flight)

        await in_waves(STRANGERS, as_stranger)
        await serves([one, two], peer)

        foreign = TcpTransport(KeyPair.generate(), Network("elsewhere"), Config().link)

        async def as_foreigner(_: int) -> None:
            with pytest.raises((meshwalk.NotAdmitted, meshwalk.Unreachable)):
                await foreign.dial(victim.address, None)

        await in_waves(FOREIGNERS, as_foreigner)
        await serves([one, two], peer)

        member = TcpTransport(KeyPair.generate(), Network(), Config().link)

        async def as_member(_: int) -> None:
            await attack_as_member(member, victim.address, rng)

        await in_waves(MEMBERS, as_member)
        await serves([one, two], peer)

        were_in = 0

        async def as_neighbour(number: int) -> None:
            nonlocal were_in
            if await attack_as_neighbour(victim.address, number, rng):
                were_in += 1

        await in_waves(NEIGHBOURS, as_neighbour, at_once=4)
        await serves([one, two], peer)

        after = await victim.report()
        assert were_in > NEIGHBOURS // 2
        check_counters(after["overlay"])
        assert after["resident"] - before["resident"] < GROWTH_BYTES_MAX, (before, after)
        assert after["neighbours"] == 2, after
        assert after["ended"]["malformed"] > MEMBERS // 10, after
