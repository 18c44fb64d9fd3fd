"""Each fuzzer on a fixed set of cases: `python fuzz/frames.py` goes on for as long as it is let."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "fuzz"
CASES = 2_000
FUZZERS = ["frames", "messages", "records", "address"]


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A file of fuzz/, under a name that hides no other module."""
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location(f"fuzz_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", FUZZERS)
def test_fixed_cases(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fuzzer, mutate = load(name, monkeypatch), load("mutate", monkeypatch)
    mutate.run(fuzzer.check, fuzzer.SAMPLES, seed=1, cases=CASES)


@pytest.mark.parametrize("name", FUZZERS)
def test_samples_are_not_all_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fuzzer whose samples no longer parse would find nothing and say so happily."""
    fuzzer = load(name, monkeypatch)
    assert len(fuzzer.SAMPLES) > 8
    for sample in fuzzer.SAMPLES:
        fuzzer.check(sample)


def test_every_fuzzer_is_run_and_states_its_invariant() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == {*FUZZERS, "mutate"}
    for name in FUZZERS:
        assert (FOLDER / f"{name}.py").read_text().startswith('"""Any ')


def test_a_failure_tells_how_to_replay_it(monkeypatch: pytest.MonkeyPatch) -> None:
    mutate = load("mutate", monkeypatch)

    def check(data: bytes) -> None:
        if b"z" not in data:
            raise KeyError

    with pytest.raises(KeyError) as caught:
        mutate.run(check, [b"abc"], seed=7, cases=100)
    case, replay = caught.value.__notes__
    assert case.startswith("seed 7, case 0, input ")
    assert replay.startswith("replay with: --seed 7 --case 0, or: --hex ")


def test_command_line() -> None:
    command = [sys.executable, str(FOLDER / "address.py"), "--seconds", "0.01", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("seed 1\n")
    assert done.stdout.endswith("cases, nothing found\n")
