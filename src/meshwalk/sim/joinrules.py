"""Rules by which a network grows through one entry, as models of single messages.

The four rules that the founding text of the join protocol, seed 000 (docs/origins.md), compares in
prose ("the text" from here on), and a model of this project's own rule. Nodes join one after the
other; node 0 is there from the start, and everyone enters through it. A joiner sends one request
after the other until it has the links it wants: "randomly bounce multiple join requests [...]
until enough (however many connections we want to maintain) are accepted". Every hop of every
request is simulated; latency, time-outs and dials are not: the text's rules do not know them.

Where the text is silent, these models choose:

- A request goes on to a neighbour chosen by chance, all alike, also back where it came from.
- Nothing is dropped because it comes by again: the text's program renumbers a request at each hop
  so that a node may accept what it passed on before.
- At its own origin a request is never accepted, and goes on from there, as in the text's program.
- A neighbour that accepts once more gives no second link: the request is lost. (The text's program
  opens a second connection to the same peer and counts it.)
- Who wants more links than there are other nodes is content with one to each.
- A joiner gives up after `REQUESTS_PER_LINK_MAX` requests for each link it wants.

Same arguments and same seed, same network: the `Random` given is the only source of chance.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Collection
from random import Random
from typing import TypeAlias

import msgspec

from meshwalk.config import OverlayConfig
from meshwalk.errors import InvalidArgument
from meshwalk.sim.graphs import Adjacency, distances_from

ENTRY = 0  # the node that is there from the start; everyone else enters through it
EVEN_CHANCE = 0.5  # the text's example: "a 50% chance of being accepted on each hop"
WALK_HOPS = 10  # the text names no length; as OverlayConfig.walk_hops, so that both are comparable
REQUESTS_PER_LINK_MAX = 20  # guess: many times what rules need that do grow
HOPS_MAX = 10_000  # guess: the text has no bound, and only "exactly d" comes near this one


class Lost(enum.StrEnum):
    """Why a request brought no link."""

    DEAD_END = "dead end"
    """A node without neighbours did not accept it, and could not pass it on."""
    AT_ORIGIN = "ended at its origin"
    """The walk's last hop led back to the node that had sent it."""
    NEIGHBOUR = "accepted by a neighbour"
    """Whoever accepted it, or stood at the walk's end, has a link with the origin already."""
    HOP_LIMIT = "hop limit"
    """It was still on its way after `HOPS_MAX` hops."""
    NOBODY_FREE = "nobody may accept"
    """No node that it can reach will ever accept it: it would go round for good."""
    NO_SPLIT = "nobody could split"
    """The walk's last node was full, and had no neighbour that is a stranger to the origin."""


class Walked(msgspec.Struct, frozen=True):
    """What became of one request."""

    hops: int
    """Times it was passed on, after the entry had it."""
    acceptor: int | None = None
    """Who accepted it, if anybody; for `Lost.NEIGHBOUR` as well."""
    lost: Lost | None = None


class Join(msgspec.Struct):
    """What joining was like for one node."""

    node: int
    requests: int = 0
    lost: Counter[str] = msgspec.field(default_factory=Counter)
    """Requests that brought no link, by reason: of `Lost`, or in the words of whoever measured."""
    first_acceptor: int | None = None
    """Who accepted its first request, if anybody."""
    distances: list[int] | None = None
    """Of a watched join: hops from the entry to each new neighbour just before the join."""


class Growth(msgspec.Struct):
    """A network that has grown, and how."""

    adjacency: Adjacency
    joins: list[Join]
    """One for each node but the first."""
    hops: int
    """Of all requests together, lost ones as well."""
    returns: int = 0
    """Times that a request came by at its own origin."""


