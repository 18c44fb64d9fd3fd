"""`meshwalk sim`: what it prints and writes, what it refuses, and how it ends."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from meshwalk.cli import main as cli
from meshwalk.cli.render import as_text
from meshwalk.cli.sim_tables import as_markdown, cell_text, for_terminal
from meshwalk.sim.experiment import Case, Experiment, Kind, Plot, Row, Series, Size, Table
from meshwalk.sim.experiments import catalogue


def cases(size: Size, seed: int) -> list[Case]:
    count = 3 if size is Size.QUICK else 6
    return [Case(f"n={n}", {"n": n}, seed * 100 + n, weight=n) for n in range(1, count + 1)]


def square(case: Case) -> Row:
    if case.settings["n"] == 5:
        raise ValueError("five is too much")
    return {"n": case.settings["n"], "square": case.settings["n"] ** 2}


def tables(rows: list[Row]) -> list[Table]:
    return [Table("Squares", ["n", "square"], [[row["n"], row["square"]] for row in rows])]


def plots(rows: list[Row]) -> list[Plot]:
    series = Series("n", [row["n"] for row in rows], [row["square"] for row in rows])
    return [Plot("growth", "Squares", "n", "square", [series], Kind.BARS)]


SQUARES = Experiment("squares", "How squares grow.", cases, square, tables, plots)
OTHER = Experiment("other", "The same again.", cases, square, tables, plots)


@pytest.fixture(autouse=True)
def catalogue_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "EXPERIMENTS", (SQUARES, OTHER))
    monkeypatch.delenv("MESHWALK_DEBUG", raising=False)


def typed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.run_command(["sim", *arguments])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    code, out, err = typed(capsys, *arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ((), ("--help",), ("-h",)):
        code, out, err = typed(capsys, *arguments)
        assert (code, err) == (0, "")
        for name in ("list", "run", "draw"):
            assert f"\n  {name} " in out
    code, out, _ = typed(capsys, "run", "-h")
    assert code == 0
    for option in ("--size", "--seed", "--case", "--jobs", "--out", "--format", "--json"):
        assert option in out


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert typed(capsys, "list") == (
        0,
        "squares  How squares grow.\nother    The same again.\n",
        "",
    )
    first, second = answer(capsys, "list")["experiments"]
    assert first == {"name": "squares", "summary": "How squares grow."}
    assert second["name"] == "other"


def test_run_shows_tables_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = typed(capsys, "run", "squares", "--seed", "7")
    assert (code, err) == (0, "")
    first, *rest = out.rstrip().splitlines()
    assert first.startswith("squares: 3 of 3 cases, size quick, seed 7, ")
    assert [line.split() for line in rest[-3:]] == [["1", "1"], ["2", "4"], ["3", "9"]]
    assert not list(tmp_path.iterdir())


def test_run_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    one, two = answer(capsys, "run", "all", "squares", "--case", "n=2", "--jobs", "1")["results"]
    assert (one["experiment"], two["experiment"]) == ("squares", "other")
    assert (one["size"], one["seed"], one["failures"]) == ("quick", 1, [])
    (row,) = one["rows"]
    assert row.pop("run_s") >= 0
    assert row == {"case": "n=2", "seed": 102, "n": 2, "square": 4}


def test_out_holds_json_tables_and_plots_and_draw_makes_the_same_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "made" / "here"
    code, out, err = typed(capsys, "run", "squares", "--out", str(folder), "--jobs", "1")
    assert (code, err) == (0, "")
    names = ["squares.json", "squares.md", "squares-growth.svg"]
    assert [line for line in out.splitlines() if line.startswith("wrote")] == [
        f"wrote {folder / name}" for name in names
    ]
    assert json.loads((folder / names[0]).read_text())["rows"][2]["square"] == 9
    drawn = [(folder / name).read_bytes() for name in names[1:]]
    again = tmp_path / "again"
    code, out, err = typed(capsys, "draw", str(folder / names[0]), "--out", str(again))
    assert (code, err) == (0, "")
    assert [(again / name).read_bytes() for name in names[1:]] == drawn
    typed(capsys, "draw", str(folder / names[0]), "--format", "png")
    assert (folder / "squares-growth.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("run nothing", "there is no experiment 'nothing'; there are squares, other, all"),
        ("run", "Missing argument"),
        ("run squares --case m=", "no case with 'm=' in its name at size quick"),
        ("run squares --size big", "'--size'"),
        ("run squares --jobs 0", "'--jobs'"),
        ("run squares --seed -1", "'--seed'"),
        ("run squares --format pdf", "'--format'"),
        ("soap", "No such command 'soap'"),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], line: str, says: str) -> None:
    code, out, err = typed(capsys, *line.split())
    assert (code, out) == (2, "")
    (complaint,) = err.splitlines()
    assert says in complaint


def test_a_file_that_holds_no_results(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    code, _, err = typed(capsys, "draw", str(path))
    assert (code, len(err.splitlines())) == (1, 1)
    for text in ("", "{}", '{"experiment": 5}'):
        path.write_text(text)
        code, _, err = typed(capsys, "draw", str(path))
        assert code == 2
        assert "holds no results of `meshwalk sim run --out`" in err


def test_a_case_that_fails_is_told_with_the_command_that_repeats_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = ("run", "squares", "--size", "full", "--jobs", "1", "--out", str(tmp_path))
    code, out, err = typed(capsys, *run, "--seed", "3")
    assert code == 1
    assert "squares: 5 of 6 cases" in out
    (complaint,) = err.splitlines()
    assert "squares, case 'n=5': ValueError: five is too much" in complaint
    written = json.loads((tmp_path / "squares.json").read_text())
    assert len(written["rows"]) == 5
    assert written["failures"] == [{"case": "n=5", "error": "ValueError: five is too much"}]
    again = shlex.split(complaint.partition("to repeat it: ")[2])
    assert again[:2] == ["meshwalk", "sim"]
    code, _, err = typed(capsys, *again[2:])
    assert (code, complaint in err) == (1, True)


def test_results_of_another_version_are_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "squares.json"
    head = '{"experiment": "squares", "version": "0.0.1", "size": "quick", "seed": 1, "rows": '
    for row in ('{"n": 1}', '{"n": 1, "square": {"value": 1}}', '{"n": 1, "square": "many"}'):
        path.write_text(f"{head}[{row}]}}")
        code, _, err = typed(capsys, "draw", str(path))
        assert (code, len(err.splitlines())) == (2, 1)
        assert f"{path} holds other results" in err
        assert "meshwalk 0.0.1 wrote it: run the experiment again" in err


def test_what_cannot_be_written_is_told_and_the_others_go_on(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.name == "squares-growth.svg":
            raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    run = ("run", "all", "--jobs", "1", "--out", str(tmp_path))
    why = f"meshwalk: squares: cannot write to {tmp_path}: No space left on device; going on\n"
    code, out, err = typed(capsys, *run)
    assert (code, err) == (1, why)
    assert [line for line in out.splitlines() if line.startswith("wrote")] == [
        f"wrote {tmp_path / name}"
        for name in ("squares.json", "squares.md", "other.json", "other.md", "other-growth.svg")
    ]
    code, out, err = typed(capsys, *run, "--json")
    assert (code, err) == (1, why)
    assert [len(one["rows"]) for one in json.loads(out)["results"]] == [3, 3]


def test_json_of_an_interrupted_run_holds_what_there_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(case: Case) -> Row:
        raise KeyboardInterrupt

    endless = Experiment("other", "", cases, interrupted, tables, plots)
    monkeypatch.setattr(catalogue, "EXPERIMENTS", (SQUARES, endless))
    code, out, err = typed(capsys, "run", "all", "--jobs", "1", "--json")
    assert (code, err) == (130, "meshwalk: interrupted\n")
    assert [one["experiment"] for one in json.loads(out)["results"]] == ["squares"]


def test_without_matplotlib_there_are_tables_and_json(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, err = typed(capsys, "run", "squares", "--jobs", "1", "--out", str(tmp_path))
    assert code == 0
    assert "Squares" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["squares.json", "squares.md"]
    hint = 'plots need matplotlib: pip install "meshwalk[sim]"'
    assert err == f"meshwalk: {hint}; going on without plots\n"
    code, _, err = typed(capsys, "draw", str(tmp_path / "squares.json"))
    assert (code, err) == (1, f"meshwalk: {hint}\n")


def test_ctrl_c(tmp_path: Path) -> None:
    """In a process of its own, with two workers that sleep: all of them end, with one line."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, time\n"
        "from meshwalk.cli import main\n"
        "from meshwalk.sim.experiment import Case, Experiment\n"
        "from meshwalk.sim.experiments import catalogue\n"
        "def run(case):\n"
        "    print('started', flush=True)\n"
        "    time.sleep(60)\n"
        "def cases(size, seed):\n"
        "    return [Case(str(n), {}, n) for n in range(4)]\n"
        "catalogue.EXPERIMENTS = (Experiment('sleep', '', cases, run, list, list),)\n"
        "if __name__ == '__main__':\n"
        "    sys.exit(main.run_command(['sim', 'run', 'sleep', '--jobs', '2']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        assert [process.stdout.readline() for _ in range(2)] == ["started\n"] * 2
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to parent and workers
        _, err = process.communicate(timeout=20)  # returns when the last has closed its output
    finally:
        process.kill()
    assert (process.returncode, err) == (130, "meshwalk: interrupted\n")


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, "-"),
        (True, "yes"),
        (12345, "12,345"),
        (0.123456, "0.1235"),
        (99.96, "99.96"),
        (1234.56, "1,235"),
        ("\x1b[31mred", "␛[31mred"),
    ],
)
def test_cells(cell: Any, text: str) -> None:
    assert cell_text(cell) == text


def test_numbers_stand_to_the_right() -> None:
    table = Table("T", ["rule", "nodes"], [["a|b", 1000], ["c", None]])
    assert as_markdown([table]) == (
        "**T**\n\n| rule | nodes |\n| --- | --: |\n| a\\|b | 1,000 |\n| c | - |\n"
    )
    assert as_text(for_terminal(table)).rstrip().splitlines()[-2:] == [
        " a|b    1,000",
        " c          -",
    ]
