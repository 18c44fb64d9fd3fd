"""NATs keep to their kind: what they map, what they let in, and when they forget."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwalk.errors import InvalidArgument
from meshwalk.sim.nat import Dependence, Nat

FREE = Dependence.ENDPOINT_INDEPENDENT
BY_ADDRESS = Dependence.ADDRESS_DEPENDENT
BY_PORT = Dependence.ADDRESS_AND_PORT_DEPENDENT
HERE, ME, PORT = "203.0.113.1", "192.168.0.2", 5000
THEM = "198.51.100.7"

KINDS: dict[str, Callable[[str, Random], Nat]] = {
    "full cone": Nat.full_cone,
    "restricted": Nat.restricted_cone,
    "port-restricted": Nat.port_restricted_cone,
    "symmetric": Nat.symmetric,
}

dependences = st.sampled_from(Dependence)
insides = st.tuples(st.sampled_from(["i1", "i2"]), st.sampled_from([1, 2]))
remotes = st.tuples(st.sampled_from(["r1", "r2"]), st.sampled_from([7, 8]))


def nat(mapping: Dependence = FREE, filtering: Dependence = FREE, **options: Any) -> Nat:
    return Nat(mapping, filtering, HERE, Random(1), **options)


# Mapping and filtering.


@pytest.mark.parametrize(
    ("mapping", "one_host", "other_host", "other_port"),
    [(FREE, True, True, True), (BY_ADDRESS, True, False, False), (BY_PORT, False, False, False)],
)
def test_mapping(mapping: Dependence, one_host: bool, other_host: bool, other_port: bool) -> None:
    """RFC 4787 section 4.1: for which remotes an internal port keeps its external port."""
    box = nat(mapping)
    first = box.outbound(ME, PORT, THEM, 80, 0.0)
    assert first[0] == HERE
    assert box.outbound(ME, PORT, THEM, 80, 1.0) == first
    assert (box.outbound(ME, PORT, THEM, 81, 1.0) == first) is one_host
    assert (box.outbound(ME, PORT, "other", 80, 1.0) == first) is other_host
    assert (box.outbound(ME, PORT, "other", 81, 1.0) == first) is other_port
    assert box.outbound(ME, PORT + 1, THEM, 80, 1.0) != first
    assert box.outbound("192.168.0.3", PORT, THEM, 80, 1.0) != first


@pytest.mark.parametrize(
    ("filtering", "same_host", "stranger"),
    [(FREE, True, True), (BY_ADDRESS, True, False), (BY_PORT, False, False)],
)
@pytest.mark.parametrize("mapping", Dependence)
def test_filtering(
    mapping: Dependence, filtering: Dependence, same_host: bool, stranger: bool
) -> None:
    """RFC 4787 section 5: who may come in by a port that was used to reach THEM:80."""
    box = nat(mapping, filtering)
    assert box.inbound(THEM, 80, 5000, 0.0) is None
    _, port = box.outbound(ME, PORT, THEM, 80, 0.0)
    assert box.inbound(THEM, 80, port, 1.0) == (ME, PORT)
    assert box.inbound(THEM, 81, port, 1.0) == ((ME, PORT) if same_host else None)
    assert box.inbound("stranger", 80, port, 1.0) == ((ME, PORT) if stranger else None)
    assert box.filtered == 1 + (not same_host) + (not stranger)
    # Whoever was let in is answered by the port at which it came in.
    if stranger:
        assert box.outbound(ME, PORT, "stranger", 80, 2.0) == (HERE, port)


def test_to_come_in_opens_the_filter_for_nobody_else() -> None:
    box = nat(FREE, BY_ADDRESS)
    _, port = box.outbound(ME, PORT, THEM, 80, 0.0)
    box.inbound(THEM, 81, port, 10.0)
    # The entry that was dialled goes first; the one that came in does not hold the filter open.
    assert box.inbound(THEM, 82, port, 245.0) is None
    assert box.inbound(THEM, 81, port, 245.0) == (ME, PORT)


@pytest.mark.parametrize("one", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_hole_punching(one: str, other: str) -> None:
    """Both dial where a third party saw the other; Ford, Srisuresh, Kegel, USENIX 2005.

    It fails when a symmetric NAT's new port meets a filter that looks at ports.
    """
    boxes = [KINDS[one]("e1", Random(1)), KINDS[other]("e2", Random(2))]
    seen = [box.outbound("inside", PORT, "server", 80, 0.0) for box in boxes]

    def dial(source: int, target: int) -> bool:
        remote = boxes[source].outbound("inside", PORT, *seen[target], now=1.0)
        return boxes[target].inbound(*remote, seen[target][1], 1.0) == ("inside", PORT)

    first, second, again = dial(0, 1), dial(1, 0), dial(0, 1)
    fails = {one, other} in ({"symmetric"}, {"symmetric", "port-restricted"})
    assert (first or second or again) is not fails
    assert first is (other == "full cone")


@given(dependences, dependences, st.integers(0, 2**32), st.data())
def test_against_a_model(
    mapping: Dependence, filtering: Dependence, seed: int, data: st.DataObject
) -> None:
    """With time and place enough, a NAT is a few tables that only grow."""
    box = Nat(mapping, filtering, HERE, Random(seed))
    connections: dict[tuple[Any, Any], int] = {}  # (inside, remote) to external port
    owners: dict[int, tuple[str, int]] = {}
    ports: dict[Any, int] = {}
    dialled: set[tuple[int, str]] = set()
    for now in range(data.draw(st.integers(1, 25))):
        if not owners or data.draw(st.booleans()):
            inside, remote = data.draw(insides), data.draw(remotes)
            host, port = box.outbound(*inside, *remote, float(now))
            assert host == HERE
            looks_at = {FREE: (), BY_ADDRESS: remote[:1], BY_PORT: remote}[mapping]
            expected = connections.get((inside, remote), ports.get((inside, looks_at)))
            if expected is None:
                assert port not in owners  # RFC 5382 REQ-7: no port is overloaded
                ports[inside, looks_at] = port
                owners[port] = inside
            else:
                assert port == expected
            connections[inside, remote] = port
            dialled.add((port, remote[0]))
        else:
            remote, port = data.draw(remotes), data.draw(st.sampled_from(sorted(owners)))
            inside = owners[port]
            connected = connections.get((inside, remote))
            may = connected == port or (
                connected is None
                and (
                    filtering is FREE or (filtering is BY_ADDRESS and (port, remote[0]) in dialled)
                )
            )
            assert box.inbound(*remote, port, float(now)) == (inside if may else None)
            if may:
                connections[inside, remote] = port
        assert box.entry_count(float(now)) == len(connections)
        assert box.mapping_count(float(now)) == len(owners)
    assert box.displaced == 0


# Time.


def test_an_unanswered_dial_is_forgotten_after_four_minutes() -> None:
    box = nat()
    _, port = box.outbound(ME, PORT, THEM, 80, 0.0)
    assert box.entry_count(239.9) == box.mapping_count(239.9) == 1
    assert box.inbound(THEM, 80, port, 240.0) is None
    assert box.entry_count(240.0) == box.mapping_count(240.0) == 0


def test_an_established_connection_is_kept_for_two_hours_and_four_minutes() -> None:
    box = nat(BY_PORT, BY_PORT)
    _, port = box.outbound(ME, PORT, THEM, 80, 0.0)
    box.inbound(THEM, 80, port, 1.0)
    assert box.inbound(THEM, 80, port, 1.0 + 7439.9) == (ME, PORT)
    assert box.outbound(ME, PORT, THEM, 80, 14_000.0) == (HERE, port)
    assert box.inbound(THEM, 80, port, 14_000.0 + 7440.0) is None


def test_what_comes_in_is_transitory_until_it_is_answered() -> None:
    box = nat()
    _, port = box.outbound(ME, PORT, THEM, 80, 0.0)
    box.inbound("stranger", 80, port, 200.0)
    assert box.entry_count(300.0) == 1
    assert box.outbound(ME, PORT, "stranger", 80, 300.0) == (HERE, port)
    assert box.entry_count(7000.0) == 1
    box.closed(ME, PORT, "stranger", 80, 7000.0)
    assert box.entry_count(7239.0) == 1
    assert box.entry_count(7240.0) == 0
    box.closed(ME, PORT, "stranger", 80, 7300.0)  # too late, and harmless


def test_a_mapping_lives_as_long_as_one_of_its_connections() -> None:
    box = nat()
    _, port = box.outbound(ME, PORT, THEM, 80, 0.0)
    box.inbound(THEM, 80, port, 0.0)
    box.outbound(ME, PORT, "other", 80, 0.0)
    assert box.outbound(ME, PORT, "third", 80, 5000.0) == (HERE, port)
    assert box.entry_count(5000.0) == 2
    # Once the last is gone a port is drawn anew, and the old one leads nowhere.
    assert box.outbound(ME, PORT, THEM, 80, 20_000.0) != (HERE, port)
    assert box.inbound(THEM, 80, port, 20_000.0) is None


def test_reboot() -> None:
    box = nat()
    _, port = box.outbound(ME, PORT, THEM, 80, 0.0)
    box.reboot()
    assert box.inbound(THEM, 80, port, 1.0) is None
    assert box.entry_count(1.0) == box.mapping_count(1.0) == 0


# Bounds.


def test_in_a_full_table_the_longest_idle_makes_place() -> None:
    box = nat(BY_PORT, BY_PORT, entries_max=3, ports=range(2000, 2003))
    ports = [box.outbound(ME, PORT, THEM, remote, float(remote))[1] for remote in range(3)]
    assert sorted(ports) == [2000, 2001, 2002]
    box.inbound(THEM, 0, ports[0], 10.0)  # so that the second is the longest idle
    _, port = box.outbound(ME, PORT, THEM, 3, 11.0)
    assert port == ports[1]
    assert box.displaced == 1
    assert box.inbound(THEM, 1, port, 12.0) is None
    assert box.inbound(THEM, 0, ports[0], 12.0) == (ME, PORT)


def test_expired_entries_make_place_before_live_ones() -> None:
    box = nat(entries_max=2)
    _, port = box.outbound(ME, PORT, THEM, 80, 0.0)
    box.inbound(THEM, 80, port, 0.0)  # established, and longest idle
    box.outbound(ME, PORT, THEM, 81, 1.0)  # transitory
    box.outbound(ME, PORT, THEM, 82, 300.0)
    assert box.displaced == 0
    assert box.inbound(THEM, 80, port, 300.0) == (ME, PORT)


@given(dependences, dependences, st.integers(1, 6), st.data())
def test_bounds_hold_whatever_comes(
    mapping: Dependence, filtering: Dependence, entries_max: int, data: st.DataObject
) -> None:
    ports = range(3000, 3000 + 2 * entries_max, 2)
    box = nat(mapping, filtering, entries_max=entries_max, ports=ports)
    now = 0.0
    for _ in range(data.draw(st.integers(1, 20))):
        now += data.draw(st.sampled_from([0.0, 1.0, 239.0, 240.0, 7440.0]))
        inside, remote = data.draw(insides), data.draw(remotes)
        match data.draw(st.sampled_from(["out", "in", "closed"])):
            case "out":
                _, port = box.outbound(*inside, *remote, now)
                assert port in ports
                # The answer always finds its way back.
                assert box.inbound(*remote, port, now) == inside
            case "in":
                box.inbound(*remote, data.draw(st.sampled_from(ports)), now)
            case _:
                box.closed(*inside, *remote, now)
        assert 0 <= box.mapping_count(now) <= box.entry_count(now) <= entries_max
        in_use = {id(entry.mapping) for entry in box._entries.values()}
        assert in_use == {id(mapping) for mapping in box._mappings.values()}
        assert in_use == {id(mapping) for mapping in box._mappings_by_port.values()}


def test_hairpinning() -> None:
    """RFC 5382 REQ-8: two hosts behind one NAT, each seen at its external address and port."""
    for hairpins in (True, False):
        box = nat(FREE, BY_ADDRESS, hairpins=hairpins)
        listening = box.outbound(ME, PORT, "server", 80, 0.0)
        seen = box.outbound("192.168.0.3", 6000, *listening, now=1.0)
        assert seen[0] == HERE
        assert box.inbound(*seen, listening[1], 1.0) is None  # the filter holds here, too
        box.outbound(ME, PORT, *seen, now=2.0)
        came = box.inbound(*seen, listening[1], 3.0)
        assert came == ((ME, PORT) if hairpins else None)


@pytest.mark.parametrize(
    "options",
    [
        {"entries_max": 0},
        {"entries_max": 3, "ports": range(2000, 2002)},
        {"entries_max": 1, "ports": range(0)},
        {"entries_max": 1, "ports": range(2)},
        {"entries_max": 1, "ports": range(65535, 65537)},
        {"established_timeout_s": 0.0},
        {"transitory_timeout_s": -1.0},
    ],
)
def test_options_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        nat(**options)


def test_the_seed_decides_the_ports() -> None:
    def ports(seed: int) -> list[tuple[str, int]]:
        box = Nat.symmetric(HERE, Random(seed))
        return [box.outbound(ME, PORT, THEM, remote, 0.0) for remote in range(20)]

    assert ports(1) == ports(1)
    assert ports(1) != ports(2)
