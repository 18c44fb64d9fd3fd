"""Traces of real and simulated nodes are replayed: the same, or where they part."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import msgspec
import pytest

from meshwalk import Conversation, Node
from meshwalk.config import Config
from meshwalk.errors import InvalidArgument, Refused, Unreachable
from meshwalk.net.driver import Driver
from meshwalk.proto.effects import Effect, Shut
from meshwalk.proto.node import NodeCore
from meshwalk.proto.recording import RecordedCore, make_core
from meshwalk.proto.timers import Timers
from meshwalk.sim.node import SimNode
from meshwalk.sim.replay import Summary, replay, summarise
from meshwalk.sim.signatures import CheapSignatures
from meshwalk.sim.world import World
from meshwalk.trace import (
    Header,
    Input,
    Line,
    Note,
    Numbered,
    Output,
    Raised,
    TraceWriter,
    encode_line,
    read_trace,
)
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId

DEADLINE_S = 20
STRANGER = PeerId(bytes([9]) * 32)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.01)


async def talk(folder: Path, one: Node, two: Node) -> None:
    """Most of what two nodes can do, over real TCP and TLS."""
    await two.join(one.invite)
    await until(lambda: two.id in one.neighbours)
    heard = one.messages()

    @one.on("double")
    def double(request: object) -> object:
        return getattr(request, "body", 0) * 2

    for number in range(30):
        await two.broadcast({"number": number}, topic="counts")
    await two.send(one.id, b"\x00\xff" * 500, type="raw")
    assert await two.request(one.id, 21, type="double") == 42
    with pytest.raises(Refused):
        await two.request(one.id, type="nobody serves this")
    await one.send(one.id, "to myself")
    with pytest.raises(Unreachable):
        await one.send(STRANGER, "to nobody")

    @one.on("echo")
    async def echo(conversation: Conversation[bytes]) -> None:
        async for said in conversation:
            await conversation.send(said.body)

    long = bytes(range(256)) * 1000  # in several parts
    async with two.open(one.id, "echo") as conversation:
        await conversation.send(long)
        assert (await conversation.receive()).body == long
    with pytest.raises(InvalidArgument):
        await one.send(two.id, "", type="\ud800")
    await two.ping(one.id)
    await two.ping(one.address)
    for _ in range(32):
        await anext(heard)


async def record(folder: Path) -> tuple[Path, Path]:
    """Two nodes talk; one of them restarts; each has a trace."""
    paths = folder / "one.trace", folder / "two.trace"
    with TraceWriter(paths[0]) as first, TraceWriter(paths[1]) as second:
        async with Node(listen="127.0.0.1:0", trace=first.write) as one:
            two = Node(listen="0.0.0.0:0", data=folder / "data", trace=second.write)
            async with two:
                await talk(folder, one, two)
            await until(lambda: not one.neighbours)
            async with two:  # it finds back by what it stored
                await until(lambda: two.id in one.neighbours)
    return paths


def run(lines: Iterator[Numbered] | list[Numbered]) -> Summary:
    return summarise(replay(lines))


async def test_real_nodes_do_the_same_again(tmp_path: Path) -> None:
    for path in await record(tmp_path):
        summary = run(read_trace(path))
        assert summary.is_same, summary.last
        assert summary.inputs > 20
        assert summary.effects > 40
        methods = {line.name for _, line in read_trace(path) if isinstance(line, Input)}
        assert {"listening", "start", "secured", "receive", "tick", "lost", "leave"} <= methods
    assert {"join", "hosts", "broadcast", "request", "send", "ping", "probe"} <= methods
    assert {"open", "say", "read", "close_conversation"} <= methods
    assert summary.nodes == 2  # the restart is in the same trace
    known = [line for _, line in read_trace(path) if isinstance(line, Input)]
    starts = [bytes(line.values) for line in known if line.name == "start"]
    assert starts[0] == b'{"known":[],"broadcasts":[]}'
    assert b'"table":"verified"' in starts[1]
    assert b'"is_anchor":true' in starts[1]


async def test_a_replay_is_the_same_in_another_process(tmp_path: Path) -> None:
    paths = await record(tmp_path)
    program = (
        "import sys; from pathlib import Path; from meshwalk.trace import read_trace;"
        "from meshwalk.sim.replay import replay, summarise;"
        "print(summarise(replay(read_trace(Path(sys.argv[1])))).is_same)"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program, paths[1]],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout == "True\n", done.stderr


async def test_nothing_that_the_driver_does_changes_a_node_past_its_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a driver reads while it runs, statistics and peers among it, leaves no mark."""
    plain = Driver.perform

    def perform(self: Driver, effects: list[Effect]) -> None:
        self.core.statistics()
        self.core.deadline()
        plain(self, effects)

    monkeypatch.setattr(Driver, "perform", perform)
    for path in await record(tmp_path):
        assert run(read_trace(path)).is_same


