"""Both ends of TLS 1.3 made by hand, for what the standard library's `ssl` refuses to do: to lie.

Only what a meshwalk node speaks (RFC 8446, "section" below): X25519, TLS_AES_128_GCM_SHA256,
Ed25519 signatures and ALPN; no tickets, no early data, no retry, no key update. An end tells its
`Story`, and checks the other end's proofs as it should. Sockets block, so run it in a thread.

`Client(socket, story).talk(b"...")` shakes hands, sends the bytes and listens until the end. A
client sends its last handshake messages and the bytes at once, and a server the bytes as soon as
the handshake is done: a liar does not wait to be told that it was believed.
"""

from __future__ import annotations

import hmac
import socket
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from meshwalk.wire.frames import ALPN

HASH_BYTES = 32  # SHA-256
VERSION_1_2, VERSION_1_3 = b"\x03\x03", b"\x03\x04"  # 1.2 in old fields only: section 4.1.2
SUITE = b"\x13\x01"  # TLS_AES_128_GCM_SHA256: appendix B.4
GROUP = b"\x00\x1d"  # x25519: section 4.2.7
SCHEME = b"\x08\x07"  # ed25519: section 4.2.3
CLIENT_CONTEXT = b"TLS 1.3, client CertificateVerify"  # section 4.4.3
SERVER_CONTEXT = b"TLS 1.3, server CertificateVerify"


class Content(IntEnum):
    """What a record holds (section 5.1)."""

    CHANGE_CIPHER_SPEC = 20
    ALERT = 21
    HANDSHAKE = 22
    APPLICATION_DATA = 23


class Step(IntEnum):
    """Handshake messages (section 4)."""

    CLIENT_HELLO = 1
    SERVER_HELLO = 2
    ENCRYPTED_EXTENSIONS = 8
    CERTIFICATE = 11
    CERTIFICATE_REQUEST = 13
    CERTIFICATE_VERIFY = 15
    FINISHED = 20


class Extension(IntEnum):
    """Section 4.2, and RFC 7301 section 3.1 for ALPN."""

    SUPPORTED_GROUPS = 10
    SIGNATURE_ALGORITHMS = 13
    ALPN = 16
    SUPPORTED_VERSIONS = 43
    KEY_SHARE = 51


class Alert(IntEnum):
    """Why the other end ended it (section 6)."""

    CLOSE_NOTIFY = 0
    UNEXPECTED_MESSAGE = 10
    DECODE_ERROR = 50
    DECRYPT_ERROR = 51
    CERTIFICATE_REQUIRED = 116


def _same(data: bytes) -> bytes:
    return data


@dataclass(frozen=True)
class Story:
    """What an end tells about itself: the truth, when `key` is the certificate's and no more set.

    `certificate` is in DER. None gives the empty message of section 4.4.2, without a proof.
    """

    certificate: bytes | None
    key: Ed25519PrivateKey
    proves: bool = True
    """Whether there is a CertificateVerify."""
    reflects: bool = False
    """Whether a client sends the server's signature back instead of making its own."""
    context: bytes | None = None
    """Of the signature; None: the one that is right."""
    covers: Callable[[bytes], bytes] = _same
    """What the signature is over, made of the transcript."""
    finished: Callable[[bytes], bytes] = _same
    """What the Finished message holds, made of what it should hold."""


@dataclass(frozen=True)
class Heard:
    """What an end got from the other."""

    data: bytes
    alert: Alert | None
    """The last word; None: the connection ended without one."""
    certificate: bytes | None
    """In DER, if the other end has shown one."""
    is_done: bool
    """Whether the other end has proven that it holds the certificate's key, and has finished."""


class Ended(Exception):
    """The other end has sent an alert, or its connection is gone."""

    def __init__(self, alert: Alert | None) -> None:
        super().__init__(alert)
        self.alert = alert


# Encoding (section 3).


def vector(prefix_bytes: int, data: bytes) -> bytes:
    """A vector of variable length, after its length (section 3.4)."""
    return len(data).to_bytes(prefix_bytes) + data


