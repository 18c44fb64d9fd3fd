"""Which addresses a node tells others."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from meshwalk.config import BookConfig
from meshwalk.identity.keys import open_record
from meshwalk.proto.overlay.groups import may_be_told
from meshwalk.proto.ownrecord import ADDRESSES_MAX, HOSTS_MAX, SEEN_MAX, WITNESSES_MAX, OwnRecord
from meshwalk.sim.node import UNIX_START_S
from meshwalk.sim.signatures import CheapSignatures
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import PeerRecord

SIGNATURES = CheapSignatures(PeerId(bytes(32)))
CONFIG = BookConfig()
FAR = Address("8.8.8.8", 1)
NEAR = Address("192.168.0.9", 1)
HERE = Address("127.0.0.1", 1)


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def own_record(*listening: Address) -> OwnRecord:
    own = OwnRecord(SIGNATURES, CONFIG, UNIX_START_S)
    own.listening(listening, 0.0)
    return own


def everywhere(host: str = "0.0.0.0") -> OwnRecord:
    return own_record(Address(host, 7))


def hosts(own: OwnRecord) -> list[str]:
    return [address.host for address in own.addresses]


def told_to(own: OwnRecord, remote: Address) -> PeerRecord:
    return open_record(own.blob_for(remote), SIGNATURES)


def seen(own: OwnRecord, number: int, host: str, *, link: int = 0, now: float = 0.0) -> None:
    """Peer `number`, far away, says that it sees us at this host."""
    own.seen_at(peer(number), link or number, FAR, f"tcp://{host}:999", now)


# What is announced.


def test_named_address_is_announced_as_it_is() -> None:
    own = own_record(Address("10.0.0.1", 7))
    record = open_record(own.blob, SIGNATURES)
    assert record.addresses == ["tcp://10.0.0.1:7"]
    assert record.peer_id == SIGNATURES.peer_id


def test_changes_only_raise_the_sequence_and_the_version() -> None:
    own = everywhere()
    first, version = open_record(own.blob, SIGNATURES), own.version
    own.connected_from("10.0.0.1", 0.0)
    blob, second = own.blob, open_record(own.blob, SIGNATURES)
    assert first.sequence < second.sequence
    assert own.version == version + 1
    own.connected_from("10.0.0.1", 2.0)
    assert not own.hosts_are(["10.0.0.1"], 3.0)
    seen(own, 1, "1.2.3.4", now=4.0)
    assert own.blob == blob
    assert own.version == version + 1


def test_two_witnesses_are_needed() -> None:
    own = everywhere()
    seen(own, 1, "1.2.3.4", link=1)
    seen(own, 1, "1.2.3.4", link=2)
    assert hosts(own) == []
    seen(own, 2, "1.2.3.4")
    assert own.addresses == (Address("1.2.3.4", 7),)


def test_names_nonsense_and_nowhere_are_not_believed() -> None:
    own = everywhere()
    texts = ("tcp://victim.example:80", "", "x" * 500, "tcp://0.0.0.0:1", "tcp://224.0.0.1:1")
    for text in texts:
        own.seen_at(peer(1), 1, FAR, text, 0.0)
        own.seen_at(peer(2), 2, FAR, text, 0.0)
    assert own.addresses == ()


def test_a_peer_far_away_does_not_see_us_at_a_private_address() -> None:
    own = everywhere()
    for number in (1, 2):
        own.seen_at(peer(number), number, FAR, "tcp://10.9.9.9:1", 0.0)
        own.seen_at(peer(number), number, NEAR, "tcp://127.0.0.1:1", 0.0)
    assert own.addresses == ()
    for number in (1, 2):
        own.seen_at(peer(number), number, NEAR, "tcp://10.9.9.9:1", 0.0)
    assert hosts(own) == ["10.9.9.9"]


def test_ipv4_wildcard_does_not_claim_ipv6() -> None:
    own = everywhere()
    own.connected_from("fd00::1", 0.0)
    assert own.addresses == ()


def test_ipv6_takes_no_place_where_only_ipv4_is_heard() -> None:
    four, six = ["10.0.0.1", "10.0.0.2"], [f"fd00::{n}" for n in range(2 * HOSTS_MAX)]
    own = everywhere("0.0.0.0")
    own.hosts_are([*six, *four], 0.0)
    assert hosts(own) == four
    assert own.hosts[:2] == ("10.0.0.1", "10.0.0.2")
    assert len(own.hosts) == HOSTS_MAX, "links may go out from the others"
    assert not own.hosts_are([*six, *four], 1.0)
    own.connected_from("10.0.0.3", 2.0)
    assert hosts(own) == [*four, "10.0.0.3"], "it takes a place of those that are not heard"
    own.connected_from("fd00::99", 3.0)
    assert "fd00::99" not in own.hosts
    for n in range(SEEN_MAX):
        seen(own, 2 * n, f"2600::{n}")
        seen(own, 2 * n + 1, f"2600::{n}")
    seen(own, 90, "8.1.2.3")
    seen(own, 91, "8.1.2.3")
    assert hosts(own) == [*four, "10.0.0.3", "8.1.2.3"]


def test_ipv6_hears_both() -> None:
    own = everywhere("::")
    own.hosts_are(["fd00::1", "10.0.0.1"], 0.0)
    assert hosts(own) == ["fd00::1", "10.0.0.1"]


def test_hosts_that_others_cannot_dial_are_not_announced() -> None:
    own = everywhere("::")
    own.hosts_are(["fe80::1", "fe80::1%eth0", "", "0.0.0.0", "eth0", "fd00::1"], 0.0)
    own.connected_from("fe80::2%eth0", 0.0)
    own.connected_from("", 0.0)
    assert hosts(own) == ["fd00::1"]


def test_tables_are_bounded() -> None:
    own = everywhere()
    for n in range(1000):
        seen(own, n, f"1.1.{n // 250}.{n % 250}")
        own.connected_from(f"10.2.{n // 250}.{n % 250}", 0.0)
    assert len(own._words) == WITNESSES_MAX
    assert len(own.hosts) == HOSTS_MAX
    assert len(own.addresses) == ADDRESSES_MAX


def test_a_machine_with_many_interfaces_tells_where_others_see_it() -> None:
    own = everywhere()
    own.hosts_are([f"10.2.0.{n}" for n in range(10)], 0.0)
    for n in range(10):
        for witness in (0, 1):
            seen(own, 2 * n + witness, f"1.2.3.{n}")
    assert hosts(own) == ["10.2.0.0", "10.2.0.1", "1.2.3.0", "1.2.3.1"]
    assert SEEN_MAX == 2


# Forms.


def test_each_peer_is_told_what_it_can_use() -> None:
    own = everywhere("::")
    own.hosts_are(["127.0.0.1", "10.0.0.1", "1.2.3.4", "fd00::1"], 0.0)
    assert told_to(own, FAR).addresses == ["tcp://1.2.3.4:7"]
    near = ["tcp://10.0.0.1:7", "tcp://1.2.3.4:7", "tcp://[fd00::1]:7"]
    assert told_to(own, NEAR).addresses == near
    assert told_to(own, Address("169.254.0.3", 1)).addresses == near
    assert told_to(own, HERE).addresses == ["tcp://127.0.0.1:7", *near]
    assert own.blob_for(HERE) == own.blob
    assert told_to(own, Address("name.example", 1)).addresses == ["tcp://1.2.3.4:7"]


def test_one_kind_of_address_is_one_blob() -> None:
    own = own_record(Address("1.2.3.4", 7))
    assert own.blob_for(FAR) is own.blob_for(NEAR) is own.blob_for(HERE) is own.blob


def test_a_form_is_signed_once() -> None:
    own = everywhere()
    own.hosts_are(["10.0.0.1", "1.2.3.4"], 0.0)
    assert own.blob_for(FAR) is own.blob_for(Address("9.9.9.9", 2))


def test_nothing_to_tell_is_a_record_too() -> None:
    own = own_record(Address("10.0.0.1", 7))
    assert told_to(own, FAR).addresses == []
    assert told_to(own, FAR).sequence < told_to(own, NEAR).sequence


SOME_HOSTS = st.lists(
    st.sampled_from(
        ["127.0.0.1", "::1", "169.254.0.1", "10.0.0.1", "10.0.0.2", "fd00::1", "1.2.3.4", "2600::1"]
    ),
    max_size=HOSTS_MAX,
    unique=True,
)
REMOTES = [HERE, Address("169.254.0.7", 1), NEAR, Address("fd00::9", 1), FAR, Address("n", 1)]


@dataclass
class Reader:
    """What a peer that gets several forms keeps: the one with the highest sequence."""

    best: PeerRecord | None = None

    def hears(self, record: PeerRecord) -> None:
        if self.best is None or record.sequence > self.best.sequence:
            self.best = record


@given(st.lists(st.tuples(SOME_HOSTS, st.floats(0.0, 1e-5)), min_size=1, max_size=5), st.randoms())
def test_the_wider_form_wins_and_the_newer_record_beats_both(
    moves: list[tuple[list[str], float]], rng: object
) -> None:
    own = everywhere("::")
    now, last = 0.0, -1
    for found, pause_s in moves:
        now += pause_s
        version = own.version
        own.hosts_are(found, now)
        forms = [told_to(own, remote) for remote in REMOTES]
        if own.version != version:
            assert min(form.sequence for form in forms) > last, "whichever form is heard is news"
        last = max(form.sequence for form in forms)
        for remote, form in zip(REMOTES, forms, strict=True):
            assert all(may_be_told(a, remote.host) for a in form.parsed_addresses())
            assert set(form.addresses) <= {str(address) for address in own.addresses}
        rng.shuffle(forms)  # type: ignore[attr-defined]
        reader = Reader()
        for form in forms:
            reader.hears(form)
        assert reader.best is not None
        assert len(reader.best.addresses) == max(len(form.addresses) for form in forms)


# Renewal.


def test_it_is_signed_anew_before_others_find_it_stale() -> None:
    own = own_record(Address("1.2.3.4", 7))
    first, version = open_record(own.blob, SIGNATURES), own.version
    assert own.renewal_at(0.0) == CONFIG.renew_s
    assert not own.renew(CONFIG.renew_s - 1)
    assert own.version == version
    assert own.renew(CONFIG.renew_s + 1)
    assert own.version == version + 1
    second = open_record(own.blob, SIGNATURES)
    assert second.addresses == first.addresses
    assert second.sequence - first.sequence >= CONFIG.renew_s * 1e6
    assert not own.renew(CONFIG.renew_s + 2)


def test_sleep_makes_it_old() -> None:
    """Machine time stands still, and the record ages for those who read it."""
    own = own_record(Address("1.2.3.4", 7))
    own.unix_offset_s += CONFIG.renew_s
    assert own.renewal_at(0.0) == 0.0
    assert own.renew(0.0)
    assert own.renewal_at(0.0) == CONFIG.renew_s


def test_a_calendar_that_is_set_back_makes_no_record_older_than_the_last() -> None:
    own = everywhere()
    before = open_record(own.blob, SIGNATURES).sequence
    own.unix_offset_s -= 1e6
    assert not own.renew(0.0)
    assert own.renewal_at(0.0) == CONFIG.renew_s
    own.connected_from("10.0.0.1", 0.0)
    assert open_record(own.blob, SIGNATURES).sequence > before


# Moving.


def test_hosts_that_have_gone_are_dropped() -> None:
    own = everywhere()
    assert not own.hosts_are(["10.0.0.1"], 0.0), "nothing has changed; the node has only begun"
    own.connected_from("127.0.0.1", 0.0)
    assert own.hosts_are(["192.168.1.5", "127.0.0.1"], 1.0)
    assert hosts(own) == ["127.0.0.1", "192.168.1.5"]
    assert not own.hosts_are(["192.168.1.5", "127.0.0.1"], 2.0)
    assert own.hosts_are([], 3.0)
    assert own.addresses == ()
    assert own.hosts_are(["192.168.1.5"], 4.0), "a way anew"


def test_words_outlast_their_links_while_nobody_says_otherwise() -> None:
    """Whom we dialled goes, who dialled us stays: and they do not say where they see us."""
    own = everywhere()
    for n in (1, 2):
        seen(own, n, "1.2.3.4")
        own.link_ended(peer(n), n, 1.0)
    assert hosts(own) == ["1.2.3.4"]
    seen(own, 3, "5.6.7.8", now=2.0)
    assert hosts(own) == ["1.2.3.4"], "one is not enough to say otherwise either"


def test_two_new_links_outvote_any_number_that_have_gone() -> None:
    own = everywhere()
    for n in range(1, 9):
        seen(own, n, "1.2.3.4")
    for n in range(1, 9):
        own.link_ended(peer(n), n, 1.0)
    seen(own, 11, "5.6.7.8", now=2.0)
    seen(own, 12, "5.6.7.8", now=2.0)
    assert hosts(own) == ["5.6.7.8"]
    own.link_ended(peer(11), 11, 3.0)
    own.link_ended(peer(12), 12, 3.0)
    assert hosts(own) == ["5.6.7.8"], "what was outvoted does not come back"


def test_links_that_come_and_go_do_not_change_the_record() -> None:
    """Tests of peers are such links; with each the record would be signed and told anew."""
    own = everywhere()
    seen(own, 1, "1.2.3.4")
    seen(own, 2, "1.2.3.4")
    version = own.version

    def come_and_go() -> None:
        for n in range(3, 200):
            seen(own, n, "1.2.3.4" if n % 3 else "5.6.7.8")
            own.link_ended(peer(n), n, 0.0)

    come_and_go()
    assert own.version == version, "two that are linked know better"
    assert hosts(own) == ["1.2.3.4"]
    own.link_ended(peer(1), 1, 0.0)
    own.link_ended(peer(2), 2, 0.0)
    come_and_go()
    assert own.version == version + 1, "another way out is told of once"
    assert hosts(own) == ["1.2.3.4", "5.6.7.8"]


def test_two_ways_out_are_both_told() -> None:
    own = everywhere()
    for n in (1, 2):
        seen(own, n, "1.2.3.4")
        seen(own, n + 2, "5.6.7.8")
    assert hosts(own) == ["1.2.3.4", "5.6.7.8"]


def test_words_about_another_kind_of_address_do_not_contradict() -> None:
    own = everywhere("::")
    for n in (1, 2):
        seen(own, n, "1.2.3.4")
        own.link_ended(peer(n), n, 1.0)
    for n in (3, 4):
        seen(own, n, "2600::5")
        own.seen_at(peer(n + 2), n + 2, NEAR, "tcp://192.168.0.5:1", 1.0)
    assert hosts(own) == ["1.2.3.4", "192.168.0.5"], "two at most"


def test_in_another_place_words_of_the_past_count_for_nothing() -> None:
    own = everywhere()
    own.hosts_are(["10.0.0.1"], 0.0)
    for n in (1, 2, 3, 4):
        seen(own, n, "1.2.3.4")
    own.link_ended(peer(1), 1, 1.0)
    own.link_ended(peer(2), 2, 1.0)
    own.hosts_are(["192.168.1.5"], 2.0)
    assert hosts(own) == ["192.168.1.5", "1.2.3.4"], "two links are still there"
    own.link_ended(peer(3), 3, 3.0)
    assert hosts(own) == ["192.168.1.5"], "and with them goes what was said over them"
    seen(own, 4, "5.6.7.8", link=5, now=4.0)
    own.link_ended(peer(4), 4, 5.0)
    seen(own, 5, "5.6.7.8", link=6, now=6.0)
    assert hosts(own) == ["192.168.1.5", "5.6.7.8"], "the older of two links ended"


def test_the_words_that_have_gone_make_room_first() -> None:
    own = everywhere()
    seen(own, 1, "1.2.3.4")
    seen(own, 2, "1.2.3.4")
    for n in range(3, WITNESSES_MAX + 1):
        seen(own, n, "1.2.3.4")
        own.link_ended(peer(n), n, 0.0)
    for n in range(1000, 1000 + WITNESSES_MAX - 2):
        seen(own, n, f"5.6.{n // 250}.{n % 250}")
    assert hosts(own) == ["1.2.3.4"]
