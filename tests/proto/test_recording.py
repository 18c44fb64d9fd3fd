"""A recorded node does what a plain one does, and says all of it."""

from __future__ import annotations

import inspect
from random import Random
from typing import Any

import msgspec
import pytest

from meshwalk.config import Config, OverlayConfig
from meshwalk.errors import InvalidArgument, MeshwalkError
from meshwalk.proto.effects import KeepBroadcast
from meshwalk.proto.node import NodeCore
from meshwalk.proto.overlay.bookentry import BookEntry, Table
from meshwalk.proto.recording import (
    INPUTS,
    READS,
    RecordedCore,
    arguments_of,
    config_of,
    make_core,
)
from meshwalk.sim.signatures import CheapSignatures
from meshwalk.trace import Header, Input, Line, Output, Raised, Returned, Signed
from meshwalk.wire.address import Address
from meshwalk.wire.frames import (
    MARK_OPENS,
    PROTOCOL_VERSION,
    Channel,
    Close,
    ContentType,
    Credit,
    Hello,
    Message,
    Ping,
    Pong,
    Purpose,
)
from meshwalk.wire.peerid import PeerId

ME, PEER = PeerId(bytes(32)), PeerId(bytes(range(32)))
THERE = Address("192.0.2.1", 55555)
CONFIG = Config(overlay=OverlayConfig(links_min=3, links_max=7))
SEED = 12345

KNOWN = BookEntry(
    PEER,
    b"\x00\xff",
    7,
    (THERE,),
    "store",
    -3.5,
    source="192.0",
    table=Table.VERIFIED,
    address=THERE,
    failures=2,
    rtt_s=0.25,
    cursor=2**64 - 1,
    is_anchor=True,
)
FRAMES = [
    Hello(PROTOCOL_VERSION, Purpose.PROBE, 2**64 - 1, "tcp://1.2.3.4:5", b"\x80", b"\xff", "é"),
    Ping(1, 2),
    Pong(1, 2, 3, 4),
    Message(
        9, 8, Channel.APPLICATION, b"\x00\xff\x7f", 0, 0, ContentType.JSON, "kind \u2028", True
    ),
    Message(8, 7, Channel.APPLICATION, b"\xff", sequence=1, marks=MARK_OPENS),
    Credit(8, True, 1, 2, 2**64 - 1),
    Close(77, "bye"),
]
SAID = {"type": "t", "content": ContentType.BYTES, "body": b"1", "now": 2.0}


def plain() -> NodeCore:
    return NodeCore(CheapSignatures(ME), CONFIG, Random(SEED), 0.5, 1.7e9, "me")


KEPT = KeepBroadcast(bytes(PEER), 2**63, 5, 1_700_000_000_000, b"\x00\xff", b"\xff" * 64, 2**64 - 1)
DRAFT = plain().draft("t", ContentType.TEXT, b"x", 1.75)
PRIVATE = plain().draft("t", ContentType.BYTES, b"x", 1.75, 0, b"\x07" * 32)
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("hosts", {"hosts": ("10.0.0.1", "fd00::1"), "now": 1.0}),
    ("listening", {"addresses": (Address("::", 1), THERE), "now": 1.0}),
    ("start", {"known": [KNOWN], "now": 1.1, "broadcasts": [KEPT]}),
    ("join", {"address": THERE, "expected": PEER, "now": 1.2}),
    ("join", {"address": Address("name.example", 1), "expected": None, "now": 1.2}),
    ("admit", {"remote": THERE, "now": 1.25}),
    ("secured", {"link": 3, "peer": PEER, "remote": THERE, "local_host": "::1", "now": 1.3}),
    ("receive", {"link": 3, "frames": FRAMES, "now": 1.4}),
    ("stalled", {"link": 3, "now": 1.5}),
    ("progressed", {"link": 3, "now": 1.5}),
    ("resumed", {"link": 3}),
    ("overflowed", {"link": 99, "now": 1.5}),
    ("malformed", {"link": 99, "why": "text \u202e", "now": 1.5}),
    ("lost", {"link": 1, "why": "", "now": 1.6, "not_admitted": True}),
    ("lost", {"link": 2, "why": "gone", "now": 1.6}),
    ("calendar_set", {"unix_offset_s": 1.7e9 + 0.1, "now": 1.65}),
    ("woke", {"now": 1.65}),
    ("tick", {"now": 1.7}),
    # Before the broadcast: afterwards another has gone out since it was drafted.
    ("broadcast_draft", {"payload": DRAFT, "work": 2**63, "now": 1.8}),
    ("broadcast_draft", {"payload": PRIVATE, "work": 0, "now": 1.8, "signature": bytes(64)}),
    ("broadcast", {"topic": "t", "content": ContentType.TEXT, "body": b"\xc3\xa9", "now": 1.9}),
    ("broadcast", {"topic": "", "content": ContentType.TEXT, "body": b"", "now": 1.9, "asks": 3}),
    ("catch_up", {"since_ms": 2**53, "now": 1.9}),
    ("catch_up", {"since_ms": 0, "now": 1.9}),
    ("pause_broadcasts", {"now": 1.9}),
    ("resume_broadcasts", {"now": 1.9}),
    ("abandon", {"request": 5}),
    ("reply", {"peer": PEER, "request": 9, "content": ContentType.BYTES, "body": b"", "now": 2.0}),
    ("refuse", {"peer": PEER, "request": 9, "code": 3, "text": "no", "now": 2.0}),
    ("room", {"link": 3, "size": 4096, "now": 2.0}),
    ("reach", {"peer": PEER, "now": 2.0}),
    # To itself, so that somebody is there: its own conversation is the first, its end the second.
    ("send", {"peer": ME, **SAID}),
    ("send_unreliably", {"peer": ME, **SAID}),
    ("request", {"peer": ME, "timeout_s": 1.5, **SAID}),
    ("request", {"peer": ME, "timeout_s": 1.5, "conversation": 0, **SAID}),
    ("open", {"peer": ME, "timeout_s": None, **SAID}),
    ("open", {"peer": PEER, "timeout_s": 2.5, **SAID}),
    ("say", {"conversation": 1, **SAID}),
    ("say", {"conversation": 2, "in_reply_to": 7, **SAID}),
    ("request", {"peer": ME, "timeout_s": 1.5, "conversation": 1, **SAID}),
    ("say_unreliably", {"conversation": 1, **SAID}),
    ("read", {"conversation": 2, "messages": 2, "cost": 131, "now": 2.0}),
    ("refuse_said", {"conversation": 2, "message": 5, "code": 100, "text": "no", "now": 2.0}),
    ("end", {"conversation": 1, "now": 2.0}),
    ("close_conversation", {"conversation": 1, "now": 2.0}),
    ("leave_conversation", {"conversation": 2, "code": 7, "text": "so", "now": 2.0}),
    ("ping", {"link": 3, "now": 2.0}),
    ("probe", {"address": THERE, "expected": None, "now": 2.0}),
    ("close_link", {"link": 3, "now": 2.1}),
    ("leave", {"now": 3.0}),
]  # fmt: skip