def extensions(found: dict[Extension, bytes]) -> bytes:
    """A list of extensions (section 4.2)."""
    each = (kind.to_bytes(2) + vector(2, data) for kind, data in found.items())
    return vector(2, b"".join(each))


class Fields:
    """Takes the fields of a message one by one."""

    def __init__(self, data: bytes) -> None:
        self.rest = data

    def take(self, count: int) -> bytes:
        assert len(self.rest) >= count, "the message is cut off"
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, prefix_bytes: int) -> bytes:
        return self.take(self.number(prefix_bytes))

    def extensions(self) -> dict[int, bytes]:
        inner, found = Fields(self.vector(2)), {}
        while inner.rest:
            kind = inner.number(2)
            found[kind] = inner.vector(2)
        return found


# Keys (sections 4.4.4, 5.2, 5.3 and 7).


def extract(salt: bytes, secret: bytes) -> bytes:
    """HKDF-Extract of RFC 5869 section 2.2."""
    return hmac.digest(salt, secret, "sha256")


def expand_label(secret: bytes, label: bytes, context: bytes, length: int) -> bytes:
    """HKDF-Expand-Label of section 7.1."""
    info = length.to_bytes(2) + vector(1, b"tls13 " + label) + vector(1, context)
    return HKDFExpand(SHA256(), length, info).derive(secret)


def derive_secret(secret: bytes, label: bytes, transcript: bytes) -> bytes:
    """Derive-Secret of section 7.1."""
    return expand_label(secret, label, sha256(transcript).digest(), HASH_BYTES)


def finished_of(secret: bytes, transcript: bytes) -> bytes:
    """What a Finished message must hold (section 4.4.4)."""
    key = expand_label(secret, b"finished", b"", HASH_BYTES)
    return hmac.digest(key, sha256(transcript).digest(), "sha256")


def signed_content(context: bytes, transcript: bytes) -> bytes:
    """What a CertificateVerify signs (section 4.4.3)."""
    return b" " * 64 + context + b"\0" + sha256(transcript).digest()


class Protection:
    """Seals or opens the records of one direction."""

    def __init__(self, secret: bytes) -> None:
        self.secret = secret
        self._aead = AESGCM(expand_label(secret, b"key", b"", 16))  # section 7.3
        self._iv = int.from_bytes(expand_label(secret, b"iv", b"", 12))
        self._sequence = 0

    def seal(self, content: Content, data: bytes) -> bytes:
        inner = data + content.to_bytes(1)
        header = Content.APPLICATION_DATA.to_bytes(1) + VERSION_1_2
        header += (len(inner) + 16).to_bytes(2)  # the tag of AES-GCM: RFC 5116 section 5.1
        return header + self._aead.encrypt(self._nonce(), inner, header)

    def open(self, header: bytes, sealed: bytes) -> tuple[Content, bytes]:
        inner = self._aead.decrypt(self._nonce(), sealed, header).rstrip(b"\0")
        return Content(inner[-1]), inner[:-1]

    def _nonce(self) -> bytes:
        nonce = self._iv ^ self._sequence  # section 5.3
        self._sequence += 1
        return nonce.to_bytes(12)


# The two ends.


