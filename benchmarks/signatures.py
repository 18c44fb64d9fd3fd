"""What signatures of broadcasts cost, and how an event loop fares that has thousands to check.

    python benchmarks/signatures.py [--json] [--origins 500]

Three tables. Bundles: processor time of a message of 100 bytes at both ends together, machines and
drivers without sockets, by how many share a signature. Checking: signatures checked on the loop in
turns as `IntakeConfig` has them, on the loop without turns, and in a pool of threads, one by one
and by 64, and how late a timer of that loop was meanwhile. A flood: one process sends a node
broadcasts that many origins have signed each for itself, at several rates; how late the loop of
that node was, and what became of them.
"""

from __future__ import annotations

import argparse
import array
import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from broadcast import Member

import meshwalk
from meshwalk.config import BroadcastConfig, Config, IntakeConfig, LinkConfig
from meshwalk.identity.keys import KeyPair, NodeSignatures, verify
from meshwalk.identity.network import Network
from meshwalk.net.memory import MemoryHub, MemoryTransport
from meshwalk.proto.broadcast.effects import Pass
from meshwalk.proto.broadcast.history import HeldBroadcast
from meshwalk.proto.node import NodeCore
from meshwalk.wire.frames import ContentType
from meshwalk.wire.gossip import Broadcast
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import (
    BroadcastMessage,
    BroadcastPayload,
    Domain,
    decode_broadcast_head,
    encode,
)

BUNDLES: Final = {1: 5_000, 8: 20_000, 64: 100_000, 512: 200_000}
"""Messages sent, by messages in a bundle."""
MESSAGE_BYTES: Final = 116  # a body of 100 bytes, as `Publishing` counts it
PATIENCE_S: Final = 5.0
CHECKS: Final = 20_000
RATES: Final = (1_000, 3_000, 6_000, 12_000, 0)  # 0: as fast as the sender can
FLOOD_S: Final = 5.0
QUIET_S: Final = 3.0
SETTLE_S: Final = 60.0
TICK_S: Final = 0.001
UNLIMITED: Final = IntakeConfig(
    checks_per_turn=1 << 30,
    link_bytes_per_s=1e12,
    link_burst_bytes=1 << 40,
    origin_bytes_per_s=1e12,
    origin_burst_bytes=1 << 40,
)


# Bundles.


async def bundled(size: int, total: int) -> float:
    """Microseconds of processor time for a message, at both ends together."""
    bundles = (
        BroadcastConfig(bundle_wait_s=0.0)
        if size == 1
        else BroadcastConfig(bundle_wait_s=PATIENCE_S, bundle_bytes_max=MESSAGE_BYTES * size)
    )
    config = Config(broadcast=bundles, intake=UNLIMITED)
    hub = MemoryHub()

    def transport(keys: KeyPair, network: Network, given: Config) -> MemoryTransport:
        return MemoryTransport(hub, keys.peer_id, network.network_id, given.link)

    def node() -> meshwalk.Node:
        return meshwalk.Node(listen="127.0.0.1:0", config=config, transport=transport)

    async with node() as sender, node() as receiver:
        await receiver.join(sender.address)
        got = 0

        async def read() -> None:
            nonlocal got
            async for _ in receiver.messages(2 * total):
                got += 1

        reading = asyncio.get_running_loop().create_task(read())
        await asyncio.sleep(0.2)
        body = bytes(100)
        began_s = time.process_time()
        for _ in range(total):
            await sender.broadcast(body)
        until = time.monotonic() + PATIENCE_S
        while got < total - size and time.monotonic() < until:
            await asyncio.sleep(TICK_S)
        took_s = time.process_time() - began_s
        reading.cancel()
        return took_s / max(1, got) * 1e6


# Checking.