def recorded(config: Config = CONFIG) -> tuple[NodeCore, list[Line]]:
    lines: list[Line] = []

    def write(line: Line) -> bool:
        lines.append(line)
        return True

    core = RecordedCore(
        CheapSignatures(ME), config, SEED, 0.5, 1.7e9, "me", write=write, node="10.0.0.1"
    )
    return core, lines


def copies(values: dict[str, Any]) -> dict[str, Any]:
    """Arguments of one's own, since a node keeps and changes entries of the address book."""
    return {
        name: [msgspec.structs.replace(e) for e in value] if name == "known" else value
        for name, value in values.items()
    }


def test_a_recorded_node_does_what_a_plain_one_does() -> None:
    core, lines = recorded()
    other = plain()
    for name, values in CALLS:
        expected = getattr(other, name)(**copies(values))
        assert getattr(core, name)(**copies(values)) == expected, name
        assert core.deadline() == other.deadline(), name
    assert core.statistics() == other.statistics()
    assert [line.name for line in lines if isinstance(line, Input)] == [name for name, _ in CALLS]
    assert {line.node for line in lines} == {"10.0.0.1"}


def test_arguments_come_back_as_they_were() -> None:
    core, lines = recorded()
    for name, values in CALLS:
        getattr(core, name)(**copies(values))
    inputs = [line for line in lines if isinstance(line, Input)]
    for line, (name, values) in zip(inputs, CALLS, strict=True):
        found = arguments_of(line)
        defaults = {
            parameter.name: parameter.default
            for parameter in inspect.signature(INPUTS[name]).parameters.values()
            if parameter.default is not parameter.empty
        }
        assert found == {**defaults, **values}, name
        for key, value in values.items():
            if key not in ("now", "frames"):
                assert type(found[key]) is type(value)


def test_every_input_is_tried_here_and_every_other_method_reads_only() -> None:
    assert set(INPUTS) == {name for name, _ in CALLS}
    public = {
        name
        for name, member in inspect.getmembers(NodeCore, inspect.isfunction)
        if not name.startswith("_")
    }
    assert public - set(INPUTS) == READS


def test_the_calls_here_lead_somewhere() -> None:
    core, lines = recorded()
    for name, values in CALLS:
        getattr(core, name)(**copies(values))
    made = {line.name for line in lines if isinstance(line, Output)}
    assert made >= {
        *("Deliver", "Ask", "ConversationOpened", "ConversationHeard", "ConversationOver"),
        *("ConversationRefused", "ConversationEnded", "Unanswered"),
    }
    counts = core.statistics()
    assert counts.conversations["opened"] == 2
    assert counts.conversations_open == 0


def test_positions_and_names_of_arguments_are_the_same() -> None:
    core, lines = recorded()
    core.lost(1, "why", 2.0)
    core.lost(link=1, why="why", now=2.0)
    assert isinstance(lines[-1], Input)
    assert lines[-1] == lines[-2]
    assert bytes(lines[-1].values) == b'{"link":1,"why":"why"}'


