"""Style that a machine can check: sizes, banned calls, dead files, leftovers.

One function per check: it takes a file and returns findings. Below the checks stands what they are
applied to, then a test of each check by a text that breaks it.
"""

from __future__ import annotations

import ast
import gc
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

FILE_LINES_MAX = 500  # h11's longest is 659; every file that got away in other projects was longer
FUNCTION_LINES_MAX = 70  # TigerBeetle's TIGER_STYLE.md, without the docstring
LINE_CHARACTERS_MAX = 100  # as ruff is set in pyproject.toml; here also for scripts and docs
DOORS_MAX = 3  # a user's callback, the top of a task group, the top of a process

BANNED_CALLS = {
    "time.sleep": "await asyncio.sleep, or a deadline of the machine",
    "os.system": "nothing: a library starts no shells",
    "os._exit": "an exception, or an exit code returned by cli/main.py",
    "sys.exit": "an exit code returned by cli/main.py",
    "eval": "nothing: no text is code",
    "exec": "nothing: no text is code",
    "pickle.loads": "msgspec, which runs no code of a stranger's",
    "pickle.load": "msgspec, which runs no code of a stranger's",
    "asyncio.get_event_loop": "asyncio.get_running_loop",
    "asyncio.ensure_future": "a task of the node's TaskGroup",
    "logging.basicConfig": "nothing: logging is set up by the program that uses us",
}
RANDOM_ALLOWED = {"Random", "SystemRandom"}
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
# The brackets keep this file from finding itself.
LEFTOVERS = re.compile(r"\b(TOD[O]|FIXM[E]|X{3}|HAC[K])\b")
PRIVATE = re.compile(
    r"/w[o]rk/|/r[o]ot/|(?<!emit-)index[-]url"
    r"|https?://[^\s\"')]*\b(?:p[y]pi|n[p]mjs|crates[.]io|artifactor[y]|registr[y])"
)
ENTRY_POINTS = {
    "meshwalk",
    "meshwalk.__main__",
    "meshwalk.cli.main",
    "meshwalk.net.memory",  # the transport for tests, of ours and of users
    "meshwalk.testing",  # for tests of programs that use us
}


@dataclass(frozen=True)
class File:
    """A text and where it stands, relative to the root."""

    path: str
    text: str

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @property
    def tree(self) -> ast.Module:
        return _parsed(self.text)

    @property
    def module(self) -> str:
        """`src/meshwalk/wire/__init__.py` is `meshwalk.wire`."""
        name = self.path.removeprefix("src/").removesuffix(".py").replace("/", ".")
        return name.removesuffix(".__init__")


@dataclass(frozen=True)
class Finding:
    """Something to mend."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


@cache
def _parsed(text: str) -> ast.Module:
    # Seen once, after others: "AST constructor recursion depth mismatch". The parser checks its
    # depth at the end, and it is a guess that what garbage collection ran meanwhile had changed it.
    was_on = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(text)
    finally:
        if was_on:
            gc.enable()


# Sizes.


def long_file(file: File) -> Iterator[Finding]:
    count = len(file.lines)
    if count >= FILE_LINES_MAX:
        yield Finding(file.path, count, f"{count} lines; split it below {FILE_LINES_MAX}")


def long_functions(file: File) -> Iterator[Finding]:
    for node in ast.walk(file.tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        assert node.end_lineno is not None
        count = node.end_lineno - node.lineno + 1
        if ast.get_docstring(node, clean=False) is not None:
            docstring = node.body[0]
            assert docstring.end_lineno is not None
            count -= docstring.end_lineno - docstring.lineno + 1
        if count >= FUNCTION_LINES_MAX:
            yield Finding(file.path, node.lineno, f"{node.name} has {count} lines")


def long_lines(file: File) -> Iterator[Finding]:
    for number, line in enumerate(file.lines, 1):
        if len(line) > LINE_CHARACTERS_MAX:
            yield Finding(file.path, number, f"{len(line)} characters")


def long_lines_of_python_in_docs(file: File) -> Iterator[Finding]:
    """Prose is wrapped by the reader's screen; tables cannot be."""
    is_python = False
    for number, line in enumerate(file.lines, 1):
        if line.lstrip().startswith("```"):
            is_python = line.strip() == "```python"
        elif is_python and len(line) > LINE_CHARACTERS_MAX:
            yield Finding(file.path, number, f"{len(line)} characters")


