"""What the tests of whole chats share: the program, and somebody to talk to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from meshwalk.net.node import Node

DEADLINE_S = 10.0  # a busy machine; nothing waits that long when all is well
# ESC sequences, a clipboard and a title command, a one-byte CSI, an override, a line end.
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x1b]52;c;aGk=\x1b\\\x9b35m\u202eend\rmark"
PROGRAM = """
import sys
from pathlib import Path
from meshwalk.cli.chat import chat
from meshwalk.cli.options import NodeOptions
from meshwalk.net.loop import run
given = {"room": "", "difficulty": "0"}
while sys.argv[1].startswith("--"):
    name, _, value = sys.argv.pop(1).removeprefix("--").partition("=")
    given[name] = value
room, difficulty = given["room"], int(given["difficulty"])
folder, secret, *entry = sys.argv[1:]
options = NodeOptions(
    Path(folder), "127.0.0.1:0", secret=secret.encode(), difficulty=difficulty
)
sys.exit(run(chat(options, entry[0] if entry else None, room)))
"""
# Gives up joining early, for the test of that.
IMPATIENT = """
import meshwalk.cli.chat_session
meshwalk.cli.chat_session.JOIN_TIMEOUT_S = 1.0
"""


@contextlib.asynccontextmanager
async def friend(secret: str = "") -> AsyncIterator[Node]:
    """Somebody in the network to talk to."""
    async with Node(listen="127.0.0.1:0", secret=secret) as node:
        yield node


def entry_of(node: Node) -> str:
    return node.address.host_and_port


async def bodies(node: Node, until: object) -> list[object]:
    """What arrives at a node, up to a body."""
    found: list[object] = []
    async with asyncio.timeout(DEADLINE_S), node.messages() as messages:
        async for message in messages:
            found.append(message.body)
            if message.body == until:
                break
    return found
