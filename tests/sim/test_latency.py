"""Latency models: their bounds, what is fixed for a pair, the same in every process, bad files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwalk.errors import InvalidArgument
from meshwalk.sim import latency as latency_module
from meshwalk.sim.latency import (
    Constant,
    Latency,
    Pairwise,
    Plane,
    Table,
    Uniform,
    parse_duration_s,
    parse_latency,
)

HOSTS = [*(f"10.{i >> 3}.0.{i}" for i in range(1, 38)), "a.name", "another.name"]
MEANS_S = [[0.001, 0.02, 0.1], [0.03, 0.001, 0.2], [0.1, 0.2, 0.001]]
REGIONS = ["east", "west", "south"]
MODELS: dict[str, Latency] = {
    "constant": Constant(0.02),
    "uniform": Uniform(0.005, 0.05),
    "pairs": Pairwise(0.01, 0.1, seed=3),
    "plane": Plane(5, seed=3),
    "table": Table(REGIONS, MEANS_S, {"10.1": "west"}),
}
CSV = "ms,east,west\neast,1,20\nwest,30,1.5\n"


def test_constant_and_uniform() -> None:
    rng = Random(1)
    assert Constant(0.02).delay_s("a", "b", rng) == 0.02
    draws = [Uniform(0.005, 0.05).delay_s("a", "b", rng) for _ in range(1000)]
    assert 0.005 <= min(draws) < 0.006
    assert 0.049 < max(draws) <= 0.05


@given(st.text(max_size=20), st.text(max_size=20), st.integers(0, 2**64))
def test_a_pair_has_one_delay_both_ways(one: str, other: str, seed: int) -> None:
    model = Pairwise(0.01, 0.1, seed, jitter=0.5)
    base_s = model.base_s(one, other)
    assert 0.01 <= base_s <= 0.1
    assert model.base_s(other, one) == base_s
    assert base_s <= model.delay_s(other, one, Random(seed)) <= 1.5 * base_s


def test_pairs_fill_their_range_evenly() -> None:
    model = Pairwise(0.0, 1.0, seed=7)
    bases = sorted(model.base_s(a, b) for a in HOSTS for b in HOSTS if a < b)
    count = len(bases)
    assert len(set(bases)) == count
    assert max(abs(base - at / count) for at, base in enumerate(bases)) < 0.06  # Kolmogorov-Smirnov


@pytest.mark.parametrize("kind", [Pairwise, Plane])
def test_order_of_first_use_does_not_matter_and_the_seed_does(kind: type) -> None:
    def delays(hosts: list[str], seed: int) -> dict[tuple[str, str], float]:
        if kind is Pairwise:
            model: Latency = Pairwise(0.01, 0.1, seed, jitter=0.0)
        else:
            model = Plane(4, seed, jitter=0.0)
        return {(a, b): model.delay_s(a, b, Random(0)) for a in hosts for b in hosts}

    assert delays(HOSTS, 1) == delays(HOSTS[::-1], 1)
    assert delays(HOSTS, 1) != delays(HOSTS, 2)


def test_plane_is_distance_and_last_miles() -> None:
    plane = Plane(3, seed=5, seconds_per_unit=0.2, last_mile_s=(0.004, 0.004), jitter=0.0)
    for one in HOSTS:
        for other in HOSTS:
            (x, y), (u, v) = plane.position(one), plane.position(other)
            distance = ((x - u) ** 2 + (y - v) ** 2) ** 0.5
            delay_s = plane.delay_s(one, other, Random(0))
            assert delay_s == pytest.approx(0.2 * distance + 0.008)
            assert delay_s == plane.delay_s(other, one, Random(0))


def test_hosts_of_a_plane_lie_in_clusters() -> None:
    plane = Plane(3, seed=5)
    heads: list[tuple[float, float]] = []
    for x, y in map(plane.position, HOSTS):
        # Two of one cluster are at most twice its spread apart.
        if not any(max(abs(x - u), abs(y - v)) <= 0.1 for u, v in heads):
            heads.append((x, y))
    assert len(heads) == 3


def test_table_by_prefix_and_in_turn() -> None:
    table = Table(REGIONS, MEANS_S, {"10.1": "south", "10.1.2.": "west"}, jitter=0.0)
    assert table.region_of("10.1.9.9") == "south"
    assert table.region_of("10.1.2.9") == "west"
    assert table.region_of("10.1") == "south"
    in_turn = [table.region_of(f"10.10.0.{i}") for i in range(1, 7)]
    assert sorted(in_turn[:3]) == sorted(REGIONS)
    assert in_turn[:3] == in_turn[3:]
    assert table.region_of("a name") in REGIONS
    assert table.delay_s("10.1.2.1", "10.1.0.1", Random(0)) == 0.2
    assert Table(["a", "b"], [[0, 0.1], [0.3, 0]], {"x": "a", "y": "b"}, jitter=0.0).delay_s(
        "y", "x", Random(0)
    ) == pytest.approx(0.3)


def test_table_jitter_is_around_the_mean() -> None:
    table, rng = Table(["a"], [[0.1]], jitter=0.2), Random(1)
    draws = [table.delay_s("x", "y", rng) for _ in range(2000)]
    assert 0.08 <= min(draws) < 0.081
    assert 0.119 < max(draws) <= 0.12
    assert sum(draws) / len(draws) == pytest.approx(0.1, rel=0.02)


def test_tables_from_files(tmp_path: Path) -> None:
    as_csv, as_json = tmp_path / "table.csv", tmp_path / "table.json"
    as_csv.write_text(f"\ufeff# measured\r\n\r\n{CSV}", encoding="utf-8")
    as_json.write_text(
        '{"regions": ["east", "west"], "means_ms": [[1, 20], [30, 1.5]],'
        ' "prefixes": {"10.1": "east", "10.2": "west"}}'
    )
    table = Table.read(as_json, jitter=0.0)
    assert table.delay_s("10.1.0.1", "10.2.0.1", Random(0)) == pytest.approx(0.02)
    assert table.delay_s("10.2.0.1", "10.1.0.1", Random(0)) == pytest.approx(0.03)
    in_turn = Table.read(as_csv, jitter=0.0)
    assert in_turn.regions == ("east", "west")
    found = {in_turn.delay_s(a, b, Random(0)) for a in HOSTS for b in HOSTS}
    assert found == {0.001, 0.02, 0.03, 0.0015}


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("", 1, "ends after 0 rows"),
        ("east\n", 1, "names of regions"),
        ("," + ",".join(map(str, range(257))), 1, "1 to 256 names"),
        (",east,west\neast,1,2\n", 3, "ends after 1 rows"),
        (",east,west\nwest,1,2\neast,1,2\n", 2, "expected the row of 'east'"),
        (",east,west\neast,1,2\nwest,1\n", 3, "expected 2 delays, not 1"),
        (",east\neast,1\nwest,1\n", 3, "no more than 1 rows"),
        (",east\neast,nan\n", 2, "milliseconds, not 'nan'"),
        (",east\neast,-1\n", 2, "milliseconds, not '-1'"),
        (",east\neast,1e3\n", 2, "milliseconds, not '1e3'"),
        (",east\neast,60001\n", 2, "from 0 to 60000 milliseconds"),
        (",east\neast,٣\n", 2, "milliseconds"),
        (f",east\neast,{'9' * 200_000}\n", 2, "not CSV: field larger"),
        (',east\n"east,1\n', 2, "not CSV"),
    ],
)
def test_wrong_csv_names_its_line(tmp_path: Path, text: str, line: int, why: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidArgument) as caught:
        Table.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: line {line}: ")
    assert why in message
    assert "\n" not in message
    assert len(message) < len(str(path)) + 200


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "line 1: "),
        ("[" * 100_000, "line 1: "),
        ('{\n"regions": [],\n oops', "line 3: "),
        ('{"regions": ["a"], "means_ms": [["1"]]}', "means_ms"),
        ('{"regions": ["a"], "means_ms": [[1]], "more": 1}', "more"),
        ('{"regions": ["a"], "means_ms": [[-1]]}', "row of 'a'"),
        ('{"regions": ["a"], "means_ms": [[1, 2]]}', "needs 1 delays, not 2"),
        ('{"regions": ["a"], "means_ms": []}', "1 regions need as many rows, not 0"),
        ('{"regions": [], "means_ms": []}', "1 to 256 regions, not 0"),
        ('{"regions": ["a", "a"], "means_ms": [[1, 1], [1, 1]]}', "names that differ"),
        ('{"regions": ["a"], "means_ms": [[1]], "prefixes": {"10": "b"}}', "'b', which is no"),
    ],
)
def test_wrong_json_says_why(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(InvalidArgument) as caught:
        Table.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidArgument, match="no such file"):
        Table.read(tmp_path / "missing.csv")
    with pytest.raises(InvalidArgument, match="no such file"):
        Table.read(tmp_path)
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b",east\n\xff\xfe")
    with pytest.raises(InvalidArgument, match="line 2: not UTF-8"):
        Table.read(binary)
    binary.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(InvalidArgument, match="more than"):
        Table.read(binary)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InvalidArgument, match="cannot be read: Permission denied"):
        Table.read(binary)


@given(st.binary(max_size=200) | st.text(",\n\"'0123456789.aeb #{}[]:", max_size=80))
def test_any_file_is_a_table_or_refused(data: bytes | str) -> None:
    text = data if isinstance(data, str) else data.decode("latin-1")
    for parse in (latency_module._parse_csv, latency_module._parse_json):
        said = "line 0"
        try:
            parse(text)
        except InvalidArgument as error:
            said = str(error)
        assert re.match(r"line \d+", said)
        assert "\n" not in said


def test_words_of_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(CSV)
    constant = parse_latency("constant:20ms")
    assert isinstance(constant, Constant)
    assert constant.seconds == pytest.approx(0.02)
    uniform = parse_latency("uniform:500us-1.5s")
    assert isinstance(uniform, Uniform)
    assert (uniform.least_s, uniform.most_s) == pytest.approx((0.0005, 1.5))
    pairs = parse_latency("pairs:10ms-100ms", seed=3)
    assert isinstance(pairs, Pairwise)
    assert pairs.base_s("a", "b") == pytest.approx(Pairwise(0.01, 0.1, 3).base_s("a", "b"))
    plane = parse_latency("plane:5", seed=3)
    assert isinstance(plane, Plane)
    assert plane.position("a") == Plane(5, 3).position("a")
    assert isinstance(parse_latency(f"table:{path}"), Table)
    assert parse_duration_s("0s") == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "uniform",
        "uniform:5ms",
        "uniform:50ms-5ms",
        "uniform:5-50",
        "uniform:-5ms-50ms",
        "constant:",
        "constant:61s",
        "constant:1e1s",
        "constant:٣s",
        "constant:1ms ",
        "plane:",
        "plane:0",
        "plane:99999",
        "plane:-1",
        "plane:²",
        "pairs:10ms-100",
        "table:",
        "table:\0",
        "satellite:1s",
    ],
)
def test_wrong_words(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_latency(text)


@pytest.mark.parametrize("seconds", [-0.1, 60.1, float("nan"), float("inf")])
def test_delays_that_cannot_be(seconds: float) -> None:
    with pytest.raises(InvalidArgument):
        Constant(seconds)
    with pytest.raises(InvalidArgument):
        Uniform(0.0, seconds)
    with pytest.raises(InvalidArgument):
        Pairwise(0.0, 1.0, jitter=1 + abs(seconds))
    with pytest.raises(InvalidArgument):
        Plane(1, seconds_per_unit=seconds)


def delays_of(name: str) -> list[float]:
    """What a model says for many frames between hosts taken in the order of a set."""
    rng = Random(9)
    model = MODELS[name]
    for host in set(HOSTS):  # a different order in each process, which must not matter
        model.delay_s(host, host, Random(0))
    return [model.delay_s(a, b, rng) for a in HOSTS for b in HOSTS]


def test_every_process_says_the_same() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_latency as t;"
        "print(hash('x'), *(t.delays_of(name) for name in t.MODELS), sep='\\n')"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(Path(__file__).parent)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    (one_hash, *one), (other_hash, *other) = (
        process.communicate(timeout=60)[0].splitlines() for process in running
    )
    assert one_hash != other_hash  # the processes do differ
    for name, a, b in zip(MODELS, one, other, strict=True):
        assert a == b, name
