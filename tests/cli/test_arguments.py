"""The argument tree and the door, run inside the test's own process."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshwalk.cli import main as cli
from meshwalk.errors import Unreachable
from meshwalk.version import __version__


def complaint(stderr: str) -> str:
    assert "Traceback" not in stderr, stderr
    (line,) = stderr.splitlines()
    assert line.startswith("meshwalk: ")
    return line.removeprefix("meshwalk: ")


def typed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.run_command(arguments)
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ((), ("--help",), ("-h",)):
        code, out, err = typed(capsys, *arguments)
        assert (code, err) == (0, "")
        for name in (
            "chat",
            "up",
            "demo",
            "status",
            "peers",
            "id",
            "invite",
            "ping",
            "join",
            "trace",
            "stop",
        ):
            assert f"\n  {name} " in out
        for name in ("DATA", "LISTEN", "NETWORK", "SECRET_FILE"):
            assert f"MESHWALK_{name}" in out
        assert "..." not in out.partition("Commands:")[2], "a text is cut off"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("chat", "--data --listen --network --secret-file --room --difficulty"),
        ("up", "--data --listen --network --secret-file --quiet --difficulty"),
        ("demo", "--nodes --kill --json --seed"),
        ("status", "--data --json"),
        ("peers", "--data --json"),
        ("id", "--data --json"),
        ("invite", "--data --json"),
        ("ping", "--data --json --count"),
        ("join", "--data --json --timeout"),
        ("trace", "--data --network --secret-file --join --timeout --json --difficulty"),
        ("stop", "--data"),
        ("version", ""),
    ],
)
def test_help_of_each_command(capsys: pytest.CaptureFixture[str], name: str, options: str) -> None:
    code, out, err = typed(capsys, name, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: meshwalk {name} ")
    assert all(option in out for option in options.split())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    for argument in ("--version", "version"):
        assert typed(capsys, argument) == (0, f"meshwalk {__version__}\n", "")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("frobnicate", "No such command 'frobnicate'; see `meshwalk --help`"),
        ("staus", "Did you mean 'status'?"),
        ("--frobnicate", "No such option: --frobnicate"),
        ("status --frobnicate", "see `meshwalk status --help`"),
        ("ping", "Missing argument 'TARGET'"),
        ("ping x --count 0", "'--count'"),
        ("join", "Missing argument 'ENTRY'"),
        ("join a b", "unexpected extra argument"),
        ("join a --timeout -1", "'--timeout'"),
        ("trace --timeout 0", "'--timeout'"),
        ("trace --join h:99999", "port"),
        ("up --difficulty -1 a:1", "'--difficulty'"),
        ("demo --kill half", "40 or 40%"),
        ("demo --kill 101", "40 or 40%"),
        ("demo --kill -5%", "40 or 40%"),
        ("demo --nodes 1", "'--nodes'"),
        ("demo --seed x", "'--seed'"),
        ("\x1b[31m", "No such command"),
        ("up \x1b[31m:x", "has no port"),
        ("up --data= a:1", "--data is empty"),
        ("up --network= a:1", "network name"),
    ],
)
def test_wrong_usage(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    line: str,
    says: str,
) -> None:
    monkeypatch.setenv("MESHWALK_DATA", str(tmp_path / "unused"))
    code, out, err = typed(capsys, *line.split(" "))
    assert (code, out) == (2, "")
    assert not (tmp_path / "unused").exists()
    assert says in complaint(err)
    assert "\x1b" not in err


@pytest.mark.parametrize(("text", "percent"), [("40", 40), ("40%", 40), ("0", 0), ("100%", 100)])
def test_percentages(text: str, percent: int) -> None:
    assert cli._percent(text) == percent


def test_a_defect_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise KeyError("nobody\nexpected this")

    monkeypatch.setattr(cli, "_print_version", fail)
    code, _, err = typed(capsys, "version")
    assert code == 1
    assert "defect of meshwalk (KeyError" in complaint(err)
    assert "MESHWALK_DEBUG=1" in err


def test_interrupted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_print_version", fail)
    assert typed(capsys, "version") == (130, "", "meshwalk: interrupted\n")


def test_of_several_errors_the_first_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ExceptionGroup("of a task group", [Unreachable("nobody is there"), ValueError()])

    monkeypatch.setattr(cli, "_print_version", fail)
    assert typed(capsys, "version") == (1, "", "meshwalk: nobody is there\n")
