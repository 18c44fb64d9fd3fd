"""Handlers: what their annotations declare, what they are called with, what the asker is told."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Generic, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwalk.errors import InvalidArgument, MalformedFrame, Refused
from meshwalk.net.driver import Driver
from meshwalk.net.handlers import BodyT, Handlers, Registered, Request
from meshwalk.net.serving import Serving
from meshwalk.proto.effects import Ask
from meshwalk.wire.content import Json, decode_body, encode_body
from meshwalk.wire.frames import ContentType
from meshwalk.wire.messages import RefusalCode
from meshwalk.wire.peerid import PeerId

if TYPE_CHECKING:  # as in a program that imports names for its type checker alone
    import meshwalk
    from meshwalk import Request as Question

PEER = PeerId(bytes(range(32)))
FAILED, NOT_UNDERSTOOD = RefusalCode.HANDLER_FAILED, RefusalCode.NOT_UNDERSTOOD


class Numbers(msgspec.Struct):
    numbers: list[int]


class Talk(Generic[BodyT]):
    """Stands for the class of conversations."""


class Nobody:
    """A class that nothing says how to build."""


class Touchy(msgspec.Struct):
    x: int

    def __post_init__(self) -> None:
        raise KeyError("the password is swordfish")


class Asker:
    """A peer that asks one node, and keeps what it is answered."""

    def __init__(self, handlers: Handlers | None = None) -> None:
        self.serving = Serving(self._own, handlers or Handlers())
        self.on = self.serving.register
        self.answers: list[Any] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._driver = cast(
            "Driver",
            SimpleNamespace(
                core=SimpleNamespace(reply=self._reply, refuse=self._refuse),
                clock=lambda: 5.0,
                command=lambda effects: self.answers.extend(effects),
            ),
        )

    def ask(self, body: Any, type: str = "t") -> Any:
        """The answer of a handler that answers at once: a value, or the code and text."""
        self.ask_encoded(*encode_body(body), type)
        return self.answers.pop() if self.answers else None

    def ask_encoded(self, content: ContentType, body: bytes, type: str = "t") -> None:
        self.serving.asked(Ask(PEER, 7, type, content, body, 1.5, 2.5), self._driver)

    async def ask_and_wait(self, body: Any) -> Any:
        assert self.ask(body) is None
        await asyncio.gather(*self.tasks)
        return self.answers.pop()

    def _own(self, task: asyncio.Task[None]) -> None:
        self.tasks.append(task)

    def _reply(self, peer: PeerId, id: int, content: ContentType, body: bytes, now: float) -> Any:
        assert (peer, id, now) == (PEER, 7, 5.0)
        return [decode_body(content, body)]

    def _refuse(self, peer: PeerId, id: int, code: int, text: str, now: float) -> Any:
        assert (peer, id, now) == (PEER, 7, 5.0)
        return [(code, text)]


@pytest.fixture
def asker() -> Asker:
    return Asker()


def declared(handler: Callable[..., Any], **options: Any) -> Registered:
    """What registering a handler for requests noted."""
    handlers = Handlers(Talk)
    assert handlers.register("t", **options)(handler) is handler
    found = handlers.for_request("t")
    assert found is not None
    assert handlers.for_conversation("t") is None
    return found


# What a handler is called with.


def test_a_handler_gets_the_declared_type(asker: Asker) -> None:
    @asker.on("t")
    def total(request: Request[Numbers]) -> int:
        assert (request.peer, request.type) == (PEER, "t")
        assert (request.sent_at, request.received_at) == (1.5, 2.5)
        return sum(request.body.numbers)

    assert asker.ask(Numbers([1, 2])) == 3
    assert asker.ask({"numbers": [3]}) == 3
    assert asker.ask(Json({"numbers": [4]})) == 4


def test_a_handler_without_a_type_gets_what_was_sent(asker: Asker) -> None:
    @asker.on("t")
    def echo(request: Request) -> list[Any]:
        return [request.body]

    for body in (b"x", "x", {"a": [1]}, None):
        assert asker.ask(body) == [body]


@pytest.mark.parametrize("body", [b"", "text", {"numbers": ["1"]}, [1], Json({"numbers": 1}), None])
def test_a_body_that_does_not_fit_is_refused_and_the_handler_not_called(
    asker: Asker, body: Any
) -> None:
    @asker.on("t")
    def total(request: Request[Numbers]) -> None:
        raise AssertionError

    code, text = asker.ask(body)
    assert code == NOT_UNDERSTOOD
    assert text.startswith("the body does not fit: Expected ")


@given(st.sampled_from(ContentType), st.binary(max_size=60))
def test_any_bytes_are_answered_or_refused(content: ContentType, body: bytes) -> None:
    asker = Asker()
    asker.on("t", body=list[Numbers] | int)(lambda request: [request.body])
    asker.ask_encoded(content, body)
    (answer,) = asker.answers
    assert isinstance(answer, list) or answer[0] == NOT_UNDERSTOOD


def test_nobody_serves_an_unknown_type(asker: Asker) -> None:
    assert asker.ask(b"")[0] == RefusalCode.NO_HANDLER


async def test_coroutine_functions_answer_later(asker: Asker) -> None:
    @asker.on("t")
    async def double(request: Request[int]) -> int:
        await asyncio.sleep(0)
        return request.body * 2

    assert await asker.ask_and_wait(21) == 42


async def test_a_handler_ends_when_nobody_waits(asker: Asker) -> None:
    @asker.on("t")
    async def never(request: Request) -> None:
        await asyncio.Event().wait()

    assert asker.ask(b"") is None
    await asyncio.sleep(0)
    asker.serving.ask_gone(PEER, 8)  # another question
    asker.serving.ask_gone(PEER, 7)
    (task,) = asker.tasks
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()


# What the asker is told of errors.


def test_a_handler_refuses_on_purpose(asker: Asker, caplog: pytest.LogCaptureFixture) -> None:
    @asker.on("t")
    def never(request: Request[int]) -> None:
        raise Refused(request.body, "out of stock")

    for code in (100, 4711, 2**64 - 1):
        assert asker.ask(code) == (code, "out of stock")
    assert not caplog.records


async def test_a_coroutine_refuses_on_purpose(asker: Asker) -> None:
    @asker.on("t")
    async def never(request: Request) -> None:
        await asyncio.sleep(0)
        raise Refused(404, "not here")

    assert await asker.ask_and_wait(b"") == (404, "not here")


@pytest.mark.parametrize("code", [0, 1, 4, 99, -1, 2**64, True, 150.0, "404", None])
def test_codes_that_are_not_the_applications_keep_their_text_only(
    asker: Asker, caplog: pytest.LogCaptureFixture, code: Any
) -> None:
    @asker.on("t")
    def never(request: Request) -> None:
        raise Refused(code, "too late")

    assert asker.ask(b"") == (FAILED, "too late")
    assert "too late" in caplog.text


def test_other_errors_are_logged_here_and_not_told(
    asker: Asker, caplog: pytest.LogCaptureFixture
) -> None:
    @asker.on("broken")
    def broken(request: Request) -> None:
        raise MalformedFrame("the password is swordfish")

    @asker.on("unsendable")
    def unsendable(request: Request) -> object:
        return object()

    @asker.on("touchy")
    def touchy(request: Request[Touchy]) -> None:
        raise AssertionError

    with caplog.at_level(logging.ERROR, logger="meshwalk"):
        for kind in ("broken", "unsendable", "touchy"):
            caplog.clear()
            assert asker.ask({"x": 1}, kind) == (FAILED, "the peer's handler failed")
            (record,) = caplog.records
            assert record.exc_info is not None


# What an annotation declares.


def bare(request: Request) -> None: ...


def unannotated(request):  # type: ignore[no-untyped-def]
    ...


def anything(request: Any) -> None: ...


def numbers(request: Request[Numbers]) -> None: ...


def later(request: Request[list[Numbers]], more: int = 0) -> None: ...


def union(request: Request[int | None]) -> None: ...


def marked(request: Annotated[Request[Annotated[int, "positive"]], "asked"]) -> None: ...


def for_checkers(request: meshwalk.Request[int]) -> None: ...


def anyone(*requests: Request[int]) -> None: ...


def with_first(first: str, request: Request[int]) -> None: ...


# A result that cannot be evaluated is not our business.
async def coroutine(
    request: Request[int],
) -> Unwritten: ...  # type: ignore[name-defined]  # noqa: F821


@functools.wraps(numbers)
def wrapped(*args: Any, **options: Any) -> None: ...


class Shop:
    def method(self, request: Request[int]) -> None: ...

    @classmethod
    def of_class(cls, request: Request[int]) -> None: ...

    @staticmethod
    def static(request: Request[int]) -> None: ...

    def __call__(self, request: Request[int]) -> None: ...


def _name_of(value: object) -> str:
    """The same in every process, for whoever runs the tests in several."""
    return getattr(value, "__name__", None) or type(value).__name__


class Keeper:
    def __init__(self, request: Request[int]) -> None: ...


@pytest.mark.parametrize(
    ("handler", "body_type"),
    [
        (bare, Any),
        (unannotated, Any),
        (anything, Any),
        (lambda request: None, Any),
        (print, Any),
        (numbers, Numbers),
        (wrapped, Numbers),
        (later, list[Numbers]),
        (union, int | None),
        (marked, Annotated[int, "positive"]),
        (anyone, int),
        (coroutine, int),
        (for_checkers, int),
        (functools.partial(with_first, "x"), int),
        (functools.partial(functools.partial(with_first), "x"), int),
        (functools.partial(Shop().method), int),
        (Shop().method, int),
        (Shop.of_class, int),
        (Shop.static, int),
        (Shop(), int),
        (Keeper, int),
    ],
    ids=_name_of,
)
def test_the_type_of_bodies_by_the_annotation(handler: Callable[..., Any], body_type: Any) -> None:
    found = declared(handler)
    assert found.call is handler
    assert found.body_type == body_type
    if body_type is int:
        assert found.decode(ContentType.JSON, b"5") == 5
        with pytest.raises(MalformedFrame):
            found.decode(ContentType.JSON, b'"5"')


def test_a_conversation_is_declared_by_its_class() -> None:
    handlers = Handlers(Talk)

    @handlers.register("t")
    def talk(talk: Talk) -> None: ...

    @handlers.register("numbers")
    async def of_numbers(talk: Talk[Numbers]) -> None: ...

    @handlers.register("t")
    def question(request: Request[int]) -> None: ...

    found = [handlers.for_conversation(type) for type in ("t", "numbers", "other")]
    assert [(f.call, f.body_type) if f else None for f in found] == [
        (talk, Any),
        (of_numbers, Numbers),
        None,
    ]
    asked = handlers.for_request("t")
    assert asked is not None
    assert asked.call is question
    assert handlers.for_request("numbers") is None


def test_the_last_handler_of_a_type_and_kind_stays(asker: Asker) -> None:
    asker.on("t")(lambda request: "one")
    asker.on("t")(lambda request: "two")
    assert asker.ask(b"") == "two"


def test_body_overrides_the_annotation() -> None:
    assert declared(numbers, body=int).body_type is int
    assert declared(bare, body=None).body_type is None
    handlers = Handlers(Talk)

    @handlers.register("t", body=int)
    def talk(talk: Talk[Numbers]) -> None: ...

    found = handlers.for_conversation("t")
    assert found is not None
    assert found.body_type is int


# Types that are local to a function.


def test_a_local_type_is_found_where_the_handler_uses_it() -> None:
    class Local(msgspec.Struct):
        x: int

    def uses(request: Request[Local]) -> Local:
        return Local(not_yet)  # a name that has no value yet, as the handler's own has none

    assert declared(uses).body_type is Local
    not_yet = 1
    assert uses(Request(PEER, "t", Local(0))) == Local(1)


def test_a_local_type_that_the_handler_does_not_use_is_declared_with_body() -> None:
    class Local(msgspec.Struct):
        x: int

    def handler(request: Request[Local]) -> None: ...

    async def talk(talk: Talk[Local]) -> None: ...

    handlers = Handlers(Talk)
    for function in (handler, talk):
        with pytest.raises(InvalidArgument, match=r"'Local' is not defined.* pass body="):
            handlers.register("t")(function)
        handlers.register("t", body=Local)(function)
    found = handlers.for_request("t"), handlers.for_conversation("t")
    assert [f.body_type if f else None for f in found] == [Local, Local]


# What cannot be registered.


def nothing() -> None: ...


def two(request: Request, more: int) -> None: ...


def of_nobody(request: Request[Nobody]) -> None: ...


def number(request: int) -> None: ...


def perhaps(request: Request[int] | None) -> None: ...


def mistyped(request: Reqest) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def aliased(request: Question) -> None: ...


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (nothing, "nothing cannot serve 't': a handler takes one argument"),
        (two, "takes one argument"),
        (Shop.method, r"Shop.method cannot serve 't'"),
        (of_nobody, "make Nobody a dataclass"),
        (number, r"number takes `int`; annotate .* Request\[T\]"),
        (perhaps, "perhaps takes `"),
        (mistyped, "annotation Reqest of mistyped cannot be evaluated"),
        (aliased, "annotation Question of aliased cannot be evaluated"),
    ],
)
def test_handlers_that_can_never_serve_are_errors_at_once(
    handler: Callable[..., Any], said: str
) -> None:
    handlers = Handlers(Talk)
    with pytest.raises(InvalidArgument, match=said) as refused:
        handlers.register("t")(handler)
    assert "\n" not in str(refused.value)
    assert handlers.for_request("t") is handlers.for_conversation("t") is None


def test_a_forgotten_type_in_brackets_is_an_error_at_once() -> None:
    with pytest.raises(InvalidArgument, match=r'write @node.on\("type"\)'):
        Handlers().register(bare)  # type: ignore[arg-type]


def test_body_must_be_buildable_too() -> None:
    with pytest.raises(InvalidArgument, match="make Nobody a dataclass"):
        Handlers().register("t", body=Nobody)(bare)
