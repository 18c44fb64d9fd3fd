"""mass-failure: who still hears broadcasts once most of the nodes have failed at one moment.

It repeats the experiment of the HyParView paper (Leitao, Pereira, Rodrigues, DSN 2007, section 5):
many nodes fail at once, then survivors broadcast, one after the other. What comes out depends on
how a survivor learns that a neighbour is gone, so that is varied (`Detector`); and on repair, so
there is also the floor: what the links that are left reach when nobody repairs anything.

Lines in `mass_failure_report.py` are the paper's figures, as far as its text gives them. What is
the same: failures by chance, all at once; senders by chance among the survivors; whoever sends to a
dead peer learns of it by that. What differs: here time passes, in latency, dials and pauses, and
each broadcast is a moment, not a cycle; nodes have 5 to 10 links, not 5; and the node through which
all have joined is among the failed, so that nobody meets there again, unless it is said otherwise.

It studies the links and not how broadcasts make use of them: so they flood, and no history tells a
new neighbour what it has missed (`FLOODING`). What the tree makes of it: `spreading`.
"""

from __future__ import annotations

import enum
import gc
import multiprocessing
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from random import Random
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from meshwalk.config import BroadcastConfig, Config, HistoryConfig, Spreading
from meshwalk.errors import LocalError
from meshwalk.sim.experiment import Case, Experiment, Row, Size
from meshwalk.sim.experiments.mass_failure_report import GRAPH, MACHINES, WHOLE, plots, tables
from meshwalk.sim.graphs import (
    Adjacency,
    components,
    fail_at_random,
    flood,
    mean_flood_reliability,
    random_regular,
)
from meshwalk.sim.node import Observer, SimNode
from meshwalk.sim.workers import end_with_parent

if TYPE_CHECKING:
    from meshwalk.events import Delivery
from meshwalk.sim.world import World

SHARES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # as the paper's figures
FEW_SHARES: Final = (0.5, 0.8, 0.95)  # of HyParView's text: no effect, no effect, 90 % reached
SILENT_SHARES: Final = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)  # below, every time-out is the same
KEEPING_SHARES: Final = (0.5, 0.7, 0.8, 0.9, 0.95)  # with the entry: below, it hardly matters
LARGE_SHARES: Final = (0.5, 0.8, 0.9, 0.95)  # what takes a minute each to show, at 10,000 nodes
DEGREES: Final = (5, 6, 8)  # HyParView's view, GossipSub's D, and what our nodes have in the mean
DRAWS: Final = 10  # guess: sets of failed nodes, for what costs no machines
SPACING_S: Final = 0.012  # an entry's link carries 50 walks a second; faster joiners must retry
SETTLE_S: Final = 10.0  # guess: twice the time that a walk may take
FLOODING: Final = Config(
    broadcast=BroadcastConfig(spreading=Spreading.FLOOD),
    history=HistoryConfig(asks_per_s=0, asks_burst=0),
)  # a broadcast reaches whom links connect while it spreads, and nobody later
# When survivors broadcast, in seconds after the failure: closely at first, then for as long as
# ten of the longest pauses between walks. One flood takes less than half a second here.
BROADCASTS_AT_S: Final = (
    *(number / 2 for number in range(10)),
    *(float(second) for second in range(5, 30)),
    *(float(second) for second in range(30, 60, 5)),
    *(float(second) for second in range(60, 120, 10)),
    *(float(second) for second in range(120, 301, 30)),
)
HEARD_WITHIN_S: Final = 5.0  # iroh-gossip's simulator: a round ends after so long
WHOLE_BROADCASTS: Final = 5  # guess: so many in a row reach all before a network counts as whole
LEAST_BROADCASTS: Final = 11  # guess: the first five seconds are always shown


Failing: TypeAlias = tuple[str, float, bool]
"""One failure of a case: the `Detector`, the share of the nodes, and whether the entry stays."""