class Network:
    """A network that grows by single links."""

    def __init__(self, links: int, rng: Random) -> None:
        self.links = links
        """Wanted by each joiner."""
        self.adjacency: Adjacency = [[]]
        self.rng = rng
        self.degrees: Counter[int] = Counter({0: 1})
        """How many nodes have each number of links."""
        self.hops = 0
        self.returns = 0

    def add_node(self) -> int:
        """A node without links; returns its index."""
        self.adjacency.append([])
        self.degrees[0] += 1
        return len(self.adjacency) - 1

    def link(self, one: int, other: int) -> None:
        """Link two nodes that are not linked yet."""
        for node, peer in ((one, other), (other, one)):
            degree = len(self.adjacency[node])
            self.degrees[degree] -= 1
            self.degrees[degree + 1] += 1
            self.adjacency[node].append(peer)

    def unlink(self, one: int, other: int) -> None:
        """Drop the link between two nodes."""
        for node, peer in ((one, other), (other, one)):
            degree = len(self.adjacency[node])
            self.degrees[degree] -= 1
            self.degrees[degree - 1] += 1
            self.adjacency[node].remove(peer)


Walk: TypeAlias = Callable[[Network, int], Walked]
"""Sends one request of a node through the entry. It may rewire the network, but the link between
the origin and the acceptor is made by the caller."""


def grow(
    walk: Walk, count: int, links: int, rng: Random, watched: Collection[int] = frozenset()
) -> Growth:
    """A network of `count` nodes that joined by this rule, each wanting `links` links.

    For the nodes in `watched` the distances of their neighbours from the entry are noted, which
    costs a search of the whole network each. Raises InvalidArgument without a node or a link.
    """
    if count < 1 or links < 1:
        raise InvalidArgument("a network grows from one node on, by one link each or more")
    network, joins = Network(links, rng), []
    for _ in range(count - 1):
        node = len(network.adjacency)
        before = distances_from(network.adjacency, ENTRY) if node in watched else None
        join = _join(network, walk)
        if before is not None:
            join.distances = [before[peer] for peer in network.adjacency[node]]
        joins.append(join)
    return Growth(network.adjacency, joins, network.hops, network.returns)


def _join(network: Network, walk: Walk) -> Join:
    node = network.add_node()
    near = network.adjacency[node]
    wanted = min(network.links, node)
    join = Join(node)
    while len(near) < wanted and join.requests < REQUESTS_PER_LINK_MAX * network.links:
        walked = walk(network, node)
        join.requests += 1
        network.hops += walked.hops
        if join.requests == 1:
            join.first_acceptor = walked.acceptor
        lost = walked.lost
        if lost is None and walked.acceptor in near:
            lost = Lost.NEIGHBOUR
        if lost is not None:
            join.lost[lost.value] += 1
        elif walked.acceptor is not None:
            network.link(node, walked.acceptor)
        if lost is Lost.NOBODY_FREE:
            break  # the next request would go round as well
    return join


# The rules of the text.


def even_chance(network: Network, origin: int) -> Walked:
    """Half, whoever it is: "an equally random chance of being accepted at each hop"."""
    chance = network.rng.random
    return _wander(network, origin, lambda _: chance() < EVEN_CHANCE)


def by_links(network: Network, origin: int) -> Walked:
    """What the text chose: "one divided by the number of connections they already have plus 1"."""
    adjacency, chance = network.adjacency, network.rng.random
    return _wander(network, origin, lambda at: chance() * (len(adjacency[at]) + 1) < 1)


def exactly(network: Network, origin: int) -> Walked:
    """Accepted while links are missing: "require everyone to have exactly d connections".

    The text finds d+1 nodes with d links each, so it takes for granted that nobody accepts the same
    node twice: here a neighbour of the origin passes the request on. When no node is left that may
    accept, the request would go round for ever; that is counted at once.
    """
    wanted, adjacency = network.links, network.adjacency
    near = adjacency[origin]
    # Nodes that got no link cannot be reached; but the entry can, also as the only node.
    free = sum(network.degrees[links] for links in range(1, wanted)) + (not adjacency[ENTRY])
    free -= sum(0 < len(adjacency[node]) < wanted for node in (origin, *near))
    if free == 0:
        return Walked(0, lost=Lost.NOBODY_FREE)
    return _wander(network, origin, lambda at: len(adjacency[at]) < wanted and at not in near)


def fixed_length(network: Network, origin: int) -> Walked:
    """Accepted at the walk's end: "a hop-count which decreases each hop it makes".

    A node without neighbours accepts whatever comes: else no second node would ever join.
    """
    return _walk_so_far(network, origin, WALK_HOPS)


