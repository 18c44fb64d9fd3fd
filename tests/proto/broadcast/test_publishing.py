"""Own broadcasts: numbered, the first at once, bursts together, and at a rate."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from meshwalk.config import BroadcastConfig, Config, IntakeConfig
from meshwalk.proto.broadcast.publishing import TIMER, Publishing
from meshwalk.proto.timers import Timers
from meshwalk.sim.node import UNIX_START_S
from meshwalk.sim.signatures import CheapSignatures
from meshwalk.wire.frames import FRAME_BYTES_MAX, ContentType
from meshwalk.wire.records import (
    ASKS_RECEIPT,
    BUNDLE_MESSAGES_MAX,
    BroadcastPayload,
    decode_broadcast_payload,
)

from .scene import peer

WAIT_S = BroadcastConfig().bundle_wait_s


class Desk:
    """What one node sends to everyone."""

    def __init__(self, config: Config | None = None) -> None:
        self.timers = Timers()
        self.publishing = Publishing(
            CheapSignatures(peer(0)), config or Config(), self.timers, UNIX_START_S, 0.0
        )
        self.out: list[BroadcastPayload] = []

    def add(self, body: bytes, now: float = 0.0) -> int:
        number, payloads = self.publishing.add("t", ContentType.BYTES, body, now)
        self.note(payloads)
        return number

    def alone(self, body: bytes, now: float = 0.0) -> int:
        number, payloads = self.publishing.alone("t", ContentType.BYTES, body, now, ASKS_RECEIPT)
        self.note(payloads)
        return number

    def draft(self, body: bytes = b"d", now: float = 0.0) -> bytes:
        return self.publishing.draft("t", ContentType.BYTES, body, now, 0)

    def take(self, draft: bytes, now: float = 0.0) -> int | None:
        number = self.publishing.take_draft(draft, now)
        if number is not None:
            self.note([draft])
        return number

    def run(self, until: float) -> None:
        for machine, _ in self.timers.due(until):
            assert machine == TIMER
            self.note(self.publishing.tick(until))

    def note(self, payloads: list[bytes]) -> None:
        assert all(len(payload) < FRAME_BYTES_MAX for payload in payloads)
        self.out += map(decode_broadcast_payload, payloads)

    @property
    def bodies(self) -> list[list[bytes]]:
        return [[message.body for message in payload.messages] for payload in self.out]


def test_the_first_goes_out_at_once_and_what_follows_together() -> None:
    desk = Desk()
    assert [desk.add(body) for body in (b"1", b"2", b"3")] == [1, 2, 3]
    assert desk.bodies == [[b"1"]]
    assert desk.timers.next() == WAIT_S
    desk.run(WAIT_S)
    assert desk.bodies == [[b"1"], [b"2", b"3"]]
    assert [(p.sequence, p.first) for p in desk.out] == [(1, 1), (2, 2)]
    assert len(desk.timers) == 0
    desk.add(b"4", 2 * WAIT_S)
    assert desk.bodies[-1] == [b"4"], "after a pause at once again"


def test_a_payload_says_who_and_when() -> None:
    desk = Desk()
    desk.add(b"x", 2.5)
    (payload,) = desk.out
    assert payload.origin == bytes(peer(0))
    assert payload.epoch == int(UNIX_START_S * 1000)
    assert payload.sent_at_ms == int((UNIX_START_S + 2.5) * 1000)
    assert payload.messages[0].topic == "t"


def test_a_bundle_that_is_full_goes_out_at_once() -> None:
    desk = Desk()
    for _ in range(2 * BUNDLE_MESSAGES_MAX + 1):
        desk.add(b"x")
    assert [len(bodies) for bodies in desk.bodies] == [1, BUNDLE_MESSAGES_MAX, BUNDLE_MESSAGES_MAX]
    assert len(desk.timers) == 0
    large = Desk(Config(broadcast=BroadcastConfig(bundle_bytes_max=1000)))
    for size in (10, 400, 400, 400, 2000, 10):
        large.add(bytes(size))
    assert [[len(body) for body in bodies] for bodies in large.bodies] == [
        [10],
        [400, 400],
        [400],
        [2000],
    ]


def test_what_asks_goes_alone_after_what_was_gathered() -> None:
    desk = Desk()
    for body in (b"1", b"2", b"3"):
        desk.add(body)
    assert desk.alone(b"4") == 4
    assert desk.bodies == [[b"1"], [b"2", b"3"], [b"4"]]
    assert [payload.asks for payload in desk.out] == [0, 0, ASKS_RECEIPT]
    assert len(desk.timers) == 0


def test_a_draft_changes_nothing_until_it_is_taken() -> None:
    desk = Desk()
    desk.add(b"1")
    draft = desk.draft()
    assert draft == desk.draft()
    assert desk.take(draft) == 2
    assert [(p.sequence, p.first) for p in desk.out] == [(1, 1), (2, 2)]
    assert desk.take(draft) is None, "it has gone out"
    assert desk.add(b"3", 1.0) == 3


def test_a_draft_that_was_overtaken_is_not_taken() -> None:
    desk = Desk()
    draft = desk.draft()
    desk.add(b"1")
    assert desk.take(draft) is None
    draft = desk.draft()
    desk.add(b"2")  # gathered, with the number of the draft
    assert desk.take(draft) is None
    desk.run(WAIT_S)
    assert desk.take(draft) is None
    assert desk.take(Desk().draft(now=1.0)) is None, "nor that of another run"
    assert desk.bodies == [[b"1"], [b"2"]]


def test_a_private_draft_names_nobody() -> None:
    desk = Desk()
    desk.add(b"1")
    draft = desk.publishing.draft_as(bytes(peer(77)), "t", ContentType.TEXT, b"x", 3.0)
    payload = decode_broadcast_payload(draft)
    assert payload.origin == bytes(peer(77))
    assert (payload.sequence, payload.first) == (1, 1)
    assert payload.epoch != desk.publishing.epoch
    assert desk.add(b"2", 9.0) == 2, "it has no number here"
    assert desk.out[-1].sequence == 2


def test_an_origin_holds_itself_to_its_rate() -> None:
    config = IntakeConfig(origin_bytes_per_s=1000.0, origin_burst_bytes=2000, cost_bytes=500)
    desk = Desk(Config(intake=config))
    now = 0.0
    while now < 20.0:
        now = desk.publishing.free_at(now)
        desk.alone(bytes(400), now)
    size = sum(len(body) + 500 for bodies in desk.bodies for body in bodies)
    assert 15_000 < size < 25_000


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "alone", "draft", "wait"]),
            st.integers(0, 300),
            st.floats(0, 0.01),
        ),
        max_size=80,
    )
)
def test_every_message_goes_out_once_in_its_order(
    steps: list[tuple[str, int, float]],
) -> None:
    desk = Desk(Config(broadcast=BroadcastConfig(bundle_bytes_max=500)))
    numbers: dict[int, bytes] = {}
    now = 0.0
    for turn, (what, size, later) in enumerate(steps):
        body = turn.to_bytes(2, "big") + bytes(size)
        if what == "wait":
            now += later
            desk.run(now)
        elif what == "draft":
            number = desk.take(desk.draft(body, now), now)
            if number is not None:
                numbers[number] = body
        else:
            numbers[(desk.add if what == "add" else desk.alone)(body, now)] = body
    desk.run(now + 1.0)
    assert list(numbers) == list(range(1, len(numbers) + 1))
    assert [p.sequence for p in desk.out] == list(range(1, len(desk.out) + 1))
    found = {
        number: message.body
        for payload in desk.out
        for number, message in enumerate(payload.messages, payload.first)
    }
    assert found == numbers
    assert len(desk.timers) == 0
