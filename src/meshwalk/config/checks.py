"""What the numbers of a configuration are checked by, and the size they share."""

from __future__ import annotations

import msgspec

from meshwalk.errors import InvalidArgument

ENVELOPE_BYTES = 1024  # more than any Message adds to its body: tag, ids, times, type, signature


def require(condition: bool, text: str) -> None:
    if not condition:
        raise InvalidArgument(text)


def require_possible(config: msgspec.Struct) -> None:
    """No time, size, rate or count is negative or no number, and a bound lets something through."""
    for name in config.__struct_fields__:
        least = 1 if name.endswith("_max") else 0
        require(getattr(config, name) >= least, f"{name} is at least {least}")
