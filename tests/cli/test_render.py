"""What strangers write is safe and bounded on a screen, and numbers read well."""

from __future__ import annotations

import unicodedata
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwalk.cli.render import (
    SCREEN_CHARACTERS_MAX,
    PeersTable,
    as_text,
    body_text,
    colour_of,
    counted,
    duration,
    error_line,
    event_line,
    exchanges,
    fragment,
    label,
    message_fragments,
    message_line,
    printable,
    round_trip,
    short_count,
    size,
)
from meshwalk.errors import Unreachable
from meshwalk.events import Delivery, EntryFailed, NeighbourDown
from meshwalk.net.peers import PeerInfo
from meshwalk.proto.overlay.statistics import OverlayStatistics
from meshwalk.proto.statistics import NodeStatistics
from meshwalk.wire.address import Address
from meshwalk.wire.frames import ContentType
from meshwalk.wire.peerid import PeerId

PEER = PeerId(bytes(range(32)))
# Beyond what a body may be cut to: "… (1,048,576 characters)".
NOTE_CHARACTERS = 40
HOSTILE = "\x1b]0;gone\x07\x1b[2J\x9b31m\u202eevil\u2066\u200b\ud800\r\n[red]x[/red]"

any_text = st.text(st.characters(codec=None), max_size=300) | st.text(
    st.sampled_from("\x00\x07\x1b\x7f\x9b\r\n\t\u200d\u202e\u2028\ufeff\ud800\ufe0f\u0301ab []"),
    max_size=50,
)
any_body = st.recursive(
    st.none() | st.integers() | st.floats() | any_text | st.binary(max_size=100),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(any_text, inner, max_size=8),
    max_leaves=30,
)


def assert_safe(text: str) -> None:
    assert text.isprintable()
    bad = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert not [c for c in text if unicodedata.category(c) in bad]


@given(any_text)
def test_no_text_reaches_the_screen_unsafe(text: str) -> None:
    assert_safe(printable(text))
    assert len(printable(text)) <= len(text)


@given(any_text, st.integers(0, 60))
def test_a_text_is_bounded(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert_safe(shown)
    assert len(shown) <= limit + NOTE_CHARACTERS


@given(any_body)
def test_no_body_reaches_the_screen_unsafe(body: Any) -> None:
    shown = body_text(body)
    assert shown
    assert_safe(shown)
    assert len(shown) <= SCREEN_CHARACTERS_MAX + NOTE_CHARACTERS


@given(any_text, any_text)
def test_nothing_else_of_a_stranger_does(one: str, other: str) -> None:
    message = Delivery(PEER, one, ContentType.TEXT, is_broadcast=False, topic=other)
    assert_safe(message_line(message))
    for _, text in message_fragments(message):
        assert_safe(text)
    assert_safe(label(one))
    assert_safe(event_line(NeighbourDown(PEER, one, by_us=False, neighbours=0)))
    assert_safe(event_line(EntryFailed(Address(one, 1), other, not_admitted=False)))
    assert_safe(error_line(Unreachable(one)))
    for line in as_text(PeersTable([info(address=one, state=other)])).splitlines():
        assert_safe(line)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("grüße, 世界 🎉 שלום", "grüße, 世界 🎉 שלום"),
        ("\x1b[2Jx", "␛[2Jx"),
        ("\x1b]0;title\x07", "␛]0;title␇"),
        ("\x1b]52;c;aGk=\x1b\\", "␛]52;c;aGk=␛\\"),  # sets the clipboard
        ("\x9b31m\x7f", "\N{REPLACEMENT CHARACTER}31m␡"),
        ("a\u202ecod.exe\u2069", "acod.exe"),
        ("pass\u200bword\u00ad\ufeff", "password"),
        ("👩\u200d🚀", "👩🚀"),
        ("❤\ufe0f", "❤"),
        ("a\nb\r\nc\rd\u2028e\x85f", "a⏎b⏎c⏎d⏎e⏎f"),
        ("a\tb\u00a0c", "a b c"),
        ("x\ud800y\ue000\U0010ffff", "x" + "\N{REPLACEMENT CHARACTER}".join(["", "y", "", ""])),
        ("e\u0301" + "\u0301" * 50, "e" + "\u0301" * 4),
        ("\u3164\u115f", ""),
        ("[bold]no markup[/bold]", "[bold]no markup[/bold]"),
    ],
)
def test_what_becomes_of_special_characters(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_long_text_says_how_long_it_is() -> None:
    assert printable("x" * (1 << 20), 5) == "xxxxx… (1,048,576 characters)"


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("hello", "hello"),
        ("\u200b\u200b", "(2 characters, none of them visible)"),
        (b"", "(0 bytes)"),
        (b"\x00\x1b", "(2 bytes: 00 1b)"),
        (bytes(1024), f"(1,024 bytes: {' '.join(['00'] * 16)} …)"),
        ({"a": [1, None]}, "{'a': [1, None]}"),
        (list(range(100_000)), "[0, 1, 2, 3, 4, 5, ...]"),
        ("[red]", "[red]"),
    ],
)
def test_bodies(body: Any, shown: str) -> None:
    assert body_text(body) == shown


