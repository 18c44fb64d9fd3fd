"""Certificates: the same for the same keys, right in every field, and read strictly."""

from __future__ import annotations

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from meshwalk.errors import NotAdmitted
from meshwalk.identity.certificate import (
    AUTHORITY_NAME,
    LEAF_NAME,
    authority_der,
    key_pem,
    leaf_builder,
    leaf_pem,
    peer_id_of,
)
from meshwalk.identity.keys import KeyPair
from meshwalk.identity.network import Network

KEYS = KeyPair(bytes(range(32)))
NETWORK = Network("test", b"secret")


def leaf() -> x509.Certificate:
    return x509.load_pem_x509_certificate(leaf_pem(KEYS, NETWORK))


def authority() -> x509.Certificate:
    return x509.load_der_x509_certificate(authority_der(NETWORK))


def test_the_same_keys_give_the_same_bytes() -> None:
    same = Network("test", b"secret")
    assert leaf_pem(KEYS, NETWORK) == leaf_pem(KeyPair(bytes(range(32))), same)
    assert authority_der(NETWORK) == authority_der(same)
    assert authority_der(NETWORK) != authority_der(Network("test", b"another"))


def test_the_leaf_names_its_key_and_nothing_of_the_network() -> None:
    certificate = leaf()
    assert peer_id_of(certificate.public_bytes(Encoding.DER)) == KEYS.peer_id
    assert (certificate.subject, certificate.issuer) == (LEAF_NAME, AUTHORITY_NAME)
    assert b"test" not in certificate.public_bytes(Encoding.DER)


def test_the_leaf_is_signed_by_the_network() -> None:
    leaf().verify_directly_issued_by(authority())
    authority().verify_directly_issued_by(authority())


def test_the_leaf_is_good_for_both_ends_and_not_to_sign_others() -> None:
    extensions = leaf().extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.key_cert_sign
    assert set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == {
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.SERVER_AUTH,
    }


def test_the_leaf_identifies_its_issuer_as_strict_checking_wants() -> None:
    issuer = leaf().extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    subject = authority().extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert issuer.key_identifier == subject.digest


def test_the_authority_signs_leaves_only() -> None:
    constraints = authority().extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)


@pytest.mark.parametrize("year", [1970, 2026, 2038, 2106, 9999])
def test_certificates_are_valid_whatever_the_clock_says(year: int) -> None:
    now = datetime.datetime(year, 6, 1, tzinfo=datetime.UTC)
    for certificate in (leaf(), authority()):
        assert certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def test_the_key_is_written_as_it_is() -> None:
    key = load_pem_private_key(key_pem(KEYS), None)
    assert key.public_key() == KEYS.private_key.public_key()


def signed(builder: x509.CertificateBuilder) -> bytes:
    return builder.sign(NETWORK.key, None).public_bytes(Encoding.DER)


def bare_builder() -> x509.CertificateBuilder:
    certificate = leaf()
    return (
        x509.CertificateBuilder()
        .subject_name(certificate.subject)
        .issuer_name(certificate.issuer)
        .public_key(certificate.public_key())
        .serial_number(7)
        .not_valid_before(certificate.not_valid_before_utc)
        .not_valid_after(certificate.not_valid_after_utc)
    )


def test_what_is_no_certificate_is_refused() -> None:
    for der in (b"", b"\x30\x00", b"nonsense", leaf_pem(KEYS, NETWORK), bytes(5000)):
        with pytest.raises(NotAdmitted):
            peer_id_of(der)


def test_every_shortened_leaf_is_refused() -> None:
    der = leaf().public_bytes(Encoding.DER)
    for size in range(len(der)):
        with pytest.raises(NotAdmitted):
            peer_id_of(der[:size])


def test_every_changed_byte_is_refused_or_gives_some_key() -> None:
    """TLS has verified the signature before; here nothing but NotAdmitted may be raised."""
    der = leaf().public_bytes(Encoding.DER)
    for index in range(len(der)):
        for change in (1, 0x80, 0xFF):
            changed = bytearray(der)
            changed[index] ^= change
            try:
                peer_id_of(bytes(changed))
            except NotAdmitted:
                continue


def test_other_kinds_of_key_are_refused() -> None:
    constraints = x509.BasicConstraints(ca=False, path_length=None)
    curve = ec.generate_private_key(ec.SECP256R1()).public_key()
    modulus = rsa.generate_private_key(65537, 1024).public_key()
    for key in (curve, modulus):
        builder = bare_builder()
        builder._public_key = key
        with pytest.raises(NotAdmitted, match="Ed25519"):
            peer_id_of(signed(builder.add_extension(constraints, critical=True)))


def test_an_authority_is_no_node() -> None:
    with pytest.raises(NotAdmitted, match="authority"):
        peer_id_of(authority_der(NETWORK))


def test_a_certificate_must_say_that_it_is_a_leaf() -> None:
    with pytest.raises(NotAdmitted, match="leaf"):
        peer_id_of(signed(bare_builder()))


def test_a_key_that_proves_nothing_is_refused() -> None:
    for raw in (bytes(32), b"\x01" + bytes(31)):
        builder = leaf_builder(Ed25519PublicKey.from_public_bytes(raw), NETWORK)
        with pytest.raises(NotAdmitted, match="proves nothing"):
            peer_id_of(signed(builder))
