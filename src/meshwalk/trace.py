"""Traces: what went into a node and what came out, one JSON line each. Write, read, compare.

A trace knows no machine by name. `proto/recording.py` makes the lines of a node, `sim/replay.py`
feeds them to a node again, and what they hold of frames and addresses is JSON that only those two
understand. docs/traces.md describes the format.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import Annotated, Final, Self, TypeAlias

import msgspec
from msgspec import Meta, Raw

from meshwalk.errors import InvalidArgument, StoreError

log = logging.getLogger("meshwalk")

FORMAT: Final = 1  # the first; raised when an older reader would misread a line
TRACE_BYTES_MAX: Final = 256 << 20  # guess: hours of a quiet node, and no disk is full of it
LINE_BYTES_MAX: Final = 32 << 20  # guess: 1,024 known peers at 4 KiB each are 6 MiB of base64
FLUSH_EVERY_S: Final = 1.0  # guess: what a crash may cost
FLUSH_BYTES: Final = 256 << 10  # guess: some thousand lines in one write
CONTEXT_LINES: Final = 10  # guess: half a screen before a difference
_TIME_MAX: Final = 1e12  # 30,000 years; up to here, an interval added to a time makes it later

STOPPED: Final = "stopped"
"""`End.why` of a trace that was closed in good order, so that its last step is whole."""

Seconds: TypeAlias = Annotated[float, Meta(ge=-_TIME_MAX, le=_TIME_MAX)]


class _Line(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True, tag_field="k"):
    node: str = msgspec.field(default="", name="n")
    """Which node of several in one trace: the host it has there. "" when there is only one."""


class Header(_Line, kw_only=True, frozen=True, tag="header"):
    """A node is made: the first line of a trace, and of each further node or run in it."""

    format: int
    meshwalk: str
    """The version that wrote the trace."""
    peer: str
    """The node's PeerId as text."""
    network: str
    """The network's id in hexadecimal."""
    config: Raw
    now: Seconds
    unix_offset_s: Seconds
    """Plus machine time this is Unix time."""
    agent: str
    seed: str
    """Of the node's random choices, in hexadecimal."""


class Input(_Line, kw_only=True, frozen=True, tag="in"):
    """A call of one of the node's inputs. What it led to follows, up to the next of these."""

    time: Seconds = msgspec.field(name="t")
    """Machine time; for an input that takes none, that of the input before."""
    name: str = msgspec.field(name="do")
    values: Raw = msgspec.field(name="v")
    """Its arguments, by name."""


class Signed(_Line, kw_only=True, frozen=True, tag="signed"):
    """The node signed something."""

    of: str
    """A digest of what was signed."""
    signature: bytes


class Verified(_Line, kw_only=True, frozen=True, tag="verified"):
    """The node checked a signature."""

    of: str
    """A digest of what was checked."""
    holds: bool


class Returned(_Line, kw_only=True, frozen=True, tag="returned"):
    """What the call returned beside effects."""

    value: Raw = msgspec.field(name="v")


class Output(_Line, kw_only=True, frozen=True, tag="out"):
    """An effect."""

    name: str = msgspec.field(name="do")
    value: Raw = msgspec.field(name="v")


class Raised(_Line, kw_only=True, frozen=True, tag="raised"):
    """The call raised what it never should: a defect."""

    error: str
    text: str


class Note(_Line, kw_only=True, frozen=True, tag="note"):
    """A remark of whoever writes the trace, such as a simulator's "partition"; not replayed."""

    text: str
    time: Seconds | None = msgspec.field(default=None, name="t")


class End(_Line, kw_only=True, frozen=True, tag="end"):
    """The last line. Without one the program was killed, or is still running."""

    why: str
    """`STOPPED`, or why nothing more was recorded."""


Line: TypeAlias = Header | Input | Signed | Verified | Returned | Output | Raised | Note | End
Numbered: TypeAlias = tuple[int, Line]
"""A line and its number in the file, from 1."""


class _Format(msgspec.Struct):
    format: int


_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


def encode_line(line: Line) -> bytes:
    """The line as JSON, without a line end."""
    return _encoder.encode(line)


