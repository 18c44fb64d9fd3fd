"""What is known of a swarm's nodes, and pure functions on it: links, degrees, fragments."""

from __future__ import annotations

import enum
import time
from collections.abc import Iterable, Mapping, Set

import msgspec

from meshwalk.cli.swarm_words import Tally

PARTINGS_MAX = 50  # guess: several times the links that a node can lose at once


class State(enum.Enum):
    """Of a node's process."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPED = "stopped"
    """It exists and does nothing: SIGSTOP."""
    ENDED = "ended"


class Member(msgspec.Struct):
    """One node of a swarm."""

    index: int
    state: State = State.STARTING
    run: int = 0
    """How many times it was started before."""
    pid: int = 0
    peer: bytes = b""
    address: str = ""
    neighbours: set[int] = set()
    """Whom it says it is linked with."""
    partings: list[str] = []
    """Why its last links have ended, with the times; for whoever asks what went wrong."""
    tallies: dict[tuple[int, int], Tally] = {}
    """What it has of each origin's broadcasts, by the origin's index and run."""

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        return self.state is not State.ENDED

    def born_again(self) -> None:
        """Forget what belonged to the process that has ended."""
        self.state = State.STARTING
        self.run += 1
        self.pid = 0
        self.neighbours = set()
        self.partings = []
        self.tallies = {}

    def note_parting(self, text: str) -> None:
        """Remember why a link has ended."""
        self.partings.append(f"{time.monotonic():.2f} {text}")
        del self.partings[:-PARTINGS_MAX]


def mutual_links(reported: Mapping[int, Set[int]], among: Iterable[int]) -> set[tuple[int, int]]:
    """Pairs of these nodes that report each other, smaller index first."""
    chosen = set(among)
    return {
        (index, other)
        for index in chosen
        for other in reported[index]
        if index < other and other in chosen and index in reported[other]
    }


def one_sided_links(reported: Mapping[int, Set[int]], among: Iterable[int]) -> set[tuple[int, int]]:
    """Pairs of these nodes of which only the first reports the second."""
    chosen = set(among)
    return {
        (index, other)
        for index in chosen
        for other in reported[index]
        if other in chosen and index not in reported[other]
    }


def degrees(links: Iterable[tuple[int, int]], among: Iterable[int]) -> dict[int, int]:
    """How many of the links each node has."""
    count = dict.fromkeys(among, 0)
    for one, other in links:
        count[one] += 1
        count[other] += 1
    return count


def components(links: Iterable[tuple[int, int]], among: Iterable[int]) -> list[list[int]]:
    """The connected parts, largest first; each in order of index."""
    linked: dict[int, list[int]] = {index: [] for index in among}
    for one, other in links:
        linked[one].append(other)
        linked[other].append(one)
    found: list[list[int]] = []
    unseen = dict.fromkeys(linked)
    while unseen:
        start = next(iter(unseen))
        del unseen[start]
        part, edge = [start], [start]
        while edge:
            for other in linked[edge.pop()]:
                if other in unseen:
                    del unseen[other]
                    part.append(other)
                    edge.append(other)
        found.append(sorted(part))
    return sorted(found, key=len, reverse=True)
