"""What happens in one drawn run: nodes, configuration, network, work and faults, as plain values.

A plan is drawn whole from one seed (swarm testing: Groce et al., ISSTA 2012: leaving whole kinds of
faults out of a run finds more than having all of them in each), can be written as JSON, made
smaller by hand, and kept: it means the same after the drawing has changed. `storm.py` carries it
out.
"""

from __future__ import annotations

import enum
from random import Random
from typing import Final

import msgspec

from meshwalk.config import Config, ConversationConfig, PacingConfig, ReachConfig
from meshwalk.sim.drawnconfig import draw_config

NODES_MIN: Final = 3  # guess: fewer have nothing to choose from
NODES_MAX: Final = 40  # guess: a run takes about a second
DURATION_S: Final = (60.0, 600.0)  # guess: from a few time-outs to many
CUT_S: Final = (60.0, 1200.0)  # guess: from one time-out of beacons to where books have forgotten
FAULTS_MAX: Final = 40  # guess: one every ten seconds
ONE_FAULT_IN: Final = 3  # guess: each kind of fault is in one run out of so many
FRAMES_MAX: Final = 30_000  # guess: what a second of computing carries
DIAL_CROSSINGS: Final = 6  # as dialling.py has it, and the first word
ORDER_WAIT_S: Final = 1.0  # guess: what one way may be ahead of another when links change
REACH_FRAMES: Final = (
    60  # guess: what it takes to reach a peer: a search, dials, a link for a while
)
TEST_FRAMES: Final = 8  # greetings, question and answer about the fragment, and goodbyes
REACHED_PER_S: Final = 3.0  # guess: more need no reaching, since links stay for a while
SAID_BYTES_MAX: Final = 30_000_000  # guess: in conversations, where all is compared
FLOODED_BYTES_MAX: Final = 100_000_000  # guess: as above, of the longest bodies


class Fault(enum.StrEnum):
    """A kind of trouble. What its `value` and `other` mean stands with it."""

    CRASH = "crash"
    """The process is gone; `value` seconds later it starts again, or never if 0."""
    VANISH = "vanish"
    """As a crash, and its machine is gone too: nobody hears of it."""
    FORGET = "forget"
    """As a crash, and its store is empty afterwards."""
    LEAVE = "leave"
    """It stops in good order, and comes back as after a crash."""
    MASS_CRASH = "mass crash"
    """This share (`value`) of all nodes crashes at once and stays down."""
    SLEEP = "sleep"
    """The machine is suspended for `value` seconds, its clock too."""
    STOP = "stop"
    """The process is stopped for `value` seconds; its clock goes on."""
    PARTITION = "partition"
    """Two halves at random for `value` seconds, or until another partition takes its place: this
    kind and the two below are partitions."""
    ISOLATE = "isolate"
    """One node against the rest for `value` seconds."""
    GROUPS = "groups"
    """Each address group is an island for `value` seconds."""
    CLOG = "clog"
    """Nothing crosses from the node to `other` for `value` seconds; the other way it does. Where
    two of these overlap, the path is free when the last has ended."""
    DEAF = "deaf"
    """Nothing arrives at the node for `value` seconds; what it sends does. Overlaps as above."""
    LOSS = "loss"
    """Each try at sending a frame or at a dial is lost with this chance (`value`), until another
    such fault, or until the faults end."""
    JITTER = "jitter"
    """Frames take up to `value` seconds more, until another such fault, or the end of them all."""
    BANDWIDTH = "bandwidth"
    """The node's uplink has `value` bytes a second, until another such fault at this node, or until
    the faults end."""
    SLOW_PATH = "slow path"
    """From the node to `other`, `value` seconds more, in this direction only, until another such
    fault on this path, or until the faults end."""
    BURST = "burst"
    """The node sends `value` broadcasts at once."""
    JOIN = "join"
    """A new node joins through this one."""
    REJOIN = "rejoin"
    """The node is told again to join, through `other`."""
    MOVE = "move"
    """The node's machine gets another address: its connections carry nothing any more."""


class Kind(enum.StrEnum):
    """What a node is."""

    PLAIN = "plain"
    FIREWALLED = "firewalled"
    """Connections to it are dropped."""
    DEAF_PORT = "does not listen"
    """It announces no address."""
    NAT = "behind a NAT"


class NodePlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One node of a plan."""

    joins_at: float
    through: int
    """Which node it joins through: a number, counted round among those that are there before."""
    kind: Kind = Kind.PLAIN
    group: int = 0
    behaviour: str = ""
    """An attacker's, by its name in attackers.py."""


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One fault."""

    at: float
    fault: Fault
    node: int = 0
    """Its number, counted round when there are fewer."""
    other: int = 0
    value: float = 0.0

    @property
    def is_delaying(self) -> bool:
        """Whether something may come so late that its sender's order is not waited for."""
        return self.fault in _DELAYING


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One run. Draw one with `draw`."""

    seed: int
    """Of everything that is drawn while it runs."""
    config: Config
    latency: str
    """As `latency.parse_latency` reads it."""
    nodes: list[NodePlan]
    steps: list[Step]
    duration_s: float
    broadcasts_per_s: float
    """By the whole network; likewise the two below."""
    sends_per_s: float
    requests_per_s: float
    body_bytes_max: int
    conversations_per_s: float = 0.0
    """How often somebody opens one, or several at once with the same peer."""
    conversation_messages_max: int = 20
    """What is said by one end."""
    conversation_bytes_max: int = 1000
    """About how long the longer messages in them are."""
    to_anyone: float = 0.0
    """The share of messages and requests to any node: it is reached first if it is no neighbour."""
    cut_s: float = 0.0
    """When the faults have ended, two halves for so long, in which nobody does anything; 0: not."""
    why: str = ""
    """What the plan is kept for, if it is."""

    @property
    def waits_for_order(self) -> bool:
        """Whether nodes wait long enough for what is missing while links come and go."""
        return self.config.broadcast.order_wait_s >= ORDER_WAIT_S

    @property
    def keeps_order(self) -> bool:
        """Whether each sender's broadcasts come in order everywhere, until a fault delays some."""
        return (
            self.waits_for_order
            and not self.forgets_senders
            # To a newcomer it sends what nobody else would send again.
            and not any(node.behaviour == "repeater" for node in self.nodes)
        )

    @property
    def forgets_senders(self) -> bool:
        """Whether there may be more senders than are remembered: not all is delivered then."""
        joins = sum(step.fault is Fault.JOIN for step in self.steps)
        return len(self.nodes) + joins > self.config.broadcast.origins_max

    @property
    def parts_the_network(self) -> bool:
        """Whether a fault may leave fragments that are each content with themselves.

        With one or two links each, nearly any loss of a node or a link does.
        """
        if self.cut_s:
            return True
        parting = _PARTING if self.config.overlay.links_min > 2 else set(Fault) - _HARMLESS
        return any(step.fault in parting for step in self.steps)


_DELAYING: Final = {
    Fault.SLEEP,
    Fault.STOP,
    Fault.MOVE,
    Fault.PARTITION,
    Fault.ISOLATE,
    Fault.GROUPS,
    Fault.CLOG,
    Fault.DEAF,
    Fault.LOSS,
    Fault.JITTER,
    Fault.BANDWIDTH,
    Fault.SLOW_PATH,
}

_PARTING: Final = {
    Fault.PARTITION,
    Fault.GROUPS,
    Fault.MASS_CRASH,
    Fault.FORGET,  # two that forgot may enter through each other
}

_HARMLESS: Final = {Fault.BURST, Fault.JOIN, Fault.REJOIN, Fault.SLOW_PATH, Fault.BANDWIDTH}

_SLOWEST_S: Final = {
    "constant:10ms": 0.01,
    "uniform:1ms-10ms": 0.01,
    "uniform:5ms-200ms": 0.2,
    "pairs:10ms-150ms": 0.15,
    "plane:4": 0.2,  # guess: of most pairs
}
"""Models of latency, as `latency.parse_latency` reads them, and how long a crossing may take."""

_VALUES: Final[dict[Fault, tuple[float, float]]] = {
    # guess: from a blink to several time-outs of the default configuration
    Fault.CRASH: (0.0, 60.0),
    Fault.VANISH: (0.0, 60.0),
    Fault.FORGET: (0.0, 60.0),
    Fault.LEAVE: (0.0, 60.0),
    Fault.MASS_CRASH: (0.1, 0.6),
    Fault.SLEEP: (0.5, 900.0),
    Fault.STOP: (0.5, 60.0),
    Fault.PARTITION: (1.0, 120.0),
    Fault.ISOLATE: (1.0, 120.0),
    Fault.GROUPS: (1.0, 120.0),
    Fault.CLOG: (0.5, 60.0),
    Fault.DEAF: (0.5, 60.0),
    Fault.LOSS: (0.0, 0.3),
    Fault.JITTER: (0.0, 1.0),
    Fault.BANDWIDTH: (10_000.0, 1_000_000.0),
    Fault.SLOW_PATH: (0.0, 2.0),
    Fault.BURST: (10.0, 500.0),
    Fault.JOIN: (0.0, 0.0),
    Fault.REJOIN: (0.0, 0.0),
    Fault.MOVE: (0.0, 0.0),
}


