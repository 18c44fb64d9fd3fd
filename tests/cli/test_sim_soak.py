"""`meshwalk sim soak`: what it prints and writes, how it ends, and how one run is looked into."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from meshwalk.cli import main as cli
from meshwalk.cli import sim_soak
from meshwalk.sim.checks import Finding
from meshwalk.sim.plan import NodePlan
from meshwalk.sim.planfile import as_json, read_plan
from meshwalk.sim.soaking import Run, carry_out, plan_of
from meshwalk.sim.storm import Storm, Verdict

# Cheap to run: the drawn plan with the fewest nodes and seconds.
SEED = min(range(60), key=lambda seed: len(plan_of(seed).nodes) * plan_of(seed).duration_s)


def typed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.run_command(["sim", "soak", *arguments])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def verdict(*findings: Finding, seconds: float = 60.0) -> Verdict:
    return Verdict(
        findings=list(findings),
        nodes=5,
        up=4,
        fragments=1,
        pieces=1,
        deliveries=20,
        events=1000,
        seconds=seconds,
        mended_s=3.0,
    )


@pytest.fixture
def odd_ones_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans are not carried out: those with more than two steps and an odd seed fail."""

    def run(storm: Storm) -> Verdict:
        plan = storm.plan
        findings = [Finding(1.5, "10.0.0.1", f"{n} links are odd") for n in range(6)]
        is_good = plan.seed % 2 == 0 or len(plan.steps) <= 2
        return verdict() if is_good else verdict(*findings)

    monkeypatch.setattr(Storm, "run", run)


def odd(seed: int) -> bool:
    return plan_of(seed).seed % 2 == 1 and len(plan_of(seed).steps) > 2


FIRST_ODD = next(seed for seed in range(100) if odd(seed))
FIRST_EVEN = next(seed for seed in range(100) if not odd(seed))


def test_a_run_without_findings(capsys: pytest.CaptureFixture[str]) -> None:
    expected = carry_out(plan_of(SEED)).verdict
    assert expected is not None
    code, out, err = typed(capsys, "--seed", str(SEED), "--count", "1", "--jobs", "1")
    assert (code, err) == (0, "")
    assert out.startswith(f"1 run, {expected.events:,} events, ")
    assert out.endswith(": none with findings\n")


@pytest.mark.usefixtures("odd_ones_fail")
def test_findings_and_how_to_have_them_again(capsys: pytest.CaptureFixture[str]) -> None:
    seed = str(FIRST_ODD)
    code, out, _ = typed(capsys, "--seed", seed, "-n", "1", "-j", "1")
    assert code == 1
    lines = out.splitlines()
    assert lines[0] == f"seed {seed}: 5 nodes, 60 virtual s, 6 findings"
    assert lines[1].split() == ["1.500", "s", "10.0.0.1", "0", "links", "are", "odd"]
    assert lines[5:7] == [
        "    and 2 more",
        f"  again: meshwalk sim soak --seed {seed} --count 1",
    ]
    assert lines[7].startswith("1 run, 1,000 events, ")