class End:
    """What client and server have in common; they differ in `_shake`."""

    own_context: bytes
    their_context: bytes

    def __init__(self, connection: socket.socket, story: Story) -> None:
        self._connection = connection
        self._story = story
        self._own = X25519PrivateKey.from_private_bytes(b"\x05" * 32)  # so that runs are the same
        self._transcript = b""
        self._reading: Protection | None = None
        self._writing: Protection | None = None
        self._messages = b""  # received, and not yet looked at
        self._outgoing = b""  # sealed, and not yet sent
        self._their_signature = b""
        self._their_certificate: bytes | None = None
        self._is_done = False

    def talk(self, say: bytes) -> Heard:
        """Shake hands and say something; then, or instead, what the other end had to say."""
        data = bytearray()
        alert: Alert | None = None
        try:
            self._shake()
            self._send(Content.APPLICATION_DATA, say)
            self._flush()
            while True:
                content, more = self._record()
                assert content is Content.APPLICATION_DATA, "a node sends no tickets"
                data += more
        except Ended as ended:
            alert = ended.alert
        return Heard(bytes(data), alert, self._their_certificate, self._is_done)

    def _shake(self) -> None:
        raise NotImplementedError

    # Records (section 5).

    def _send(self, content: Content, data: bytes) -> None:
        if self._writing is None:
            self._outgoing += content.to_bytes(1) + VERSION_1_2 + vector(2, data)
        else:
            self._outgoing += self._writing.seal(content, data)

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, b""
        try:
            self._connection.sendall(outgoing)
        except ConnectionError:
            raise Ended(None) from None

    def _record(self) -> tuple[Content, bytes]:
        """The next record, opened. Raises `Ended` for an alert."""
        while True:
            header = self._exactly(5)
            content, data = Content(header[0]), self._exactly(int.from_bytes(header[3:]))
            if content is Content.CHANGE_CIPHER_SPEC:
                continue  # means nothing any more: section 5
            if content is Content.APPLICATION_DATA and self._reading is not None:
                content, data = self._reading.open(header, data)
            if content is Content.ALERT:
                raise Ended(Alert(data[1]))
            return content, data

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                more = self._connection.recv(count - len(data))
            except ConnectionError:
                raise Ended(None) from None
            if not more:
                raise Ended(None)
            data += more
        return data

    # Handshake messages (section 4).

    def _tell(self, step: Step, body: bytes) -> None:
        message = step.to_bytes(1) + vector(3, body)
        self._transcript += message
        self._send(Content.HANDSHAKE, message)

    def _hear(self, step: Step) -> Fields:
        while len(self._messages) < 4 or len(self._messages) < self._message_bytes():
            content, data = self._record()
            assert content is Content.HANDSHAKE
            self._messages += data
        length = self._message_bytes()
        message, self._messages = self._messages[:length], self._messages[length:]
        assert Step(message[0]) is step
        self._transcript += message
        return Fields(message[4:])

    def _message_bytes(self) -> int:
        return 4 + int.from_bytes(self._messages[1:4])

    # Keys (section 7.1).

    def _agree(self, theirs: bytes) -> tuple[Protection, Protection]:
        """After both hellos: what client and server protect the handshake with."""
        shared = self._own.exchange(X25519PublicKey.from_public_bytes(theirs))
        early = extract(bytes(HASH_BYTES), bytes(HASH_BYTES))
        self._secret = extract(derive_secret(early, b"derived", b""), shared)
        return self._directions(b"c hs traffic", b"s hs traffic")

    def _agree_again(self) -> tuple[Protection, Protection]:
        """After the server's Finished: what client and server protect the rest with."""
        salt = derive_secret(self._secret, b"derived", b"")
        self._secret = extract(salt, bytes(HASH_BYTES))
        return self._directions(b"c ap traffic", b"s ap traffic")

    def _directions(self, client: bytes, server: bytes) -> tuple[Protection, Protection]:
        assert not self._messages, "keys change between records: section 5.1"
        one, other = (derive_secret(self._secret, x, self._transcript) for x in (client, server))
        return Protection(one), Protection(other)

    # Who one is (section 4.4).

    def _tell_who(self) -> None:
        story = self._story
        shown = b"" if story.certificate is None else vector(3, story.certificate) + extensions({})
        self._tell(Step.CERTIFICATE, vector(1, b"") + vector(3, shown))
        if story.certificate is not None and story.proves:
            context = self.own_context if story.context is None else story.context
            signature = story.key.sign(signed_content(context, story.covers(self._transcript)))
            if story.reflects:
                signature = self._their_signature
            self._tell(Step.CERTIFICATE_VERIFY, SCHEME + vector(2, signature))
        assert self._writing is not None
        proof = finished_of(self._writing.secret, self._transcript)
        self._tell(Step.FINISHED, story.finished(proof))

    def _hear_who(self) -> None:
        fields = self._hear(Step.CERTIFICATE)
        assert fields.vector(1) == b""
        certificate = self._their_certificate = Fields(fields.vector(3)).vector(3)
        key = x509.load_der_x509_certificate(certificate).public_key()
        assert isinstance(key, Ed25519PublicKey)
        content = signed_content(self.their_context, self._transcript)
        fields = self._hear(Step.CERTIFICATE_VERIFY)
        assert fields.take(2) == SCHEME
        self._their_signature = fields.vector(2)
        key.verify(self._their_signature, content)
        assert self._reading is not None
        proof = finished_of(self._reading.secret, self._transcript)
        assert self._hear(Step.FINISHED).rest == proof
        self._is_done = True


