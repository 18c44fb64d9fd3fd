"""The import rule: one table, checked by reading the imports of every file in src/meshwalk."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "meshwalk"


@dataclass(frozen=True)
class Row:
    """What the files of one part, a folder or a single file, may import."""

    part: str
    ours: str = ""
    """Other parts; "wire.frames" allows one module only. Its own part a file may always import."""
    packages: str = "msgspec"
    """Third parties."""
    never: str = ""
    """Modules of the standard library that are kept out."""


_IO = "asyncio socket ssl select threading sqlite3 logging"
_CHANCE_AND_CLOCK = "time datetime os secrets uuid"
_BELOW_PROTO = "errors version config events api trace wire identity"

# A part may import from rows above its own, never from below; `net` and `sim` are siblings.
TABLE = (
    # Row 0. The limits of the wire are constants of the wire, and `config` checks its numbers
    # against them: so it alone reaches down, to one file that imports nothing of ours.
    Row("errors", packages=""),
    Row("config", "errors wire.frames"),
    Row("version", packages=""),
    Row("trace", "errors"),
    # Row 1. `wire` does not use `config`, which imports `wire.frames`.
    Row("wire", "errors", never=f"{_IO} {_CHANCE_AND_CLOCK} random"),
    Row("identity", "errors config wire", "msgspec cryptography", never=_IO),
    # Between rows 1 and 2: what applications see, in words of the wire.
    Row("events", "errors wire", never=f"{_IO} {_CHANCE_AND_CLOCK} random"),
    Row("api", "errors config events wire"),
    # Row 2. Time, chance and keys are given to a machine, so that every run can be replayed.
    Row("proto", _BELOW_PROTO, never=f"{_IO} {_CHANCE_AND_CLOCK}"),
    # Row 3.
    Row("store", _BELOW_PROTO, "msgspec platformdirs", never="asyncio socket ssl select"),
    Row("apps", f"{_BELOW_PROTO} proto store", never="asyncio socket ssl select"),
    # Row 4.
    Row("net", f"{_BELOW_PROTO} proto store apps", "msgspec platformdirs psutil uvloop aiohttp"),
    Row(
        "sim",
        f"{_BELOW_PROTO} proto store apps",
        "msgspec matplotlib",
        never="time datetime socket ssl",
    ),
    # The public names: what a program needs, and neither a terminal nor a simulator.
    Row("__init__", f"{_BELOW_PROTO} proto store apps net"),
    # For tests of programs that use us: all that is below, real or simulated.
    Row("testing", f"{_BELOW_PROTO} proto store apps net sim __init__"),
    # Row 5.
    Row(
        "web",
        f"{_BELOW_PROTO} proto store apps net sim __init__",
        "msgspec aiohttp prometheus_client",
    ),
    Row(
        "cli",
        f"{_BELOW_PROTO} proto store apps net sim web __init__",
        "msgspec aiohttp platformdirs prompt_toolkit rich textual typer uvloop",
    ),
    Row("__main__", "cli", packages=""),
)

# Modules that belong to few files: whoever wants them asks those.
ONLY_IN = {
    "cryptography": ("identity/",),
    "sqlite3": ("store/database.py",),
    "psutil": ("net/interfaces.py",),
    "aiohttp": ("net/control.py", "cli/", "web/"),
    "matplotlib": ("sim/plots.py",),  # an extra: all else works without it
}

# Files of one part that must not know each other.
APART = {
    "proto/gossip.py": ("meshwalk.proto.overlay",),  # it hears of neighbours from the node
    "proto/overlay/": ("meshwalk.proto.gossip", "meshwalk.proto.dispatch", "meshwalk.proto.node"),
    "proto/link.py": ("meshwalk.proto.overlay", "meshwalk.proto.connections"),
    "net/memory.py": ("meshwalk.net.tcp", "meshwalk.net.quic"),
}

# `proto` is given a Random. The functions of the module share one that anybody may seed.
RANDOM_NAMES = {"Random"}


@dataclass(frozen=True)
class Import:
    """One imported module, and the name taken from it if there is one."""

    line: int
    module: str
    name: str | None


def imports(text: str) -> Iterator[Import]:
    """All imports of a file, wherever they stand."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, None)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield Import(node.lineno, "." * node.level + (node.module or ""), alias.name)


