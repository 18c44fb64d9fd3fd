"""Text shown to people: pure functions. Nothing that a stranger wrote reaches a screen but through
`printable`, which leaves no character that a terminal could take for a command."""

from __future__ import annotations

import re
import reprlib
import time
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import StringIO
from typing import Any, Final

import msgspec
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from meshwalk.events import Delivery, Event, about
from meshwalk.net.peers import PeerInfo
from meshwalk.wire.peerid import SHORT_CHARACTERS, PeerId

SCREEN_CHARACTERS_MAX = 1000  # guess: twelve lines of 80 columns, half of a screen
LABEL_CHARACTERS_MAX = 40  # guess: half a line for a topic, a reason or an agent
HEX_BYTES_MAX = 16  # one line of a hex dump, as xxd prints it
COMBINING_MAX = 4  # guess: Vietnamese and Hebrew need up to three; more climb into other lines
TABLE_COLUMNS = 100  # the line length of this project's own text
ADDRESS_COLUMNS = 21  # the longest IPv4 address with its port; a longer one may fold
EXACT_COUNT_MAX = 999  # else "1.2k": what the narrower table shows
QUEUEING_SHOWN_S = 0.001  # guess: less is what a scheduler does, and no queue

# Columns of a table of peers that go when there is no room, one set after the other. guess: what is
# missed least goes first; an operator wants to know who is where, and whether it lives.
LEFT_OUT: Final = (
    {"jitter"}, {"in", "out"}, {"met"}, {"fails"}, {"linked"}, {"seen"}, {"RTT"},
)  # fmt: skip

NEWLINE_MARK: Final = "⏎"
REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"

# Letters and marks that Unicode says are drawn as nothing: DerivedCoreProperties.txt,
# Default_Ignorable_Code_Point, without those that str.isprintable() refuses already.
_INVISIBLE: Final = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0"
_HIDDEN: Final = re.compile(f"[{_INVISIBLE}\U000e0100-\U000e01ef]")
_LINE_ENDS: Final = re.compile("\r\n|[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")

# Middle tones, legible on black and on white. No red, which is for problems.
_COLOURS: Final = (
    "#5f87d7", "#5faf5f", "#af87d7", "#d7875f", "#00afaf", "#d75faf",
    "#af8700", "#5f5fd7", "#87af00", "#af5fff", "#00af87", "#d787af",
)  # fmt: skip


def printable(text: str, limit: int = SCREEN_CHARACTERS_MAX) -> str:
    """The text as one line that is safe on any terminal, at most `limit` characters of it.

    Line ends become "⏎", tabs and odd spaces a space, control characters their pictures ("␛"), or
    "\N{REPLACEMENT CHARACTER}" where there is none. What cannot be seen is left out: bidi controls,
    zero-width characters, variation selectors. A longer text ends in "… (1,048,576 characters)".
    """
    shown = text[:limit]
    if not shown.isprintable() or _HIDDEN.search(shown):
        shown = "".join(map(_safe, _LINE_ENDS.sub("\n", shown)))
    if not shown.isascii():
        shown = _without_towers(shown)
    if len(text) > limit:
        shown += f"… ({len(text):,} characters)"
    return shown


def label(text: str) -> str:
    """`printable` for what stands beside other text: topics, reasons, agents."""
    return printable(text, LABEL_CHARACTERS_MAX)


def body_text(body: Any, limit: int = SCREEN_CHARACTERS_MAX) -> str:
    """A message's body in one safe line: text as it is, bytes as size and start, the rest cut."""
    if isinstance(body, str):
        shown = printable(body, limit)
        if shown.strip():
            return shown
        return f"({len(body):,} characters, none of them visible)"
    if isinstance(body, bytes | bytearray | memoryview):
        start = bytes(body[:HEX_BYTES_MAX]).hex(" ")
        more = " …" if len(body) > HEX_BYTES_MAX else ""
        return f"({len(body):,} bytes: {start}{more})" if start else "(0 bytes)"
    try:
        return printable(reprlib.repr(body), limit)
    except ValueError:  # int(): no decimal text for more than 4,300 digits
        return f"({type(body).__name__})"


def message_line(message: Delivery, limit: int = SCREEN_CHARACTERS_MAX) -> str:
    """`k3v7abcd -> hello`: who wrote it, under what topic or for whom alone, and the body."""
    return f"{message.origin.short}{_kind(message)} -> {body_text(message.body, limit)}"


def message_fragments(
    message: Delivery, limit: int = SCREEN_CHARACTERS_MAX
) -> list[tuple[str, str]]:
    """`message_line` as (style, text) for a terminal, the origin in its colour."""
    return [
        (f"{colour_of(message.origin)} bold", message.origin.short),
        ("#808080", f"{_kind(message)} -> "),
        ("", body_text(message.body, limit)),
    ]