def test_a_number_without_decimal_text() -> None:
    assert body_text(10**5000) == "(int)"


def test_a_message_names_its_writer_and_topic() -> None:
    message = Delivery(PEER, "hi", ContentType.TEXT, is_broadcast=True, topic="news")
    assert message_line(message) == f"{PEER.short} [news] -> hi"
    alone = Delivery(PEER, "hi", ContentType.TEXT, is_broadcast=False)
    assert message_line(alone) == f"{PEER.short} (to you alone) -> hi"
    assert "".join(text for _, text in message_fragments(message)) == message_line(message)


def test_a_colour_stays_with_a_peer() -> None:
    others = [PeerId(bytes([n]) * 32) for n in range(200)]
    assert colour_of(PEER) == colour_of(PeerId(bytes(PEER)))
    assert len({colour_of(peer) for peer in others}) == 12


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0.0 s"),
        (0.4, "0.4 s"),
        (0.96, "1 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (3599, "59 min"),
        (7500, "2 h 5 min"),
        (7200, "2 h"),
        (86_400, "1 d"),
        (100_000, "1 d 3 h"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        (3 << 20, "3.0 MiB"),
        (5 << 40, "5.0 TiB"),
    ],
)
def test_sizes(count: int, shown: str) -> None:
    assert size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "-"), (0.000_42, "0.42 ms"), (0.038, "38 ms"), (0.9999, "1.0 s"), (1.2, "1.2 s")],
)
def test_round_trips(seconds: float | None, shown: str) -> None:
    assert round_trip(seconds) == shown


def test_counts() -> None:
    assert [counted(n, "line") for n in (0, 1, 2)] == ["no lines", "1 line", "2 lines"]


def test_what_goes_on_between_applications() -> None:
    counts = {"conversations_open": 2, "requests_waiting": 1, "requests_served": 0}
    line = "2 conversations open, 1 request waiting, no requests being answered"
    assert exchanges(counts) == line
    assert exchanges({**counts, "queueing_s": 0.0009}) == line
    queued = exchanges({**counts, "queueing_s": 0.25})
    assert queued == f"{line}; messages queue for 250 ms on their way here"


def test_counts_of_another_version_are_left_out() -> None:
    assert exchanges({"requests_waiting": 3, "new": {}}) == "3 requests waiting"


def test_the_counts_that_are_shown_exist() -> None:
    shown = {"conversations_open", "requests_waiting", "requests_served", "queueing_s"}
    assert shown <= set(NodeStatistics.__struct_fields__)


def test_a_table_of_peers() -> None:
    text = as_text(PeersTable([info(), info(state="[bold]heard[/bold]", rtt_s=None)]))
    heading, first, second = text.splitlines()
    assert " ".join(heading.split()) == "peer state met address RTT jitter fails linked seen in out"
    shown = f"{PEER.short} neighbour walk 192.0.2.7:55555 38 ms - 3 1 min 2 s 12 1,234"
    assert " ".join(first.split()) == shown
    assert "[bold]heard[/bold]" in second
    assert "\x1b" not in text


ALL = "peer state met address RTT jitter fails linked seen in out"
BUSY: dict[str, Any] = {
    "address": "tcp://203.114.201.177:55555",
    "rtt_s": 0.000_42,
    "jitter_s": 0.000_11,
    "messages_in": 23_456,
    "messages_out": 123_456,
    "met": "exchange",
    "linked_s": 59 * 60.0,
}


@pytest.mark.parametrize(
    ("columns", "heading", "cells"),
    [
        (200, ALL, "0.42 ms 0.11 ms 3 59 min 2 s 23,456 123,456"),
        (100, ALL, "0.42 ms 0.11 ms 3 59 min 2 s 23,456 123,456"),
        (96, ALL, "0.42 ms 0.11 ms 3 59 min 2 s 23k 123k"),
        (88, ALL.replace(" jitter", ""), "0.42 ms 3 59 min 2 s 23k 123k"),
        (80, "peer state met address RTT fails linked seen", "0.42 ms 3 59 min 2 s"),
        (60, "peer state address RTT linked seen", "0.42 ms 59 min 2 s"),
        (40, "peer state address", ""),
    ],
)
def test_a_table_shows_whole_numbers_in_columns_that_fit(
    columns: int, heading: str, cells: str
) -> None:
    peers = [info(**BUSY), info(state="verified", **(BUSY | {"rtt_s": 0.999})), info()]
    lines = as_text(PeersTable(peers), columns).splitlines()
    assert len(lines) == 4, "nothing folds"
    assert max(map(len, lines)) <= columns
    assert lines[0].split() == heading.split()
    met = "exchange " if " met " in heading else ""
    shown = f"{PEER.short} neighbour {met}203.114.201.177:55555 {cells}".strip()
    assert " ".join(lines[1].split()) == shown