def draw(seed: int, behaviours: tuple[str, ...] = ()) -> Plan:
    """The plan of a seed. `behaviours` names the attackers that may be in it."""
    rng = Random(seed)
    count = rng.randint(NODES_MIN, NODES_MAX)
    duration_s = rng.uniform(*DURATION_S)
    attackers = rng.random() < 0.25 and bool(behaviours)  # guess: most runs without
    nodes = []
    entry_only = rng.random() < 0.5  # half of the runs: everyone enters through the first
    spread_s = rng.choice([0.0, 1.0, 10.0, duration_s / 2])
    undialable = rng.choice([0.0, 0.0, 0.1, 0.3])
    for number in range(count):
        kind = Kind.PLAIN
        if number and rng.random() < undialable:
            kind = rng.choice([Kind.FIREWALLED, Kind.DEAF_PORT, Kind.NAT])
        hostile = number > 0 and attackers and rng.random() < 0.2
        nodes.append(
            NodePlan(
                rng.uniform(0, spread_s) if number else 0.0,
                0 if entry_only else rng.randrange(max(1, number)),
                kind,
                rng.randrange(3),
                rng.choice(behaviours) if hostile else "",
            )
        )
    kinds = [fault for fault in Fault if rng.randrange(ONE_FAULT_IN) == 0]
    steps = [
        _draw_step(rng, rng.choice(kinds), duration_s)
        for _ in range(rng.randint(0, FAULTS_MAX) if kinds else 0)
    ]
    plan = Plan(
        seed=rng.getrandbits(32),
        config=draw_config(rng),
        latency=rng.choice(list(_SLOWEST_S)),
        nodes=nodes,
        steps=sorted(steps, key=lambda step: step.at),
        duration_s=duration_s,
        broadcasts_per_s=rng.choice([0.0, 0.1, 1.0, 5.0]),
        sends_per_s=rng.choice([0.0, 1.0, 10.0]),
        requests_per_s=rng.choice([0.0, 1.0, 10.0]),
        body_bytes_max=rng.choice([100, 1000, 100_000]),
        cut_s=rng.choice([0.0] * 5 + [rng.uniform(*CUT_S)]),
    )
    return _affordable(_workable(_talkative(plan, rng)))


