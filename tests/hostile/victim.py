"""A real node in a process of its own, to be attacked. Prints its address; ends with its input."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import resource
import sys
from pathlib import Path

import msgspec

import meshwalk
from meshwalk.config import ConnectionConfig


def resident_bytes() -> int:
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * resource.getpagesize()


async def main() -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    loop = asyncio.get_running_loop()
    # Every case must reach the code behind the accept rate, which has tests of its own.
    config = meshwalk.Config(
        connections=ConnectionConfig(accepts_per_s=1e6, accepts_burst=1_000_000)
    )
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with meshwalk.Node(listen="127.0.0.1:0", config=config) as node:

        @node.on("echo")
        def echo(request: meshwalk.Request) -> object:
            return request.body

        print(node.address.host_and_port, flush=True)
        while await reader.readline():
            gc.collect()
            statistics = node.statistics()
            report = {
                "resident": resident_bytes(),
                "links": statistics.node.links,
                "half_open": statistics.node.half_open,
                "ended": statistics.node.ended,
                "neighbours": len(node.neighbours),
                "overlay": msgspec.to_builtins(statistics.node.overlay),
            }
            print(json.dumps(report), flush=True)


meshwalk.run(main())
