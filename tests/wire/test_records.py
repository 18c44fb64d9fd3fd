"""Signed things: their bytes, their bounds, and that a signature covers all it should."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwalk.errors import InvalidArgument, InvalidRecord
from meshwalk.identity.keys import (
    KeyPair,
    NodeSignatures,
    Signatures,
    is_weak,
    open_beacon,
    open_record,
    sign_beacon,
    sign_record,
    verify,
)
from meshwalk.wire.address import Address
from meshwalk.wire.frames import ContentType
from meshwalk.wire.records import (
    BUNDLE_MESSAGES_MAX,
    NUMBER_MAX,
    RECORD_BYTES_MAX,
    BeaconPayload,
    BroadcastHead,
    BroadcastMessage,
    BroadcastPayload,
    Domain,
    PeerRecord,
    Signed,
    bytes_to_sign,
    decode_beacon_payload,
    decode_broadcast_head,
    decode_broadcast_payload,
    decode_peer_record,
    decode_signed,
    encode,
)

from .strategies import (
    HOSTILE,
    NOT_UTF8,
    any_bytes,
    beacon_payloads,
    broadcast_payloads,
    peer_records,
    signed_blobs,
)

DECODERS: list[Callable[[bytes], Any]] = [
    decode_signed,
    decode_peer_record,
    decode_broadcast_payload,
    decode_broadcast_head,
    decode_beacon_payload,
]
OPENERS: list[Callable[[bytes, Signatures], Any]] = [open_record, open_beacon]
KEYS = KeyPair(bytes(range(32)))
NETWORK_ID = bytes(range(100, 132))
SIGNATURES = NodeSignatures(KEYS, NETWORK_ID)
RECORD = PeerRecord(bytes(KEYS.peer_id), 7, ["tcp://192.0.2.1:55555"])
BEACON = BeaconPayload(bytes(KEYS.peer_id), 7, 2**64 - 1)


@given(peer_records)
def test_peer_record_round_trip(record: PeerRecord) -> None:
    assert decode_peer_record(encode(record)) == record


@given(signed_blobs)
def test_signed_round_trip(signed: Signed) -> None:
    assert decode_signed(encode(signed)) == signed


@given(broadcast_payloads)
def test_broadcast_payload_round_trip(payload: BroadcastPayload) -> None:
    blob = encode(payload)
    assert decode_broadcast_payload(blob) == payload
    assert decode_broadcast_head(blob) == BroadcastHead(
        payload.origin, payload.epoch, payload.sequence, payload.sent_at_ms
    )


@given(beacon_payloads)
def test_beacon_payload_round_trip(payload: BeaconPayload) -> None:
    assert decode_beacon_payload(encode(payload)) == payload


@given(any_bytes)
def test_any_bytes_are_a_record_or_invalid(blob: bytes) -> None:
    for decode in DECODERS:
        try:
            record = decode(blob)
        except InvalidRecord:
            continue
        assert decode(encode(record)) == record
    for opens in OPENERS:
        with pytest.raises(InvalidRecord):
            opens(blob, SIGNATURES)


@pytest.mark.parametrize(
    "decode",
    [*DECODERS, lambda blob: open_record(blob, SIGNATURES), lambda b: open_beacon(b, SIGNATURES)],
)
@pytest.mark.parametrize("blob", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_records(decode: Callable[[bytes], Any], blob: bytes) -> None:
    with pytest.raises(InvalidRecord) as caught:
        decode(blob)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", NOT_UTF8.values(), ids=NOT_UTF8.keys())
def test_text_that_is_not_utf8(text: bytes) -> None:
    with pytest.raises(InvalidRecord):
        decode_peer_record(b"\x93\xc4\x20" + bytes(32) + b"\x01\x91" + text)


def test_whole_cut_and_with_junk_after() -> None:
    blob = sign_record(RECORD, SIGNATURES)
    assert open_record(blob, SIGNATURES) == RECORD
    for length in range(len(blob)):
        with pytest.raises(InvalidRecord):
            open_record(blob[:length], SIGNATURES)
    with pytest.raises(InvalidRecord):
        open_record(blob + b"\x00", SIGNATURES)


def test_no_byte_of_a_signed_record_may_change() -> None:
    blob = sign_record(RECORD, SIGNATURES)
    for at in range(len(blob)):
        changed = bytearray(blob)
        changed[at] ^= 0x01
        with pytest.raises(InvalidRecord):
            open_record(bytes(changed), SIGNATURES)


def test_longest_record() -> None:
    signed = Signed(bytes(RECORD_BYTES_MAX - 70), bytes(64))
    assert len(encode(signed)) == RECORD_BYTES_MAX
    assert decode_signed(encode(signed)) == signed
    with pytest.raises(InvalidRecord, match="the limit is 4096"):
        decode_signed(encode(Signed(bytes(RECORD_BYTES_MAX - 69), bytes(64))))


def test_eight_of_the_longest_addresses_fit_a_record() -> None:
    longest = str(Address(".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61]), 65535))
    record = PeerRecord(bytes(KEYS.peer_id), 2**64 - 1, [longest] * 8)
    assert open_record(sign_record(record, SIGNATURES), SIGNATURES) == record


@pytest.mark.parametrize(
    "value",
    [
        [bytes(31), 1, []],
        [bytes(33), 1, []],
        ["a" * 32, 1, []],
        [bytes(32), -1, []],
        [bytes(32), 1, ["a"] * 9],
        [bytes(32), 1, ["a" * 266]],
        [bytes(32), 1, [b"a"]],
        [bytes(32), 1, "a"],
        [bytes(32)],
        [],
    ],
)
def test_bounds_of_a_peer_record(value: list[Any]) -> None:
    with pytest.raises(InvalidRecord):
        decode_peer_record(msgspec.msgpack.encode(value))


def test_elements_of_a_later_version_are_covered_by_the_signature() -> None:
    """An old reader ignores them, but must verify the payload as it came."""
    payload = msgspec.msgpack.encode([bytes(KEYS.peer_id), 7, ["tcp://192.0.2.1:55555"], "new"])
    blob = encode(Signed(payload, SIGNATURES.sign(Domain.PEER_RECORD, payload)))
    assert open_record(blob, SIGNATURES) == RECORD


@pytest.mark.parametrize(
    "value",
    [
        [bytes(31), 1, 1],
        [bytes(33), 1, 1],
        ["a" * 32, 1, 1],
        [bytes(32), -1, 1],
        [bytes(32), 1, -1],
        [bytes(32), 1, 1.0],
        [bytes(32), True, 1],
        [bytes(32), 1],
        [],
    ],
)
def test_bounds_of_a_beacon(value: list[Any]) -> None:
    with pytest.raises(InvalidRecord):
        decode_beacon_payload(msgspec.msgpack.encode(value))


def test_no_byte_of_a_beacon_may_change_nor_be_missing() -> None:
    blob = sign_beacon(BEACON, SIGNATURES)
    assert open_beacon(blob, SIGNATURES) == BEACON
    for at in range(len(blob)):
        changed = bytearray(blob)
        changed[at] ^= 0x01
        for wrong in (bytes(changed), blob[:at]):
            with pytest.raises(InvalidRecord):
                open_beacon(wrong, SIGNATURES)
    with pytest.raises(InvalidRecord):
        open_beacon(blob + b"\x00", SIGNATURES)


def test_a_beacon_in_the_name_of_another_leader_is_refused() -> None:
    """Who leads is the smallest PeerId: whoever could sign as that would lead every fragment."""
    payload = BeaconPayload(bytes(31) + b"\x02", 1, 1)
    with pytest.raises(InvalidRecord, match="not by the leader"):
        open_beacon(sign_beacon(payload, SIGNATURES), SIGNATURES)
    elsewhere = NodeSignatures(KEYS, bytes(32))
    with pytest.raises(InvalidRecord):
        open_beacon(sign_beacon(BEACON, elsewhere), SIGNATURES)


@pytest.mark.parametrize("weak", [0, 1, 2**255 - 20])
def test_nobody_leads_by_a_key_that_proves_nothing(weak: int) -> None:
    key = weak.to_bytes(32, "little")
    blob = encode(Signed(encode(BeaconPayload(key, 1, 1)), key + bytes(32)))
    with pytest.raises(InvalidRecord):
        open_beacon(blob, SIGNATURES)


def test_signatures_of_other_things_are_none_of_a_beacon() -> None:
    payload = encode(BEACON)
    for domain in (Domain.PEER_RECORD, Domain.BROADCAST):
        with pytest.raises(InvalidRecord):
            open_beacon(encode(Signed(payload, SIGNATURES.sign(domain, payload))), SIGNATURES)
    with pytest.raises(InvalidRecord):
        open_beacon(sign_record(RECORD, SIGNATURES), SIGNATURES)


# What a broadcast's origin signs.

MESSAGE = [b"body", 1, "news"]


def bundle(count: int) -> list[Any]:
    """The elements of a payload with so many messages."""
    return [bytes(32), 7, 1, 9, 1, [MESSAGE] * count]


def test_a_bundle_has_1_to_512_messages() -> None:
    for count in (1, BUNDLE_MESSAGES_MAX):
        payload = decode_broadcast_payload(msgspec.msgpack.encode(bundle(count)))
        assert payload.messages == [BroadcastMessage(b"body", ContentType.TEXT, "news")] * count
        assert payload.asks == 0
    for count in (0, BUNDLE_MESSAGES_MAX + 1):
        with pytest.raises(InvalidRecord):
            decode_broadcast_payload(msgspec.msgpack.encode(bundle(count)))


@pytest.mark.parametrize(
    "value",
    [
        [bytes(31), *bundle(1)[1:]],
        [bytes(33), *bundle(1)[1:]],
        [bytes(32), -1, 1, 9, 1, [MESSAGE]],
        [bytes(32), 1.0, 1, 9, 1, [MESSAGE]],
        [bytes(32), 7, 0, 9, 1, [MESSAGE]],
        [bytes(32), 7, NUMBER_MAX + 1, 9, 1, [MESSAGE]],
        [bytes(32), 7, 1, -9, 1, [MESSAGE]],
        [bytes(32), 7, 1, 9, 0, [MESSAGE]],
        [bytes(32), 7, 1, 9, NUMBER_MAX + 1, [MESSAGE]],
        [bytes(32), 7, 1, 9, 1, MESSAGE],
        [bytes(32), 7, 1, 9, 1, [[b"body"]]],
        [bytes(32), 7, 1, 9, 1, [["body", 1]]],
        [bytes(32), 7, 1, 9, 1, [[b"body", 4]]],
        [bytes(32), 7, 1, 9, 1, [[b"body", 1, "a" * 266]]],
        [bytes(32), 7, 1, 9, 1, [MESSAGE], -1],
        [bytes(32), 7, 1, 9, 1],
        [bytes(32), 7, 1, 9],
        [],
    ],
)
def test_bounds_of_a_broadcast_payload(value: list[Any]) -> None:
    with pytest.raises(InvalidRecord):
        decode_broadcast_payload(msgspec.msgpack.encode(value))


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_head_must_be_whole(count: int) -> None:
    with pytest.raises(InvalidRecord):
        decode_broadcast_head(msgspec.msgpack.encode(bundle(1)[:count]))


def test_a_head_is_read_though_the_rest_cannot() -> None:
    head = BroadcastHead(bytes(32), 7, 1, 9)
    for rest in ([], [-1, "no list"], [1, [MESSAGE] * (BUNDLE_MESSAGES_MAX + 1)]):
        blob = msgspec.msgpack.encode([*bundle(1)[:4], *rest])
        assert decode_broadcast_head(blob) == head
        with pytest.raises(InvalidRecord):
            decode_broadcast_payload(blob)


@given(any_bytes)
def test_what_is_read_as_a_payload_has_the_same_head(blob: bytes) -> None:
    """Else a node could be made to note one number and deliver another."""
    try:
        payload = decode_broadcast_payload(blob)
    except InvalidRecord:
        return
    assert decode_broadcast_head(blob) == BroadcastHead(
        payload.origin, payload.epoch, payload.sequence, payload.sent_at_ms
    )


@pytest.mark.parametrize("decode", [decode_broadcast_head, decode_broadcast_payload])
@pytest.mark.parametrize(
    "rest",
    [
        b"\x91" * 200_000,
        b"\x81\xa1a" * 100_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc1",
        b"",
    ],
    ids=["deep array", "deep map", "list of 4 billion", "bytes of 4 billion", "opcode", "cut"],
)
def test_hostile_messages_behind_a_good_head(decode: Callable[[bytes], Any], rest: bytes) -> None:
    head = msgspec.msgpack.encode(bundle(1)[:4])
    with pytest.raises(InvalidRecord):
        decode(b"\x96" + head[1:] + b"\x01" + rest)


def test_numbers_leave_room_to_count_on() -> None:
    """What is added to the number of a hostile origin must still fit the wire, and a database."""
    value = [bytes(32), 2**64 - 1, NUMBER_MAX, 2**64 - 1, NUMBER_MAX, [MESSAGE], 2**64 - 1]
    payload = decode_broadcast_payload(msgspec.msgpack.encode(value))
    assert payload.first + BUNDLE_MESSAGES_MAX < 2**64
    assert decode_broadcast_payload(encode(payload)) == payload


# Addresses in records.


def test_addresses_that_cannot_be_dialled_are_left_out() -> None:
    good = ["tcp://192.0.2.1:1", "tcp://[2001:db8::1]:2", "tcp://example.com:3"]
    bad = ["", "tcp://192.0.2.1", "tcp://0.0.0.0:1", "tcp://[::]:1", "tcp://192.0.2.1:0"]
    local = ["tcp://[fe80::1%eth0]:1"]
    assert [
        str(address)
        for texts in (good, bad, local)
        for address in PeerRecord(bytes(32), 1, texts).parsed_addresses()
    ] == good


def test_addresses_at_a_host() -> None:
    texts = ["tcp://192.0.2.1:1", "tcp://192.0.2.2:1", "tcp://192.0.2.1:2", "192.0.2.1:0"]
    record = PeerRecord(bytes(32), 1, texts)
    assert record.addresses_at("192.0.2.1") == (Address("192.0.2.1", 1), Address("192.0.2.1", 2))
    assert record.addresses_at("192.0.2.3") == ()
    assert PeerRecord(bytes(32), 1, texts[1:2]).addresses_at("192.0.2.1") == ()


def test_a_bad_record_is_bad_each_time() -> None:
    for _ in range(2):
        with pytest.raises(InvalidRecord):
            decode_signed(b"junk")
        with pytest.raises(InvalidRecord):
            decode_peer_record(b"junk")


def test_equal_records_share_what_was_read() -> None:
    blob = sign_record(RECORD, SIGNATURES)
    first, second = (open_record(bytes(bytearray(blob)), SIGNATURES) for _ in range(2))
    assert first.peer_id is second.peer_id
    assert first.parsed_addresses() is second.parsed_addresses()


@given(st.lists(st.text(max_size=30), max_size=8))
def test_any_address_texts_are_parsed_or_left_out(texts: list[str]) -> None:
    assert len(PeerRecord(bytes(32), 1, texts).parsed_addresses()) <= len(texts)


# What a signature covers.


def test_bytes_to_sign() -> None:
    assert bytes_to_sign(Domain.PEER_RECORD, NETWORK_ID, b"payload") == (
        b"meshwalk/1 peer " + NETWORK_ID + b"payload"
    )
    assert {len(domain.value) for domain in Domain} == {16}


def test_signature_counts_in_its_domain_network_and_payload_only() -> None:
    signature = SIGNATURES.sign(Domain.PEER_RECORD, b"payload")
    elsewhere = NodeSignatures(KEYS, bytes(32))
    me, other = KEYS.peer_id, KeyPair(bytes(32)).peer_id
    assert SIGNATURES.verify(Domain.PEER_RECORD, me, signature, b"payload")
    assert not SIGNATURES.verify(Domain.BROADCAST, me, signature, b"payload")
    assert not SIGNATURES.verify(Domain.PEER_RECORD, me, signature, b"payloae")
    assert not SIGNATURES.verify(Domain.PEER_RECORD, other, signature, b"payload")
    assert not elsewhere.verify(Domain.PEER_RECORD, me, signature, b"payload")


def test_a_record_about_another_peer_is_refused() -> None:
    record = PeerRecord(bytes(KeyPair(bytes(32)).peer_id), 7, [])
    with pytest.raises(InvalidRecord, match="not by the peer"):
        open_record(sign_record(record, SIGNATURES), SIGNATURES)


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_verify_never_raises(length: int) -> None:
    signature = KEYS.sign(b"data")
    assert not verify(bytes(length), signature, b"data")
    assert not verify(b"\xff" * length, signature, b"data")
    assert not verify(KEYS.peer_id, signature[:length] + b"\x00", b"data")


@pytest.mark.parametrize(
    "y", [0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18], ids=["0", "1", "p-1", "p", "p+1"]
)
@pytest.mark.parametrize("sign", [0, 1])
def test_keys_under_which_anybody_can_sign_are_refused(y: int, sign: int) -> None:
    """Points of small order; the two of order 8 are in the list as well."""
    weak = (y | sign << 255).to_bytes(32, "little")
    assert is_weak(weak)
    neutral = (1).to_bytes(32, "little")
    assert not any(verify(weak, neutral + bytes(32), b"%d" % i) for i in range(8))


def test_ordinary_keys_are_not_weak() -> None:
    assert not any(is_weak(KeyPair(bytes([i]) * 32).peer_id) for i in range(16))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_private_keys_have_32_bytes(length: int) -> None:
    with pytest.raises(InvalidArgument):
        KeyPair(bytes(length))
