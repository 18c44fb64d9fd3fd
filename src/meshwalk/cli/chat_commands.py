"""What a line typed into the chat means: text for everyone, or a command."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final, TypeAlias

import msgspec

from meshwalk.cli.chat_rooms import MAIN, is_possible, room_of


class Say(msgspec.Struct, frozen=True):
    """Send this to everyone."""

    text: str


class Connect(msgspec.Struct, frozen=True):
    """Join through an address or invite; None: the default entry."""

    entry: str | None


class Enter(msgspec.Struct, frozen=True):
    """Go to a room, and show what is written there."""

    room: str


class Leave(msgspec.Struct, frozen=True):
    """Show no more of a room; None: of the one where one is."""

    room: str | None


class Unknown(msgspec.Struct, frozen=True):
    """Not to be sent: it looks like a command. `why` tells the user."""

    why: str


class Plain(Enum):
    """Commands without an argument."""

    NOTHING = auto()
    """An empty line."""
    ROOMS = auto()
    HISTORY = auto()
    PEERS = auto()
    WHO = auto()
    INVITE = auto()
    VERBOSE = auto()
    HELP = auto()
    QUIT = auto()


Command: TypeAlias = Say | Connect | Enter | Leave | Unknown | Plain

HELP: Final = """\
Type a line and press Enter: everyone gets it who is in the same room.
  connect               join through this machine's first node, 127.0.0.1:55555
  connect ADDRESS       join through HOST:PORT or an invite
  /join ROOM            go to a room, which need not exist; alone: the main room
  /leave                hear no more of this room; or of another: /leave ROOM
  /rooms                rooms you are in, and where others have written lately
  /history              what others wrote here in the last hour, as far as it is kept
  /peers                neighbours: where they are, how fast, since when
  /who                  you, your neighbours, and who has spoken lately
  /invite               what to give to others so that they can join
  /verbose              show all news of the network, or only what matters
  /help                 this
  quit                  leave; also exit, /quit and Ctrl-D
  //text                send a line that begins with a slash"""

_PLAIN: Final = {
    "/rooms": Plain.ROOMS,
    "/history": Plain.HISTORY,
    "/peers": Plain.PEERS,
    "/who": Plain.WHO,
    "/invite": Plain.INVITE,
    "/verbose": Plain.VERBOSE,
    "/help": Plain.HELP,
    "/quit": Plain.QUIT,
    "/exit": Plain.QUIT,
}
_LEAVING: Final = {"quit", "exit"}  # seed 000
# What completion offers, with a word about each.
SLASH_COMMANDS: Final = {
    "/connect": "join through an address or an invite",
    "/help": "all commands",
    "/history": "the last hour of this room",
    "/invite": "what to give to others",
    "/join": "go to a room",
    "/leave": "hear no more of a room",
    "/peers": "neighbours and how fast they are",
    "/quit": "leave",
    "/rooms": "where you are, and where others write",
    "/verbose": "all news, or only what matters",
    "/who": "who is here",
}


def parse(line: str) -> Command:
    """Read one line, with or without its line end.

    Words without a slash are commands only when nothing else could be meant: `quit` and `exit`
    alone, `connect` alone or with one more word. Everything else without a slash in the first
    column is text; "//text" is the text "/text".
    """
    text = line.rstrip("\r\n")
    words = text.split()
    if not words:
        return Plain.NOTHING
    if text.startswith("//"):
        return Say(text[1:])
    if text.startswith("/"):
        return _slash(words)
    first = words[0].lower()
    if first == "connect" and len(words) <= 2:
        return Connect(words[1] if len(words) == 2 else None)
    if first == "connect" and words[1].startswith("meshwalk:"):
        return Unknown("connect takes one invite and nothing else; nothing was sent")
    if len(words) == 1 and first in _LEAVING:
        return Plain.QUIT
    return Say(text)


def _slash(words: list[str]) -> Command:
    name, arguments = words[0].lower(), words[1:]
    if name == "/connect":
        if len(arguments) > 1:
            return Unknown("/connect takes one address or invite; nothing was sent")
        return Connect(arguments[0] if arguments else None)
    if name in ("/join", "/leave"):
        return _to_room(name, arguments)
    if name in _PLAIN:
        if arguments:
            return Unknown(f"{name} stands alone; nothing was sent")
        return _PLAIN[name]
    return Unknown(f"there is no command {words[0]}; /help lists them, //text sends a slash")


def _to_room(name: str, arguments: list[str]) -> Command:
    if len(arguments) > 1:
        return Unknown(f"{name} takes one room, a word without spaces; nothing was sent")
    room = room_of(arguments[0]) if arguments else None
    if room is not None and not is_possible(room):
        return Unknown("no room can have this name; nothing was sent")
    return Leave(room) if name == "/leave" else Enter(room or MAIN)
