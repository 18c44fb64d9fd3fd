"""A node that writes down what goes in and what comes out: `RecordedCore`, and nothing else.

One step of a trace is an input, what was signed and checked meanwhile, and what came out of it.
The private key is not in a trace: instead of signing and checking anew, a replay takes the answers
from it. `sim/replay.py` feeds a trace to a fresh node through the same class, and compares lines.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache, lru_cache, wraps
from hashlib import blake2b
from random import Random
from types import FunctionType
from typing import Any, Final, TypeAlias, get_type_hints

import msgspec
from msgspec import Raw

from meshwalk.config import Config
from meshwalk.errors import InvalidArgument, MeshwalkError
from meshwalk.identity.keys import Signatures
from meshwalk.proto.commands import Commands
from meshwalk.proto.effects import Effect
from meshwalk.proto.node import NodeCore
from meshwalk.proto.overlay.addressbook import BookEntry
from meshwalk.trace import FORMAT, Header, Input, Line, Output, Raised, Returned, Signed, Verified
from meshwalk.version import __version__
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import Domain

SEED_BITS: Final = 256  # as many as a private key, so that guessing the seed is no easier
PEERS_CACHED: Final = 4096  # guess: whom a node hears of within minutes, or a simulated network
DIGEST_BYTES: Final = 8  # guess: tells apart the signatures of a trace; nobody gains by a clash

Write: TypeAlias = Callable[[Line], bool]
"""Takes a line; False when it wants no more, such as a `TraceWriter` at its limit."""

READS: Final = frozenset(
    {
        "broadcasts_since",
        "conversation_id",
        "conversation_number",
        "deadline",
        "draft",
        "is_full",
        "link_of",
        "link_to",
        "may_broadcast_at",
        "must_wait",
        "statistics",
    }
)
"""Methods that change nothing, and so are no inputs."""

INPUTS: Final[dict[str, FunctionType]] = {
    name: member
    for part in (Commands, NodeCore)
    for name, member in vars(part).items()
    if inspect.isfunction(member) and not name.startswith("_") and name not in READS
}
"""Every input of a node, by name."""


class RecordedCore(NodeCore):
    """A `NodeCore` that tells `write` of every input, and of what came of it, after each.

    It draws from `Random(seed)`. `node` names it in a trace that it shares with others. A call that
    raises one of the library's own errors has changed nothing and is not recorded.
    """

    def __init__(
        self,
        signatures: Signatures,
        config: Config,
        seed: int,
        now: float,
        unix_offset_s: float,
        agent: str = "",
        *,
        write: Write,
        node: str = "",
    ) -> None:
        self._write = write
        self._node = node
        self._now = now
        header = Header(
            node=node,
            format=FORMAT,
            meshwalk=__version__,
            peer=signatures.peer_id.text,
            network=signatures.network_id.hex(),
            config=_encode(config),
            now=now,
            unix_offset_s=unix_offset_s,
            agent=agent,
            seed=f"{seed:x}",
        )
        self._answers: list[Line] = []
        self._is_recorded = True
        recorded = _RecordedSignatures(signatures, self._answers, node)
        super().__init__(recorded, config, Random(seed), now, unix_offset_s, agent)
        self._record(header)

    def _record(self, head: Input | Header, *outcome: Line) -> None:
        lines = [head, *self._answers, *outcome]
        self._answers.clear()
        self._is_recorded = all(map(self._write, lines))

    def _outcome(self, result: Any, returns_nothing: bool) -> list[Line]:
        effects: list[Effect] = []
        lines: list[Line] = []
        if type(result) is list:
            effects = result
        elif type(result) is tuple:
            value, effects = result
            lines.append(Returned(node=self._node, value=_encode(value)))
        elif not returns_nothing:
            lines.append(Returned(node=self._node, value=_encode(result)))
        for effect in effects:
            name = type(effect).__name__
            lines.append(Output(node=self._node, name=name, value=_encode(effect)))
        return lines


def make_core(
    signatures: Signatures,
    config: Config,
    rng: Random,
    now: float,
    unix_offset_s: float,
    agent: str = "",
    *,
    write: Write | None = None,
    node: str = "",
) -> NodeCore:
    """A node that is recorded by `write`, or, without it, a plain one.

    A recorded one draws from a `Random` of its own, whose seed comes from `rng` and stands in the
    trace: the system's randomness cannot be had again.
    """
    if write is None:
        return NodeCore(signatures, config, rng, now, unix_offset_s, agent)
    seed = rng.getrandbits(SEED_BITS)
    return RecordedCore(signatures, config, seed, now, unix_offset_s, agent, write=write, node=node)


def arguments_of(line: Input) -> dict[str, Any]:
    """What to call the input with, by name; `now` too, if it takes it.

    Raises `InvalidArgument` when no input has this name, or takes these arguments.
    """
    try:
        decoder = _decoder_of(line.name)
    except KeyError:
        raise InvalidArgument(f"a node has no input {line.name[:50]!r}") from None
    try:
        found = decoder.decode(line.values)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"these are no arguments of {line.name}: {error}") from None
    arguments = {name: getattr(found, name) for name in found.__struct_fields__}
    if "now" in get_type_hints(INPUTS[line.name]):
        arguments["now"] = line.time
    return arguments


def config_of(header: Header) -> Config:
    """The configuration of a recorded node. Raises `InvalidArgument`."""
    try:
        return msgspec.json.decode(header.config, type=Config)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"this is no configuration: {error}") from None


class _RecordedSignatures:
    """Signatures whose answers are noted."""

    def __init__(self, signatures: Signatures, answers: list[Line], node: str) -> None:
        self.peer_id = signatures.peer_id
        self.network_id = signatures.network_id
        self._signatures = signatures
        self._answers = answers
        self._node = node

    def sign(self, domain: Domain, payload: bytes) -> bytes:
        signature = self._signatures.sign(domain, payload)
        of = _digest(domain, payload)
        self._answers.append(Signed(node=self._node, of=of, signature=signature))
        return signature

    def verify(self, domain: Domain, peer: bytes, signature: bytes, payload: bytes) -> bool:
        holds = self._signatures.verify(domain, peer, signature, payload)
        of = _digest(domain, peer, signature, payload)
        self._answers.append(Verified(node=self._node, of=of, holds=holds))
        return holds


def _digest(domain: Domain, *parts: bytes) -> str:
    digest = blake2b(domain.value, digest_size=DIGEST_BYTES)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


# Values as JSON.


def _encode_other(value: object) -> Any:
    return _text_of(value) if isinstance(value, PeerId) else repr(value)


@lru_cache(PEERS_CACHED)
def _text_of(peer: PeerId) -> str:
    return peer.text  # as long to make as all the rest of a line


def _decode_other(kind: type, value: object) -> Any:
    if kind is PeerId and isinstance(value, str):
        return PeerId.parse(value)
    raise NotImplementedError(f"{kind} in a trace")


_encoder = msgspec.json.Encoder(enc_hook=_encode_other)


def _encode(value: object) -> Raw:
    try:
        return Raw(_encoder.encode(value))
    except (UnicodeEncodeError, OverflowError):
        plain = msgspec.to_builtins(value, enc_hook=_encode_other)
        return Raw(_encoder.encode(_writable(plain)))


def _writable(value: Any) -> Any:
    """Plain values without what JSON cannot hold: half characters of UTF-16, and huge numbers."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, int) and value.bit_length() > 63:
        return str(value)
    if isinstance(value, list | tuple):
        return [_writable(item) for item in value]
    if isinstance(value, dict):
        return {_writable(key): _writable(item) for key, item in value.items()}
    return value


