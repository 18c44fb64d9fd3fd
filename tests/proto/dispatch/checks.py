"""What is true of the conversations of a node at all times, and what at their end."""

from __future__ import annotations

from meshwalk.wire.frames import PART_COST_BYTES

from .pair import End
from .smallnodes import FLOOR


def check_nothing_is_left(end: End) -> None:
    """All counts are zero, once what is owed has had the time to be told."""
    end.pair.wait(400.0)
    machine = end.machine
    assert not machine.conversations.open_now
    assert not end.talks
    assert not machine.requests.waiting
    assert not machine.requests.serving
    assert not end.waiting
    assert len(end.timers) == 0
    for party in machine.parties.values():
        assert not party.conversations
        assert (party.shared_in.used, party.shared_out.used) == (0, 0)
        assert (party.ahead, party.asked, party.served) == (0, {}, {})
        assert (party.growing, party.held_up or {}) == (0, {})
        assert (party.waiting_bytes, party.waiting) == (0, None)
        assert not party.owing
        assert not party.starved
        assert not party.turns


def check_bounds(end: End) -> None:
    """What an end holds for the other keeps within its settings."""
    config = end.config.conversations
    for party in end.machine.parties.values():
        assert len(party.conversations) <= config.per_peer_max
        held = ahead = growing = 0
        for conversation in party.conversations.values():
            incoming = conversation.incoming
            window = incoming.window
            assert window.taken <= window.received <= window.limit
            assert incoming.unread >= 0
            held += window.held
            ahead += window.ahead
            growing += incoming.is_growing
            assert incoming.is_growing or incoming.held == incoming.parts_cost
            body = incoming.parts_cost - PART_COST_BYTES * len(incoming.parts or ())
            assert body <= config.message_bytes_max
        assert held <= config.shared_window_bytes + FLOOR * len(party.conversations)
        assert ahead == party.ahead <= config.assembling_bytes_max
        assert growing == party.growing <= config.assembling_bytes_max // config.message_bytes_max
        assert party.shared_in.used >= 0
        assert party.shared_out.used >= 0
