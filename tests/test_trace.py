"""Lines, sinks and the reader of traces; what fills them is tested in tests/proto and tests/sim."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import msgspec
import pytest
from msgspec import Raw

from meshwalk import trace
from meshwalk.errors import InvalidArgument, StoreError
from meshwalk.trace import (
    End,
    Header,
    Input,
    Line,
    Note,
    Numbered,
    Output,
    Raised,
    Returned,
    Signed,
    TraceHash,
    TraceRing,
    TraceWriter,
    Verified,
    describe,
    encode_line,
    first_difference,
    read_trace,
)

HEADER = Header(
    node="10.0.0.1",
    format=trace.FORMAT,
    meshwalk="0",
    peer="a" * 52,
    network="00" * 32,
    config=Raw(b'{"link":{}}'),
    now=1.5,
    unix_offset_s=1.7e9,
    agent="",
    seed="ff",
)
TICK = Input(time=2.5, name="tick", values=Raw(b"{}"))
ONE_OF_EACH: list[Line] = [
    HEADER,
    Signed(of="12", signature=bytes(range(64))),
    TICK,
    Verified(of="13", holds=False),
    Returned(value=Raw(b"null")),
    Output(node="10.0.0.2", name="Send", value=Raw(b'{"link":1,"frame":[2,1,0]}')),
    Raised(error="KeyError", text="'é\n'"),
    Note(text="a partition", time=3.0),
    End(why=trace.STOPPED),
]


def at(time: float) -> Input:
    return msgspec.structs.replace(TICK, time=time)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.trace"


def write(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def test_every_kind_of_line_comes_back(path: Path) -> None:
    with TraceWriter(path) as writer:
        for line in ONE_OF_EACH[:-1]:
            assert writer.write(line)
    assert list(read_trace(path)) == list(enumerate(ONE_OF_EACH, 1))
    assert (writer.bytes, writer.is_whole) == (path.stat().st_size, True)
    for line in ONE_OF_EACH:
        assert describe(line)


def test_a_line_is_short_and_can_be_searched() -> None:
    assert encode_line(TICK) == b'{"k":"in","t":2.5,"do":"tick","v":{}}'
    assert encode_line(ONE_OF_EACH[5]) == (
        b'{"k":"out","n":"10.0.0.2","do":"Send","v":{"link":1,"frame":[2,1,0]}}'
    )


# Reading.


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "not a line of a trace"),
        (b"\x00", "not a line of a trace"),
        (b"null", "not a line of a trace"),
        (b'{"k":"in"}', "missing required field"),
        (b'{"k":"other"}', "Invalid value 'other'"),
        (b'{"k":"note","text":"\xff"}', "not a line of a trace"),
        (b'{"k":"note","text":"a"', "truncated"),
        (b'{"k":"in","t":null,"do":"tick","v":{}}', "Expected `float`"),
        (b'{"k":"in","t":1e400,"do":"tick","v":{}}', "out of range"),
        (b'{"k":"in","t":1e13,"do":"tick","v":{}}', "<= 1000000000000.0"),
        (b'{"k":"in","t":1,"do":"tick","v":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "recursion"),
    ],
)
def test_a_line_that_is_none_is_told_with_its_number(path: Path, line: bytes, why: str) -> None:
    write(path, encode_line(HEADER), encode_line(TICK), line, encode_line(TICK))
    lines = read_trace(path)
    assert [next(lines), next(lines)] == [(1, HEADER), (2, TICK)]
    with pytest.raises(InvalidArgument, match=r"file\.trace, line 3: ") as found:
        next(lines)
    assert why in str(found.value)


@pytest.mark.parametrize(
    ("first", "why"),
    [
        (b"", "line 1: not a line"),
        (b"\x89PNG", "line 1: not a line"),
        (b"{}", "line 1: not a line"),
        (encode_line(TICK), "line 1: not a line"),
        (b'{"k":"note","text":"","format":1}', "line 1: a trace begins with a header"),
        (b'{"k":"header","format":2,"other":1}', "is a trace of format 2, and this meshwalk reads"),
    ],
)
def test_a_file_that_is_no_trace_is_told(path: Path, first: bytes, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        list(read_trace(write(path, first)))


def test_an_empty_file_is_told(path: Path) -> None:
    with pytest.raises(InvalidArgument, match="is empty"):
        list(read_trace(write(path)))


def test_a_file_that_cannot_be_read_is_told(path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        list(read_trace(path))
    with pytest.raises(StoreError, match="directory"):
        list(read_trace(path.parent))


def test_a_last_line_that_is_cut_is_left_out(path: Path) -> None:
    data = b"".join(encode_line(line) + b"\n" for line in ONE_OF_EACH[:-1])
    for size in range(len(encode_line(HEADER)), len(data), 3):
        path.write_bytes(data[:size])
        lines = list(read_trace(path))
        assert [number for number, _ in lines] == list(range(1, len(lines) + 1))
        ended = data.count(b"\n", 0, size)
        assert len(lines) in (ended, ended + 1)  # one that lacks its line end only is a line
        assert [line for _, line in lines] == ONE_OF_EACH[: len(lines)]


def test_a_line_without_end_is_not_read_into_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "LINE_BYTES_MAX", 1000)
    write(path, encode_line(HEADER), b"x" * 1001)
    with pytest.raises(InvalidArgument, match="line 2: longer than 1,000 bytes"):
        list(read_trace(path))


# Writing.


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_only_its_owner_may_read_a_trace(path: Path) -> None:
    with TraceWriter(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_exists_is_not_written_over(path: Path) -> None:
    write(path, b"precious")
    with pytest.raises(InvalidArgument, match="exists already; move it away"):
        TraceWriter(path)
    assert path.read_bytes() == b"precious\n"
    with pytest.raises(StoreError, match="No such file"):
        TraceWriter(path.parent / "missing" / "file")


def test_a_trace_ends_at_its_limit_and_says_so(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), TraceWriter(path, bytes_max=1000) as writer:
        writer.write(HEADER)
        taken = 1
        while writer.write(at(float(taken))):
            taken += 1
            assert taken < 100
        assert not writer.write(TICK)
    lines = [line for _, line in read_trace(path)]
    assert lines == [HEADER, *(at(float(n)) for n in range(1, taken)), lines[-1]]
    assert lines[-1] == End(why="the limit of 1,000 bytes")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert 1000 - 100 < path.stat().st_size <= 1000
    assert not writer.is_whole


def test_a_trace_with_no_room_for_its_header_is_empty(path: Path) -> None:
    with TraceWriter(path, bytes_max=100) as writer:
        assert not writer.write(HEADER)
    assert path.stat().st_size == 0


def test_a_trace_that_was_closed_before_its_first_line_is_empty(path: Path) -> None:
    TraceWriter(path).close()
    with pytest.raises(InvalidArgument, match="is empty; a trace begins with a header"):
        list(read_trace(path))


def test_what_is_written_reaches_the_file_each_second(path: Path) -> None:
    with TraceWriter(path) as writer:
        writer.write(HEADER)
        writer.write(at(10.0))
        writer.write(at(10.9))
        assert path.stat().st_size == 0
        writer.write(at(11.0))
        assert len(list(read_trace(path))) == 4
        writer.write(at(11.9))
        writer.flush()
        assert len(list(read_trace(path))) == 5


def test_a_full_disk_ends_the_trace_and_nothing_else(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with caplog.at_level(logging.WARNING), TraceWriter(path) as writer:
        writer.write(HEADER)
        monkeypatch.setattr(os, "write", full)
        assert writer.write(at(1.0))
        assert not writer.write(at(3.0))
        assert not writer.write(at(5.0))
    assert [record.getMessage() for record in caplog.records] == [
        f"the trace {path} goes no further: No space left on device"
    ]
    assert not writer.is_whole


@pytest.mark.parametrize("fails_to_write", [False, True])
def test_a_disk_that_fails_when_the_file_is_closed_raises_nothing(
    path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    fails_to_write: bool,
) -> None:
    close = os.close

    def over_quota(file: int) -> None:
        close(file)
        raise OSError(122, "Disk quota exceeded")

    def full(file: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    writer = TraceWriter(path)
    writer.write(HEADER)
    monkeypatch.setattr(os, "close", over_quota)
    if fails_to_write:
        monkeypatch.setattr(os, "write", full)
    with caplog.at_level(logging.WARNING):
        writer.flush()
        writer.close()
        assert not writer.write(TICK)
        writer.close()
    monkeypatch.undo()
    first = "No space left on device" if fails_to_write else "Disk quota exceeded"
    assert [record.getMessage() for record in caplog.records] == [
        f"the trace {path} goes no further: {first}"
    ]
    assert not writer.is_whole


def test_at_its_limit_too_a_failing_close_raises_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = os.close

    def over_quota(file: int) -> None:
        close(file)
        raise OSError(122, "Disk quota exceeded")

    with TraceWriter(path, bytes_max=1000) as writer:
        writer.write(HEADER)
        monkeypatch.setattr(os, "close", over_quota)
        assert not all(writer.write(TICK) for _ in range(100))
        monkeypatch.undo()


def test_a_trace_that_nobody_wants_is_removed(path: Path) -> None:
    with TraceWriter(path) as writer:
        writer.write(HEADER)
        writer.discard()
        assert not path.exists()
        assert not writer.write(TICK)
        writer.discard()
    TraceWriter(path).close()  # the name is free again


def test_the_hash_tells_lines_apart() -> None:
    hashes = []
    for lines in (ONE_OF_EACH, ONE_OF_EACH, [*ONE_OF_EACH[:2], at(2.6), *ONE_OF_EACH[3:]]):
        sink = TraceHash()
        for line in lines:
            assert sink.write(line)
        assert sink.lines == len(ONE_OF_EACH)
        hashes.append(sink.digest)
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_ring_keeps_the_last_lines() -> None:
    ring = TraceRing(3)
    assert ring.lines == []
    for n in range(5):
        assert ring.write(at(float(n)))
    assert ring.lines == [(3, at(2.0)), (4, at(3.0)), (5, at(4.0))]
    assert ring.seen == 5


# Comparing.


def test_the_first_difference_is_found_with_what_stood_before() -> None:
    one: list[Numbered] = [(n, at(float(n))) for n in range(1, 50)]
    assert first_difference(one, list(one)) is None
    other = [*one[:29], (30, at(0.0)), *one[30:]]
    found = first_difference(one, other, context=4)
    assert found == trace.Parting(30, at(30.0), at(0.0), one[25:29])
    assert first_difference(one, one[:-1], 1) == trace.Parting(49, at(49.0), None, one[47:48])
    assert first_difference([], one, 1) == trace.Parting(1, None, at(1.0), [])
