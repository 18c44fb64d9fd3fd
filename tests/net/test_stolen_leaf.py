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
from meshwalk.identity.certificate import leaf_builder
from meshwalk.identity.keys import KeyPair
from meshwalk.identity.network import Network
from meshwalk.net.tcp import TcpListener, TcpTransport
from meshwalk.net.transport import Pipe
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId

play = admission.play  # the fixture

QUESTION, ANSWER = b"question", b"answer"


def leaf_of(keys: KeyPair, network: Network = NETWORK) -> bytes:
    builder = leaf_builder(keys.private_key.public_key(), network)
    return builder.sign(network.key, None).public_bytes(Encoding.DER)


OWN, STOLEN = leaf_of(ATTACKER), leaf_of(HONEST)
KEY = ATTACKER.private_key
TRUTH = Story(OWN, KEY)


def of_another_handshake(transcript: bytes) -> bytes:
    """The same messages after another hello: a signature that was made for somebody else."""
    return transcript[:6] + bytes(32) + transcript[38:]  # the client's random: section 4.1.2


def without_the_last_message(transcript: bytes) -> bytes:
    """As far as the certificate, which then nothing would tie to the signature."""
    return transcript[: transcript.rindex(leaf_of(ATTACKER)) - 11]  # its headers: section 4.4.2


def one_bit_off(proof: bytes) -> bytes:
    return proof[:-1] + bytes([proof[-1] ^ 1])


def nothing(_: bytes) -> bytes:
    return b""


LIES = {
    "stolen leaf": Story(STOLEN, KEY),
    "stolen leaf, nothing signed": Story(STOLEN, KEY, proves=False),
    "own leaf, nothing signed": Story(OWN, KEY, proves=False),
    "another handshake signed": Story(OWN, KEY, covers=of_another_handshake),
    "no certificate signed": Story(OWN, KEY, covers=without_the_last_message),
    "wrong finished": Story(OWN, KEY, finished=one_bit_off),
    "empty finished": Story(OWN, KEY, finished=nothing),
}
SAID = {
    "stolen leaf": (Alert.DECRYPT_ERROR, "bad signature"),
    "stolen leaf, nothing signed": (Alert.UNEXPECTED_MESSAGE, "unexpected message"),
    "own leaf, nothing signed": (Alert.UNEXPECTED_MESSAGE, "unexpected message"),
    "another handshake signed": (Alert.DECRYPT_ERROR, "bad signature"),
    "no certificate signed": (Alert.DECRYPT_ERROR, "bad signature"),
    "wrong finished": (Alert.DECRYPT_ERROR, "digest check failed"),
    "empty finished": (Alert.DECODE_ERROR, "bad digest length"),
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


def test_the_handmade_client_is_admitted_when_it_is_honest(play: Play) -> None:
    """Or the other tests of this half would show nothing."""

    async def steps() -> None:
        async with target() as (node, gate):
            heard = await asyncio.to_thread(dial, node.place, TRUTH)
            assert heard == Heard(ANSWER, Alert.CLOSE_NOTIFY, leaf_of(SERVER), is_done=True)
            pipe = await node.gate.outcomes.get()
            assert not isinstance(pipe, str), pipe
            assert gate.admitted == [pipe.peer] == [ATTACKER.peer_id]
            assert await gate.readers[0].lost_because == ""

    play(steps())


async def is_refused(story: Story, alert: Alert, why: str) -> None:
    async with target() as (node, gate):
        heard = await asyncio.to_thread(dial, node.place, story)
        # It got through to its own last message, and nothing but the alert came back.
        assert heard == Heard(b"", alert, leaf_of(SERVER), is_done=True)
        assert why in await node.refused()
        assert gate.taken == set()
        assert node.listener._handshakes == set()
        await node.admits_the_honest()
        # The only pipe that there ever was is the honest one.
        assert gate.admitted == [HONEST.peer_id]
        assert gate.count == 2
        assert gate.outcomes.empty()


@pytest.mark.parametrize("lie", LIES)
def test_a_liar_is_not_admitted(play: Play, lie: str) -> None:
    play(is_refused(LIES[lie], *SAID[lie]))


def test_a_server_s_signature_is_none_of_a_client(play: Play) -> None:
    play(is_refused(Story(OWN, KEY, context=SERVER_CONTEXT), Alert.DECRYPT_ERROR, "bad signature"))


def test_a_node_does_not_take_its_own_signature_for_another_s(play: Play) -> None:
    """Its own leaf and its own CertificateVerify, sent back to it."""
    mirror = Story(leaf_of(SERVER), KEY, reflects=True)
    play(is_refused(mirror, Alert.DECRYPT_ERROR, "bad signature"))


def test_an_empty_certificate_is_not_admitted(play: Play) -> None:
    why = "showed no certificate"
    play(is_refused(Story(None, KEY), Alert.CERTIFICATE_REQUIRED, why))


def test_a_stolen_leaf_takes_no_place_of_a_whole_node(play: Play) -> None:
    """With the machine that counts the places, and room for one handshake only."""
    config = Config(connections=ConnectionConfig(half_open_max=1))
    open_network = Network()

    async def steps() -> None:
        async with Node(listen="127.0.0.1:0", config=config) as node, Node() as other:
            address = Address.parse(node.address)
            stolen = leaf_of(KeyPair(other.id), open_network)
            for _ in range(3):
                story = Story(stolen, KEY)
                heard = await asyncio.to_thread(dial, (address.host, address.port), story)
                assert (heard.data, heard.alert) == (b"", Alert.DECRYPT_ERROR)
            assert node.statistics().node.links == 0
            await other.join(node.address)

    play(steps())


# Liars who are dialled.


def test_the_handmade_server_can_be_dialled_when_it_is_honest(play: Play) -> None:
    """Or the other tests of this half would show nothing."""

    async def steps() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            server = asyncio.create_task(asyncio.to_thread(answer, listening, TRUTH))
            dialler = TcpTransport(HONEST, NETWORK, PATIENT)
            pipe = await dialler.dial(Address(*listening.getsockname()), ATTACKER.peer_id)
            assert pipe.peer == ATTACKER.peer_id
            reader = Polite(pipe)
            pipe.start(reader)
            heard = await server
            assert heard == Heard(ANSWER, Alert.CLOSE_NOTIFY, leaf_of(HONEST), is_done=True)
            assert await reader.lost_because == ""
            assert reader.received_all == QUESTION

    play(steps())
