"""The commands that ask a running node something: status, peers, id, invite, ping, join, stop.

With `as_json` each prints one JSON object, the answer of its route in net/control.py (`ping` adds
"lost"). Without, lines for people. Each returns the exit code, and raises what `ControlClient`
raises.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any, Final

from meshwalk.cli.control_client import ControlClient
from meshwalk.cli.render import (
    PeersTable,
    as_text,
    counted,
    duration,
    exchanges,
    fragment,
    printable,
    round_trip,
)
from meshwalk.errors import InvalidArgument, NotRunning, TimedOut
from meshwalk.identity.keys import KeyPair
from meshwalk.net.control import PING_TIMEOUT_S, JoinRequest, PingRequest
from meshwalk.net.peers import PeerInfo
from meshwalk.store import identity
from meshwalk.store.database import Database
from meshwalk.wire.address import INVITE_CHARACTERS_MAX
from meshwalk.wire.peerid import PEER_ID_CHARACTERS, SHORT_CHARACTERS, PeerId

PING_PAUSE_S: Final = 0.2  # ping(8): the shortest pause it allows to everyone
PIPE_COLUMNS: Final = 200  # guess: no line of the table folds in a file or a pipe

_PART_OF_ID: Final = re.compile(rf"[a-z2-7]{{{SHORT_CHARACTERS},{PEER_ID_CHARACTERS - 1}}}")


async def status(data: Path, *, as_json: bool) -> int:
    """Who the node is, where it listens and how it fares."""
    async with ControlClient(data) as client:
        answer = await client.get("status")
    if as_json:
        return print_json(answer)
    neighbours, peers = answer["neighbours"], answer["peers"]
    access = "open: no secret" if answer["is_open"] else "with a secret"
    overlay = answer["statistics"]["node"].get("overlay", {})
    standing = f"{counted(neighbours, 'neighbour')}, {counted(peers, 'peer')} known"
    for name, value in (
        ("node", answer["id"]),
        ("network", f"{answer['network']} ({access})"),
        ("standing", standing if neighbours else f"alone; {standing}"),
        ("fragment", fragment(overlay, answer["id"], neighbours, time.time())),
        ("exchanges", exchanges(answer["statistics"]["node"])),
        ("running", f"for {duration(answer['uptime_s'])}, process {answer['pid']}"),
        ("listening", answer["listen"]),
        ("reached at", ", ".join(answer["addresses"])),
        ("data", answer["data"]),
        ("invite", answer["invite"]),
    ):
        print_line(f"{name:<10}  {value}")
    return 0


async def peers(data: Path, *, as_json: bool) -> int:
    """Everyone whom the node knows, neighbours first."""
    async with ControlClient(data) as client:
        answer = await client.get("peers")
    if as_json:
        return print_json(answer)
    found = [_peer_info(peer) for peer in answer["peers"]]
    if not found:
        print_line("no peers yet; let the node join with `meshwalk join ENTRY`")
        return 0
    table = PeersTable(found)
    if not sys.stdout.isatty():
        print_lines(as_text(table, PIPE_COLUMNS))
        return 0
    from rich.console import Console

    # rich leaves colours out where NO_COLOR is set or the terminal has none.
    Console(highlight=False).print(table)
    return 0


async def show_id(data: Path, *, as_json: bool) -> int:
    """The node's PeerId, from the node or else from its store, where it is made if missing."""
    try:
        async with ControlClient(data) as client:
            answer = await client.get("id")
    except NotRunning:
        peer = _stored_id(data)
        answer = {"id": peer.text, "short": peer.short}
    if as_json:
        return print_json(answer)
    print_line(answer["id"])
    return 0


async def invite(data: Path, *, as_json: bool) -> int:
    """What others need to join."""
    try:
        async with ControlClient(data) as client:
            answer = await client.get("invite")
    except NotRunning as error:
        # Only a node that listens knows its addresses.
        raise NotRunning(f"an invite needs a running node, and {error}") from error
    if as_json:
        return print_json(answer)
    print_line(answer["invite"])
    return 0


async def ping(data: Path, target: str, count: int, *, as_json: bool) -> int:
    """Round-trip times to a neighbour or an address; raises `TimedOut` when all are lost."""
    times: list[float | None] = []
    async with ControlClient(data) as client:
        wanted = await _whole_id(client, target)
        for number in range(count):
            if number:
                await asyncio.sleep(PING_PAUSE_S)
            # One at a time, so that each is shown when it is there.
            answer = await client.post("ping", PingRequest(wanted), PING_TIMEOUT_S)
            times += answer["round_trips_s"]
            if not as_json:
                last = times[-1]
                print_line(f"{target}: {'no answer' if last is None else round_trip(last)}")
    good = [time for time in times if time is not None]
    lost = len(times) - len(good)
    if as_json:
        print_json({"target": wanted, "round_trips_s": times, "lost": lost})
    if not good:
        raise TimedOut(f"no answer from {target} within {PING_TIMEOUT_S:g} s")
    if count > 1 and not as_json:
        mean = sum(good) / len(good)
        figures = " / ".join(round_trip(value) for value in (min(good), mean, max(good)))
        print_line(f"{counted(len(times), 'ping')}, {lost} lost; least / mean / most {figures}")
    return 0


async def join(data: Path, entry: str, timeout_s: float, *, as_json: bool) -> int:
    """Have the node enter a network; returns when it is linked, or was already."""
    async with ControlClient(data) as client:
        answer = await client.post("join", JoinRequest(entry, timeout_s), timeout_s)
    if as_json:
        return print_json(answer)
    neighbours = counted(answer["neighbours"], "neighbour")
    if answer["was_joined"]:
        print_line(f"in a network already, with {neighbours}; the entry is kept for later")
    else:
        print_line(f"joined; {neighbours} so far")
    return 0


async def stop(data: Path) -> int:
    """Stop the node; returns when port and store are free."""
    async with ControlClient(data) as client:
        await client.stop()
    print_line("stopped")
    return 0


# What the above share.


async def _whole_id(client: ControlClient, target: str) -> str:
    """The PeerId that begins as `target`, which is what tables show; else `target` itself."""
    if not _PART_OF_ID.fullmatch(target):
        return target
    answer = await client.get("peers")
    found = [peer["peer"] for peer in answer["peers"] if peer["peer"].startswith(target)]
    if len(found) > 1:
        raise InvalidArgument(f"{len(found)} peers begin with {target}; write more of the PeerId")
    return found[0] if found else target


def _stored_id(data: Path) -> PeerId:
    database = Database.open(data)
    try:
        return KeyPair(identity.load_or_make(database, lambda: os.urandom(32))).peer_id
    finally:
        database.close()


def _peer_info(answer: dict[str, Any]) -> PeerInfo:
    known = {name: answer[name] for name in PeerInfo.__struct_fields__ if name in answer}
    return PeerInfo(**{**known, "peer": PeerId.parse(answer["peer"])})


def print_json(answer: dict[str, Any]) -> int:
    """Print an answer for programs; the exit code."""
    # ASCII only: no text of a stranger's can command the terminal.
    print_lines(json.dumps(answer, indent=2))
    return 0


def print_line(line: str) -> None:
    """Print a line for people, made safe."""
    print(printable(line, INVITE_CHARACTERS_MAX + 100), flush=True)


def print_lines(text: str) -> None:
    """Print lines that are safe already."""
    print(text, flush=True)
