"""Liars in the handshake: somebody else's genuine leaf, shown by who does not hold its key.

A leaf is no secret: a node shows its own to everyone whom it talks to. What keeps others from
using it is CertificateVerify (RFC 8446 section 4.4.3), and that they are made to send it. `ssl`
loads no leaf with another key, so both ends are made by hand here; each has a control that is
admitted with a leaf of its own, and differs from the liars in nothing but its story.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
import test_tls_admission as admission
from attackers import ATTACKER, NETWORK
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from handmade_tls import (
    CLIENT_CONTEXT,
    SERVER_CONTEXT,
    Alert,
    Client,
    Heard,
    Server,
    Story,
)
from test_tls_admission import HONEST, PATIENT, SERVER, TIMEOUT_S, Gate, Play, Target

from meshwalk import Node
from meshwalk.config import Config, ConnectionConfig
from meshwalk.errors import NotAdmitted
from meshwalk.identity.certificate import leaf_builder, peer_id_of
from meshwalk.identity.keys import KeyPair
from meshwalk.identity.network import Network
from meshwalk.net.tcp import TcpListener, TcpTransport
from meshwalk.net.transport import Pipe
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId

play = admission.play  # the fixture

QUESTION, ANSWER = b"question", b"answer"


def leaf_of(peer: PeerId, network: Network = NETWORK) -> bytes:
    builder = leaf_builder(Ed25519PublicKey.from_public_bytes(peer), network)
    return builder.sign(network.key, None).public_bytes(Encoding.DER)


OWN, STOLEN = leaf_of(ATTACKER.peer_id), leaf_of(HONEST.peer_id)
KEY = ATTACKER.private_key


def of_another_handshake(transcript: bytes) -> bytes:
    """The same messages after another hello: a signature that was made for somebody else."""
    return transcript[:6] + bytes(32) + transcript[38:]  # the client's random: section 4.1.2


def up_to_the_certificate(transcript: bytes) -> bytes:
    """Not the certificate itself, which then nothing would tie to the signature."""
    return transcript[: transcript.rindex(OWN) - 11]  # its headers: section 4.4.2


def one_bit_off(proof: bytes) -> bytes:
    return proof[:-1] + bytes([proof[-1] ^ 1])


def nothing(_: bytes) -> bytes:
    return b""


# What an end says of itself, the alert that it gets, and what the honest end gives as the reason.
Lie = tuple[Story, Alert, str]

LIES: dict[str, Lie] = {
    "stolen leaf": (Story(STOLEN, KEY), Alert.DECRYPT_ERROR, "bad signature"),
    "stolen leaf, nothing signed": (
        Story(STOLEN, KEY, proves=False),
        Alert.UNEXPECTED_MESSAGE,
        "unexpected message",
    ),
    "nothing signed": (
        Story(OWN, KEY, proves=False),
        Alert.UNEXPECTED_MESSAGE,
        "unexpected message",
    ),
    "another handshake signed": (
        Story(OWN, KEY, covers=of_another_handshake),
        Alert.DECRYPT_ERROR,
        "bad signature",
    ),
    "no certificate signed": (
        Story(OWN, KEY, covers=up_to_the_certificate),
        Alert.DECRYPT_ERROR,
        "bad signature",
    ),
    "wrong Finished": (
        Story(OWN, KEY, finished=one_bit_off),
        Alert.DECRYPT_ERROR,
        "digest check failed",
    ),
    "empty Finished": (
        Story(OWN, KEY, finished=nothing),
        Alert.DECODE_ERROR,
        "bad digest length",
    ),
}
CLIENT_LIES: dict[str, Lie] = {
    **LIES,
    "a server's context": (
        Story(OWN, KEY, context=SERVER_CONTEXT),
        Alert.DECRYPT_ERROR,
        "bad signature",
    ),
    # The node's own leaf and its own signature, sent back to it.
    "mirror": (
        Story(leaf_of(SERVER.peer_id), KEY, reflects=True),
        Alert.DECRYPT_ERROR,
        "bad signature",
    ),
    "no certificate": (Story(None, KEY), Alert.CERTIFICATE_REQUIRED, "showed no certificate"),
}
SERVER_LIES: dict[str, Lie] = {
    **LIES,
    "a client's context": (
        Story(OWN, KEY, context=CLIENT_CONTEXT),
        Alert.DECRYPT_ERROR,
        "bad signature",
    ),
    # RFC 8446 section 4.4.2.4: "the client MUST abort the handshake with a decode_error alert".
    "no certificate": (Story(None, KEY), Alert.DECODE_ERROR, "length mismatch"),
}


class Polite:
    """The reader of a node: it answers the question, and closes."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self.received_all = b""
        self.lost_because: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def received(self, data: memoryview) -> None:
        self.received_all += data
        if self.received_all == QUESTION:
            self._pipe.write(ANSWER)
            self._pipe.close()

    def stalled(self) -> None:
        raise AssertionError

    def resumed(self) -> None:
        raise AssertionError

    def lost(self, why: str) -> None:
        self.lost_because.set_result(why)