def mixed_length(network: Network, origin: int) -> Walked:
    """As `fixed_length`, with one hop more for half of the requests, by chance.

    Walks of one length through one entry never leave the shape of a star: all nodes that accept are
    an even number of hops from the entry (or all an odd one), so newcomers never come to be among
    them. The text reasons about a walk that has forgotten where it began; this is the least change
    that gives one.
    """
    return _walk_so_far(network, origin, WALK_HOPS + (network.rng.random() < EVEN_CHANCE))


def _walk_so_far(network: Network, origin: int, length: int) -> Walked:
    adjacency, chance = network.adjacency, network.rng.random
    at = ENTRY
    for hops in range(length):
        near = adjacency[at]
        if not near:
            return Walked(hops, at)
        at = near[int(chance() * len(near))]
        network.returns += at == origin
    if at == origin:
        return Walked(length, lost=Lost.AT_ORIGIN)
    return Walked(length, at)


def _wander(network: Network, origin: int, accepts: Callable[[int], bool]) -> Walked:
    """Pass a request on until somebody accepts it."""
    adjacency, chance = network.adjacency, network.rng.random
    at = ENTRY
    for hops in range(HOPS_MAX):
        near = adjacency[at]
        if at == origin:
            network.returns += 1
        elif accepts(at):
            return Walked(hops, at)
        if not near:
            return Walked(hops, lost=Lost.DEAD_END)
        at = near[int(chance() * len(near))]
    return Walked(HOPS_MAX, lost=Lost.HOP_LIMIT)


# This project's rule.


def ours(config: OverlayConfig) -> Walk:
    """A model of `proto/overlay/carrier.py` and `walks.py`, as a check on both: no time passes, so
    no walk meets another, and no place is promised. The machines themselves are the truth.

    The network should grow with `links` of `config.links_min`.
    """

    def walk(network: Network, origin: int) -> Walked:
        adjacency, rng = network.adjacency, network.rng
        near = adjacency[origin]
        # The first round, half of the links, starts at the entry; the others at a neighbour.
        first_round = (config.links_min + 1) // 2
        came_from, at = origin, ENTRY
        if len(near) >= first_round:
            at = rng.choice(near)
        for hops in range(config.walk_hops + 1):
            links = len(adjacency[at])
            if at not in near and links < config.links_max:
                is_free = hops >= config.forced_hops and rng.randrange(links + 1) == 0
                if links < config.links_min or is_free or hops == config.walk_hops:
                    return Walked(hops, at)
            if hops < config.walk_hops:
                onward = [n for n in adjacency[at] if n not in (came_from, origin)]
                onward = onward or [n for n in adjacency[at] if n != origin]
                if not onward:
                    return Walked(hops, lost=Lost.DEAD_END)
                came_from, at = at, rng.choice(onward)
        if at in near:
            return Walked(config.walk_hops, at, Lost.NEIGHBOUR)
        strangers = [n for n in adjacency[at] if n not in near]
        if not strangers:
            return Walked(config.walk_hops, lost=Lost.NO_SPLIT)
        other = rng.choice(strangers)
        network.unlink(at, other)
        network.link(other, origin)
        return Walked(config.walk_hops, at)

    return walk


class JoinRule(msgspec.Struct, frozen=True):
    """A rule, by the name that cases carry."""

    name: str
    label: str
    """In tables and plots."""
    walk: Walk


JOIN_RULES = {
    rule.name: rule
    for rule in (
        JoinRule("even-chance", "even chance, 1/2", even_chance),
        JoinRule("by-links", "chance 1/(n+1)", by_links),
        JoinRule("fixed-length", f"fixed length, {WALK_HOPS} hops", fixed_length),
        JoinRule("mixed-length", f"{WALK_HOPS} or {WALK_HOPS + 1} hops", mixed_length),
        JoinRule("exactly-d", "exactly d links", exactly),
        JoinRule("ours-model", "ours (model)", ours(OverlayConfig())),
    )
}
"""All rules modelled here, by name."""