def violations(file: PurePosixPath, text: str) -> list[str]:
    """What a file, named relative to src/meshwalk, imports against the rule."""
    part = file.parts[0].removesuffix(".py")
    row = next((row for row in TABLE if row.part == part), None)
    if row is None:
        return [f"{file}: no row of the table names {part!r}"]
    return [
        f"{file}:{found.line}: {why}"
        for found in imports(text)
        if (why := _ours(row, file, found) or _theirs(row, file, found))
    ]


def _ours(row: Row, file: PurePosixPath, found: Import) -> str | None:
    if found.module.startswith("."):
        return "write imports in full, from meshwalk on"
    if found.module.split(".")[0] != "meshwalk":
        return None
    wanted = _module(found)
    for place, kept_out in APART.items():
        if _is_in(file, place) and any(f"{wanted}.".startswith(f"{m}.") for m in kept_out):
            return f"{place} and {wanted} must not know each other"
    inner = wanted.split(".")[1:] or ["__init__"]
    if inner[0] == row.part or {inner[0], ".".join(inner[:2])} & set(row.ours.split()):
        return None
    return f"{row.part} may not import {wanted}"


def _theirs(row: Row, file: PurePosixPath, found: Import) -> str | None:
    top = found.module.split(".")[0]
    if found.module.startswith(".") or top == "meshwalk":
        return None
    if top in ONLY_IN and not any(_is_in(file, place) for place in ONLY_IN[top]):
        return f"{top} may be imported in {' and '.join(ONLY_IN[top])} only"
    if top in row.never.split():
        return f"{row.part} may never import {top}"
    if row.part == "proto" and top == "random" and found.name not in RANDOM_NAMES:
        return "of random, proto may import the class Random only"
    if top not in sys.stdlib_module_names and top not in row.packages.split():
        return f"{row.part} may not import the package {top}"
    return None


def _module(found: Import) -> str:
    """`from meshwalk.wire import frames` names a module; `… .frames import Hello` does not."""
    if found.name is None:
        return found.module
    inner = SOURCE.joinpath(*found.module.split(".")[1:], found.name)
    is_module = inner.is_dir() or inner.with_suffix(".py").exists()
    # Of `from meshwalk import x` the part is x when there is one, else the public names.
    return f"{found.module}.{found.name}" if is_module else found.module


def _is_in(file: PurePosixPath, place: str) -> bool:
    return str(file).startswith(place) if place.endswith("/") else str(file) == place


def test_every_file_keeps_the_rule() -> None:
    found: list[str] = []
    for path in sorted(SOURCE.rglob("*.py")):
        file = PurePosixPath(path.relative_to(SOURCE).as_posix())
        found += violations(file, path.read_text())
    assert not found, "\n".join(["", *found])


def test_no_part_has_two_rows() -> None:
    assert len({row.part for row in TABLE}) == len(TABLE)