# Simulated nodes, many in one trace.


def simulated(seed: int = 1, nodes: int = 6) -> list[Numbered]:
    """A small network with a crash, a restart and a sleep, all nodes in one trace."""
    lines: list[Line] = []

    def write(line: Line) -> bool:
        lines.append(line)
        return True

    def recorded(node: SimNode, seed: int, now: float, unix_offset_s: float) -> NodeCore:
        return RecordedCore(
            node.signatures, node.config, seed, now, unix_offset_s, write=write, node=node.host
        )

    world = World(seed, make_core=recorded)
    world.grow(nodes)
    world.run(5)
    world.nodes[1].broadcast(b"hello")
    world.run(1)
    lines.append(Note(text="a crash", time=world.now))
    world.crash(world.nodes[2])
    world.sleep(world.nodes[3])
    world.run(3)
    world.restart(world.nodes[2])
    world.nodes[3].wake()
    world.run(20)
    return list(enumerate(lines, 1))


@pytest.fixture(scope="module")
def many() -> list[Numbered]:
    return simulated()


def test_a_whole_network_does_the_same_again(many: list[Numbered]) -> None:
    summary = run(many)
    assert summary.is_same, summary.last
    assert summary.nodes == 7  # one of the six ran twice
    assert summary.inputs == sum(isinstance(line, Input) for _, line in many)
    outputs = sum(isinstance(line, Output) for _, line in many)
    assert outputs <= summary.effects < outputs + summary.inputs


def test_one_node_of_many(many: list[Numbered]) -> None:
    summary = summarise(replay(many, "10.0.0.3"))
    assert summary.is_same
    assert summary.nodes == 2
    mine = [line for _, line in many if isinstance(line, Input) and line.node == "10.0.0.3"]
    assert summary.inputs == len(mine)
    assert summarise(replay(many, "10.0.0.99")).nodes == 0


def test_the_same_seed_gives_the_same_trace(many: list[Numbered]) -> None:
    again = simulated()
    assert [encode_line(line) for _, line in again] == [encode_line(line) for _, line in many]
    assert simulated(seed=2) != many


def test_inputs_are_written_as_they_were_read(many: list[Numbered]) -> None:
    """Arguments come back as they went in: encoding them again changes nothing."""
    got: list[Input] = []
    record = RecordedCore._record

    def note(self: RecordedCore, head: Header | Input, *outcome: Line) -> None:
        if isinstance(head, Input):
            got.append(head)
        record(self, head, *outcome)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecordedCore, "_record", note)
        replayed = list(replay(many))
    expected = [step.step.input for step in replayed if isinstance(step.step.input, Input)]
    defaults = {"broadcast", "lost"}  # a replay says `asks` and `not_admitted` always
    changed = [one for one, other in zip(got, expected, strict=True) if one != other]
    assert {line.name for line in changed} <= defaults


# Differences.


