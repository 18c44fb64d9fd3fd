"""The rooms of a chat: topics of broadcasts. Which are joined, where one is, what was seen."""

from __future__ import annotations

from typing import Final

import msgspec

from meshwalk.cli.render import counted, duration, label
from meshwalk.events import Delivery
from meshwalk.net.control import TRACE_TOPIC
from meshwalk.proto.commands import TYPE_CHARACTERS_MAX

MAIN: Final = ""
"""The room that everyone begins in: broadcasts without a topic."""

JOINED_MAX: Final = 50  # guess: more than anyone follows
SEEN_MAX: Final = 200  # guess: strangers make them up; the one silent for longest is forgotten
LISTED_MAX: Final = 20  # guess: of those not joined; half a screen


class _Seen(msgspec.Struct):
    """What has been heard in a room since the chat began."""

    messages: int
    last_at: float


class Rooms:
    """Where one chat is. `now` is any clock in seconds."""

    def __init__(self, here: str = MAIN) -> None:
        self.here = here
        """What is typed goes there."""
        self.joined = {here: None}
        """What is written there is shown; the latest stands last."""
        self._seen: dict[str, _Seen] = {}

    def heard(self, message: Delivery, now: float) -> bool:
        """Note a message; whether it is to be shown. One to this node alone always is."""
        if not message.is_broadcast:
            return True
        room = message.topic
        if room == TRACE_TOPIC:
            return False
        seen = self._seen.pop(room, None) or _Seen(0, now)
        self._seen[room] = _Seen(seen.messages + 1, now)  # the latest stands last
        if len(self._seen) > SEEN_MAX:
            del self._seen[next(iter(self._seen))]
        return room in self.joined

    def join(self, room: str) -> bool:
        """Go there; false: too many are joined."""
        if room not in self.joined and len(self.joined) >= JOINED_MAX:
            return False
        self.joined.pop(room, None)
        self.joined[room] = None
        self.here = room
        return True

    def leave(self, room: str) -> str:
        """Hear no more of a room; in one line what became of it."""
        if room not in self.joined:
            return f"you are not in {name_of(room)}"
        if len(self.joined) == 1:
            return f"{name_of(room)} is the only room you are in; quit leaves the chat"
        del self.joined[room]
        if room == self.here:
            self.here = next(reversed(self.joined))
        return f"left {name_of(room)}; you are in {name_of(self.here)}"

    def listing(self, now: float) -> str:
        """The rooms that are joined, then those where somebody has written lately."""
        lines = [self._line(room, now) for room in self.joined]
        others = [room for room in reversed(self._seen) if room not in self.joined]
        lines += [self._line(room, now) for room in others[:LISTED_MAX]]
        if len(others) > LISTED_MAX:
            lines.append(f"{len(others) - LISTED_MAX} more, where it has been quiet for longer")
        return "\n".join(lines)

    def _line(self, room: str, now: float) -> str:
        standing = "here" if room == self.here else "joined" if room in self.joined else ""
        seen = self._seen.get(room)
        if seen is None:
            told = "nothing yet"
        else:
            ago = "just now" if now - seen.last_at < 1 else f"{duration(now - seen.last_at)} ago"
            told = f"{counted(seen.messages, 'message')}, the last {ago}"
        return f"{standing:<6}  {name_of(room)}: {told}"


def room_of(text: str) -> str:
    """The room that a word names: "#cats" and "cats" are the same, "#" is the main room."""
    return text.removeprefix("#")


def is_possible(room: str) -> bool:
    """Whether a broadcast may have this topic."""
    try:
        room.encode()
    except UnicodeEncodeError:  # typed in bytes that are no text
        return False
    return len(room) <= TYPE_CHARACTERS_MAX and room != TRACE_TOPIC


def name_of(room: str) -> str:
    """A room's name for people, made safe."""
    return f"#{label(room)}" if room else "the main room"
