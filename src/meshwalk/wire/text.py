"""Texts that strangers write, made fit for people."""

from __future__ import annotations

from typing import Final

_TEXT_CHARACTERS_MAX: Final = 200  # below ShortText's bound in frames.py


def printable(text: str) -> str:
    """A stranger's text, or one that UTF-8 may not know, made fit for a log and for the wire."""
    cut = text[:_TEXT_CHARACTERS_MAX]
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in cut)