class Detector(enum.StrEnum):
    """How a survivor learns that a neighbour is gone."""

    ON_SEND = "on send"
    """What it sends is answered by a reset, and so are dials: the machine runs, the program does
    not. HyParView's model."""
    PIPES_BREAK = "pipes break"
    """Each neighbour's pipe breaks at once: a program that crashes, its system tells."""
    SILENCE = "silence"
    """Nothing answers: the machine is off. Only the idle time-out tells, and dials time out."""


# Cases.


def cases(size: Size, seed: int) -> list[Case]:
    """Graphs that nobody repairs, then networks of machines of which each share fails in turn."""
    few: list[Failing] = [(str(d), share, False) for d in Detector for share in FEW_SHARES]
    few += [(str(Detector.ON_SEND), share, True) for share in FEW_SHARES[1:]]
    every: list[Failing] = [
        (str(detector), share, False)
        for detector in Detector
        for share in (SILENT_SHARES if detector is Detector.SILENCE else SHARES)
    ]
    every += [(str(Detector.ON_SEND), share, True) for share in KEEPING_SHARES]
    large: list[Failing] = [(str(Detector.ON_SEND), share, False) for share in LARGE_SHARES]
    wanted: list[tuple[int, list[Failing], int]] = {
        Size.QUICK: [(1_000, few, 1)],
        Size.FULL: [(2_000, every, 2), (10_000, large, 1)],
        Size.HUGE: [(10_000, every, 3)],
    }[size]
    graph_nodes = wanted[-1][0]
    return [
        *(_graph(degree, graph_nodes, seed) for degree in DEGREES),
        *(
            _machines(nodes, failures, seed + number)
            for nodes, failures, seeds in wanted
            for number in range(seeds)
        ),
    ]


def _graph(degree: int, nodes: int, seed: int) -> Case:
    settings = {"kind": GRAPH, "nodes": nodes, "degree": degree, "shares": list(SHARES)}
    return Case(f"random links={degree} n={nodes} seed={seed}", settings, seed, weight=nodes)


def _machines(nodes: int, failures: list[Failing], seed: int) -> Case:
    settings = {
        "kind": MACHINES,
        "nodes": nodes,
        "shares": list(SHARES),
        "failures": [list(failing) for failing in failures],
    }
    weight = nodes * (200 + 60 * sum(1 - share for _, share, _ in failures))
    return Case(f"machines n={nodes} seed={seed}", settings, seed, weight)


def run(case: Case) -> Row:
    """One graph, or one network of machines and all failures of it that the case names."""
    settings, rng = case.settings, Random(case.seed)
    row: Row = {key: settings[key] for key in ("kind", "nodes")}
    if settings["kind"] == GRAPH:
        adjacency = random_regular(settings["nodes"], settings["degree"], rng)
        unrepaired = without_repair(adjacency, settings["shares"], rng)
        return row | {"links": settings["degree"], "unrepaired": unrepaired}
    world = grown(settings["nodes"], case.seed)
    adjacency = links_among(world.nodes)
    return row | {
        "links": sum(map(len, adjacency)) / len(adjacency),
        "unrepaired": without_repair(adjacency, settings["shares"], rng),
        "failures": [
            fail_in_a_copy(world, Detector(detector), share, keeps_entry=keeps_entry)
            for detector, share, keeps_entry in settings["failures"]
        ],
    }


# Networks.


def grown(nodes: int, seed: int) -> World:
    """A network of the shipped machines, joined one by one through the first node, and settled; but
    broadcasts flood."""
    from meshwalk.sim.world import World  # it brings all machines along; graphs need none

    world = World(seed=seed, encodes=False)
    world.grow(nodes, FLOODING, spacing_s=SPACING_S)
    world.run(SETTLE_S)
    return world


def links_among(nodes: list[SimNode]) -> Adjacency:
    """Links between these nodes that both ends know, by their place in the list."""
    places = {node.id: place for place, node in enumerate(nodes)}
    known = [{places[peer] for peer in node.neighbours if peer in places} for node in nodes]
    return [sorted(peer for peer in mine if i in known[peer]) for i, mine in enumerate(known)]