def describe(line: Line) -> str:
    """The line for people, without the node; it may be long, and holds whatever peers sent."""
    match line:
        case Input():
            return f"{line.time:.6f} {line.name} {_text(line.values)}"
        case Output():
            return f"    {line.name} {_text(line.value)}"
        case Returned():
            return f"    returned {_text(line.value)}"
        case Header():
            return f"{line.now:.6f} node {line.peer}, meshwalk {line.meshwalk}, seed {line.seed}"
        case Signed():
            return f"    signed {line.of}"
        case Verified():
            return f"    verified {line.of}: {'holds' if line.holds else 'does not hold'}"
        case Raised():
            return f"    raised {line.error}: {line.text}"
        case Note():
            return f"note: {line.text}"
        case End():
            return f"end: {line.why}"


def _text(raw: Raw) -> str:
    return bytes(raw).decode(errors="replace")


# Reading.


def read_trace(path: Path) -> Iterator[Numbered]:
    """The lines of a file, one by one. A last line that is cut off, as by a crash, is left out.

    Raises `InvalidArgument`, which names the line, for a file that is no trace, and `StoreError`
    when it cannot be read.
    """
    try:
        with path.open("rb") as file:
            number = 0
            while data := file.readline(LINE_BYTES_MAX + 1):
                number += 1
                line = _read_line(path, number, data)
                if line is None:
                    break
                yield number, line
    except OSError as error:
        raise StoreError(f"cannot read the trace {path}: {error.strerror}") from error
    if number == 0:
        raise InvalidArgument(f"{path} is empty; a trace begins with a header")


def _read_line(path: Path, number: int, data: bytes) -> Line | None:
    """None for a last line that is cut off."""
    place = f"{path}, line {number}"
    if len(data) > LINE_BYTES_MAX:
        raise InvalidArgument(f"{place}: longer than {LINE_BYTES_MAX:,} bytes; this is no trace")
    try:
        if number == 1:
            _check_format(path, data)
        line = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        if number > 1 and not data.endswith(b"\n"):
            return None
        raise InvalidArgument(f"{place}: not a line of a trace: {error}") from None
    if number == 1 and not isinstance(line, Header):
        raise InvalidArgument(f"{place}: a trace begins with a header, and this is none")
    return line


def _check_format(path: Path, data: bytes) -> None:
    found = msgspec.json.decode(data, type=_Format).format
    if found != FORMAT:
        raise InvalidArgument(
            f"{path} is a trace of format {found}, and this meshwalk reads format {FORMAT};"
            " use the version that wrote it"
        )


# Writing. A sink's `write` returns whether it wants more.


