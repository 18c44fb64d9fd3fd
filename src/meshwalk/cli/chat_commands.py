"""What a line typed into the chat means: text for everyone, or a command."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final, TypeAlias

import msgspec


class Say(msgspec.Struct, frozen=True):
    """Send this to everyone."""

    text: str


class Connect(msgspec.Struct, frozen=True):
    """Join through an address or invite; None: the default entry."""

    entry: str | None


class Unknown(msgspec.Struct, frozen=True):
    """Not to be sent: it looks like a command. `why` tells the user."""

    why: str


class Plain(Enum):
    """Commands without an argument."""

    NOTHING = auto()
    """An empty line."""
    PEERS = auto()
    WHO = auto()
    INVITE = auto()
    VERBOSE = auto()
    HELP = auto()
    QUIT = auto()


Command: TypeAlias = Say | Connect | Unknown | Plain

HELP: Final = """\
Type a line and press Enter: everyone in the network gets it.
  connect               join through this machine's first node, 127.0.0.1:55555
  connect ADDRESS       join through HOST:PORT or an invite
  /peers                neighbours: where they are, how fast, since when
  /who                  you, your neighbours, and who has spoken lately
  /invite               what to give to others so that they can join
  /verbose              show all news of the network, or only what matters
  /help                 this
  quit                  leave; also exit, /quit and Ctrl-D
  //text                send a line that begins with a slash"""

_PLAIN: Final = {
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
    "/invite": "what to give to others",
    "/peers": "neighbours and how fast they are",
    "/quit": "leave",
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
    if name in _PLAIN:
        if arguments:
            return Unknown(f"{name} stands alone; nothing was sent")
        return _PLAIN[name]
    return Unknown(f"there is no command {words[0]}; /help lists them, //text sends a slash")