def sent_at(message: Delivery) -> str:
    """`14:03`: when it was sent, by this machine's time of day and the origin's clock."""
    return time.strftime("%H:%M", time.localtime(message.sent_at))


def colour_of(peer: PeerId) -> str:
    """A colour that stays with a peer. A help for the eye and no proof: there are only twelve."""
    return _COLOURS[int.from_bytes(peer[:4], "big") % len(_COLOURS)]


def event_line(event: Event) -> str:
    """An event in one safe line."""
    return printable(str(event))


def error_line(error: Exception) -> str:
    """An error in one safe line; its text may quote strangers."""
    return printable(str(error)) or type(error).__name__


# Numbers.


def duration(seconds: float) -> str:
    """A time span for people, in its two largest units: "0.4 s", "12 s", "3 min", "2 h 5 min"."""
    return " ".join(_in_units(seconds))


def size(count: int) -> str:
    """A number of bytes for people: "512 B", "1.5 KiB", "3.0 MiB"."""
    if count < 1024:
        return f"{count} B"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if value < 1023.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} TiB"


def short_count(count: int) -> str:
    """A number in four characters, or five from a billion on: "999", "1.2k", "23k", "4.5M"."""
    if count <= EXACT_COUNT_MAX:
        return f"{count}"
    value = float(count)
    for unit in "kM":
        value /= 1000
        if value < 9.95:
            return f"{value:.1f}{unit}"
        if value < 999.5:
            return f"{value:.0f}{unit}"
    return f"{value / 1000:.1f}G"


def round_trip(seconds: float | None) -> str:
    """A round-trip time for people: "0.42 ms", "38 ms", "1.2 s"; "-" when never measured."""
    if seconds is None:
        return "-"
    if seconds >= 0.9995:
        return f"{seconds:.1f} s"
    milliseconds = seconds * 1000
    return f"{milliseconds:.2f} ms" if milliseconds < 9.995 else f"{milliseconds:.0f} ms"


def counted(count: int, noun: str) -> str:
    """`1 neighbour`, `3 neighbours`, `no neighbours`."""
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"


def exchanges(counts: Mapping[str, Any]) -> str:
    """What goes on between a node's application and others', from its own `NodeStatistics`.

    "2 conversations open, 1 request waiting, no requests being answered; messages queue for 3 ms".
    What a node of another version does not count is left out.
    """
    parts = [
        f"{counted(counts[key], noun)} {doing}"
        for key, noun, doing in (
            ("conversations_open", "conversation", "open"),
            ("requests_waiting", "request", "waiting"),
            ("requests_served", "request", "being answered"),
        )
        if key in counts
    ]
    line = ", ".join(parts)
    queueing_s = counts.get("queueing_s", 0.0)
    if queueing_s >= QUEUEING_SHOWN_S:
        line += f"; messages queue for {round_trip(queueing_s)} on their way here"
    return line


def fragment(counts: Mapping[str, Any], me: str, neighbours: int, unix_now: float) -> str:
    """Of which part of the network a node is, from its own `OverlayStatistics`; `me` is its PeerId.

    "about 30 nodes; beacon of x2k7qw3a heard 4 s ago", "about 30 nodes; this node leads", "alone
    (lately about 4 nodes)". A node of another version may not know.
    """
    if "fragment_size" not in counts:
        return "not known"
    members = counts["fragment_size"]
    line = about(members)
    if not neighbours:  # what it knows is of the past
        return f"alone (lately {line})" if members > 1 else "alone"
    leader, heard_at = counts.get("leader"), counts.get("beacon_heard_at")
    if leader is None or heard_at is None:
        return f"{line}; no beacon heard yet"
    if leader == me:
        return f"{line}; this node leads"
    age = duration(max(0.0, unix_now - heard_at))
    return f"{line}; beacon of {leader[:SHORT_CHARACTERS]} heard {age} ago"


# Tables.


class _Column(msgspec.Struct):
    """A heading and what stands below it."""

    heading: str
    cells: list[str]
    is_number: bool = True

    @property
    def width(self) -> int:
        """What it needs; a text may fold, and so needs no more than an address."""
        needed = max(map(cell_len, [self.heading, *self.cells]))
        return needed if self.is_number else min(needed, ADDRESS_COLUMNS)