def without_repair(adjacency: Adjacency, shares: list[float], rng: Random) -> list[list[float]]:
    """The share of the survivors that a flood reaches when nobody reacts to the failure:
    [[failed, mean, least, most], ...] over `DRAWS` draws, each the exact mean over all sources."""
    found = []
    for share in shares:
        draws = [
            mean_flood_reliability(adjacency, fail_at_random(adjacency, share, rng))
            for _ in range(DRAWS)
        ]
        found.append([share, sum(draws) / DRAWS, min(draws), max(draws)])
    return found


# One failure, and what follows.


class Heard(Observer):
    """How many nodes have each broadcast, of those that came soon enough."""

    def __init__(self) -> None:
        self.nodes: dict[bytes, int] = {}
        self._until: dict[bytes, float] = {}

    def begins(self, body: bytes, now: float) -> None:
        """A node sends this now, and so it has it."""
        self.nodes[body] = 1
        self._until[body] = now + HEARD_WITHIN_S

    def delivered(self, node: SimNode, delivery: Delivery) -> None:
        if node.world.now <= self._until.get(delivery.body, 0.0):
            self.nodes[delivery.body] += 1


def fail(world: World, detector: Detector, share: float, *, keeps_entry: bool = False) -> Row:
    """Have this share of the nodes fail, let survivors broadcast, and follow them until they are
    whole again: all links there, in one part, and everybody reached `WHOLE_BROADCASTS` times."""
    rng = Random(f"{world.seed} {share}")  # for each detector the same nodes fail and the same send
    failing = failing_nodes(len(world.nodes), share, rng, keeps_entry=keeps_entry)
    survivors = [node for number, node in enumerate(world.nodes) if number not in failing]
    adjacency = links_among(world.nodes)
    is_up = bytearray(number not in failing for number in range(len(world.nodes)))
    walks_before, live_known = _walks(survivors), _live_known(survivors)
    heard = world.observer = Heard()
    for number in failing:
        stop(world, world.nodes[number], detector)
    began_at = world.now
    unrepaired, states = 0.0, []
    for number, at_s in enumerate(BROADCASTS_AT_S):
        world.run(began_at + at_s - world.now)
        states.append(_state(survivors, at_s))
        sender = rng.choice(survivors)
        if number == 0:
            reached = flood(adjacency, world.nodes.index(sender), is_up).reached
            unrepaired = reached / len(survivors)
        body = b"%d" % number
        heard.begins(body, world.now)
        sender.broadcast(body)
        if _is_whole(states, heard.nodes, len(survivors)):
            break
    world.run(HEARD_WITHIN_S)
    reached_shares = [count / len(survivors) for count in heard.nodes.values()]
    return {
        "detector": str(detector),
        "failed": share,
        "keeps_entry": keeps_entry,
        "survivors": len(survivors),
        "first_unrepaired": unrepaired,
        "reached": [[state["at_s"], r] for state, r in zip(states, reached_shares, strict=True)],
        "states": states,
        "reliable_at_s": _from_then_on([r >= WHOLE for r in reached_shares]),
        "linked_at_s": _from_then_on([state["linked"] == 1 for state in states]),
        "one_part_at_s": _from_then_on([state["parts"] == 1 for state in states]),
        "live_known": live_known,
        "walks_per_survivor": (_walks(survivors) - walks_before) / len(survivors),
        **_fragments(survivors),
    }


def failing_nodes(
    count: int, share: float, rng: Random, *, keeps_entry: bool = False
) -> dict[int, None]:
    """Which of so many nodes fail: the entry, number 0, unless it is kept, and others by chance.
    At least one fails and one survives."""
    failing = min(max(1, round(share * count)), count - 1)
    if keeps_entry:
        return dict.fromkeys(rng.sample(range(1, count), failing))
    return dict.fromkeys([0, *rng.sample(range(1, count), failing - 1)])


def stop(world: World, node: SimNode, detector: Detector) -> None:
    """The node is gone, and its neighbours learn of it in this way."""
    world.crash(node, silently=detector is not Detector.PIPES_BREAK)
    if detector is Detector.ON_SEND:
        # Its machine runs on and answers what comes; it has said nothing by itself.
        node.has_vanished = False