def test_rows_look_upward_only() -> None:
    """Each row uses earlier rows alone; the one exception is argued in the table."""
    seen: set[str] = set()
    for row in TABLE:
        later = set(row.ours.split()) - seen
        assert later <= ({"wire.frames"} if row.part == "config" else set()), row.part
        seen.add(row.part)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("errors.py", "from meshwalk.config import Config"),
        ("errors.py", "import msgspec"),
        ("config.py", "from meshwalk.wire.codec import FrameReader"),
        ("config.py", "import meshwalk.proto.link"),
        ("trace.py", "from meshwalk.proto.link import Link"),
        ("events.py", "from meshwalk.proto.link import Link"),
        ("api.py", "from meshwalk.net.driver import Driver"),
        ("wire/frames.py", "from meshwalk.identity.keys import KeyPair"),
        ("wire/frames.py", "from meshwalk.config import Config"),
        ("wire/frames.py", "import cryptography.hazmat"),
        ("wire/frames.py", "import random"),
        ("identity/keys.py", "from meshwalk.proto.link import Link"),
        ("identity/keys.py", "import ssl"),
        *(
            ("proto/link.py", f"import {name}")
            for name in f"{_IO} {_CHANCE_AND_CLOCK} random cryptography aiohttp".split()
        ),
        ("proto/link.py", "from random import choice"),
        ("proto/link.py", "from time import monotonic"),
        ("proto/link.py", "def f():\n    import asyncio.events"),
        ("proto/link.py", "from meshwalk.store.database import Store"),
        ("proto/link.py", "from meshwalk import Peer"),
        ("proto/link.py", "from meshwalk import net"),
        ("proto/link.py", "from . import effects"),
        ("proto/link.py", "from meshwalk.proto.connections import Connections"),
        ("proto/gossip.py", "from meshwalk.proto.overlay.overlay import Overlay"),
        ("proto/gossip.py", "from meshwalk.proto import overlay"),
        ("proto/overlay/walks.py", "from meshwalk.proto.gossip import Gossip"),
        ("store/schema.py", "import sqlite3"),
        ("store/database.py", "import asyncio"),
        ("store/database.py", "from meshwalk.proto.link import Link"),
        ("apps/chat.py", "from meshwalk.net.driver import Driver"),
        ("apps/chat.py", "import asyncio"),
        ("net/driver.py", "from meshwalk.sim.world import World"),
        ("net/driver.py", "import aiohttp"),
        ("net/driver.py", "import rich"),
        ("net/tcp.py", "from cryptography import x509"),
        ("net/memory.py", "from meshwalk.net.tcp import Tcp"),
        ("sim/world.py", "from meshwalk.net.driver import Driver"),
        ("sim/world.py", "import time"),
        ("sim/world.py", "import matplotlib.figure"),
        ("cli/sim.py", "import matplotlib"),
        ("sim/world.py", "from meshwalk.testing.network import Network"),
        ("net/driver.py", "from meshwalk.testing.network import Network"),
        ("testing/network.py", "from meshwalk.cli.main import main"),
        ("testing/network.py", "from meshwalk.web.server import serve"),
        ("web/server.py", "from meshwalk.cli.main import main"),
        ("__init__.py", "from meshwalk.cli.main import main"),
        ("__init__.py", "from meshwalk.sim.world import World"),
        ("__init__.py", "from meshwalk.web.server import serve"),
        ("__main__.py", "from meshwalk.net.driver import Driver"),
        ("nowhere/file.py", ""),
        ("nowhere.py", ""),
    ],
)
def test_breaking_the_rule_is_caught(file: str, line: str) -> None:
    assert violations(PurePosixPath(file), f'"""A file."""\n{line}\n')


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("config.py", "from meshwalk.wire.frames import FRAME_BYTES_MAX"),
        ("identity/keys.py", "from meshwalk.wire import records"),
        ("identity/certificate.py", "from cryptography import x509\nimport datetime"),
        ("proto/link.py", "from random import Random\nimport heapq\nimport msgspec"),
        ("proto/node.py", "from meshwalk.proto import connections, gossip"),
        ("store/database.py", "import sqlite3\nimport threading"),
        ("net/control.py", "import aiohttp\nimport ssl"),
        ("sim/plots.py", "from matplotlib.figure import Figure"),
        (
            "testing/network.py",
            "from meshwalk.sim.world import World\nimport meshwalk\nimport time",
        ),
        ("cli/main.py", "import meshwalk\nfrom meshwalk import Peer\nimport typer"),
        ("__init__.py", "from meshwalk.net.driver import Driver"),
        ("__main__.py", "from meshwalk.cli.main import main"),
    ],
)
def test_keeping_the_rule_is_not(file: str, line: str) -> None:
    assert violations(PurePosixPath(file), f'"""A file."""\n{line}\n') == []
