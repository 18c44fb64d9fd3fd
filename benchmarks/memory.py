"""What an idle standing link costs in memory: resident size of a node before and after 200 of them.

    python benchmarks/memory.py

One process holds the node that is measured, another one its 200 neighbours. The figure holds all
that a link brings: socket, TLS, frames, timers, round trips, address book.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import subprocess
import sys
from pathlib import Path

import meshwalk
from meshwalk.config import Config, ConnectionConfig, OverlayConfig

LINKS = 200
WARM_UP = 20  # links made before the first look, so that what is made once is not counted
PAGE_BYTES = resource.getpagesize()

MANY = Config(
    connections=ConnectionConfig(total_max=1000, accepts_burst=1000),
    # Below its minimum a node accepts every walk, so that all links end here.
    overlay=OverlayConfig(links_min=LINKS + WARM_UP, links_max=LINKS + WARM_UP + 10),
)
ONE = Config(overlay=OverlayConfig(links_min=1, links_max=3))


def resident_bytes() -> int:
    gc.collect()
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * PAGE_BYTES


async def measured() -> None:
    async with meshwalk.Node(listen="127.0.0.1:0", config=MANY) as node:
        print(node.address.host_and_port, flush=True)

        async def linked(count: int) -> int:
            while len(node.neighbours) < count:
                await asyncio.sleep(0.05)
            await asyncio.sleep(1.0)  # temporary links close, buffers are let go
            return resident_bytes()

        before = await linked(WARM_UP)
        after = await linked(WARM_UP + LINKS)
        print(f"{(after - before) / LINKS / 1024:.1f}", flush=True)


async def neighbours(address: str) -> None:
    nodes = [meshwalk.Node(listen="127.0.0.1:0", config=ONE) for _ in range(WARM_UP + LINKS)]
    for index, node in enumerate(nodes):
        if index == WARM_UP:
            await asyncio.sleep(2.0)  # the other process looks at its size
        await node.start()
        await node.join(address)
    await asyncio.Event().wait()


def main() -> None:
    if len(sys.argv) > 1:
        meshwalk.run(measured() if sys.argv[1] == "--measured" else neighbours(sys.argv[2]))
        return
    python = [sys.executable, __file__]
    with subprocess.Popen([*python, "--measured"], stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None
        address = node.stdout.readline().strip()
        with subprocess.Popen([*python, "--neighbours", address]) as others:
            figure = node.stdout.readline().strip()
            others.kill()
    print(f"an idle standing link: {figure} KiB resident (aim: at most 64)")


if __name__ == "__main__":
    main()