def _state(survivors: list[SimNode], at_s: float) -> Row:
    """Links between survivors now, and what a flood over them reaches, as the mean over all who may
    send it. What they believe to be links with the dead does not count."""
    adjacency = links_among(survivors)
    linked = sum(
        len(mine) >= min(node.config.overlay.links_min, len(survivors) - 1)
        for node, mine in zip(survivors, adjacency, strict=True)
    )
    return {
        "at_s": at_s,
        "linked": linked / len(survivors),
        "parts": len(components(adjacency)),
        "in_reach": mean_flood_reliability(adjacency),
    }


def _is_whole(states: list[Row], reached: dict[bytes, int], survivors: int) -> bool:
    """Whether there is nothing more to see. The last broadcast has only begun."""
    if len(states) <= max(LEAST_BROADCASTS, WHOLE_BROADCASTS):
        return False
    last = list(reached.values())[-WHOLE_BROADCASTS - 1 : -1]
    state = states[-1]
    return state["linked"] == 1 and state["parts"] == 1 and min(last) == survivors


def _from_then_on(good: list[bool]) -> float | None:
    """When the last good stretch begins; None when it is not good at the end."""
    if not good[-1]:
        return None
    first = max((place for place, is_good in enumerate(good) if not is_good), default=-1) + 1
    return BROADCASTS_AT_S[first]


def _fragments(survivors: list[SimNode]) -> Row:
    """What is left apart at the end, and whether it will stay so: a part in which nobody lacks a
    link does not look for others."""
    adjacency = links_among(survivors)
    least = survivors[0].config.overlay.links_min
    parts = components(adjacency)
    return {
        "parts": len(parts),
        "apart": sum(map(len, parts[1:])),
        "content_parts": sum(all(len(adjacency[i]) >= least for i in p) for p in parts[1:]),
        "part_sizes": [len(part) for part in parts[1:21]],
        "without_minimum": sum(len(mine) < least for mine in adjacency),
        "without_link": sum(not mine for mine in adjacency),
    }


def _live_known(survivors: list[SimNode]) -> float:
    """How many of the survivors each has in its address book, in the mean."""
    ids = {node.id for node in survivors}
    books = (node.core.overlay.book.entries for node in survivors)
    return sum(sum(peer in ids for peer in book) for book in books) / len(survivors)


def _walks(nodes: list[SimNode]) -> int:
    return sum(node.core.overlay.walks.counts["started"] for node in nodes)


# Several failures of one network. To grow it takes longer than all that follows.


def fail_in_a_copy(
    world: World, detector: Detector, share: float, *, keeps_entry: bool = False
) -> Row:
    """As `fail`, and the world stays as it is.

    A copy of the process is made where the system can do that; elsewhere the network is grown
    again, from the same seed, which gives the same row. Raises LocalError when the copy is killed.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        anew = grown(len(world.nodes), world.seed)
        return fail(anew, detector, share, keeps_entry=keeps_entry)
    gc.freeze()  # a collection in the copy would touch, and so duplicate, all of the memory
    try:
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe(duplex=False)
        work = partial(fail, world, detector, share, keeps_entry=keeps_entry)
        copy = context.Process(target=_answer, args=(theirs, work), daemon=True)
        copy.start()
        theirs.close()
        try:
            row: Row = msgspec.json.decode(ours.recv_bytes())
        except EOFError:
            raise LocalError("the copy of the network was killed; is the memory enough?") from None
        finally:
            ours.close()
            copy.terminate()  # it has nothing more to do, or this process is being interrupted
            copy.join()
    finally:
        gc.unfreeze()
    return row


def _answer(to: Connection, work: Callable[[], Row]) -> None:
    end_with_parent()
    to.send_bytes(msgspec.json.encode(work()))
    to.close()


EXPERIMENT = Experiment(
    name="mass-failure",
    summary="who hears broadcasts after most nodes failed at once, and how soon the rest heals",
    cases=cases,
    run=run,
    tables=tables,
    plots=plots,
)