@pytest.mark.usefixtures("odd_ones_fail")
def test_it_goes_on_after_findings_and_sums_up(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "made" / "here"
    options = ("--seed", "0", "--count", "30", "--jobs", "1", "--out", str(folder))
    code, out, _ = typed(capsys, *options)
    failing = [seed for seed in range(30) if odd(seed)]
    assert code == 1
    assert f": {len(failing)} with findings\n" in out
    assert out.endswith(f"{len(failing):>6}  # links are odd, first with seed {failing[0]}\n")
    assert {path.name for path in folder.iterdir()} == {f"seed-{seed}.json" for seed in failing}
    kept = read_plan(folder / f"seed-{failing[0]}.json")
    assert kept.why == "# links are odd"
    assert kept.steps == plan_of(failing[0]).steps


@pytest.mark.usefixtures("odd_ones_fail")
def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = typed(capsys, "--seed", "0", "--count", "30", "--jobs", "1", "--json")
    assert (code, err) == (1, "")
    answer = json.loads(out)
    assert (answer["runs"], answer["events"], answer["virtual_s"]) == (30, 30_000, 1800.0)
    assert [run["plan_seed"] for run in answer["failed"]] == [s for s in range(30) if odd(s)]
    assert answer["failed"][0]["verdict"]["findings"][0]["text"] == "0 links are odd"


@pytest.mark.usefixtures("odd_ones_fail")
def test_it_ends_in_time(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = typed(capsys, "--minutes", "0", "--jobs", "1")
    assert (code, out.split(",")[0]) == (0, "0 runs")


def test_a_run_that_raises(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(storm: Storm) -> Verdict:
        raise KeyError("nobody")

    monkeypatch.setattr(Storm, "run", run)
    code, out, _ = typed(capsys, "--seed", "7", "--count", "1", "--jobs", "1")
    assert code == 1
    assert out.startswith("seed 7: KeyError: 'nobody'\n")
    assert '    raise KeyError("nobody")\n' in out


def test_an_interrupt_ends_it_with_a_summary(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []

    def run(storm: Storm) -> Verdict:
        ran.append(storm.plan.seed)
        if len(ran) == 3:
            raise KeyboardInterrupt
        return verdict()

    monkeypatch.setattr(Storm, "run", run)
    code, out, _ = typed(capsys, "--jobs", "1")
    assert (code, out.split(",")[0]) == (0, "2 runs")


def test_ctrl_c_ends_the_processes_too(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys, time\n"
        "from meshwalk.cli import main\n"
        "from meshwalk.sim.storm import Storm\n"
        "def run(storm):\n"
        "    os.write(1, b'started\\n')\n"  # at once: the other one writes, too
        "    time.sleep(60)\n"
        "Storm.run = run\n"
        "if __name__ == '__main__':\n"
        "    sys.exit(main.run_command(['sim', 'soak', '--jobs', '2']))\n"
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
        out, err = process.communicate(timeout=20)  # returns when the last has closed its output
    finally:
        process.kill()
    assert (process.returncode, err) == (0, "")
    assert out.startswith("0 runs, 0 events, ")


# One run.


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """A file with a plan of five seconds."""
    plan = plan_of(SEED)
    nodes = [NodePlan(0.1 * number, 0) for number in range(4)]
    small = msgspec.structs.replace(plan, duration_s=5.0, nodes=nodes, steps=[])
    file = tmp_path / "short.json"
    file.write_bytes(as_json(small))
    return file


def test_a_plan_from_a_file(capsys: pytest.CaptureFixture[str], short: Path) -> None:
    code, out, _ = typed(capsys, "--plan", str(short))
    expected = carry_out(read_plan(short)).verdict
    assert expected is not None
    assert (code, out.split(" in ")[0].split(", ")[1]) == (0, f"{expected.events:,} events")


@pytest.mark.usefixtures("odd_ones_fail")
def test_a_failing_plan_from_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "my plan.json"
    file.write_bytes(as_json(plan_of(FIRST_ODD)))
    code, out, _ = typed(capsys, "--plan", str(file))
    assert code == 1
    again = shlex.join(["meshwalk", "sim", "soak", "--plan", str(file)])
    assert f"  again: {again}\n" in out


def test_a_trace_of_the_whole_world_replays(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, short: Path
) -> None:
    file = tmp_path / "world.trace"
    plain = typed(capsys, "--plan", str(short), "--json")
    code, out, err = typed(capsys, "--plan", str(short), "--trace", str(file), "--json")
    assert code == plain[0]
    answers = [json.loads(text) for text in (out, plain[1])]
    for answer in answers:
        del answer["took_s"]
    assert answers[0] == answers[1]  # a run does the same whether it is recorded or not
    size = f"{file.stat().st_size / 1e6:,.1f} MB"
    assert f"wrote {file}, {size}; for one node of it: meshwalk sim replay {file} " in err
    assert cli.run_command(["sim", "replay", str(file)]) == 0
    assert cli.run_command(["sim", "replay", str(file), "--node", "10.0.0.1"]) == 0
    assert capsys.readouterr().out.count(": the same\n") == 2


def test_a_trace_that_is_not_whole_is_told(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    short: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "world.trace"
    monkeypatch.setattr(sim_soak, "TRACE_BYTES_MAX", 1_000_000)
    _, _, err = typed(capsys, "--plan", str(short), "--trace", str(file))
    assert f"{file} ends before the run does, after 1.0 MB: " in err
    assert file.stat().st_size <= 1_000_000

    close = os.close

    def over_quota(descriptor: int) -> None:
        close(descriptor)
        raise OSError(122, "Disk quota exceeded")

    monkeypatch.setattr(sim_soak, "TRACE_BYTES_MAX", 1 << 30)
    monkeypatch.setattr(os, "close", over_quota)
    again = tmp_path / "again.trace"
    _, _, err = typed(capsys, "--plan", str(short), "--trace", str(again))
    assert f"{again} ends before the run does, after " in err


def test_a_trace_is_never_written_over(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "world.trace"
    file.write_text("precious")
    code, _, err = typed(capsys, "--seed", str(SEED), "--trace", str(file))
    assert (code, file.read_text()) == (2, "precious")
    assert "exists already" in err


@pytest.mark.usefixtures("odd_ones_fail")
def test_shrinking(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = typed(capsys, "--seed", str(FIRST_ODD), "--shrink")
    assert code == 1
    path = Path(f"seed-{FIRST_ODD}-small.json")
    assert f"wrote {path}: 2 nodes, 3 faults, " in err
    small = read_plan(path)
    assert (len(small.steps), small.why) == (3, "# links are odd")
    assert err.rstrip().endswith(f"meshwalk sim soak --plan {path}")

    code, out, _ = typed(capsys, "--seed", str(FIRST_EVEN), "--shrink")
    assert (code, out.endswith("none with findings\n")) == (0, True)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--shrink"], "take one run"),
        (["--trace", "x"], "take one run"),
        (["--trace", "x", "--seed", "1", "--count", "2"], "take one run"),
        (["--plan", "x.json", "--seed", "1"], "leave out --seed"),
        (["--plan", __file__], "holds no plan"),
        (["--jobs", "0"], "jobs"),
        (["--count", "0"], "count"),
        (["--seed", "-1"], "seed"),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], options: list[str], why: str) -> None:
    code, out, err = typed(capsys, *options)
    assert (code, out) == (2, "")
    assert why in err


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = typed(capsys, "--plan", str(tmp_path / "none.json"))
    assert (code, out) == (1, "")
    assert "none.json" in err


def test_the_live_line() -> None:
    tally = sim_soak._Tally(0.0)  # only a terminal shows it
    tally.add(Run(1, verdict(seconds=3600.0)))
    tally.add(Run(2, None, "KeyError: 1"))
    assert tally.line.startswith("2 runs, ")
    assert tally.line.endswith(" events/s, 1.0 virtual hours, 1 with findings")