class OnePlace(Gate):
    """A gate with room for one handshake, so that a place which stays taken is noticed."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: set[int] = set()
        self.admitted: list[PeerId] = []
        self.readers: list[Polite] = []

    def admit(self, remote: Address) -> int | None:
        if self.taken:
            return None
        link = super().admit(remote)
        assert link is not None
        self.taken.add(link)
        return link

    def handshake_failed(self, link: int, why: str) -> None:
        self.taken.remove(link)
        super().handshake_failed(link, why)

    def accepted(self, link: int, pipe: Pipe) -> None:
        self.taken.remove(link)
        self.admitted.append(pipe.peer)
        reader = Polite(pipe)
        self.readers.append(reader)
        pipe.start(reader)
        self.outcomes.put_nowait(pipe)


@asynccontextmanager
async def target() -> AsyncIterator[tuple[Target, OnePlace]]:
    gate = OnePlace()
    transport = TcpTransport(SERVER, NETWORK, PATIENT)
    listener = cast("TcpListener", await transport.listen(Address("127.0.0.1", 0), gate))
    try:
        yield Target(gate, listener), gate
    finally:
        await listener.close()
    for _ in range(5):
        await asyncio.sleep(0)  # what was aborted is closed within a few turns


def dial(place: tuple[str, int], story: Story) -> Heard:
    with socket.create_connection(place, timeout=TIMEOUT_S) as connection:
        return Client(connection, story).talk(QUESTION)


def answer(listening: socket.socket, story: Story) -> Heard:
    listening.settimeout(TIMEOUT_S)
    connection, _ = listening.accept()
    with connection:
        connection.settimeout(TIMEOUT_S)
        return Server(connection, story).talk(QUESTION)


# Liars who dial.


@pytest.mark.parametrize("keys", [ATTACKER, HONEST], ids=["own leaf", "the leaf to be stolen"])
def test_the_handmade_client_is_admitted_when_it_is_honest(play: Play, keys: KeyPair) -> None:
    """Or the other tests of this half would show nothing."""

    async def steps() -> None:
        story = Story(leaf_of(keys.peer_id), keys.private_key)
        async with target() as (node, gate):
            heard = await asyncio.to_thread(dial, node.place, story)
            assert heard == Heard(ANSWER, Alert.CLOSE_NOTIFY, leaf_of(SERVER.peer_id), is_done=True)
            pipe = await node.gate.outcomes.get()
            assert not isinstance(pipe, str), pipe
            assert gate.admitted == [pipe.peer] == [keys.peer_id]
            assert await gate.readers[0].lost_because == ""

    play(steps())


@pytest.mark.parametrize("lie", CLIENT_LIES.values(), ids=CLIENT_LIES)
def test_a_liar_is_not_admitted(play: Play, lie: Lie) -> None:
    story, alert, why = lie

    async def steps() -> None:
        async with target() as (node, gate):
            heard = await asyncio.to_thread(dial, node.place, story)
            # It got through to its own last message, and nothing but the alert came back.
            assert heard == Heard(b"", alert, leaf_of(SERVER.peer_id), is_done=True)
            assert why in await node.refused()
            assert gate.taken == set()
            assert node.listener._handshakes == set()
            await node.admits_the_honest()
            # The only pipe that there ever was is the honest one.
            assert gate.admitted == [HONEST.peer_id]
            assert gate.count == 2
            assert gate.outcomes.empty()

    play(steps())


def test_a_stolen_leaf_takes_no_place_of_a_whole_node(play: Play) -> None:
    """With the machine that counts the places, and room for one handshake only."""
    config = Config(connections=ConnectionConfig(half_open_max=1))

    async def steps() -> None:
        async with Node(listen="127.0.0.1:0", config=config) as node, Node() as other:
            address = node.address
            assert address is not None
            story = Story(leaf_of(other.id, node.network), KEY)
            driver = node._driver
            assert driver is not None
            for _ in range(3):
                heard = await asyncio.to_thread(dial, (address.host, address.port), story)
                assert (heard.data, heard.alert) == (b"", Alert.DECRYPT_ERROR)
                for _ in range(10):
                    await asyncio.sleep(0)  # from the alert to the end of the handshake's task
                assert driver.core.connections.links == {}
                assert driver.connections == {}
            await other.join(node.address)
            assert driver.core.connections.refused.total() == 0
            while set(node.neighbours) != {other.id}:
                await asyncio.sleep(0)

    play(steps())


# Liars who are dialled.


@pytest.mark.parametrize("keys", [ATTACKER, HONEST], ids=["own leaf", "the leaf to be stolen"])
def test_the_handmade_server_can_be_dialled_when_it_is_honest(play: Play, keys: KeyPair) -> None:
    """Or the other tests of this half would show nothing."""

    async def steps() -> None:
        story = Story(leaf_of(keys.peer_id), keys.private_key)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            server = asyncio.create_task(asyncio.to_thread(answer, listening, story))
            dialler = TcpTransport(SERVER, NETWORK, PATIENT)
            pipe = await dialler.dial(Address(*listening.getsockname()), keys.peer_id)
            assert pipe.peer == keys.peer_id
            reader = Polite(pipe)
            pipe.start(reader)
            shown = leaf_of(SERVER.peer_id)
            assert await server == Heard(ANSWER, Alert.CLOSE_NOTIFY, shown, is_done=True)
            assert await reader.lost_because == ""
            assert reader.received_all == QUESTION

    play(steps())


@pytest.mark.parametrize("is_expected", [False, True], ids=["anybody", "its owner"])
@pytest.mark.parametrize("lie", SERVER_LIES.values(), ids=SERVER_LIES)
def test_a_liar_is_not_dialled(play: Play, lie: Lie, is_expected: bool) -> None:
    story, alert, why = lie
    owner = ATTACKER.peer_id if story.certificate is None else peer_id_of(story.certificate)

    async def steps() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            server = asyncio.create_task(asyncio.to_thread(answer, listening, story))
            address = Address(*listening.getsockname())
            dialler = TcpTransport(SERVER, NETWORK, PATIENT)
            with pytest.raises(NotAdmitted, match=why) as refusal:
                await dialler.dial(address, owner if is_expected else None)
            assert str(address) in str(refusal.value)
            # The dialler has not even shown who it is.
            assert await server == Heard(b"", alert, None, is_done=False)

    play(steps())
