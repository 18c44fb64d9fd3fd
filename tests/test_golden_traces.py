"""What recorded nodes said and did when each of the overlay's machines acted, they still do.

tests/traces/README.md tells how to make the traces anew when they are meant to change.
"""

from __future__ import annotations

import importlib.util
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

from meshwalk.proto.overlay import exchange
from meshwalk.proto.overlay.statistics import OverlayStatistics
from meshwalk.sim.replay import Summary, replay, summarise

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tests" / "traces"
FILE_BYTES_MAX = 60_000  # they are in every checkout


def script() -> ModuleType:
    """`script/traces`, as a module."""
    loader = SourceFileLoader("traces_script", str(ROOT / "script" / "traces"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


SCRIPT = script()


def replayed(name: str) -> Summary:
    return summarise(replay(SCRIPT.unpack((FOLDER / f"{name}.jsonl.gz").read_bytes())))


def statistics(summary: Summary) -> OverlayStatistics:
    assert summary.last is not None
    return summary.last.node.statistics().overlay


def test_every_trace_has_its_world() -> None:
    files = {path.name for path in FOLDER.glob("*.gz")}
    assert files == {f"{name}.jsonl.gz" for name in SCRIPT.WORLDS}
    assert all(path.stat().st_size < FILE_BYTES_MAX for path in FOLDER.glob("*.gz"))


@pytest.mark.parametrize("name", SCRIPT.WORLDS)
def test_the_machines_do_what_they_did(name: str) -> None:
    said = SCRIPT.parting_of((FOLDER / f"{name}.jsonl.gz").read_bytes())
    assert not said, f"{said}\nIf that is meant: script/traces {name}"


@pytest.mark.parametrize(
    ("name", "counts", "outcomes"),
    [
        ("exchange", "exchange", {"told", "heard"}),
        ("probing", "probes", {"passed", "failed"}),
        ("beacons", "beacons", {"led", "passed on"}),
        ("healing", "healing", {"joined"}),
        ("vouching", "suspicions", {"suspected", "vouched for", "given up"}),
        ("trading", "trades", {"begun", "traded"}),
        ("parting", "handovers", {"linked"}),
    ],
)
def test_each_machine_acts_in_its_trace(name: str, counts: str, outcomes: set[str]) -> None:
    found: dict[str, int] = getattr(statistics(replayed(name)), counts)
    assert outcomes <= found.keys()


def test_broadcasts_are_pushed_and_fetched_in_theirs() -> None:
    last = replayed("broadcast").last
    assert last is not None
    did = last.node.statistics().broadcast.keys()
    assert {"prunes", "grafts", "asked for", "sent on request"} <= did


def test_a_change_is_told_with_what_was_and_what_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "RECORDS_PER_MESSAGE_MAX", 1)
    said = SCRIPT.parting_of((FOLDER / "exchange.jsonl.gz").read_bytes())
    line, step, was, now = said.splitlines()
    assert line.startswith("line ")
    assert step
    assert was.startswith(" was: ")
    assert now.startswith("  is: ")


def test_a_world_made_again_is_the_same_file() -> None:
    """Byte for byte, so that only what has changed shows as a change."""
    assert SCRIPT.pack(SCRIPT.exchange()) == SCRIPT.pack(SCRIPT.exchange())
