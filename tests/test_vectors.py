"""The vectors for other implementers: what is committed is what we read, write and refuse."""

from __future__ import annotations

import enum
import hashlib
import importlib.util
import json
import re
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import msgspec
import pytest

from meshwalk.config import Config
from meshwalk.errors import InvalidArgument, InvalidRecord, MalformedFrame
from meshwalk.identity.keys import KeyPair, NodeSignatures, open_beacon, open_record, verify
from meshwalk.identity.network import Network
from meshwalk.proto.broadcast.accepting import GAP_NUMBERS_MAX
from meshwalk.proto.broadcast.origins import GAPS_PER_ORIGIN_MAX
from meshwalk.proto.broadcast.trust import Offence
from meshwalk.proto.broadcast.work import is_worked
from meshwalk.proto.overlay.sketch import member_hash
from meshwalk.wire import frames, gossip, messages, records
from meshwalk.wire.address import DEFAULT_PORT, Address, Invite
from meshwalk.wire.codec import FrameReader, encode_frame
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import BeaconPayload, BroadcastPayload, Domain, PeerRecord

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tests" / "vectors"


def load(name: str) -> Any:
    return json.loads((FOLDER / name).read_text())


def plain(value: Any) -> Any:
    """As README.md says that fields are written; spelt out here apart from script/vectors."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, msgspec.Struct):
        return [plain(getattr(value, name)) for name in value.__struct_fields__]
    if isinstance(value, int) and not isinstance(value, bool) and value > 2**53:
        return str(int(value))
    return value


def fields(struct: msgspec.Struct) -> list[tuple[str, Any]]:
    return [(name, plain(getattr(struct, name))) for name in struct.__struct_fields__]


def check(vector: Any, found: msgspec.Struct) -> None:
    assert type(found).__name__ == vector["type"]
    assert found.__struct_config__.tag == vector.get("tag")
    assert fields(found) == list(vector["fields"].items())


def read_gossip(body: bytes) -> gossip.GossipMessage:
    """A message about broadcasts, its ranges checked."""
    message = gossip.decode_gossip(body)
    if isinstance(message, gossip.Want | gossip.Gone):
        gossip.pairs_of(message.ranges)
    if isinstance(message, gossip.Have):
        for held in message.held:
            gossip.pairs_of(held.ranges)
    return message


def test_files_are_what_the_script_writes() -> None:
    loader = SourceFileLoader("vectors_script", str(ROOT / "script" / "vectors"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    written: dict[str, str] = module.build()
    assert {path.name for path in FOLDER.glob("*.json")} == set(written)
    for name, text in written.items():
        assert (FOLDER / name).read_text() == text, f"{name} differs; is the format to change?"


def test_frames() -> None:
    for vector in load("frames.json"):
        (frame,) = FrameReader().feed(bytes.fromhex(vector["hex"]))
        check(vector, frame)
        assert encode_frame(frame).hex() == vector["hex"]


def test_all_frames_in_one_stream() -> None:
    vectors = load("frames.json")
    stream = bytes.fromhex("".join(vector["hex"] for vector in vectors))
    assert [type(frame).__name__ for frame in FrameReader().feed(stream)] == [
        vector["type"] for vector in vectors
    ]


@pytest.mark.parametrize(
    ("channel", "decode", "encode"),
    [
        ("overlay", messages.decode_overlay, messages.encode),
        ("broadcast", read_gossip, gossip.encode_gossip),
        ("refusal", messages.decode_refusal, messages.encode),
    ],
)
def test_messages(
    channel: str, decode: Callable[[bytes], Any], encode: Callable[[Any], bytes]
) -> None:
    for vector in load("messages.json")[channel]:
        body = decode(bytes.fromhex(vector["hex"]))
        check(vector, body)
        assert encode(body).hex() == vector["hex"]


def test_copies_of_broadcasts_are_signed() -> None:
    """What the vectors carry is itself as it would be in a network."""
    vectors = load("records.json")
    signatures = NodeSignatures(KeyPair(bytes(32)), bytes.fromhex(vectors["network_id"]))
    found = 0
    for vector in load("messages.json")["broadcast"]:
        message = read_gossip(bytes.fromhex(vector["hex"]))
        if isinstance(message, gossip.Broadcast | gossip.Stem):
            found += 1
            payload = records.decode_broadcast_payload(message.payload)
            assert signatures.verify(
                Domain.BROADCAST, payload.origin, message.signature, message.payload
            )
    assert found > 2


def test_every_kind_of_frame_and_message_has_a_vector() -> None:
    kinds = {vector["type"] for vector in load("frames.json")}
    assert kinds == {kind.__name__ for kind in get_args(frames.Frame)}
    overlay = {vector["type"] for vector in load("messages.json")["overlay"]}
    assert overlay == {kind.__name__ for kind in get_args(messages.OverlayMessage)}
    broadcast = {vector["type"] for vector in load("messages.json")["broadcast"]}
    assert broadcast == {kind.__name__ for kind in get_args(gossip.GossipMessage)}


def test_signed_things() -> None:
    vectors = load("records.json")
    keys = KeyPair(bytes.fromhex(vectors["seed"]))
    assert keys.peer_id.hex() == vectors["public_key"]
    signatures = NodeSignatures(keys, bytes.fromhex(vectors["network_id"]))
    for name, domain, decode in (
        ("peer_record", Domain.PEER_RECORD, records.decode_peer_record),
        ("broadcast", Domain.BROADCAST, records.decode_broadcast_payload),
        ("broadcast_bundle", Domain.BROADCAST, records.decode_broadcast_payload),
        ("beacon", Domain.BEACON, records.decode_beacon_payload),
    ):
        vector = vectors[name]
        payload = bytes.fromhex(vector["payload"])
        struct: PeerRecord | BroadcastPayload | BeaconPayload = decode(payload)
        check(vector, struct)
        assert records.encode(struct) == payload
        covered = vector["domain"].encode() + signatures.network_id + payload
        assert covered.hex() == vector["covered"]
        assert verify(keys.peer_id, bytes.fromhex(vector["signature"]), covered)
        assert signatures.sign(domain, payload).hex() == vector["signature"]


def test_signed_records() -> None:
    vectors = load("records.json")
    signatures = NodeSignatures(
        KeyPair(bytes.fromhex(vectors["seed"])), bytes.fromhex(vectors["network_id"])
    )
    record = open_record(bytes.fromhex(vectors["peer_record"]["blob"]), signatures)
    assert fields(record) == list(vectors["peer_record"]["fields"].items())
    later = vectors["peer_record_of_a_later_version"]
    assert open_record(bytes.fromhex(later["blob"]), signatures).addresses == []
    beacon = open_beacon(bytes.fromhex(vectors["beacon"]["blob"]), signatures)
    assert fields(beacon) == list(vectors["beacon"]["fields"].items())


def test_hashes_of_members() -> None:
    vectors = load("records.json")
    beacon = vectors["beacon"]["fields"]
    for vector in vectors["members"]:
        salt = bytes.fromhex(beacon["leader"]["hex"]) + beacon["epoch"].to_bytes(8, "big")
        assert vector["salt"] == salt.hex()
        peer = bytes.fromhex(vector["peer"])
        found = hashlib.blake2b(peer, digest_size=8, key=salt).digest()  # spelt out here, too
        assert int(vector["hash"]) == int.from_bytes(found, "big")
        assert int(vector["hash"]) == member_hash(peer, salt)


def test_proofs_of_work() -> None:
    for vector in load("records.json")["work"]:
        payload, number = bytes.fromhex(vector["payload"]), vector["number"]
        difficulty, trials = vector["difficulty"], vector["trials"]
        assert trials == difficulty * (len(payload) + 1024)
        digest = hashlib.blake2b(payload, digest_size=32).digest()  # spelt out here, too
        found = hashlib.blake2b(number.to_bytes(8, "big") + digest, digest_size=8).digest()
        assert int.from_bytes(found, "big") <= (2**64 - 1) // trials
        assert is_worked(payload, number, difficulty)
        assert not any(is_worked(payload, less, difficulty) for less in range(number))


def test_digests_of_minutes() -> None:
    vector, digest = load("records.json")["digest"], 0
    for named in vector["broadcasts"]:
        name = bytes.fromhex(named["origin"])
        for number in (named["epoch"], named["sequence"]):
            name += int(number).to_bytes(8, "big")
        found = hashlib.blake2b(name, digest_size=8).digest()  # spelt out here, too
        digest ^= int.from_bytes(found, "big")
    assert int(vector["digest"]) == digest


def test_network_keys() -> None:
    for vector in load("network.json"):
        network = Network(vector["network"], bytes.fromhex(vector["secret"]))
        assert network.network_id.hex() == vector["network_id"]
        assert KeyPair(bytes.fromhex(vector["private_key"])).peer_id == network.network_id


def test_texts() -> None:
    vectors = load("text.json")
    assert vectors["default_port"] == DEFAULT_PORT
    for vector in vectors["peer_ids"]:
        assert PeerId.parse(vector["text"]).hex() == vector["key"]
        assert PeerId(bytes.fromhex(vector["key"])).text == vector["text"]
    for vector in vectors["addresses"]:
        address = Address.parse(vector["text"])
        assert (address.host, address.port) == (vector["host"], vector["port"])
        assert str(address) == vector["canonical"]
    for vector in vectors["invites"]:
        invite = Invite.parse(vector["text"])
        assert (invite.network, invite.peer.hex()) == (vector["network"], vector["peer"])
        assert [str(address) for address in invite.addresses] == vector["addresses"]
        assert str(invite) == vector["text"]


@pytest.mark.parametrize(
    ("kind", "parse"),
    [
        ("refused_peer_ids", PeerId.parse),
        ("refused_addresses", Address.parse),
        ("refused_invites", Invite.parse),
    ],
)
def test_refused_texts(kind: str, parse: Callable[[str], Any]) -> None:
    for text in load("text.json")[kind]:
        with pytest.raises(InvalidArgument):
            parse(text)


def test_malformed_inputs() -> None:
    vectors = load("malformed.json")
    signatures = NodeSignatures(
        KeyPair(bytes(32)), bytes.fromhex(load("records.json")["network_id"])
    )
    parsers: dict[str, tuple[Callable[[bytes], Any], type[Exception]]] = {
        "frames": (lambda data: FrameReader().feed(data), MalformedFrame),
        "overlay": (messages.decode_overlay, MalformedFrame),
        "broadcast": (read_gossip, MalformedFrame),
        "broadcast_payload": (records.decode_broadcast_payload, InvalidRecord),
        "refusal": (messages.decode_refusal, MalformedFrame),
        "peer_record": (lambda data: open_record(data, signatures), InvalidRecord),
        "beacon": (lambda data: open_beacon(data, signatures), InvalidRecord),
    }
    assert set(parsers) == set(vectors)
    for name, (parse, error) in parsers.items():
        for vector in vectors[name]:
            with pytest.raises(error):
                parse(bytes.fromhex(vector["hex"]))


# docs/protocol.md.

PAGE = (ROOT / "docs" / "protocol.md").read_text()
STRUCTS: list[type[msgspec.Struct]] = [
    *get_args(frames.Frame),
    *get_args(messages.OverlayMessage),
    *get_args(gossip.GossipMessage),
    gossip.Held,
    gossip.HopSeen,
    messages.Refusal,
    records.Signed,
    PeerRecord,
    BroadcastPayload,
    records.BroadcastMessage,
    BeaconPayload,
]
ENUMS: list[type[enum.IntEnum]] = [
    frames.Purpose,
    frames.Channel,
    frames.ContentType,
    frames.CloseReason,
    messages.JoinOutcome,
    messages.FragmentOutcome,
    messages.VouchOutcome,
    messages.RefusalCode,
]


@pytest.mark.parametrize("struct", STRUCTS)
def test_the_page_has_a_row_for_every_field(struct: type[msgspec.Struct]) -> None:
    tag = struct.__struct_config__.tag
    title = f"**{struct.__name__}**" if tag is None else f"### {struct.__name__}, tag {tag}\n"
    section = PAGE.partition(title)[2]
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert table is not None
    rows = [line.split("|")[1:3] for line in table[0].splitlines()[2:]]
    names = ["tag"] if tag is not None else []
    names += struct.__struct_fields__
    assert [(int(number), name.strip()) for number, name in rows] == list(enumerate(names))


@pytest.mark.parametrize("numbers", ENUMS)
def test_the_page_has_a_row_for_every_number(numbers: type[enum.IntEnum]) -> None:
    table = PAGE
    if numbers not in (frames.CloseReason, messages.RefusalCode):  # these have no title of a column
        found = re.search(rf"^\| {numbers.__name__} \|.*\n(?:\|.*\n)+", PAGE, re.MULTILINE)
        assert found is not None
        table = found[0]
    for member in numbers:
        assert f"\n| {member.name} | {member.value} |" in table


@pytest.mark.parametrize(
    ("module", "prefix"), [(frames, "MARK_"), (gossip, "MARK_"), (records, "ASKS_")]
)
def test_the_page_has_a_row_for_every_mark(module: ModuleType, prefix: str) -> None:
    marks = {name: value for name, value in vars(module).items() if name.startswith(prefix)}
    assert marks
    for name, value in marks.items():
        assert f"\n| {name.removeprefix(prefix)} | {value} |" in PAGE


def test_the_page_has_the_numbers_that_both_ends_count_with() -> None:
    for number in (
        frames.FIRST_WINDOW_BYTES,
        frames.SHARED_WINDOW_BYTES,
        frames.FLOOR_BYTES,
        frames.PART_COST_BYTES,
    ):
        assert f"{number:,} bytes" in PAGE


def test_the_page_has_the_limits_of_broadcasts() -> None:
    """Rows of the table of limits, by how they begin, with numbers of the settings."""
    config, rows = Config(), PAGE.partition("## Limits\n")[2].splitlines()
    broadcast, tree, history, intake = (
        config.broadcast,
        config.tree,
        config.history,
        config.intake,
    )
    limits: dict[str, list[float]] = {
        "payload of a broadcast": [gossip.PAYLOAD_BYTES_MAX],
        "body of a message in a broadcast": [broadcast.body_bytes_max],
        "messages in a broadcast": [records.BUNDLE_MESSAGES_MAX],
        "ranges in a message": [gossip.RANGES_MAX, gossip.HAVE_ENTRIES_MAX],
        "digests in a HistoryWanted": [gossip.DIGESTS_MAX],
        "hops in a Receipt": [gossip.HOPS_SEEN_MAX, frames.STEM_HOPS_MAX],
        "age of a broadcast": [broadcast.age_max_s, broadcast.clock_skew_max_s],
        "broadcasts over one link": [
            intake.link_burst_bytes,
            intake.link_bytes_per_s,
            intake.cost_bytes,
        ],
        "broadcasts of one origin": [intake.origin_burst_bytes, intake.origin_bytes_per_s],
        "signatures of broadcasts": [intake.checks_per_turn, intake.turn_s * 1000],
        "copies of one neighbour": [intake.waiting_max, intake.waiting_bytes_max],
        "numbers of one origin": [broadcast.window],
        "gaps in numbers": [GAPS_PER_ORIGIN_MAX, broadcast.gaps_max],
        "numbers of a gap": [GAP_NUMBERS_MAX],
        "origins remembered": [broadcast.origins_max],
        "origins never heard of": [intake.newcomers_burst, intake.newcomers_per_s],
        "origins with branches": [tree.own_trees_max],
        "broadcasts that wait": [broadcast.order_held_max, broadcast.order_held_bytes_max],
        "time that they wait": [broadcast.order_wait_s],
        "neighbours remembered that have": [tree.announcers_max],
        "numbers that one neighbour has yet": [tree.announced_max],
        "numbers missing": [tree.missing_max, tree.missing_per_peer_max],
        "numbers asked of one": [tree.fetch_numbers_max],
        "numbers that one neighbour has asked": [tree.serve_numbers_max],
        "broadcasts kept": [history.count_max, history.bytes_max, history.age_s],
        "HistoryWanted": [history.asks_burst, 1 / history.asks_per_s],
        "broadcasts that receipts": [broadcast.receipts_max],
        "broadcasts in the stem": [config.stem.held_max],
        "peers that something": [config.trust.peers_max],
    }
    for begin, numbers in limits.items():
        (row,) = [row for row in rows if row.startswith(f"| {begin}")]
        for number in numbers:
            text = "one" if number == 1 else f"{number:,.0f}"
            assert re.search(rf"(?<![\d,]){text}(?![\d,]\d)", row), (begin, text)


def test_the_page_has_the_weights_of_offences() -> None:
    trust = Config().trust
    for offence in Offence:
        weight = getattr(trust, offence.name.lower())
        assert f"\n| {offence.name} | {weight:g} |" in PAGE
    assert f"At {trust.limit:g} (default) its link" in PAGE
    assert f"forgiven in {trust.half_life_s:g} s (default)" in PAGE
