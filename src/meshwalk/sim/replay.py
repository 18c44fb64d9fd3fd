"""Feed a trace, of a real node or a simulated one, to a fresh node, and compare what comes out.

Nothing is sent and nobody waits: a replay is as fast as the machines. Since a node does nothing
that does not follow from its inputs, the first difference means that the machines have changed
since the recording, or that something reaches them past their inputs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Final

import msgspec

from meshwalk.errors import InvalidArgument, MeshwalkError
from meshwalk.proto.recording import RecordedCore, arguments_of, config_of
from meshwalk.trace import (
    CONTEXT_LINES,
    STOPPED,
    End,
    Header,
    Input,
    Line,
    Note,
    Numbered,
    Raised,
    Signed,
    Verified,
)
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import Domain

# What a machine with a defect raises, or one that is fed what no driver would feed it.
DEFECTS: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MeshwalkError,
    RuntimeError,
    TypeError,
    ValueError,
)


class Step(msgspec.Struct):
    """One input of a recorded node, or its beginning, with what came of it."""

    number: int
    """The line of the input."""
    input: Header | Input
    outcome: list[Numbered] = []
    """What was signed and checked, then what came out."""
    is_whole: bool = True
    """Whether the outcome is all there; the last one's is not, when the recording broke off."""

    @property
    def effects(self) -> int:
        """How many lines came out, signatures not counted."""
        return sum(not isinstance(line, Signed | Verified) for _, line in self.outcome)


class Replayed(msgspec.Struct):
    """A step, and what the fresh node made of it."""

    step: Step
    got: list[Line]
    node: RecordedCore
    """After the step: whoever looks for a defect looks here."""
    difference: Difference | None = None


class Difference(msgspec.Struct, frozen=True):
    """The first line of a step that came out otherwise."""

    number: int
    """Of the expected line; of the step's last one, when more came out than that."""
    expected: Line | None
    """None: nothing more was expected."""
    got: Line | None
    """None: nothing more came."""


class Summary(msgspec.Struct, frozen=True):
    """How a replay ended."""

    inputs: int
    effects: int
    nodes: int
    """Nodes made: a restart counts as another one."""
    last: Replayed | None
    """The step with the difference, if there is one; else the last step."""
    before: list[Step]
    """The steps before it, oldest first."""

    @property
    def is_same(self) -> bool:
        """Whether the whole trace came out as it was recorded."""
        return self.last is None or self.last.difference is None


def replay(lines: Iterable[Numbered], node: str | None = None) -> Iterator[Replayed]:
    """Run a trace step by step, of one node or of all that share it; ends after a difference.

    Raises `InvalidArgument`, with the line, for what no recording writes.
    """
    running: dict[str, _Run] = {}
    for step in _steps(lines, node):
        name = step.input.node
        if isinstance(step.input, Header):
            running[name] = _Run(step, step.input)
            replayed = running[name].begun
        elif name in running:
            replayed = running[name].feed(step, step.input)
        else:
            raise InvalidArgument(f"line {step.number}: an input of a node that was never made")
        yield replayed
        if replayed.difference is not None:
            return


def summarise(steps: Iterable[Replayed], context: int = CONTEXT_LINES) -> Summary:
    """Run a replay to its end, and keep the last `context` steps before that."""
    inputs = effects = nodes = 0
    last: Replayed | None = None
    before: deque[Step] = deque(maxlen=context)
    for replayed in steps:
        if last is not None:
            before.append(last.step)
        last = replayed
        if isinstance(replayed.step.input, Header):
            nodes += 1
        else:
            inputs += 1
            effects += replayed.step.effects
    return Summary(inputs, effects, nodes, last, list(before))


def _steps(lines: Iterable[Numbered], node: str | None) -> Iterator[Step]:
    """Lines joined to steps: a recording writes those of one step in a row."""
    step: Step | None = None
    is_whole = False
    for number, line in lines:
        if isinstance(line, End):
            is_whole = line.why == STOPPED
            break
        if isinstance(line, Note):
            continue
        if isinstance(line, Header | Input):
            if step is not None:
                yield step
            step = Step(number, line) if node is None or line.node == node else None
        elif step is not None and line.node == step.input.node:
            step.outcome.append((number, line))
        elif node is None or line.node == node:
            raise InvalidArgument(f"line {number}: this follows from no input")
    if step is not None:
        step.is_whole = is_whole
        yield step


class _Run:
    """One node that is fed its trace."""

    def __init__(self, step: Step, header: Header) -> None:
        self._got: list[Line] = []
        try:
            self._signatures = _Answers(header)
            self._signatures.begin(step)
            self._node = RecordedCore(
                self._signatures,
                config_of(header),
                int(header.seed, 16),
                header.now,
                header.unix_offset_s,
                header.agent,
                write=self._write,
                node=header.node,
            )
        except DEFECTS as error:
            raise InvalidArgument(f"line {step.number}: no node begins so: {error}") from None
        # Its own header names this version, and perhaps settings that are new.
        self.begun = self._replayed(step, self._got[1:])

    def feed(self, step: Step, line: Input) -> Replayed:
        """One input."""
        self._got.clear()
        self._signatures.begin(step)
        try:
            arguments = arguments_of(line)
        except InvalidArgument as error:
            if any(isinstance(found, Raised) for _, found in step.outcome):
                # The application called with something else than it may, and was told.
                return Replayed(step, [found for _, found in step.outcome], self._node)
            raise InvalidArgument(f"line {step.number}: {error}") from None
        error_line: list[Line] = []
        try:
            getattr(self._node, line.name)(**arguments)
        except DEFECTS as error:
            if not self._got:  # one of the library's own errors, which a recording leaves out
                name = type(error).__name__
                error_line.append(Raised(node=line.node, error=name, text=str(error)))
        return self._replayed(step, [*self._got[1:], *error_line])

    def _write(self, line: Line) -> bool:
        self._got.append(line)
        return True

    def _replayed(self, step: Step, got: list[Line]) -> Replayed:
        return Replayed(step, got, self._node, _difference(step, got))


def _difference(step: Step, got: list[Line]) -> Difference | None:
    number = step.number
    nothing: Numbered | None = None
    for numbered, line in zip_longest(step.outcome, got, fillvalue=nothing):
        assert not isinstance(line, tuple)
        if isinstance(numbered, tuple):
            number, expected = numbered
        elif step.is_whole:
            expected = None
        else:
            return None
        if expected != line:
            return Difference(number, expected, line)
    return None


class _NoAnswer(LookupError):
    """The node signs or checks something that it did not when it was recorded."""


class _Answers:
    """Signatures as they were recorded, one after the other."""

    def __init__(self, header: Header) -> None:
        self.peer_id = PeerId.parse(header.peer)
        self.network_id = bytes.fromhex(header.network)
        self._answers: deque[Signed | Verified] = deque()

    def begin(self, step: Step) -> None:
        """Have the answers of this step ready."""
        lines = (line for _, line in step.outcome)
        self._answers = deque(line for line in lines if isinstance(line, Signed | Verified))

    def sign(self, domain: Domain, payload: bytes) -> bytes:
        answer = self._answers.popleft() if self._answers else None
        if not isinstance(answer, Signed):
            raise _NoAnswer(f"the trace has no signature here for a {domain.name}")
        return answer.signature

    def verify(self, domain: Domain, peer: bytes, signature: bytes, payload: bytes) -> bool:
        answer = self._answers.popleft() if self._answers else None
        if not isinstance(answer, Verified):
            raise _NoAnswer(f"the trace does not say whether this {domain.name} is genuine")
        return answer.holds
