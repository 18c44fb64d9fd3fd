"""What the fuzzers share: mutation of valid samples, the clock, and the report of a failure."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

VECTORS = Path(__file__).resolve().parent.parent / "tests" / "vectors"
CASES_PER_LOOK = 500  # between looks at the clock, so that the clock costs nothing
EDITS_MAX = 4  # more edits than this leave little that the deeper checks ever see
INSERTED_BYTES_MAX = 8  # guess: one MessagePack header and a few bytes of its value
PIECE_BYTES_MAX = 64  # guess: long enough to carry a whole field from one sample to another

# Bytes at which MessagePack, UTF-8, lengths and our texts change their mind.
_TELLING = bytes.fromhex("00017f8081909192959ca0a1bfc0c1c2c3c4c6c7cacbcccfd3d6d9dbdcdddfe0edff")
_TELLING_TEXT = b"/:@,.%[]-_ 0x1f"


def mutate(rng: Random, samples: Sequence[bytes]) -> bytes:
    """One of the samples, changed in a few places."""
    data = bytearray(rng.choice(samples))
    for _ in range(rng.randint(0, EDITS_MAX)):
        at = rng.randint(0, len(data))
        kind = rng.randrange(7)
        if kind == 0:
            data[at : at + 1] = bytes([rng.getrandbits(8)])
        elif kind == 1:
            data[at : at + 1] = bytes([rng.choice(_TELLING)])
        elif kind == 2:
            data[at : at + rng.randint(1, INSERTED_BYTES_MAX)] = b""
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.randint(1, INSERTED_BYTES_MAX))
        elif kind == 4:
            data[at:at] = bytes([rng.choice(_TELLING_TEXT)])
        elif kind == 5:
            other = rng.choice(samples)
            start = rng.randint(0, len(other))
            data[at:at] = other[start : start + rng.randint(1, PIECE_BYTES_MAX)]
        else:
            data[at:at] = bytes([rng.choice(_TELLING)]) * rng.choice((2, 16, 2000))
    return bytes(data)


def run(check: Callable[[bytes], None], samples: Sequence[bytes], seed: int, cases: int) -> None:
    """Check this many cases; case number n of a seed is the same in every run.

    What `check` raises carries the case as a note.
    """
    for number in range(cases):
        one(check, samples, seed, number)


def one(check: Callable[[bytes], None], samples: Sequence[bytes], seed: int, number: int) -> None:
    """Check one case."""
    data = mutate(Random(f"{seed} {number}"), samples)
    try:
        check(data)
    except BaseException as error:
        error.add_note(f"seed {seed}, case {number}, input {data.hex()}")
        error.add_note(f"replay with: --seed {seed} --case {number}, or: --hex {data.hex()}")
        raise


def main(check: Callable[[bytes], None], samples: Sequence[bytes]) -> None:
    """The command line of a fuzzer."""
    parser = argparse.ArgumentParser(description="Feed a parser with damaged input.")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to go on")
    parser.add_argument("--seed", type=int, help="start of the cases (default: from the clock)")
    parser.add_argument("--case", type=int, help="check one case of the seed only")
    parser.add_argument("--hex", help="check one input only")
    options = parser.parse_args()
    if options.hex is not None:
        check(bytes.fromhex(options.hex))
        return
    seed = options.seed if options.seed is not None else time.time_ns() % 1_000_000
    print(f"seed {seed}", flush=True)  # noqa: T201 - the output of a program
    if options.case is not None:
        one(check, samples, seed, options.case)
        return
    ends_at, number = time.monotonic() + options.seconds, 0
    while time.monotonic() < ends_at:
        for _ in range(CASES_PER_LOOK):
            one(check, samples, seed, number)
            number += 1
    print(f"{number:,} cases, nothing found")  # noqa: T201 - the output of a program


def vectors(name: str) -> Any:
    """A file of the test vectors."""
    return json.loads((VECTORS / name).read_text())


def inputs(name: str, *path: str) -> list[bytes]:
    """Every `hex` below a place in a file of the test vectors."""
    place = vectors(name)
    for key in path:
        place = place[key]
    return [bytes.fromhex(vector["hex"]) for vector in place]