def first_output(lines: list[Numbered], name: str) -> int:
    """The number of the first effect of that name."""
    return next(n for n, line in lines if isinstance(line, Output) and line.name == name)


def test_a_machine_that_does_something_else_is_noticed(
    many: list[Numbered], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = NodeCore._flush

    def without_broadcasts(self: NodeCore) -> list[Effect]:
        return [effect for effect in plain(self) if type(effect).__name__ != "Deliver"]

    monkeypatch.setattr(NodeCore, "_flush", without_broadcasts)
    summary = run(many)
    assert not summary.is_same
    assert summary.last is not None
    difference = summary.last.difference
    assert difference is not None
    assert difference.number == first_output(many, "Deliver")
    assert isinstance(difference.expected, Output)
    assert difference.expected.name == "Deliver"
    assert len(summary.before) == 10
    numbers = [step.number for step in summary.before]
    assert numbers == sorted(numbers)
    assert numbers[-1] < summary.last.step.number < difference.number


def test_a_machine_that_does_more_is_noticed(
    many: list[Numbered], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = NodeCore._flush

    def and_shut(self: NodeCore) -> list[Effect]:
        return [*plain(self), Shut(1, True)]

    monkeypatch.setattr(NodeCore, "_flush", and_shut)
    summary = run(many)
    assert summary.last is not None
    assert summary.last.difference is not None
    assert summary.last.difference.expected is None
    assert isinstance(summary.last.difference.got, Output)
    assert summary.last.difference.got.name == "Shut"


def test_a_machine_that_fails_is_noticed(
    many: list[Numbered], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Timers, now: float) -> Iterator[object]:
        raise ZeroDivisionError("by way of example")

    monkeypatch.setattr(Timers, "due", fail)
    summary = run(many)
    assert summary.last is not None
    assert summary.last.difference is not None
    assert isinstance(summary.last.step.input, Input)
    assert summary.last.step.input.name == "tick"
    assert summary.last.difference.got == Raised(
        node=summary.last.step.input.node, error="ZeroDivisionError", text="by way of example"
    )


def test_a_machine_that_asks_for_another_signature_is_noticed(
    many: list[Numbered], monkeypatch: pytest.MonkeyPatch
) -> None:
    header = many[0][1]
    assert isinstance(header, Header)
    other = msgspec.structs.replace(header, unix_offset_s=header.unix_offset_s + 1)
    summary = run([(1, other), *many[1:]])
    assert summary.last is not None
    assert summary.last.difference is not None
    assert summary.last.difference.number == 2  # its own record is signed at once


def test_a_defect_that_was_recorded_is_raised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Timers) -> None:
        raise KeyError("a defect")

    lines: list[Line] = []
    signatures = CheapSignatures(PeerId(bytes(32)))

    def write(line: Line) -> bool:
        lines.append(line)
        return True

    core = make_core(signatures, Config(), Random(1), 0.0, 0.0, write=write)
    with monkeypatch.context() as patch:
        patch.setattr(NodeCore, "_flush", fail)
        with pytest.raises(KeyError):
            core.leave(1.0)
        assert core.admit(Address("10.0.0.1", 1), 2.0) is not None
        assert run(list(enumerate(lines, 1))).is_same
    assert lines[-3] == Raised(error="KeyError", text="'a defect'")  # before admit's two lines
    mended = run(list(enumerate(lines, 1))).last
    assert mended is not None
    assert mended.difference is not None
    assert mended.difference.expected == lines[-3]


# Hostile and broken traces.


def with_line(many: list[Numbered], place: int, line: Line) -> list[Numbered]:
    lines = [found for _, found in many]
    lines.insert(place, line)
    return list(enumerate(lines, 1))


def test_an_input_that_no_node_has_is_told(many: list[Numbered]) -> None:
    for name in ("__init__", "_flush", "deadline", "statistics", "__class__", "no_such"):
        line = Input(node="10.0.0.1", time=0.0, name=name, values=msgspec.Raw(b"{}"))
        with pytest.raises(InvalidArgument, match=f"line 5: a node has no input '{name}'"):
            run(with_line(many, 4, line))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("tick", "[]"),
        ("tick", '{"now":1}'),
        ("tick", "{"),
        ("lost", '{"link":1}'),
        ("lost", '{"link":"1","why":""}'),
        ("secured", '{"link":1,"peer":"me","remote":{"host":"a","port":1},"local_host":""}'),
        ("receive", '{"link":1,"frames":[[99]]}'),
        ("receive", '{"link":1,"frames":[[2,-1,0]]}'),
        ("receive", '{"link":1,"frames":' + "[" * 100_000 + "]" * 100_000 + "}"),
    ],
)
def test_arguments_that_no_input_takes_are_told(
    many: list[Numbered], name: str, values: str
) -> None:
    line = Input(node="10.0.0.1", time=0.0, name=name, values=msgspec.Raw(values.encode()))
    with pytest.raises(InvalidArgument, match=f"line 5: these are no arguments of {name}"):
        run(with_line(many, 4, line))


