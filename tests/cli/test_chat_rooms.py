"""Rooms: which messages are shown, where one is, and what strangers cannot fill up."""

from __future__ import annotations

from meshwalk.cli import chat_rooms
from meshwalk.cli.chat_rooms import MAIN, Rooms, name_of
from meshwalk.events import Delivery
from meshwalk.net.control import TRACE_TOPIC
from meshwalk.wire.frames import ContentType
from meshwalk.wire.peerid import PeerId


def message(room: str, *, is_broadcast: bool = True) -> Delivery:
    return Delivery(PeerId(bytes(32)), "x", ContentType.TEXT, is_broadcast, room)


def test_what_is_shown_is_what_was_joined() -> None:
    rooms = Rooms()
    assert rooms.heard(message(MAIN), 0.0)
    assert not rooms.heard(message("cats"), 0.0)
    assert rooms.heard(message("cats", is_broadcast=False), 0.0)
    assert rooms.join("cats")
    assert rooms.heard(message("cats"), 0.0)
    assert rooms.heard(message(MAIN), 0.0)
    rooms.leave(MAIN)
    assert not rooms.heard(message(MAIN), 0.0)


def test_leaving_goes_back_to_where_one_was_before() -> None:
    rooms = Rooms("a")
    rooms.join("b")
    rooms.join("c")
    rooms.join("a")
    assert rooms.leave("nowhere") == "you are not in #nowhere"
    assert rooms.leave("b") == "left #b; you are in #a"
    assert rooms.leave("a") == "left #a; you are in #c"
    assert "only room" in rooms.leave("c")
    assert rooms.here == "c"


def test_the_list() -> None:
    rooms = Rooms()
    rooms.heard(message("cats"), 0.0)
    rooms.heard(message("dogs\x1b[2J"), 60.0)
    rooms.heard(message("cats"), 60.0)
    rooms.heard(message(TRACE_TOPIC), 60.0)
    rooms.join("birds")
    assert rooms.listing(120.0).splitlines() == [
        "joined  the main room: nothing yet",
        "here    #birds: nothing yet",
        "        #cats: 2 messages, the last 1 min ago",
        "        #dogs␛[2J: 1 message, the last 1 min ago",
    ]


def test_strangers_cannot_fill_it_up() -> None:
    rooms = Rooms()
    rooms.heard(message("old"), 0.0)
    for number in range(10_000):
        rooms.heard(message(f"made up {number}"), 1.0)
    listed = rooms.listing(2.0).splitlines()
    assert len(listed) == 1 + chat_rooms.LISTED_MAX + 1
    assert listed[-1].startswith(f"{chat_rooms.SEEN_MAX - chat_rooms.LISTED_MAX} more")
    assert "old" not in rooms.listing(2.0)


def test_nobody_joins_too_many() -> None:
    rooms = Rooms()
    joined = [rooms.join(f"{number}") for number in range(chat_rooms.JOINED_MAX)]
    assert joined == [True] * (chat_rooms.JOINED_MAX - 1) + [False]
    assert rooms.join("0")
    assert rooms.here == "0"


def test_a_long_name_is_cut() -> None:
    assert len(name_of("x" * 255)) < 70
