"""Certificates of a network: its authority, and the leaf that each node issues itself under it.

Both are functions of their keys alone: the same key and network give the same bytes on every
machine and at every start. They never expire (RFC 5280 section 4.1.2.5 has a date for that). A
leaf is worth nothing without its private key, whose holder could issue a new one at any time, so
an end of validity would protect nobody; it would only lock out nodes whose clock is wrong.

An intermediate certificate is refused by the authority's path length, and `peer_id_of` takes
nothing but a leaf, so that the key which TLS proves is always the key of a member.
"""

from __future__ import annotations

import datetime
import warnings

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshwalk.errors import NotAdmitted
from meshwalk.identity.keys import KeyPair, is_weak
from meshwalk.identity.network import Network
from meshwalk.wire.peerid import PeerId

CERTIFICATE_BYTES_MAX = 4096  # guess: ten times a leaf of ours, so that others may add to theirs

# The names say nothing of the network: any stranger may ask a listener for its certificate.
AUTHORITY_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "meshwalk network")])
LEAF_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "meshwalk node")])

VALID_FROM = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
"""The epoch: where the clock of a small machine stands before it has asked for the time."""
VALID_UNTIL = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
"""RFC 5280 section 4.1.2.5: "no well-defined expiration date"."""


# What `cryptography` raises for bytes that are not as it wants them.
_UNREADABLE = (
    TypeError,
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


def authority_der(network: Network) -> bytes:
    """The network's certificate, in DER: the only authority that its members load."""
    public = network.key.public_key()
    builder = _builder(AUTHORITY_NAME, public, serial=1)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    builder = builder.add_extension(identifier, critical=False)
    return builder.sign(network.key, None).public_bytes(Encoding.DER)


def leaf_pem(keys: KeyPair, network: Network) -> bytes:
    """The certificate of these keys in this network, in PEM. About 0.1 ms."""
    builder = leaf_builder(keys.private_key.public_key(), network)
    return builder.sign(network.key, None).public_bytes(Encoding.PEM)


def key_pem(keys: KeyPair) -> bytes:
    """The private key in PEM, unencrypted: for TLS, which reads it from a file. Keep it secret."""
    return keys.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def leaf_builder(key: Ed25519PublicKey, network: Network) -> x509.CertificateBuilder:
    """The leaf of `key`, complete but for the network's signature."""
    # A serial number must be above zero and short (RFC 5280 section 4.1.2.2: 20 bytes).
    serial = 1 + int.from_bytes(key.public_bytes_raw()[:16])
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    # Strict checking of X.509, the default from Python 3.13 on, wants the issuer's identifier.
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(network.key.public_key())
    return (
        _builder(LEAF_NAME, key, serial)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(issuer, critical=False)
    )


def peer_id_of(der: bytes) -> PeerId:
    """Whose leaf this is. The caller has verified it: signature, chain and possession of the key.

    Raises `NotAdmitted` for whatever is not the leaf of one Ed25519 key: other kinds of key,
    authorities, keys that prove nothing, and bytes that are no certificate.
    """
    if len(der) > CERTIFICATE_BYTES_MAX:
        raise NotAdmitted(f"the peer's certificate has more than {CERTIFICATE_BYTES_MAX} bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd fields of a stranger's are no news for our user
            certificate = x509.load_der_x509_certificate(der)
            key = certificate.public_key()
            constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        raise NotAdmitted("the peer's certificate does not say that it is a leaf") from None
    except _UNREADABLE as error:
        raise NotAdmitted("the peer's certificate cannot be read") from error
    if not isinstance(key, Ed25519PublicKey):
        raise NotAdmitted("the peer's certificate is not for an Ed25519 key")
    if constraints.value.ca:
        raise NotAdmitted("the peer's certificate is an authority's, not a node's")
    raw = key.public_bytes_raw()
    if is_weak(raw):
        raise NotAdmitted("the peer's key proves nothing: anybody can sign with it")
    return PeerId(raw)


def _builder(name: x509.Name, key: Ed25519PublicKey, serial: int) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(AUTHORITY_NAME)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(VALID_FROM)
        .not_valid_after(VALID_UNTIL)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
