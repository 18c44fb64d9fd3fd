"""Certificates as attackers would make them. Most are signed by the network, as any member can."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from meshwalk.identity.certificate import authority_der, leaf_builder
from meshwalk.identity.keys import KeyPair
from meshwalk.identity.network import Network

NETWORK = Network("admission", b"a secret")
FOREIGN = Network("admission", b"another secret")
ATTACKER = KeyPair(b"\x03" * 32)

PrivateKey = Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
Chain = tuple[PrivateKey, list[x509.Certificate]]


def built(
    builder: x509.CertificateBuilder, key: PrivateKey, *, by: Ed25519PrivateKey = NETWORK.key
) -> Chain:
    return key, [builder.sign(by, None)]


def leaf(network: Network = NETWORK) -> x509.CertificateBuilder:
    return leaf_builder(ATTACKER.private_key.public_key(), network)


def changed(**fields: Any) -> x509.CertificateBuilder:
    """The attacker's leaf with other fields; the builder itself sets each only once."""
    builder = leaf()
    for name, value in fields.items():
        assert hasattr(builder, f"_{name}")
        setattr(builder, f"_{name}", value)
    return builder


def without(extension: type[x509.ExtensionType]) -> x509.CertificateBuilder:
    kept = [each for each in leaf()._extensions if not isinstance(each.value, extension)]
    return changed(extensions=kept)


def with_extension(value: x509.ExtensionType) -> x509.CertificateBuilder:
    return without(type(value)).add_extension(value, critical=True)


def self_signed() -> Chain:
    return built(leaf(), ATTACKER.private_key, by=ATTACKER.private_key)


def foreign() -> Chain:
    return built(leaf(FOREIGN), ATTACKER.private_key, by=FOREIGN.key)


def expired() -> Chain:
    until = datetime.datetime(2001, 1, 1)  # noqa: DTZ001 # the builder keeps times so
    return built(changed(not_valid_after=until), ATTACKER.private_key)


def not_yet_valid() -> Chain:
    since = datetime.datetime(2999, 1, 1)  # noqa: DTZ001 # the builder keeps times so
    return built(changed(not_valid_before=since), ATTACKER.private_key)


def rsa_leaf() -> Chain:
    key = rsa.generate_private_key(65537, 2048)
    return built(changed(public_key=key.public_key()), key)


def curve_leaf() -> Chain:
    key = ec.generate_private_key(ec.SECP256R1())
    return built(changed(public_key=key.public_key()), key)


def authority_as_leaf() -> Chain:
    builder = with_extension(x509.BasicConstraints(ca=True, path_length=None))
    return built(_identified(_signing(builder)), ATTACKER.private_key)


def _signing(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    builder._extensions = [e for e in builder._extensions if not isinstance(e.value, x509.KeyUsage)]
    both = dict.fromkeys(("digital_signature", "key_cert_sign"), True)
    rest = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment"), False)
    more = dict.fromkeys(("key_agreement", "crl_sign", "encipher_only", "decipher_only"), False)
    return builder.add_extension(x509.KeyUsage(**both, **rest, **more), critical=True)


def _identified(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    subject = x509.SubjectKeyIdentifier.from_public_key(ATTACKER.private_key.public_key())
    return builder.add_extension(subject, critical=False)


def the_authority_itself() -> Chain:
    return NETWORK.key, [x509.load_der_x509_certificate(authority_der(NETWORK))]


def the_networks_own_key() -> Chain:
    return built(leaf_builder(NETWORK.key.public_key(), NETWORK), NETWORK.key)


def without_issuer_identifier() -> Chain:
    return built(without(x509.AuthorityKeyIdentifier), ATTACKER.private_key)


def without_constraints() -> Chain:
    return built(without(x509.BasicConstraints), ATTACKER.private_key)


def for_mail_only() -> Chain:
    usage = x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.EMAIL_PROTECTION])
    return built(with_extension(usage), ATTACKER.private_key)


def minted(*, ca: bool) -> Chain:
    """A leaf for another key, signed by the attacker's own leaf, with or without CA:true."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sub")])
    intermediate = with_extension(x509.BasicConstraints(ca=ca, path_length=None))
    intermediate._subject_name = name
    if ca:
        intermediate = _signing(intermediate)
    key = Ed25519PrivateKey.from_private_bytes(b"\x04" * 32)
    end = leaf_builder(key.public_key(), NETWORK)
    end._issuer_name = name
    end._extensions = [
        each for each in end._extensions if not isinstance(each.value, x509.AuthorityKeyIdentifier)
    ]
    public = ATTACKER.private_key.public_key()
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(public)
    end = end.add_extension(issuer, critical=False)
    signed = end.sign(ATTACKER.private_key, None)
    return key, [signed, _identified(intermediate).sign(NETWORK.key, None)]


def minted_by_a_leaf() -> Chain:
    return minted(ca=False)


def minted_by_an_intermediate() -> Chain:
    return minted(ca=True)


def oversized() -> Chain:
    text = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), bytes(5000))
    return built(leaf().add_extension(text, critical=False), ATTACKER.private_key)


def unprintable() -> Chain:
    """A name that is no text: decoding it must not reach the loop as an exception."""
    name = x509.DNSName._init_without_validation("\xff\xfe")
    raw = x509.SubjectAlternativeName([name]).public_bytes().replace(b"\xc3\xbf", b"\xff\xff")
    oid = x509.oid.ExtensionOID.SUBJECT_ALTERNATIVE_NAME
    builder = leaf().add_extension(x509.UnrecognizedExtension(oid, raw), critical=False)
    return built(builder, ATTACKER.private_key)


BAD: dict[Callable[[], Chain], str] = {
    self_signed: "another network or secret",
    foreign: "another network or secret",
    expired: "has expired",
    not_yet_valid: "not yet valid",
    rsa_leaf: "not for an Ed25519 key",
    curve_leaf: "not for an Ed25519 key",
    authority_as_leaf: "an authority's",
    the_authority_itself: "unsuitable certificate purpose",
    the_networks_own_key: "the network's own key",
    without_issuer_identifier: "Missing Authority Key Identifier",
    without_constraints: "does not say that it is a leaf",
    for_mail_only: "unsuitable certificate purpose",
    minted_by_a_leaf: "invalid CA certificate",
    minted_by_an_intermediate: "path length constraint exceeded",
    oversized: "more than 4096 bytes",
    unprintable: "cannot be read",
}


def context_of(
    folder: Path,
    chain: Chain | None,
    *,
    alpn: list[str] | None = None,
    server: bool = False,
) -> ssl.SSLContext:
    """TLS settings that check nothing and show this chain."""
    protocol = ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if server:  # ask for a certificate, so that the dialler shows its own
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=authority_der(NETWORK))
    if alpn != []:
        context.set_alpn_protocols(alpn or ["meshwalk/1"])
    if chain is not None:
        key, certificates = chain
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        pem += b"".join(each.public_bytes(Encoding.PEM) for each in certificates)
        path = folder / "chain.pem"
        path.write_bytes(pem)
        context.load_cert_chain(path)
    return context


def good() -> Chain:
    return built(leaf(), ATTACKER.private_key)