class PeersTable:
    """Peers, one a line, for a rich console of any width; `as_text` makes plain text of it.

    "met": how the peer first became known. "RTT" and "jitter": of its last pings. "fails": dials
    since it last answered. "seen": for how long it has been silent; "-" if only heard of. "in" and
    "out": messages. A number is never cut: where there is no room for all, counts are shortened,
    and then columns are left out.
    """

    def __init__(self, peers: Iterable[PeerInfo]) -> None:
        self._peers = list(peers)

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        shown = self._columns("{:,}".format)
        if not _has_room(shown, options.max_width):
            shown = self._columns(short_count)
            for without in LEFT_OUT:
                if _has_room(shown, options.max_width):
                    break
                shown = [column for column in shown if column.heading not in without]
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
        table.add_column("peer", overflow="fold")
        for column in shown:
            if column.is_number:
                table.add_column(column.heading, justify="right", no_wrap=True)
            else:
                table.add_column(column.heading, overflow="fold")
        for number, peer in enumerate(self._peers):
            name = Text(peer.peer.short, style=colour_of(peer.peer))
            table.add_row(name, *(Text(column.cells[number]) for column in shown))
        yield table

    def _columns(self, count: Callable[[int], str]) -> list[_Column]:
        """All but the first."""
        peers = self._peers

        def text(heading: str, cells: Iterable[str]) -> _Column:
            return _Column(heading, list(map(printable, cells)), is_number=False)

        return [
            text("state", (p.state for p in peers)),
            text("met", (p.met for p in peers)),
            text("address", (p.address.removeprefix("tcp://") for p in peers)),
            _Column("RTT", [round_trip(p.rtt_s) for p in peers]),
            _Column("jitter", [round_trip(p.jitter_s) for p in peers]),
            _Column("fails", [count(p.failures) for p in peers]),
            _Column("linked", [_roughly(p.linked_s) for p in peers]),
            _Column("seen", [_roughly(p.seen_s_ago) for p in peers]),
            _Column("in", [count(p.messages_in) for p in peers]),
            _Column("out", [count(p.messages_out) for p in peers]),
        ]


def _has_room(columns: Sequence[_Column], width: int) -> bool:
    return SHORT_CHARACTERS + sum(column.width + 1 for column in columns) <= width


def as_text(renderable: RenderableType, columns: int = TABLE_COLUMNS) -> str:
    """What rich draws, as plain text without colours and without blanks at line ends."""
    out = StringIO()
    Console(file=out, width=columns, color_system=None, highlight=False).print(renderable)
    return "\n".join(line.rstrip() for line in out.getvalue().strip("\n").splitlines())


# What the above share.


def _in_units(seconds: float) -> list[str]:
    """A time span in its largest unit, and then in the next one if that says anything."""
    if seconds < 0.95:
        return [f"{max(0.0, seconds):.1f} s"]
    whole = round(seconds)
    if whole < 60:
        return [f"{whole} s"]
    minutes = whole // 60
    if minutes < 60:
        return [f"{minutes} min"]
    hours, minutes = divmod(minutes, 60)
    days, hours_of_day = divmod(hours, 24)
    units = ((days, "d"), (hours_of_day, "h")) if days else ((hours, "h"), (minutes, "min"))
    return [f"{number} {unit}" for number, unit in units if number]


def _roughly(seconds: float | None) -> str:
    """A time span in its largest unit alone, since a table has no room for two; "-" for none."""
    return "-" if seconds is None else _in_units(seconds)[0]


def _kind(message: Delivery) -> str:
    topic = _in(message.topic)
    return topic if message.is_broadcast else f"{topic} (to you alone)"


def _in(topic: str) -> str:
    return f" [{label(topic)}]" if topic else ""


def _safe(character: str) -> str:
    if character.isprintable():
        return "" if _HIDDEN.match(character) else character
    if character == "\n":
        return NEWLINE_MARK
    if character == "\t":
        return " "
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode block Control Pictures: ␀ to ␟
    if code == 0x7F:
        return "␡"
    category = unicodedata.category(character)
    if category == "Zs":
        return " "
    # Private, unassigned, surrogate and C1 characters stand for something, so leave a trace.
    return "" if category == "Cf" else REPLACEMENT


def _without_towers(text: str) -> str:
    """Leave out combining marks beyond `COMBINING_MAX` in a row."""
    kept: list[str] = []
    run = 0
    for character in text:
        run = run + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        if run <= COMBINING_MAX:
            kept.append(character)
    return "".join(kept)


OWN_NAME: Final = "you".rjust(SHORT_CHARACTERS)


def own_fragments(text: str, topic: str = "") -> list[tuple[str, str]]:
    """An own line as (style, text) for a terminal, in line with those of others."""
    return [("bold", OWN_NAME), ("#808080", f"{_in(topic)} -> "), ("", printable(text))]