class Client(End):
    """The end that dials."""

    own_context, their_context = CLIENT_CONTEXT, SERVER_CONTEXT

    def _shake(self) -> None:
        share = GROUP + vector(2, self._own.public_key().public_bytes_raw())
        offer = {
            Extension.SUPPORTED_VERSIONS: vector(1, VERSION_1_3),
            Extension.SUPPORTED_GROUPS: vector(2, GROUP),
            Extension.SIGNATURE_ALGORITHMS: vector(2, SCHEME),
            Extension.KEY_SHARE: vector(2, share),
            Extension.ALPN: vector(2, vector(1, ALPN.encode())),
        }
        hello = VERSION_1_2 + b"\x06" * 32 + vector(1, b"") + vector(2, SUITE) + vector(1, b"\0")
        self._tell(Step.CLIENT_HELLO, hello + extensions(offer))
        self._flush()
        writing, self._reading = self._agree(self._hear_hello())
        chosen = self._hear(Step.ENCRYPTED_EXTENSIONS).extensions()
        assert chosen[Extension.ALPN] == vector(2, vector(1, ALPN.encode()))
        request = self._hear(Step.CERTIFICATE_REQUEST)
        assert request.vector(1) == b""  # section 4.3.2
        assert SCHEME in request.extensions()[Extension.SIGNATURE_ALGORITHMS]
        self._hear_who()
        later, self._reading = self._agree_again()
        self._writing = writing
        self._tell_who()
        self._writing = later

    def _hear_hello(self) -> bytes:
        hello = self._hear(Step.SERVER_HELLO)
        assert hello.take(2) == VERSION_1_2
        hello.take(32)  # random
        assert (hello.vector(1), hello.take(2), hello.take(1)) == (b"", SUITE, b"\0")
        found = hello.extensions()
        assert found[Extension.SUPPORTED_VERSIONS] == VERSION_1_3
        share = Fields(found[Extension.KEY_SHARE])
        assert share.take(2) == GROUP
        return share.vector(2)


class Server(End):
    """The end that is dialled."""

    own_context, their_context = SERVER_CONTEXT, CLIENT_CONTEXT

    def _shake(self) -> None:
        session, theirs = self._hear_hello()
        hello = VERSION_1_2 + b"\x07" * 32 + vector(1, session) + SUITE + b"\0"
        share = GROUP + vector(2, self._own.public_key().public_bytes_raw())
        chosen = {Extension.SUPPORTED_VERSIONS: VERSION_1_3, Extension.KEY_SHARE: share}
        self._tell(Step.SERVER_HELLO, hello + extensions(chosen))
        self._reading, self._writing = self._agree(theirs)
        alpn = {Extension.ALPN: vector(2, vector(1, ALPN.encode()))}
        self._tell(Step.ENCRYPTED_EXTENSIONS, extensions(alpn))
        schemes = {Extension.SIGNATURE_ALGORITHMS: vector(2, SCHEME)}
        self._tell(Step.CERTIFICATE_REQUEST, vector(1, b"") + extensions(schemes))
        self._tell_who()
        self._flush()
        later, self._writing = self._agree_again()
        self._hear_who()
        self._reading = later

    def _hear_hello(self) -> tuple[bytes, bytes]:
        hello = self._hear(Step.CLIENT_HELLO)
        hello.take(2 + 32)  # version, random
        session = hello.vector(1)
        suites = Fields(hello.vector(2))
        assert SUITE in {suites.take(2) for _ in range(len(suites.rest) // 2)}
        assert hello.vector(1) == b"\0"
        shares, found = Fields(Fields(hello.extensions()[Extension.KEY_SHARE]).vector(2)), {}
        while shares.rest:
            group = shares.take(2)
            found[group] = shares.vector(2)
        return session, found[GROUP]  # else it would have to be asked again: section 4.1.4