def test_lines_of_a_node_that_was_never_made_are_told(many: list[Numbered]) -> None:
    nobody = Input(node="nobody", time=0.0, name="tick", values=msgspec.Raw(b"{}"))
    with pytest.raises(InvalidArgument, match="never made"):
        run(with_line(many, 5, nobody))
    with pytest.raises(InvalidArgument, match="line 6: this follows from no input"):
        run(with_line(many, 5, Raised(node="nobody", error="", text="")))


@pytest.mark.parametrize(
    "change",
    [
        {"peer": "me"},
        {"peer": "é" * 52},
        {"network": "xyz"},
        {"seed": ""},
        {"seed": "-"},
        {"config": msgspec.Raw(b"[]")},
        {"config": msgspec.Raw(b'{"overlay":{"links_min":0}}')},
        {"config": msgspec.Raw(b'{"overlay":' + b"[" * 100_000)},
    ],
)
def test_a_header_that_makes_no_node_is_told(
    many: list[Numbered], change: dict[str, object]
) -> None:
    header = msgspec.structs.replace(many[0][1], **change)
    with pytest.raises(InvalidArgument, match="line 1: no node begins so"):
        run([(1, header)])


def test_what_no_driver_would_do_is_survived(many: list[Numbered]) -> None:
    """A difference or an error of ours, and no other, whatever a trace asks of a node."""
    for values in (
        '{"link":1,"frames":[[4,18446744073709551615,"x"]]}',
        '{"link":123456789012345678901234567890,"frames":[]}',
        '{"link":1,"frames":[[5,1,1,1,"AAAA"]]}',
        '{"link":1,"frames":[[1,1,0,340282366920938463463374607431768211456,""]]}',
    ):
        for place in (20, 40, 80):
            name, raw = "receive", msgspec.Raw(values.encode())
            line = Input(node="10.0.0.1", time=1e12, name=name, values=raw)
            with suppress(InvalidArgument):
                run(with_line(many, place, line))


async def test_a_trace_that_was_cut_is_the_same_as_far_as_it_goes(tmp_path: Path) -> None:
    path, _ = await record(tmp_path)
    data = path.read_bytes()
    cut = tmp_path / "cut.trace"
    for size in range(len(data) // 3, len(data) // 3 + 3000, 97):
        cut.write_bytes(data[:size])
        assert run(read_trace(cut)).is_same


def test_the_network_of_these_tests_does_most_things(many: list[Numbered]) -> None:
    names = {line.name for _, line in many if isinstance(line, Output)}
    assert {"Dial", "Send", "Shut", "Deliver", "Happened", "SavePeer"} <= names
    inputs = {line.name for _, line in many if isinstance(line, Input)}
    assert {"admit", "calendar_set", "join", "lost", "broadcast"} <= inputs