class TraceWriter:
    """Writes a trace to a new file that only its owner may read: it holds what was said.

    A context manager; `write` is what a node is given. At `bytes_max`, or when the disk fails, it
    writes nothing more, since a trace with a hole cannot be replayed, and says so in the log. No
    failing disk raises anything here: a node must not lose a step for the sake of its trace.
    What is written reaches the file after `FLUSH_EVERY_S` of machine time, at the next line.
    Raises `InvalidArgument` when the file exists already, `StoreError` when it cannot be made.
    """

    def __init__(self, path: Path, bytes_max: int = TRACE_BYTES_MAX) -> None:
        self.path = path
        self.bytes_max = bytes_max
        self.bytes = 0
        """Written so far, with what waits to be flushed."""
        self.is_whole = True
        """Whether nothing is missing; final once the trace is closed, as a disk may fail then."""
        self._room = bytes_max - len(_encoder.encode(End(why=self._limit))) - 1
        self._waiting = bytearray()
        self._flushed_at: float | None = None
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            self._file: int | None = os.open(path, flags, 0o600)
        except FileExistsError:
            raise InvalidArgument(
                f"{path} exists already; move it away, or name another file for the trace"
            ) from None
        except OSError as error:
            raise StoreError(f"cannot write the trace {path}: {error.strerror}") from error

    def write(self, line: Line) -> bool:
        """Take one line; False when the trace has ended."""
        if self._file is None:
            return False
        data = _encoder.encode(line)
        if self.bytes + len(data) + 1 > self._room:
            self.is_whole = False
            self._end(self._limit)
            log.warning("the trace %s is at its limit and goes no further", self.path)
            return False
        self._append(data)
        if len(self._waiting) >= FLUSH_BYTES:
            self.flush()
        elif type(line) is Input:
            if self._flushed_at is None:
                self._flushed_at = line.time
            if not -FLUSH_EVERY_S < line.time - self._flushed_at < FLUSH_EVERY_S:
                self._flushed_at = line.time
                self.flush()
        return self._file is not None

    def flush(self) -> None:
        """Give what waits to the system."""
        waiting, self._waiting = self._waiting, bytearray()
        try:
            while waiting and self._file is not None:
                del waiting[: os.write(self._file, waiting)]
        except OSError as error:
            self._close(error)

    def close(self) -> None:
        """Write the last line and let the file go. May be called again."""
        if self._file is not None:
            self._end(STOPPED)

    def discard(self) -> None:
        """Remove the file, closed or not: of a node that never ran, nobody wants the trace."""
        self._waiting.clear()
        self._close()
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("the trace %s cannot be removed: %s", self.path, error.strerror)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _append(self, data: bytes) -> None:
        self._waiting += data
        self._waiting += b"\n"
        self.bytes += len(data) + 1

    @property
    def _limit(self) -> str:
        """The longest reason for an end: what is left of `bytes_max` for the others suffices."""
        return f"the limit of {self.bytes_max:,} bytes"

    def _end(self, why: str) -> None:
        if self.bytes:  # else the end would stand where a reader looks for the header
            self._append(_encoder.encode(End(why=why)))
        self.flush()
        self._close()

    def _close(self, failure: OSError | None = None) -> None:
        """Let the file go, after a failure perhaps, and say once what failed."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            os.close(file)
        except OSError as error:  # NFS and quotas may tell of a full disk only here: close(2)
            failure = failure or error
        if failure is not None:
            self.is_whole = False
            log.warning("the trace %s goes no further: %s", self.path, failure.strerror)


class TraceHash:
    """Keeps nothing of a trace but its hash: two runs with the same hash did the same."""

    def __init__(self) -> None:
        self.lines = 0
        self._hash = hashlib.blake2b(digest_size=16)

    def write(self, line: Line) -> bool:
        """Take one line."""
        self._hash.update(_encoder.encode(line))
        self._hash.update(b"\n")
        self.lines += 1
        return True

    @property
    def digest(self) -> str:
        """BLAKE2b (RFC 7693) of all lines so far, 32 hexadecimal characters."""
        return self._hash.hexdigest()


class TraceRing:
    """Keeps the last lines in memory, to be shown after a failure."""

    def __init__(self, lines_max: int = 1000) -> None:
        self.seen = 0
        """Lines so far, with those that are no longer kept."""
        self._kept: deque[Line] = deque(maxlen=lines_max)

    def write(self, line: Line) -> bool:
        """Take one line."""
        self._kept.append(line)
        self.seen += 1
        return True

    @property
    def lines(self) -> list[Numbered]:
        """Those that are kept, oldest first, with their numbers from 1."""
        return list(enumerate(self._kept, self.seen - len(self._kept) + 1))


# Comparing.


class Parting(msgspec.Struct, frozen=True):
    """Where two traces part."""

    number: int
    """Of the first line that differs."""
    one: Line | None
    """None: this trace has ended."""
    other: Line | None
    before: list[Numbered]
    """The lines before it, which both have, oldest first."""


def first_difference(
    one: Iterable[Numbered], other: Iterable[Numbered], context: int = CONTEXT_LINES
) -> Parting | None:
    """Where two traces part; None when they are the same."""
    before: deque[Numbered] = deque(maxlen=context)
    ended: Numbered | None = None
    for mine, theirs in zip_longest(one, other, fillvalue=ended):
        line = mine[1] if mine is not None else None
        line_of_other = theirs[1] if theirs is not None else None
        found = mine or theirs
        assert found is not None
        if line != line_of_other:
            return Parting(found[0], line, line_of_other, list(before))
        before.append(found)
    return None
