"""py-libp2p's gossipsub as a member of a network that broadcast.py measures.

Its example's degrees (6, 4, 12) and a heartbeat of a second, as the specification has it. Its
protection against more than ten messages a second is off, since it drops them unasked. Messages
are signed, as gossipsub demands by default. The sender waits for nothing: `publish` has no way to
say that links are full, so a turn of the loop lies between two messages.
"""

# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

import json
import sys
import time
from typing import Any, Final

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.tools.anyio_service import background_trio_service
from member import Counting, cost, said, stamped
from multiaddr import Multiaddr

TOPIC: Final = "benchmark"
GOSSIPSUB: Final = TProtocol("/meshsub/1.1.0")


class Member:
    """One host, and what it has counted."""

    def __init__(self, host: Any, pubsub: Pubsub) -> None:
        self.host = host
        self.pubsub = pubsub
        self.counting = Counting()

    async def read_messages(self, subscription: Any) -> None:
        me = self.host.get_id().to_bytes()
        async for message in subscription:
            if message.from_id != me:
                self.counting.received(message.data)

    async def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        what = order["do"]
        if what == "join":
            await self.host.connect(info_from_p2p_addr(Multiaddr(order["address"])))
            return {}
        if what == "send":
            return await self.send(order["run"], order["seconds"], order["size"], order["rate"])
        if what == "count":
            run = self.counting.runs.get(order["run"])
            return {"count": run.count if run is not None else 0}
        links = len(self.pubsub.peers)
        return {"cost": cost(), "run": self.counting.told(order["run"]), "links": links}

    async def send(self, run: int, seconds: float, size: int, rate: float) -> dict[str, Any]:
        """Send for so long; `rate` 0: as fast as it goes."""
        padding = bytes(size - 16)
        began = time.monotonic()
        number = 0
        while (now := time.monotonic()) < began + seconds:
            if rate and (ahead_s := began + number / rate - now) > 0:
                await trio.sleep(ahead_s)
            await self.pubsub.publish(TOPIC, stamped(run, number, padding))
            await trio.sleep(0)
            number += 1
        ended_ns = time.monotonic_ns()
        return {"sent": number, "seconds": time.monotonic() - began, "ended_ns": ended_ns}


async def main() -> None:
    keys = create_new_key_pair()
    noise = NoiseTransport(keys, noise_privkey=create_noise_key_pair().private_key)
    host = new_host(key_pair=keys, sec_opt={NOISE: noise}, muxer_preference="YAMUX")
    router = GossipSub(
        protocols=[GOSSIPSUB],
        degree=6,
        degree_low=4,
        degree_high=12,
        heartbeat_interval=1,
        spam_protection_enabled=False,
    )
    pubsub = Pubsub(host, router)
    async with (
        host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]),
        background_trio_service(pubsub),
        background_trio_service(router),
        trio.open_nursery() as nursery,
    ):
        await pubsub.wait_until_ready()
        member = Member(host, pubsub)
        nursery.start_soon(member.read_messages, await pubsub.subscribe(TOPIC))
        say(str(host.get_addrs()[0]).encode() + b"\n")
        orders = trio.wrap_file(sys.stdin)
        while line := await orders.readline():
            say(said(await member.obey(json.loads(line))))
        nursery.cancel_scope.cancel()


def say(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    trio.run(main)
