"""A chat in a terminal: a prompt that incoming lines do not break."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Iterable, Iterator
from typing import Final

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.output import Output
from prompt_toolkit.patch_stdout import patch_stdout
from prompt_toolkit.renderer import print_formatted_text
from prompt_toolkit.styles import default_ui_style

from meshwalk.cli.chat_commands import SLASH_COMMANDS
from meshwalk.cli.render import message_fragments, own_fragments, sent_at
from meshwalk.errors import TooBig
from meshwalk.events import Delivery

TYPED_CHARACTERS_MAX = 64 << 10  # measured: 0.06 s a key at so many, 0.8 s at a million
DRAW_PAUSE_S = 0.05  # guess: 20 pictures a second look smooth, and a flood leaves time to type
QUIET: Final = "#808080"  # a middle tone: legible on black and on white
PROMPT: Final = "> "
PROBLEM: Final = "#d75f5f"  # as above, reddish

Fragments = list[tuple[str, str]]


class Terminal:
    """The `Screen` for people. Use inside `with`."""

    is_terminal = True

    def __init__(self) -> None:
        self._told_full = False
        self._room = ""
        self._busy: str | None = None
        self._session: PromptSession[str] = PromptSession(
            self._prompt,
            erase_when_done=True,  # the line is shown again as an own line, like those of others
            completer=_Commands(),
            complete_while_typing=Condition(_is_command),
            key_bindings=self._keys(),
        )
        self._output: Output = self._session.output
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Terminal:
        # The loop makes the terminal non-blocking, and the shell that started us shares that.
        for stream in (0, 1):
            with contextlib.suppress(OSError):  # closed, or no such thing on this system
                self._stack.callback(os.set_blocking, stream, os.get_blocking(stream))
        # What libraries print or log must not break the line that is being typed either.
        self._stack.enter_context(patch_stdout())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    async def lines(self) -> AsyncGenerator[str | TooBig, None]:
        """What is typed, to Ctrl-D, or Ctrl-C on an empty line after a Ctrl-C."""
        # For the time between two prompts, so that the terminal does not echo what is typed then.
        with self._session.input.raw_mode():
            async for line in self._prompts():
                yield line

    async def _prompts(self) -> AsyncGenerator[str, None]:
        is_interrupted = False
        while True:
            try:
                # The chat handles signals, and errors of tasks end it; see `chat`.
                line = await self._session.prompt_async(
                    set_exception_handler=False, handle_sigint=False
                )
            except KeyboardInterrupt:
                was_empty = not self._session.default_buffer.text
                if was_empty and is_interrupted:
                    return
                is_interrupted = True
                if was_empty:
                    await self.news("Ctrl-C again leaves; so do Ctrl-D and quit")
                continue
            except (EOFError, OSError):  # OSError: the terminal has gone
                return
            is_interrupted = False
            self._told_full = False
            yield line

    def room(self, name: str) -> None:
        self._room = name

    def busy(self, text: str | None) -> None:
        self._busy = text
        self._session.app.invalidate()

    def _prompt(self) -> FormattedText:
        # Not a toolbar: terminals that do not tell where the cursor is would not show it.
        busy = [] if self._busy is None else [(QUIET, f"{self._busy}\n")]
        return FormattedText([*busy, ("", f"{self._room}{PROMPT}")])

    async def messages(self, batch: list[Delivery], *, past: bool = False) -> None:
        lines: Fragments = []
        for message in batch:
            lines += [(QUIET, f"{sent_at(message)} " if past else "")]
            lines += [*message_fragments(message), ("", "\n")]
        await self._draw(lines)
        await asyncio.sleep(DRAW_PAUSE_S)

    async def own(self, text: str, room: str) -> None:
        await self._draw([*own_fragments(text, room), ("", "\n")])

    async def tell(self, text: str) -> None:
        await self._draw([("", f"{text}\n")])

    async def news(self, text: str) -> None:
        await self._draw([(QUIET, f"· {text}\n")])

    async def problem(self, text: str) -> None:
        await self._draw([(PROBLEM, f"! {text}\n")])

    async def _draw(self, fragments: Fragments) -> None:
        """Print above the line that is being typed."""
        # Not prompt_toolkit's run_in_terminal: it lets the terminal echo keys meanwhile.
        app = self._session.app
        with contextlib.suppress(OSError):  # the terminal has gone; `lines` ends too
            if app.is_running:
                app.renderer.erase()
            # The second guard after `printable`: this function writes ESC as "?".
            print_formatted_text(self._output, FormattedText(fragments), default_ui_style())
            if app.is_running:
                app.renderer.request_absolute_cursor_position()
                app.invalidate()

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add(Keys.BracketedPaste)
        def _(event: KeyPressEvent) -> None:
            text = event.data.replace("\r\n", "\n").replace("\r", "\n")
            buffer = event.current_buffer
            size = len(buffer.text) + len(text)
            if size <= TYPED_CHARACTERS_MAX:
                buffer.insert_text(text)
            else:
                self._told_full = False
                self._too_much(size)

        @keys.add(Keys.Any, filter=Condition(_is_full))
        def _(event: KeyPressEvent) -> None:
            self._too_much(len(event.current_buffer.text) + 1)

        return keys

    def _too_much(self, size: int) -> None:
        if self._told_full:  # each further key would tell it again
            return
        self._told_full = True
        text = (
            f"a typed line has at most {TYPED_CHARACTERS_MAX:,} characters, and this would have"
            f" {size:,}; longer ones go through a pipe: meshwalk chat ADDRESS < FILE"
        )
        get_app().create_background_task(self.problem(text))


def _is_command() -> bool:
    text = get_app().current_buffer.text
    return text.startswith("/") and not text.startswith("//")


def _is_full() -> bool:
    return len(get_app().current_buffer.text) >= TYPED_CHARACTERS_MAX


class _Commands(Completer):
    """Completes the first word of a line that begins with a slash."""

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        return self._matching(document.text_before_cursor)

    def _matching(self, typed: str) -> Iterator[Completion]:
        if typed.startswith("/"):
            for name, meaning in SLASH_COMMANDS.items():
                if name.startswith(typed):
                    yield Completion(name, start_position=-len(typed), display_meta=meaning)