@given(
    st.lists(
        st.tuples(st.integers(0, 10**13), st.floats(0, 1e9), st.none() | st.floats(0, 1e4)),
        max_size=3,
    ),
    st.integers(20, 200),
)
def test_no_number_is_ever_cut(figures: list[tuple[int, float, float | None]], width: int) -> None:
    peers = [
        info(rtt_s=rtt_s, messages_in=count, messages_out=count, linked_s=span, jitter_s=rtt_s)
        for count, span, rtt_s in figures
    ]
    lines = as_text(PeersTable(peers), width).splitlines()
    assert max(map(len, lines)) <= width
    headings = lines[0].split()
    for count, span, rtt_s in figures:
        text = " ".join(" ".join(lines).split())
        if "RTT" in headings:
            assert round_trip(rtt_s) in text
        if "in" in headings:
            assert f" {count:,} " in f"{text} " or f" {short_count(count)} " in f"{text} "
        if "linked" in headings:
            assert " ".join(duration(span).split()[:2]) in text


def test_a_narrow_table_folds_texts_and_loses_none() -> None:
    long = "tcp://[2001:db8:85a3:1234:5678:8a2e:370:7334]:55555"
    lines = as_text(PeersTable([info(address=long)]), 80).splitlines()
    assert lines[1].endswith(" 12 1.2k")
    folded = lines[1].split()[3] + "".join(line.split()[-1] for line in lines[2:])
    assert folded == long.removeprefix("tcp://")
    lines = as_text(PeersTable([info(address=long)]), 20).splitlines()
    folded = "".join(line.split()[-1] for line in lines[2:])
    assert folded == long.removeprefix("tcp://")


def test_who_was_only_heard_of_has_not_been_seen() -> None:
    lines = as_text(PeersTable([info(seen_s_ago=None, linked_s=None)])).splitlines()
    assert " ".join(lines[1].split()).endswith(" 3 - - 12 1,234")


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.0k"),
        (9949, "9.9k"),
        (23_456, "23k"),
        (999_499, "999k"),
        (999_500, "1.0M"),
        (45_000_000, "45M"),
        (2_000_000_000, "2.0G"),
    ],
)
def test_short_counts(count: int, shown: str) -> None:
    assert short_count(count) == shown


ME = "a" * 52


def standing(**known: Any) -> str:
    neighbours = known.pop("neighbours", 3)
    counts = {"fragment_size": 30, "leader": "b" * 52, "beacon_heard_at": 96.0, **known}
    return fragment(counts, ME, neighbours, 100.0)


def test_of_which_fragment_a_node_is() -> None:
    assert standing() == "about 30 nodes; beacon of bbbbbbbb heard 4 s ago"
    assert standing(leader=ME) == "about 30 nodes; this node leads"
    assert standing(leader=None, beacon_heard_at=None) == "about 30 nodes; no beacon heard yet"
    assert standing(neighbours=0, fragment_size=4) == "alone (lately about 4 nodes)"
    assert standing(neighbours=0, fragment_size=4, leader=ME) == "alone (lately about 4 nodes)"
    assert standing(neighbours=0, fragment_size=1, leader=ME) == "alone"
    assert standing(fragment_size=1).startswith("about 1 node;")
    assert standing(fragment_size=2**64).startswith("over 1,000,000 nodes;")
    assert standing(fragment_size=12_345).startswith("about 12,345 nodes;")
    assert fragment({}, ME, 3, 100.0) == "not known"


def test_what_is_shown_of_a_fragment_exists() -> None:
    shown = {"fragment_size", "leader", "beacon_heard_at"}
    assert shown <= set(OverlayStatistics.__struct_fields__)


def test_a_hostile_table_stays_in_its_lines() -> None:
    text = as_text(PeersTable([info(address=HOSTILE)]))
    assert len(text.splitlines()) == 2
    assert "\x1b" not in text


def info(**known: Any) -> PeerInfo:
    peer = PeerInfo(
        peer=PEER,
        state="neighbour",
        address="tcp://192.0.2.7:55555",
        rtt_s=0.038,
        jitter_s=None,
        failures=3,
        seen_s_ago=2.0,
        met="walk",
        linked_s=90.0,
        messages_in=12,
        messages_out=1234,
    )
    return msgspec.structs.replace(peer, **known)