# Calls.


def banned_calls(file: File) -> Iterator[Finding]:
    for node in ast.walk(file.tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in BANNED_CALLS:
            yield Finding(file.path, node.lineno, f"{name}: use {BANNED_CALLS[name]}")
        elif name == "print" and not file.path.startswith("src/meshwalk/cli/"):
            yield Finding(file.path, node.lineno, "print: only cli/ speaks to a terminal")
        elif name.startswith("random.") and name.removeprefix("random.") not in RANDOM_ALLOWED:
            yield Finding(file.path, node.lineno, f"{name}: use a Random that is given")


def _is_broad(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    return any(
        isinstance(node, ast.Name) and node.id in ("Exception", "BaseException")
        for node in ast.walk(handler.type)
    )


def _only_cleans_up(handler: ast.ExceptHandler) -> bool:
    """Whether every way through the handler ends in raising the same error again."""
    last = handler.body[-1]
    leaves = (ast.Return, ast.Break, ast.Continue)
    return (
        isinstance(last, ast.Raise)
        and last.exc is None
        and not any(isinstance(node, leaves) for node in ast.walk(handler))
    )


def _broad_handlers(file: File) -> Iterator[tuple[int, bool]]:
    """Each `except` that swallows everything: its line, and whether it is a door with a reason."""
    for node in ast.walk(file.tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        if _is_broad(node) and not _only_cleans_up(node):
            line = file.lines[node.lineno - 1]
            yield node.lineno, re.search(r"# door: \S+ \S+", line) is not None


def broad_handlers(file: File) -> Iterator[Finding]:
    for line, is_door in _broad_handlers(file):
        if not is_door:
            yield Finding(file.path, line, "name the exceptions, or write `# door: reason`")


def too_many_doors(files: list[File]) -> Iterator[Finding]:
    doors = [(file, line) for file in files for line, is_door in _broad_handlers(file) if is_door]
    for file, line in doors[DOORS_MAX:]:
        yield Finding(file.path, line, f"more than {DOORS_MAX} doors")


# Names and words.


def vague_name(file: File) -> Iterator[Finding]:
    if {part.removesuffix(".py").strip("_") for part in file.path.split("/")} & VAGUE_NAMES:
        yield Finding(file.path, 1, "name the file after what it is about")


def leftovers(file: File) -> Iterator[Finding]:
    for number, line in enumerate(file.lines, 1):
        if found := LEFTOVERS.search(line):
            yield Finding(file.path, number, f"{found[0]}: do it now or write an issue")


def private_places(file: File) -> Iterator[Finding]:
    for number, line in enumerate(file.lines, 1):
        if found := PRIVATE.search(line):
            yield Finding(file.path, number, f"{found[0]!r} means nothing on another machine")


def missing_docstring(file: File) -> Iterator[Finding]:
    if ast.get_docstring(file.tree) is None:
        yield Finding(file.path, 1, "say in a docstring what the file is for")


def unexplained_numbers(file: File) -> Iterator[Finding]:
    """A number at the top of a file says where it comes from, be it "guess"."""
    for index, node in enumerate(file.tree.body):
        name = _constant_name(node)
        if name is None or _is_explained(file, index):
            continue
        yield Finding(file.path, node.lineno, f"{name}: where does this number come from?")


def _constant_name(node: ast.stmt) -> str | None:
    """The name of a module-level constant whose value is a number; else None."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        target: ast.expr = node.targets[0]
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        target = node.target
    else:
        return None
    assert node.value is not None
    is_constant = isinstance(target, ast.Name) and re.fullmatch(r"_?[A-Z][A-Z0-9_]*", target.id)
    return ast.unparse(target) if is_constant and _is_number(node.value) else None


def _is_number(value: ast.expr) -> bool:
    if isinstance(value, ast.UnaryOp):
        return _is_number(value.operand)
    if isinstance(value, ast.BinOp):
        return _is_number(value.left) or _is_number(value.right)
    return isinstance(value, ast.Constant) and type(value.value) in (int, float)


def _is_explained(file: File, index: int) -> bool:
    node, body = file.tree.body[index], file.tree.body
    assert node.end_lineno is not None
    if any("# " in line for line in file.lines[node.lineno - 1 : node.end_lineno]):
        return True
    if node.lineno > 1 and file.lines[node.lineno - 2].lstrip().startswith("# "):
        return True
    after = body[index + 1] if index + 1 < len(body) else None
    return (
        isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
        and isinstance(after.value.value, str)
    )


# The tree as a whole.


def dead_files(files: list[File]) -> Iterator[Finding]:
    """A module that no other module of the library imports is used by nobody."""
    imported: set[str] = set()
    for file in files:
        for node in ast.walk(file.tree):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            imported |= {name for name in names if name != file.module}
    for file in files:
        if file.path.endswith("__init__.py") or file.module in ENTRY_POINTS:
            continue
        if file.module not in imported:
            yield Finding(file.path, 1, "nothing imports this file")


# What the checks are applied to.


@cache
def tracked() -> tuple[File, ...]:
    """Every text file of the project, as git sees it, or as it lies there when git is not."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        names = listed.stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        parts = ("src", "tests", "docs", "fuzz", "script", "benchmarks")
        found = (path for part in parts for path in (ROOT / part).rglob("*"))
        names = [p.relative_to(ROOT).as_posix() for p in found if "__pycache__" not in p.parts]
    files: list[File] = []
    for name in sorted(set(names)):
        try:
            files.append(File(name, (ROOT / name).read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError):
            continue  # a picture, a folder, or deleted and not yet committed
    return tuple(files)


def python(*folders: str) -> list[File]:
    return [f for f in tracked() if f.path.endswith(".py") and f.path.split("/")[0] in folders]


def docs() -> list[File]:
    return [file for file in tracked() if file.path.endswith(".md")]


def everything() -> list[File]:
    return list(tracked())


def source() -> list[File]:
    return python("src")


def all_python() -> list[File]:
    return python("src", "tests", "fuzz", "benchmarks")


Check = Callable[[File], Iterator[Finding]]


@pytest.mark.parametrize(
    ("check", "files"),
    [
        (long_file, all_python),
        (long_functions, all_python),
        (long_lines, all_python),
        (long_lines_of_python_in_docs, docs),
        (banned_calls, source),
        (broad_handlers, source),
        (vague_name, all_python),
        (leftovers, everything),
        (private_places, everything),
        (missing_docstring, all_python),
        (unexplained_numbers, source),
    ],
)
def test_files_are_tidy(check: Check, files: Callable[[], list[File]]) -> None:
    found = [str(finding) for file in files() for finding in check(file)]
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize("check", [too_many_doors, dead_files])
def test_the_tree_is_tidy(check: Callable[[list[File]], Iterator[Finding]]) -> None:
    found = [str(finding) for finding in check(source())]
    assert not found, "\n".join(["", *found])


def test_the_files_are_found() -> None:
    paths = {file.path for file in tracked()}
    assert {"pyproject.toml", "src/meshwalk/errors.py", "tests/test_tidy.py"} <= paths
    assert len(source()) > 20


# Tests of the checks.

HERE = "src/meshwalk/proto/some.py"
FUNCTION = "def f():\n" + '    """Doc.\n\n    More.\n    """\n' + "    x = 1\n" * 68


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (long_file, "x\n" * 499, "x\n" * 500),
        (long_functions, FUNCTION, FUNCTION + "    x = 1\n"),
        (long_functions, "", "class A:\n    async def f(self):\n" + "        x = 1\n" * 69),
        (long_lines, "x" * 100, "x" * 101),
        (
            long_lines_of_python_in_docs,
            f"{'x' * 200}\n```text\n{'x' * 200}\n```\n```python\nx\n```\n{'x' * 200}",
            f"```python\n{'x' * 101}\n```",
        ),
        (banned_calls, "asyncio.sleep(1)\nrng.choice(x)\nrandom.Random(1)", "print(1)"),
        (banned_calls, "loop.time()", "time.sleep(1)"),
        (banned_calls, "random.SystemRandom()", "random.choice([1])"),
        (banned_calls, "", "def f():\n    return random.random()"),
        (
            broad_handlers,
            "try:\n    f()\nexcept ValueError:\n    g()",
            "try:\n    f()\nexcept:\n    g()",
        ),
        (
            broad_handlers,
            "try:\n    f()\nexcept Exception:  # door: a user's callback\n    g()",
            "try:\n    f()\nexcept Exception:  # noqa: BLE001\n    g()",
        ),
        (broad_handlers, "", "try:\n    f()\nexcept (KeyError, Exception) as e:\n    g()"),
        (
            broad_handlers,
            "try:\n    f()\nexcept BaseException:\n    g()\n    raise",
            "try:\n    f()\nexcept BaseException:  # door:\n    g()\n    raise OSError",
        ),
        (leftovers, "a list of things to do", "# TO" + "DO: later"),
        (leftovers, "hacking", "x = 1  # FIX" + "ME"),
        (private_places, "a network", "see /wo" + "rk/main"),
        (private_places, "--no-emit-index" + "-url", "--index" + "-url x"),
        (private_places, "https://example.com/simple", "https://py" + "pi.org/simple"),
        (missing_docstring, '"""Doc."""\nx = 1', "x = 1"),
        (unexplained_numbers, "X_MAX = 5  # guess", "X_MAX = 5"),
        (unexplained_numbers, "# RFC 1\nX = 1 << 20", "x = 1\nX = 1 << 20"),
        (unexplained_numbers, 'X = 5\n"""Guess."""', 'X: Final = 5\ny = """Guess."""'),
        (unexplained_numbers, 'NAME = "x"\nlower = 5\nFLAG = True', "_X = -1.5"),
        (unexplained_numbers, "class A:\n    X = 1", "X = Y * 2\n# of the next\nZ = 1"),
    ],
)
def test_each_check(check: Check, good: str, bad: str) -> None:
    assert list(check(File(HERE, good))) == []
    assert len(list(check(File(HERE, bad)))) == 1


def test_check_of_names() -> None:
    assert list(vague_name(File("src/meshwalk/net/driver.py", ""))) == []
    for path in ("src/meshwalk/utils.py", "src/meshwalk/common/x.py", "tests/_helpers.py"):
        assert list(vague_name(File(path, "")))


def test_the_command_line_may_print() -> None:
    assert list(banned_calls(File("src/meshwalk/cli/chat.py", "print(1)"))) == []


def test_check_of_doors() -> None:
    door = "try:\n    f()\nexcept Exception:  # door: of a house\n    g()\n"
    assert list(too_many_doors([File(HERE, door * 2), File(HERE, door)])) == []
    assert len(list(too_many_doors([File(HERE, door * 2), File(HERE, door * 2)]))) == 1


def test_check_of_dead_files() -> None:
    files = [
        File("src/meshwalk/__init__.py", "from meshwalk.a import x"),
        File("src/meshwalk/a.py", "from meshwalk.wire import b\nimport meshwalk.c"),
        File("src/meshwalk/wire/__init__.py", ""),
        File("src/meshwalk/wire/b.py", ""),
        File("src/meshwalk/c.py", ""),
        File("src/meshwalk/__main__.py", ""),
        File("src/meshwalk/dead.py", "import meshwalk.dead"),
    ]
    assert [finding.path for finding in dead_files(files)] == ["src/meshwalk/dead.py"]