def _talkative(plan: Plan, rng: Random) -> Plan:
    """The same with conversations in most runs, and with limits for them that are soon reached."""
    said_bytes_max = rng.choice([1000, 20_000, 300_000])
    # No more than some 16 parts of the longest bodies: frames are what takes time to compute.
    parts_least = max(1024, plan.body_bytes_max // 16, said_bytes_max // 32)
    conversations = ConversationConfig(
        per_peer_max=rng.choice([4, 65_536, 65_536, 65_536]),
        window_bytes_max=rng.choice([256 << 10, 4 << 20]),
        shared_window_bytes=rng.choice([256 << 10, 256 << 10, 16 << 20]),
        part_bytes_max=rng.choice([parts_least, 16 << 10, 64 << 10]),
        backlog_bytes=rng.choice([1024, 64 << 10]),
        linger_s=rng.choice([5.0, 30.0]),
        finished_max=rng.choice([1024, 4096]),
    )
    # Broadcasts are paid for, too: floods of long bodies must not hold up the rest for minutes.
    pacing = PacingConfig(
        bytes_per_s=rng.choice([0.0, 0.0, 0.0, max(100_000.0, 200.0 * plan.body_bytes_max)]),
        peer_bytes_per_s=rng.choice([0.0, 0.0, 0.0, max(20_000.0, 40.0 * plan.body_bytes_max)]),
    )
    reach = ReachConfig(
        timeout_s=rng.choice([20.0, 30.0]),  # two searches and a dial fit in it
        pause_s=rng.choice([0.5, 5.0]),
        peers_max=rng.choice([2, 64, 64]),
    )
    return msgspec.structs.replace(
        plan,
        config=msgspec.structs.replace(
            plan.config, conversations=conversations, pacing=pacing, reach=reach
        ),
        conversations_per_s=rng.choice([0.0, 0.1, 0.5, 2.0]),
        conversation_messages_max=rng.choice([2, 20, 20, 100]),
        conversation_bytes_max=said_bytes_max,
        to_anyone=rng.choice([0.0, 0.1, 0.5]),
    )


def _workable(plan: Plan) -> Plan:
    """The same with more patience, if walks and the dials after them could not come to an end."""
    overlay = plan.config.overlay
    least_s = (overlay.walk_hops + DIAL_CROSSINGS) * _SLOWEST_S[plan.latency]
    overlay = msgspec.structs.replace(
        overlay,
        walk_timeout_s=max(overlay.walk_timeout_s, least_s),
        place_timeout_s=max(overlay.place_timeout_s, least_s),
    )
    config = msgspec.structs.replace(plan.config, overlay=overlay)
    return msgspec.structs.replace(plan, config=config)


def _affordable(plan: Plan) -> Plan:
    """The same in less time, with smaller bursts and bodies, if it would take long to compute."""
    overlay = plan.config.overlay
    links = len(plan.nodes) * min(overlay.links_min + 1, len(plan.nodes) - 1) / 2
    per_broadcast = 2 * links  # a flood crosses a link once or twice
    bursts_max = FRAMES_MAX / 2 / per_broadcast
    burst = sum(step.value for step in plan.steps if step.fault is Fault.BURST)
    smaller = min(1.0, bursts_max / burst) if burst else 1.0
    parts = 1 + plan.body_bytes_max / plan.config.conversations.part_bytes_max
    pings_per_s = 4 * links / plan.config.link.ping_interval_s  # by both ends, each with its pong
    probing = plan.config.probing
    tests_per_s = len(plan.nodes) / probing.interval_s
    idle_per_s = pings_per_s + tests_per_s * (2 * probing.pings + TEST_FRAMES)
    frames_per_s = (
        idle_per_s
        + plan.broadcasts_per_s * per_broadcast
        + plan.sends_per_s * parts
        + 2 * plan.requests_per_s * parts
        + plan.conversations_per_s * _frames_per_conversation(plan)
        + plan.to_anyone * min(plan.sends_per_s + plan.requests_per_s, REACHED_PER_S) * REACH_FRAMES
    )
    shorter = min(1.0, max(DURATION_S[0], FRAMES_MAX / frames_per_s) / plan.duration_s)
    duration_s = plan.duration_s * shorter
    flooded = (burst * smaller + plan.broadcasts_per_s * duration_s) * per_broadcast
    body_bytes_max = min(plan.body_bytes_max, max(100, int(FLOODED_BYTES_MAX / (flooded + 1))))
    said = 2 * plan.conversations_per_s * duration_s * plan.conversation_messages_max
    said_bytes_max = min(plan.conversation_bytes_max, int(SAID_BYTES_MAX / (said / 10 + 1)))
    return msgspec.structs.replace(
        plan,
        nodes=[
            msgspec.structs.replace(node, joins_at=node.joins_at * shorter) for node in plan.nodes
        ],
        steps=[_scaled(step, shorter, smaller) for step in plan.steps],
        duration_s=duration_s,
        cut_s=min(plan.cut_s, FRAMES_MAX / idle_per_s),
        body_bytes_max=body_bytes_max,
        conversation_bytes_max=max(1000, said_bytes_max),
    )


def _frames_per_conversation(plan: Plan) -> float:
    """About how many: several are opened at once now and then, the ends say half of the most, one
    of seven in parts, and give credit."""
    parts = plan.conversation_bytes_max / plan.config.conversations.part_bytes_max
    return 2 * (4 + plan.conversation_messages_max * (1.5 + 0.15 * parts))


def _scaled(step: Step, shorter: float, smaller: float) -> Step:
    value = step.value
    if step.fault is Fault.BURST:
        value = max(1.0, round(value * smaller))
    return msgspec.structs.replace(step, at=step.at * shorter, value=value)


def _draw_step(rng: Random, fault: Fault, duration_s: float) -> Step:
    least, most = _VALUES[fault]
    value = rng.uniform(least, most)
    if fault in (Fault.CRASH, Fault.VANISH, Fault.FORGET, Fault.LEAVE) and rng.random() < 0.3:
        value = 0.0
    return Step(
        at=rng.uniform(0, duration_s),
        fault=fault,
        node=rng.randrange(NODES_MAX),
        other=rng.randrange(NODES_MAX),
        value=round(value, 3),
    )