class Lateness:
    """How late this loop's timers are."""

    def __init__(self) -> None:
        self._late_us = array.array("I")
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            due = time.monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            self._late_us.append(max(0, int((time.monotonic() - due) * 1e6)))

    def end(self) -> dict[str, float]:
        self._task.cancel()
        late = sorted(self._late_us) or [0]
        return {
            "late_p50_ms": late[len(late) // 2] / 1e3,
            "late_p99_ms": late[len(late) * 99 // 100] / 1e3,
            "late_max_ms": late[-1] / 1e3,
        }


async def checked(how: Callable[[list[Any]], Awaitable[None]]) -> dict[str, float]:
    keys, data = KeyPair.generate(), bytes(300)
    one = keys.peer_id, keys.sign(data), data
    lateness = Lateness()
    await asyncio.sleep(0.05)
    began, began_cpu = time.perf_counter(), time.process_time()
    await how([one] * CHECKS)
    took, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    await asyncio.sleep(0.05)
    each_us = cpu / CHECKS * 1e6
    return {"checks_per_s": CHECKS / took, "cpu_us": each_us, **lateness.end()}


def check_all(some: list[Any]) -> None:
    for one in some:
        assert verify(*one)


async def on_the_loop(some: list[Any]) -> None:
    check_all(some)


async def in_turns(some: list[Any]) -> None:
    config = IntakeConfig()
    for start in range(0, len(some), config.checks_per_turn):
        turn_ends = time.monotonic() + config.turn_s
        check_all(some[start : start + config.checks_per_turn])
        await asyncio.sleep(max(0.0, turn_ends - time.monotonic()))


def pooled(at_once: int) -> Callable[[list[Any]], Awaitable[None]]:
    async def in_threads(some: list[Any]) -> None:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            # As many under way as may wait for their turn of one neighbour.
            for start in range(0, len(some), 1024):
                parts = range(start, min(start + 1024, len(some)), at_once)
                under_way = [
                    loop.run_in_executor(pool, check_all, some[at : at + at_once]) for at in parts
                ]
                await asyncio.gather(*under_way)

    return in_threads


# A flood.


def signed_by_many(network: Network, origins: int, each: int) -> list[Broadcast]:
    """Broadcasts of one message, in the order in which they are to be sent."""
    signers = [NodeSignatures(KeyPair.generate(), network.network_id) for _ in range(origins)]
    now_ms = int(time.time() * 1000)
    found: list[Broadcast] = []
    for number in range(1, each + 1):
        for signer in signers:
            body = len(found).to_bytes(16, "little") + bytes(84)  # another stamp for each
            messages = [BroadcastMessage(body, ContentType.BYTES)]
            payload = encode(
                BroadcastPayload(bytes(signer.peer_id), now_ms, number, now_ms, number, messages)
            )
            found.append(Broadcast(payload, signer.sign(Domain.BROADCAST, payload), 2))
    return found


async def flooded(rate: int, origins: int) -> dict[str, Any]:
    """Send one node what many have signed."""
    receiver = await Member.start("tree")
    link = LinkConfig(send_buffer_bytes_max=64 << 20)
    try:
        config = Config(link=link)
        async with meshwalk.Node(listen="127.0.0.1:0", config=config) as node:
            each = int((rate or 30_000) * FLOOD_S / origins) + 1
            broadcasts = signed_by_many(node.network, origins, each)
            await node.join(receiver.address)
            await receiver.ask("tick")
            await asyncio.sleep(1.0)
            await receiver.ask("report", run=0)  # what was late until now does not count
            sent = await pushed(node, broadcasts, rate)
            late_ms = (await receiver.ask("report", run=0))["late_ms"]
            ended = time.monotonic()
            report = await settled(receiver)
            return {
                "sent": sent,
                "sent_per_s": sent / FLOOD_S,
                "late_ms": late_ms,
                "settled_s": time.monotonic() - ended - QUIET_S,
                "unaccounted": sent
                - report["broadcast"].get("delivered", 0)
                - report["broadcast"].get("missed", 0),
                "cpu_s": report["cost"]["cpu_s"],
                "counts": report["broadcast"],
                "missing": report["waiting"],
                "trust": report["trust"],
                "partings": report["partings"],
                "links": report["links"],
            }
    finally:
        await receiver.stop()


async def settled(receiver: Member) -> Any:
    """Wait until nothing comes any more and nothing is missing; what the receiver says then."""
    report, quiet_since = await receiver.ask("report", run=0), time.monotonic()
    give_up_at = quiet_since + SETTLE_S
    while time.monotonic() < min(quiet_since + QUIET_S, give_up_at):
        await asyncio.sleep(0.5)
        before, report = report, await receiver.ask("report", run=0)
        is_busy = report["waiting"]["missing"] or report["waiting"]["waiting"]
        if is_busy or report["broadcast"] != before["broadcast"]:
            quiet_since = time.monotonic()
    return report


def pass_on(core: NodeCore, peers: tuple[PeerId, ...], broadcast: Broadcast, now: float) -> None:
    """As a node that has it of another neighbour, and has checked it."""
    head = decode_broadcast_head(broadcast.payload)
    id = head.origin, head.epoch, head.sequence
    held = HeldBroadcast(
        broadcast.payload, broadcast.signature, 0, head.sent_at_ms, 1, 0, False, now, None
    )
    core.gossip.history.hold(id, held)
    core._on_gossip([Pass(peers, broadcast)], now)


async def pushed(node: meshwalk.Node, broadcasts: list[Broadcast], rate: int) -> int:
    driver = node._running  # no application may send what others have signed
    core = driver.core
    began, sent = time.monotonic(), 0
    while sent < len(broadcasts) and (now := time.monotonic()) < began + FLOOD_S:
        due = int((now - began) * rate) if rate else sent + 256
        peers = tuple(core.overlay.membership.neighbours)
        for broadcast in broadcasts[sent:due]:
            pass_on(core, peers, broadcast, driver.clock())
        sent = max(sent, min(due, len(broadcasts)))
        driver.command(core._flush())
        if driver.congested:
            await driver.room_for_broadcast()
        await asyncio.sleep(0.0 if not rate else TICK_S)
    return sent


async def everything(origins: int, rates: list[int]) -> dict[str, Any]:
    bundles = {size: await bundled(size, total) for size, total in BUNDLES.items()}
    ways = {
        "on the loop": on_the_loop,
        "on the loop, in turns": in_turns,
        "in a pool, one by one": pooled(1),
        "in a pool, 64 at a time": pooled(64),
    }
    checking = {name: await checked(way) for name, way in ways.items()}
    floods = {rate: await flooded(rate, origins) for rate in rates}
    return {"us of a message by bundle": bundles, "checking": checking, "flood": floods}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--origins", type=int, default=500)
    parser.add_argument("--rates", nargs="+", type=int, default=list(RATES))
    arguments = parser.parse_args()
    found = meshwalk.run(everything(arguments.origins, arguments.rates))
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for title, table in found.items():
        print(title)
        for name, value in table.items():
            shown = f"{value:.2f}" if isinstance(value, float) else value
            print(f"    {name!s:24} {shown}")


if __name__ == "__main__":
    main()
