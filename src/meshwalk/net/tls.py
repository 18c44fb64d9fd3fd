"""TLS 1.3 between members of a network: the settings, and one end of a channel without its socket.

`TlsChannel` is the standard library's TLS engine between two memory buffers. The loops' own TLS
transports are not used: they do not say how much waits below them, lose what is queued when the
peer speaks during a close (stock asyncio), never send the alert that tells a peer why it was
refused, and report strange certificates to the loop's exception handler. A prototype with these
steps against them, both ends in one process, medians of 5 runs here and 15 there: echo of 100
bytes 10.0 and 10.7 µs on uvloop, 14.4 and 21.6 on stock asyncio; echo of 64 KiB 451 and 476 MB/s
on uvloop, 522 and 427 on stock asyncio.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

from meshwalk.config import ENVELOPE_BYTES
from meshwalk.errors import LocalError, NotAdmitted
from meshwalk.identity.certificate import authority_der, key_pem, leaf_pem, peer_id_of
from meshwalk.identity.keys import KeyPair
from meshwalk.identity.network import Network
from meshwalk.wire.frames import ALPN
from meshwalk.wire.peerid import PeerId

SLICE_BYTES = (64 << 10) + ENVELOPE_BYTES
"""Fed to the engine at once: a part of a long message with its envelope. measured: as fast as
256 KiB or faster, and the engine's buffers, which grow to the largest slice and stay so, cost a
quarter."""

LEFT_OVER_BYTES = 32 << 10
"""Room for what the engine held back before. RFC 8446 section 5.1: records hold at most 16 KiB."""

_NOT_OF_THIS_NETWORK = frozenset((7, 18, 19, 20, 21))
"""X509_V_ERR_… of OpenSSL's x509_vfy.h: the signature, or no issuer that is known."""


class TlsContexts:
    """What a node needs to answer (`server`) and to dial (`client`) in its network.

    TLS 1.3 only; both ends show a certificate; the network is the only authority. Host names
    are not checked, since an identity is a key here. Raises `LocalError` when the temporary
    folder cannot be written: `ssl` takes a private key from files only.
    """

    def __init__(self, keys: KeyPair, network: Network) -> None:
        self.network_id = network.network_id
        self.server = _context(ssl.PROTOCOL_TLS_SERVER, network)
        self.server.num_tickets = 0  # a ticket would let a peer come back without its key
        self.client = _context(ssl.PROTOCOL_TLS_CLIENT, network)
        _load_leaf(key_pem(keys) + leaf_pem(keys, network), self.server, self.client)


def _context(protocol: ssl._SSLMethod, network: Network) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_TICKET
    context.set_alpn_protocols([ALPN])
    context.load_verify_locations(cadata=authority_der(network))
    return context


def _load_leaf(pem: bytes, *contexts: ssl.SSLContext) -> None:
    try:
        # The folder is for this user alone, and goes at the end of the block in any case.
        with tempfile.TemporaryDirectory(prefix="meshwalk-") as folder:
            path = Path(folder) / "leaf.pem"
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(pem)
            for context in contexts:
                context.load_cert_chain(path)
    except OSError as error:
        raise LocalError(f"the temporary folder cannot be used: {error}") from error


