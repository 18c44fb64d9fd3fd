"""The application's handlers by the type they serve, and what each one's annotation declares.

A handler takes one argument. `Request[T]` or `Conversation[T]` there says which kind it serves
and to what type bodies are decoded; `Request`, or no annotation, takes bodies as they come.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import typing
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic

import msgspec

from meshwalk.errors import InvalidArgument
from meshwalk.wire.content import Decode, decoder_of
from meshwalk.wire.peerid import PeerId

if TYPE_CHECKING:
    from typing import TypeVar

    # So that a bare `Request` means `Request[Any]` to type checkers. Python knows it from 3.13 on.
    BodyT = TypeVar("BodyT", default=Any)
else:
    BodyT = typing.TypeVar("BodyT")

AnyHandler = typing.TypeVar("AnyHandler", bound=Callable[[Any], Any])

_WRAPPERS_MAX: Final = 100  # guess: more than anyone wraps around a function, and an end to cycles

# What evaluating an annotation, a line of the user's, usually raises.
_UNRESOLVED: Final = (NameError, AttributeError, TypeError, ValueError, SyntaxError)


class Request(msgspec.Struct, Generic[BodyT], frozen=True):
    """A peer's question, as its handler gets it; `Request[T]` has its body decoded to a T."""

    peer: PeerId
    """Who asks: proven by the link."""
    type: str
    body: BodyT
    sent_at: float = 0.0
    """Unix time in seconds, by this node's clock as far as the asker's is known; 0.0: unknown."""
    received_at: float = 0.0
    """Unix time in seconds, by this node's clock."""


class Registered(msgspec.Struct, frozen=True):
    """A handler and what it declares."""

    call: Callable[[Any], Any]
    body_type: Any
    decode: Decode
    """Reads a body as `body_type`; raises `MalformedFrame`."""


class Handlers:
    """The handlers of one node: one for requests and one for conversations of each type.

    `conversation` is the class whose name in an annotation makes a handler one for conversations.
    It is given, so that its module may import this one.
    """

    def __init__(self, conversation: type | None = None) -> None:
        self._conversation = conversation
        self._requests: dict[str, Registered] = {}
        self._conversations: dict[str, Registered] = {}

    def register(
        self, type: str = "", *, body: Any = msgspec.UNSET
    ) -> Callable[[AnyHandler], AnyHandler]:
        """A decorator for the handler of this type; it replaces an earlier one of the same kind.

        `body` declares the type of bodies in place of the annotation. Decorating raises
        `InvalidArgument` when the handler does not take one argument, when it yields, when its
        annotation is nothing of ours or cannot be evaluated, or when bodies cannot be decoded to
        the type.
        """
        if not isinstance(type, str):
            raise InvalidArgument('a type of messages is text; write @node.on("type")')

        def decorate(handler: AnyHandler) -> AnyHandler:
            _check_returns(handler, type)
            hint = _first_hint(handler, type)
            table, declared = self._declared(handler, hint, has_body=body is not msgspec.UNSET)
            declared = declared if body is msgspec.UNSET else body
            table[type] = Registered(handler, declared, decoder_of(declared))
            return handler

        return decorate

    def for_request(self, type: str) -> Registered | None:
        """Who answers requests of this type."""
        return self._requests.get(type)

    def for_conversation(self, type: str) -> Registered | None:
        """Who takes part in conversations of this type."""
        return self._conversations.get(type)

    def _declared(
        self, handler: Callable[..., Any], hint: Any, *, has_body: bool
    ) -> tuple[dict[str, Registered], Any]:
        """The table for a handler with this annotation, and the type of bodies in brackets."""
        if has_body:  # only the kind is wanted, and what stands in [] need not be known
            hint = _without_brackets(hint)
        hint = _plain(_evaluated(handler, hint, self._own_names()))
        kind, brackets = typing.get_origin(hint) or hint, typing.get_args(hint)
        declared = brackets[0] if brackets else Any
        if kind is self._conversation and kind is not None:
            return self._conversations, declared
        if kind is Request or kind is Any or kind is object:
            return self._requests, declared
        raise InvalidArgument(
            f"{_name(handler)} takes `{_shown(hint)}`; annotate its first parameter as"
            " Request[T] or Conversation[T], or not at all"
        )

    def _own_names(self) -> dict[str, Any]:
        """Names that a module may have imported for type checkers alone."""
        names: dict[str, Any] = {"Request": Request, "meshwalk": sys.modules.get("meshwalk")}
        if self._conversation is not None:
            names[self._conversation.__name__] = self._conversation
        return names


def _check_returns(handler: Callable[..., Any], type: str) -> None:
    """A generator function runs nothing when it is called, so it can serve nobody."""
    for function in (handler, getattr(handler, "__call__", None)):  # noqa: B004 - an object's own
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidArgument(
                f"{_name(handler)} cannot serve {type!r}: a handler does not yield; it returns its"
                " answer, or says things by `await conversation.send(…)`"
            )


def _first_hint(handler: Callable[..., Any], type: str) -> Any:
    """The annotation of the parameter that gets the request, as it is written; Any for none."""
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):  # some callables in C tell nothing about themselves
        return Any
    try:
        signature.bind(None)
    except TypeError:
        raise InvalidArgument(
            f"{_name(handler)} cannot serve {type!r}: a handler takes one argument, the request"
        ) from None
    hint = next(iter(signature.parameters.values())).annotation
    return Any if hint is inspect.Parameter.empty else hint


def _evaluated(handler: Callable[..., Any], hint: Any, own_names: dict[str, Any]) -> Any:
    """The annotation with its text evaluated where the handler was written."""

    def stand_in() -> None: ...

    # This one annotation only: those of other parameters and of the result are not our business.
    stand_in.__annotations__ = {"hint": hint}
    function = _function(handler)
    seen = own_names if function is None else own_names | function.__globals__
    local = {} if function is None else _closure(function)
    try:
        hints = typing.get_type_hints(stand_in, seen, local, include_extras=True)
    except _UNRESOLVED as error:
        raise InvalidArgument(
            f"the annotation {_shown(hint)} of {_name(handler)} cannot be evaluated ({error});"
            " declare the type at module level, or pass body="
        ) from error
    return hints["hint"]


def _function(handler: Callable[..., Any]) -> FunctionType | None:
    """The function that was written for a handler; None when there is none in Python."""
    found: Any = handler
    for _ in range(_WRAPPERS_MAX):
        if isinstance(found, functools.partial):
            found = found.func
        elif isinstance(found, FunctionType) and not hasattr(found, "__wrapped__"):
            return found
        elif hasattr(found, "__wrapped__"):
            found = found.__wrapped__
        elif inspect.ismethod(found):
            found = found.__func__
        elif inspect.isclass(found):
            found = found.__init__
        else:
            found = type(found).__call__
    return None


def _closure(function: FunctionType) -> dict[str, Any]:
    """Names of enclosing functions that its body uses; Python keeps no others."""
    names: dict[str, Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # empty until the name is bound: its own, say
            names[name] = cell.cell_contents
    return names


def _without_brackets(hint: Any) -> Any:
    if isinstance(hint, str):
        return hint.partition("[")[0]
    plain = _plain(hint)
    return typing.get_origin(plain) or plain


def _plain(hint: Any) -> Any:
    return hint.__origin__ if typing.get_origin(hint) is Annotated else hint


def _name(handler: Callable[..., Any]) -> str:
    return getattr(handler, "__qualname__", type(handler).__name__)


def _shown(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)
