"""Runs a program on the fastest event loop that the platform has."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")


def run(main: Coroutine[Any, Any, _Result]) -> _Result:
    """As `asyncio.run`, on uvloop where it exists, which is faster. A `Node` runs on either."""
    try:
        import uvloop
    except ImportError:  # Windows, PyPy and other places without a wheel
        return asyncio.run(main)
    return uvloop.run(main)