def _without_defaults(entry: BookEntry) -> dict[str, Any]:
    # Its times default to minus infinity, which JSON does not know.
    fields = msgspec.structs.fields(entry)
    values = ((field, getattr(entry, field.name)) for field in fields)
    return {field.name: value for field, value in values if value != field.default}


@cache
def _decoder_of(name: str) -> msgspec.json.Decoder[Any]:
    hints = get_type_hints(INPUTS[name], include_extras=True)
    fields: list[Any] = []
    for parameter in inspect.signature(INPUTS[name]).parameters.values():
        if parameter.name in ("self", "now"):
            continue
        field = (parameter.name, hints[parameter.name])
        is_required = parameter.default is inspect.Parameter.empty
        fields.append(field if is_required else (*field, parameter.default))
    kind = msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=True)
    return msgspec.json.Decoder(kind, dec_hook=_decode_other)


# The inputs of a recorded node.


def _recorded(name: str, call: FunctionType) -> Callable[..., Any]:
    """The same input, recorded."""
    signature = inspect.signature(call)
    names = list(signature.parameters)[1:]
    returns_nothing = signature.return_annotation in (None, "None")

    @wraps(call)
    def recorded(self: RecordedCore, *arguments: Any, **named: Any) -> Any:
        if not self._is_recorded:
            return call(self, *arguments, **named)
        values = {**dict(zip(names, arguments, strict=False)), **named}
        self._now = now = values.pop("now", self._now)
        if name == "start":
            values["known"] = [_without_defaults(entry) for entry in values["known"]]
        # Now, since the node may change what it is given.
        line = Input(node=self._node, time=now, name=name, values=_encode(values))
        try:
            result = call(self, *arguments, **named)
        except BaseException as error:
            if self._answers or not isinstance(error, MeshwalkError):
                text = _writable(str(error))
                raised = Raised(node=self._node, error=type(error).__name__, text=text)
                self._record(line, raised)
            raise
        self._record(line, *self._outcome(result, returns_nothing))
        return result

    return recorded


for _name, _call in INPUTS.items():
    setattr(RecordedCore, _name, _recorded(_name, _call))