class TlsChannel:
    """One end of a TLS channel: bytes in, bytes out. The caller moves them.

    First `feed` and `handshake` until that returns True; then `decrypt` and `encrypt`. After each
    of them `take_outgoing` has what is to be sent to the other end.
    """

    __slots__ = (
        "_expected",
        "_incoming",
        "_network_id",
        "_object",
        "_outgoing",
        "_read",
        "ended",
        "failure",
        "is_dialler",
        "peer",
    )

    def __init__(
        self, contexts: TlsContexts, *, server_side: bool, expected: PeerId | None = None
    ) -> None:
        context = contexts.server if server_side else contexts.client
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        # The type stubs know `read` only without a buffer.
        self._read = cast("Callable[[int, memoryview], int]", self._object.read)
        self._network_id = contexts.network_id
        self.is_dialler = not server_side
        self._expected = expected
        self.peer: PeerId | None = None
        """Who the other end is; None until the handshake is done."""
        self.ended = False
        """Whether the other end has said that it sends no more."""
        self.failure: ssl.SSLError | None = None
        """What broke the channel, when decrypting."""

    def feed(self, wire: memoryview) -> None:
        """Bytes from the other end, during the handshake."""
        self._incoming.write(wire)

    def handshake(self) -> bool:
        """Go on as far as the bytes fed allow; True when the other end is known and admitted.

        Raises `ssl.SSLError`, after which `take_outgoing` has the alert for the other end, or
        `NotAdmitted`, after which nothing must be sent: a dialler has not shown who it is then.
        """
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self.peer = self._admitted()
        return True

    def _admitted(self) -> PeerId:
        if self._object.selected_alpn_protocol() != ALPN:
            raise NotAdmitted("the peer speaks TLS, but not the protocol of meshwalk")
        der = self._object.getpeercert(binary_form=True)
        if der is None:
            raise NotAdmitted("the peer has shown no certificate")
        peer = peer_id_of(der)
        if peer == self._network_id:
            raise NotAdmitted("the peer goes by the network's own key, which all members have")
        if self._expected is not None and peer != self._expected:
            raise NotAdmitted(f"{peer.short} answered and {self._expected.short} was expected")
        return peer

    def decrypt(self, wire: memoryview, plain: memoryview) -> int:
        """Decrypt bytes from the other end into `plain`; how many bytes that gave.

        `plain` must be longer than `wire` by LEFT_OVER_BYTES. Sets `ended` and `failure`; what
        came before either is in `plain`.
        """
        filled = 0
        start = 0
        incoming = self._incoming
        pending = self._object.pending
        read = self._read
        while True:
            incoming.write(wire[start : start + SLICE_BYTES])
            start += SLICE_BYTES
            try:
                # Asking first is a tenth of the time that SSLWantReadError takes.
                while incoming.pending or pending():
                    room = plain[filled:]
                    count = read(len(room), room)
                    if count == 0:
                        self.ended = True
                        return filled
                    filled += count
            except ssl.SSLWantReadError:
                pass  # the rest is a part of a record
            except ssl.SSLZeroReturnError:
                self.ended = True
                return filled
            except ssl.SSLError as error:
                self.failure = error
                return filled
            if start >= len(wire):
                return filled

    def is_over(self) -> bool:
        """Whether nothing more can be decrypted."""
        return self.ended or self.failure is not None

    def encrypt(self, data: bytes | bytearray | memoryview) -> bytes:
        """What to send so that the other end gets `data`: SLICE_BYTES or less, and not empty."""
        self._object.write(data)
        return self._outgoing.read()

    def take_outgoing(self) -> bytes:
        """What the engine itself has to say to the other end; often nothing."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def goodbye(self) -> bytes:
        """What tells the other end that no more will be sent (RFC 8446 section 6.1)."""
        with contextlib.suppress(ssl.SSLError):  # it would wait for the other end's goodbye too
            self._object.unwrap()
        return self.take_outgoing()


def explain(error: ssl.SSLError) -> str:
    """Why a handshake or a channel failed, in one line for people."""
    reason = error.reason or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _NOT_OF_THIS_NETWORK:
            return f"the other end has another network or secret ({error.verify_message})"
        return f"the other end's certificate is not in order ({error.verify_message})"
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "the other end is no meshwalk node: it showed no certificate"
    if "ALERT" in reason:
        what = reason.rpartition("ALERT_")[2].replace("_", " ").lower()
        return (
            f"the other end refused this node ({what}): "
            "it has another network or secret, or one of the two clocks is wrong"
        )
    what = reason.replace("_", " ").lower() or "no reason is given"
    return f"the other end is no meshwalk node ({what})"
