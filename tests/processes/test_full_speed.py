"""Broadcasts of real processes over TLS: all that is sent at full speed is delivered, once and in
order, or counted. The same member processes and the same account as benchmarks/broadcast.py."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform == "win32", reason="its pipes cannot be read by the loop"),
]

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "broadcast.py"
MEMBERS = 4
SECONDS = 0.5


def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("broadcast_benchmark", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("stack", ["tree", "flood"])
async def test_all_that_is_sent_at_full_speed_is_delivered_or_counted(stack: str) -> None:
    broadcast = benchmark()
    small = broadcast.Kind(1, SECONDS, 100, 0)
    large = broadcast.Kind(2, SECONDS, 256 << 10, 0)
    kinds = [("small", small), ("large", large)] if stack == "tree" else [("small", small)]
    found = await broadcast.measured(stack, MEMBERS, kinds)
    for name, result in found.items():
        print(f"\n{stack}, {name}: {result['sent_per_s']:,.0f}/s, {result['counts']}")
        assert result["sent"] > 0
        assert result["unaccounted_bundles"] == 0, result
        assert result["unaccounted_messages"] == 0, result
        assert result["twice"] == 0, result
        # Nobody is slower here than what is kept for him: nothing is lost, and no link ends.
        assert result["undelivered"] == result["dropped"] == 0, result
        assert not any("slow" in text or "distrusted" in text for text in result["partings"])
    assert found["small"]["disordered"] == 0
    # A burst is bundled: else it costs a signature each, at every node.
    assert found["small"]["bundles"] * 10 < found["small"]["sent"]