def test_an_input_without_a_time_has_that_of_the_one_before() -> None:
    core, lines = recorded()
    core.abandon(1)
    core.tick(4.0)
    core.resumed(1)
    times = [line.time for line in lines if isinstance(line, Input)]
    assert times == [0.5, 4.0, 4.0]


def test_results_beside_effects_are_written() -> None:
    core, lines = recorded()
    number = core.admit(THERE, 1.0)
    assert lines[-1] == Returned(node="10.0.0.1", value=msgspec.Raw(str(number).encode()))
    sequence, _ = core.broadcast("", ContentType.BYTES, b"", 1.0)
    signed, returned, kept = lines[-3:]
    assert isinstance(signed, Signed)
    assert returned == Returned(node="10.0.0.1", value=msgspec.Raw(str(sequence).encode()))
    assert isinstance(kept, Output)
    assert kept.name == "KeepBroadcast"
    assert core.ping(999, 1.0) is None
    assert lines[-1] == Returned(node="10.0.0.1", value=msgspec.Raw(b"null"))
    core.resumed(1)
    assert isinstance(lines[-1], Input)


def test_effects_are_lines_of_their_own() -> None:
    core, lines = recorded()
    effects = core.join(THERE, None, 1.0)
    names = [type(effect).__name__ for effect in effects]
    assert names == ["Dial"]
    assert isinstance(lines[-1], Output)
    assert lines[-1].name == "Dial"
    assert msgspec.json.decode(lines[-1].value) == {
        "link": effects[0].link,  # type: ignore[union-attr]
        "address": {"host": "192.0.2.1", "port": 55555},
        "expected": None,
    }


def test_the_header_says_what_makes_the_same_node() -> None:
    _, lines = recorded()
    header = lines[0]
    assert isinstance(header, Header)
    assert config_of(header) == CONFIG
    assert PeerId.parse(header.peer) == ME
    assert (header.now, header.unix_offset_s, header.agent) == (0.5, 1.7e9, "me")
    assert int(header.seed, 16) == SEED
    assert isinstance(lines[1], Signed)


def test_a_call_that_a_caller_got_wrong_is_not_recorded() -> None:
    core, lines = recorded()
    before = list(lines)
    for values in (
        {"topic": "x" * 300, "content": ContentType.BYTES, "body": b"", "now": 1.0},
        {"topic": "\ud800", "content": ContentType.BYTES, "body": b"", "now": 1.0},
        {"topic": "", "content": ContentType.BYTES, "body": bytes(1 << 20), "now": 1.0},
    ):
        with pytest.raises(MeshwalkError):
            core.broadcast(**values)  # type: ignore[arg-type]
    with pytest.raises(MeshwalkError):
        core.request(PEER, "", ContentType.BYTES, b"", 10**30, 1.0)
    with pytest.raises(MeshwalkError):
        core.request(PEER, "", ContentType.BYTES, b"", float("nan"), 1.0)
    assert lines == before


def test_a_defect_is_recorded_and_raised() -> None:
    core, lines = recorded()
    with pytest.raises(TypeError):
        core.broadcast("t", ContentType.BYTES, 5, 1.0)  # type: ignore[arg-type]
    assert isinstance(lines[-2], Input)
    assert isinstance(lines[-1], Raised)
    assert lines[-1].error == "TypeError"


def test_text_that_utf_8_cannot_write_is_recorded() -> None:
    core, lines = recorded()
    core.lost(1, "from the system: \udcff", 1.0)
    assert isinstance(lines[-1], Input)
    assert arguments_of(lines[-1])["why"] == "from the system: ?"


def test_nothing_is_recorded_after_the_sink_has_had_enough() -> None:
    lines: list[Line] = []

    def write(line: Line) -> bool:
        lines.append(line)
        return len(lines) < 4

    core = RecordedCore(CheapSignatures(ME), CONFIG, SEED, 0.5, 0.0, write=write)
    other = NodeCore(CheapSignatures(ME), CONFIG, Random(SEED), 0.5, 0.0)
    mine, theirs = (
        [*node.join(THERE, None, 1.0), *node.tick(2.0), *node.leave(3.0)] for node in (core, other)
    )
    assert mine == theirs
    assert len(lines) == 4


def test_a_node_that_is_not_recorded_is_a_plain_one() -> None:
    core = make_core(CheapSignatures(ME), CONFIG, Random(1), 0.0, 0.0)
    assert type(core) is NodeCore
    lines: list[Line] = []

    def write(line: Line) -> bool:
        lines.append(line)
        return True

    made = make_core(CheapSignatures(ME), CONFIG, Random(1), 0.0, 0.0, write=write)
    assert type(made) is RecordedCore
    assert isinstance(lines[0], Header)
    assert int(lines[0].seed, 16) == Random(1).getrandbits(256)


def test_unknown_inputs_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="no input 'deadline'"):
        arguments_of(Input(time=0.0, name="deadline", values=msgspec.Raw(b"{}")))
