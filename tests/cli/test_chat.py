"""The chat's parts: what a line means, what news is told, how a stream becomes lines."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwalk.cli.chat_commands import (
    HELP,
    SLASH_COMMANDS,
    Connect,
    Enter,
    Leave,
    Plain,
    Say,
    Unknown,
    parse,
)
from meshwalk.cli.chat_news import PAUSE_S, News
from meshwalk.cli.chat_pipes import LineSplitter
from meshwalk.errors import TooBig
from meshwalk.events import (
    Alone,
    EntryFailed,
    Event,
    FragmentFound,
    Joined,
    MessagesDropped,
    NeighbourDown,
    NeighbourUp,
    StoreFailed,
)
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId

PEER = PeerId(bytes(range(32)))
HERE = Address("127.0.0.1", 1)


# What a line means.


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("", Plain.NOTHING),
        (" \t \n", Plain.NOTHING),
        ("\r\n", Plain.NOTHING),
        ("hello\n", Say("hello")),
        ("  two  spaces ", Say("  two  spaces ")),
        ("exit", Plain.QUIT),
        (" quit ", Plain.QUIT),
        ("/quit", Plain.QUIT),
        ("quit it", Say("quit it")),
        ("connect", Connect(None)),
        ("/connect", Connect(None)),
        ("connect 192.0.2.7:1", Connect("192.0.2.7:1")),
        ("/connect meshwalk://x@y:1/z", Connect("meshwalk://x@y:1/z")),
        ("connect the red wire", Say("connect the red wire")),
        ("Connect 192.0.2.7:1", Connect("192.0.2.7:1")),
        ("/peers", Plain.PEERS),
        ("/join cats", Enter("cats")),
        ("/JOIN #Cats", Enter("Cats")),
        ("/join", Enter("")),
        ("/join #", Enter("")),
        ("/leave", Leave(None)),
        ("/leave cats", Leave("cats")),
        ("/leave #", Leave("")),
        ("/rooms", Plain.ROOMS),
        ("/history", Plain.HISTORY),
        ("/WHO", Plain.WHO),
        ("/invite ", Plain.INVITE),
        ("/verbose", Plain.VERBOSE),
        ("/help", Plain.HELP),
        ("//etc/passwd", Say("/etc/passwd")),
        ("//", Say("/")),
        (" /peers", Say(" /peers")),
        ("a/b", Say("a/b")),
        ("one\ntwo", Say("one\ntwo")),
    ],
)
def test_what_a_line_means(line: str, command: object) -> None:
    assert parse(line) == command


@pytest.mark.parametrize(
    "line",
    [
        "/",
        "/nonsense",
        "/connect a b",
        "/peers now",
        "/ etc",
        "connect meshwalk://x@y:1/z now",
        "/join two words",
        "/leave two words",
        f"/join {'x' * 256}",
        "/join meshwalk:trace",
        "/join \udcff",
        "/rooms now",
    ],
)
def test_what_looks_like_a_command_is_not_sent(line: str) -> None:
    assert isinstance(parse(line), Unknown)


@given(st.text(st.characters(codec=None)))
def test_any_line_means_something(line: str) -> None:
    command = parse(line)
    assert not isinstance(command, Say) or command.text.strip()


def test_help_and_completion_name_only_what_there_is() -> None:
    for name in SLASH_COMMANDS:
        assert not isinstance(parse(name), Unknown)
        assert name.removeprefix("/") in HELP


# What news is told.


def up(count: int) -> Event:
    return NeighbourUp(PEER, HERE, count)


def down(count: int) -> Event:
    return NeighbourDown(PEER, "gone", by_us=False, neighbours=count)


def test_joining_is_one_line_and_the_rest_of_the_links_another() -> None:
    news = News()
    assert news.feed(up(1), 0.0) == []
    assert news.feed(Joined(PEER), 0.0) == [f"joined: linked with {PEER.short}"]
    assert news.deadline() is None
    assert [news.feed(up(n), 0.1 * n) for n in (2, 3, 4)] == [[], [], []]
    due = news.deadline() or 0.0
    assert due == pytest.approx(0.2 + PAUSE_S)
    assert news.tick(due - 0.01) == []
    assert news.tick(due) == ["4 neighbours now"]
    assert news.tick(due + 9) == []


def test_a_link_that_is_replaced_at_once_is_no_news() -> None:
    news = News()
    news.feed(up(1), 0.0)
    news.feed(Joined(PEER), 0.0)
    assert news.feed(up(2), 1.0) == []
    assert news.feed(down(1), 1.5) == []
    assert news.deadline() is None


def test_being_alone_is_one_line() -> None:
    news = News()
    news.feed(up(1), 0.0)
    news.feed(Joined(PEER), 0.0)
    assert news.feed(down(0), 5.0) == []
    assert len(news.feed(Alone(), 5.0)) == 1
    assert news.deadline() is None


def test_the_same_failure_is_told_once() -> None:
    news = News()
    refused = EntryFailed(HERE, "connection refused\x1b", not_admitted=False)
    assert news.feed(refused, 0.0) == ["127.0.0.1:1: connection refused␛; trying again"]
    assert news.feed(refused, 1.0) == []
    other = EntryFailed(HERE, "wrong secret", not_admitted=True)
    assert news.feed(other, 2.0) == ["127.0.0.1:1: wrong secret"]
    for port in range(1000):
        assert news.feed(EntryFailed(Address("h", port), "no", not_admitted=False), 3.0)


def test_trouble_is_told() -> None:
    assert "3 messages" in News().feed(MessagesDropped(3, "slow"), 0.0)[0]
    assert "disk" in News().feed(StoreFailed("the disk is full"), 0.0)[0]


def test_another_fragment_is_one_line() -> None:
    found = FragmentFound(PEER, 3, 40)
    assert News().feed(found, 0.0) == [str(found)]
    sizes = "of about 3 nodes, ours of about 40 nodes"
    assert str(found) == f"{PEER.short} is in another fragment {sizes}; joining them"
    lie = FragmentFound(PEER, 2**64 - 1, 1)
    assert "of over 1,000,000 nodes, ours of about 1 node;" in str(lie)


def test_verbose_tells_everything() -> None:
    news = News()
    news.verbose = True
    for event in (up(1), Joined(PEER), up(2), down(1)):
        assert len(news.feed(event, 0.0)) == 1
    assert news.deadline() is None


# Lines from pipes.


@given(st.binary(max_size=60), st.lists(st.integers(0, 60)))
def test_lines_are_the_same_however_they_arrive(data: bytes, cuts: list[int]) -> None:
    def lines(parts: list[bytes]) -> list[str]:
        splitter = LineSplitter(limit=8)
        found = [line for part in parts for line in splitter.feed(part)]
        return [repr(line) for line in found + splitter.finish()]

    places = [0, *sorted(cuts), 60]
    parts = [data[a:b] for a, b in pairwise(places)]
    assert lines(parts) == lines([data])


def test_too_long_a_line_is_told_and_the_next_is_read() -> None:
    splitter = LineSplitter(limit=4)
    assert splitter.feed(b"ab\n12345") == ["ab"]
    long, last = splitter.feed(b"678\ncd\nrest")
    assert isinstance(long, TooBig)
    assert (long.size, long.limit) == (8, 4)
    assert last == "cd"
    assert splitter.finish() == ["rest"]
