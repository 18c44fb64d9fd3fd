"""Plans in files: what is written is read again, and other files get one clear line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from meshwalk.errors import InvalidArgument
from meshwalk.sim.planfile import as_json, read_plan
from meshwalk.sim.soaking import plan_of


@pytest.mark.parametrize("seed", range(5))
def test_a_plan_is_the_same_after_writing(tmp_path: Path, seed: int) -> None:
    file = tmp_path / "plan.json"
    file.write_bytes(as_json(plan_of(seed)))
    assert read_plan(file) == plan_of(seed)


def test_a_plan_from_before_there_were_conversations(tmp_path: Path) -> None:
    plan = json.loads(as_json(plan_of(1)))
    for name in [name for name in plan if name.startswith("conversation") or name == "to_anyone"]:
        del plan[name]
    for name in ("conversations", "pacing", "reach"):
        del plan["config"][name]
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(plan))
    read = read_plan(file)
    assert (read.conversations_per_s, read.to_anyone) == (0.0, 0.0)


def refused(tmp_path: Path, data: bytes) -> str:
    file = tmp_path / "plan.json"
    file.write_bytes(data)
    with pytest.raises(InvalidArgument) as raised:
        read_plan(file)
    line = str(raised.value)
    assert str(file) in line
    assert "\n" not in line
    return line


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"seed": 1}'])
def test_a_file_that_holds_no_plan(tmp_path: Path, data: bytes) -> None:
    refused(tmp_path, data)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"nodes": []}, "1 to 10,000 nodes"),
        ({"latency": "slow"}, "slow"),
        ({"duration_s": -1.0}, "duration_s is 0"),
        ({"duration_s": 1e300}, "duration_s is 0"),
        ({"body_bytes_max": 0}, "body_bytes_max is 1"),
        ({"body_bytes_max": 300_000}, "body_bytes_max is 1 to 262144"),
        (
            {"body_bytes_max": 500, "config": {"broadcast": {"body_bytes_max": 499}}},
            "body_bytes_max is 1 to 499",
        ),
        ({"config": {"broadcast": {"body_bytes_max": 63}}}, "at least 64"),
        ({"sends_per_s": 1e6, "body_bytes_max": 1000}, "bursts and rates come to"),
        ({"requests_per_s": 1e6, "duration_s": 1e5, "body_bytes_max": 1}, "bursts and rates"),
        (
            {"steps": [{"at": 1.0, "fault": "burst", "value": 1e5}], "body_bytes_max": 100_000},
            "bursts and rates come to",
        ),
        ({"sends_per_s": -0.5}, "sends_per_s is 0"),
        ({"conversations_per_s": -0.5}, "conversations_per_s is 0"),
        ({"conversations_per_s": 1e6}, "bursts and rates come to"),
        ({"conversation_messages_max": 0}, "conversation_messages_max is 1"),
        ({"conversation_bytes_max": 1 << 40}, "conversation_bytes_max is 1 to"),
        ({"to_anyone": 1.5}, "to_anyone is 0 to 1"),
        ({"nodes": [{"joins_at": 0.0, "through": 0, "behaviour": "saint"}]}, "saint"),
        ({"nodes": [{"joins_at": 0.0, "through": 0, "group": 256}]}, "group is 0 to 255"),
        ({"nodes": [{"joins_at": 1e5, "through": 0}]}, "no node joins"),
        ({"steps": [{"at": 1.0, "fault": "earthquake"}]}, "earthquake"),
        ({"steps": [{"at": 1.0, "fault": "loss", "value": 1.5}]}, "the value of loss"),
        ({"steps": [{"at": 1.0, "fault": "sleep", "value": -1.0}]}, "the value of sleep"),
        ({"steps": [{"at": 1.0, "fault": "bandwidth"}]}, "the value of bandwidth"),
        ({"config": {"overlay": {"links_min": 5, "links_max": 2}}}, "links_m"),
        ({"config": {"overlay": {"links_min": "five"}}}, "links_min"),
        ({"stepz": []}, "stepz"),
    ],
)
def test_a_plan_that_can_never_be_carried_out(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    plan = json.loads(as_json(plan_of(1)))
    assert why in refused(tmp_path, json.dumps({**plan, **changes}).encode())
