"""A node that is asked about somebody's silent neighbour: what it answers, and whom it dials."""

from __future__ import annotations

from meshwalk.wire.address import Address
from meshwalk.wire.frames import CloseReason, Purpose
from meshwalk.wire.messages import VouchAsked, VouchOutcome, VouchTold

from .knowing import Net, Node, record_of
from .test_vouching import CONFIG, DETECTION, TIMEOUT_S, answers, scene


def ask(net: Net, one: Node, two: Node, record: bytes) -> VouchOutcome | None:
    """One asks the other, and waits for the answer."""
    before = len(answers(net))
    net.say(one, two, VouchAsked(record))
    net.run(TIMEOUT_S)
    return answers(net)[before] if len(answers(net)) > before else None


def test_who_has_been_reached_before_is_dialled_and_a_handshake_proves_it_alive() -> None:
    net, one, suspect, (voucher,) = scene("knows")
    assert ask(net, one, voucher, suspect.record) is VouchOutcome.ALIVE
    assert [(by, c.purpose, c.expected) for _, by, c in net.dials] == [
        (voucher, Purpose.PROBE, suspect.id)
    ]
    assert len(voucher.ends) == 1  # the probe is closed


def test_whoever_refuses_lives() -> None:
    net, one, suspect, (voucher,) = scene("knows")
    net.do(suspect, suspect.overlay.leave(net.now))  # and its links are not closed yet
    assert ask(net, one, voucher, suspect.record) is VouchOutcome.ALIVE


def test_nobody_at_any_address_is_silent() -> None:
    net, one, suspect, (voucher,) = scene("knows")
    net.crash(suspect)
    net.hears_of(voucher, suspect, suspect.host, "10.88.0.1", "10.88.0.2")
    assert ask(net, one, voucher, suspect.record) is VouchOutcome.SILENT
    assert len(net.dials) == 3


def test_nobody_is_dialled_where_the_asker_says() -> None:
    """Or a neighbour could have a third party dialled."""
    net, one, suspect, (voucher,) = scene("knows")
    for number in range(300, 305):  # records that anybody can sign
        assert ask(net, one, voucher, record_of(number, "10.99.0.1")) is VouchOutcome.UNKNOWN
    record = record_of(suspect.number, "10.99.0.1")
    assert ask(net, one, voucher, record) is VouchOutcome.ALIVE
    assert [c.address.host for _, _, c in net.dials] == [suspect.host]


def test_whoever_was_only_heard_of_is_not_dialled() -> None:
    """Whether it lives would not be known after a dial in vain either."""
    net, one, suspect, (voucher,) = scene("apart")
    net.hears_of(voucher, suspect)
    assert suspect.id in voucher.overlay.book.entries
    assert ask(net, one, voucher, suspect.record) is VouchOutcome.UNKNOWN
    assert net.dials == []


def test_a_silent_link_to_whom_it_cannot_dial_tells_as_well() -> None:
    net, one, suspect, (voucher,) = scene("apart")
    net.link(suspect, voucher)  # dialled by the suspect
    for _ in range(CONFIG.link.rtt_window):
        voucher.link_to(suspect).round_trips.add(0.1, 0.0)
    suspect.is_silent = True
    asked_at = net.now
    assert ask(net, one, voucher, suspect.record) is VouchOutcome.SILENT
    assert net.dials == []
    told_at = next(said.at for said in net.of(VouchTold))
    assert told_at - asked_at >= DETECTION.voucher_timeout_s, "it may just stand still"


def test_a_link_that_is_broken_here_as_well_is_no_proof() -> None:
    """Its own link is silent, but a new one comes through."""
    net, one, suspect, (voucher,) = scene("linked")
    voucher.link_to(suspect).heard_at = 0.0
    end = voucher.ends[voucher.link_to(suspect).number]
    end.link.state = type(end.link.state).CLOSING  # nothing is heard over it any more
    assert ask(net, one, voucher, suspect.record) is VouchOutcome.ALIVE
    assert [c.address for _, _, c in net.dials] == [Address(suspect.host, 1)]


def test_a_suspect_that_is_heard_late_is_vouched_for_even_while_it_is_dialled() -> None:
    net, one, suspect, (voucher,) = scene("linked")
    link = one.link_to(suspect)
    for _ in range(CONFIG.link.rtt_window):
        link.round_trips.add(1.0, 0.0)
    suspect.is_silent = True
    net.suspect(one, suspect)
    net.run(2)
    assert [c.purpose for _, _, c in net.dials] == [Purpose.PROBE]
    assert answers(net) == []
    voucher.link_to(suspect).heard_at = net.now
    net.run(1)
    assert answers(net) == [VouchOutcome.ALIVE]
    assert suspect.number in one.neighbours
    net.run(CONFIG.link.connect_timeout_s)
    assert answers(net) == [VouchOutcome.ALIVE]
    assert not voucher.overlay.vouching.attempts


def test_nobody_knows_of_a_peer_without_addresses() -> None:
    net, one, suspect, (voucher,) = scene("apart")
    del voucher.overlay.book.entries[suspect.id]
    record = record_of(suspect.number, "fe80::1%eth0")
    assert ask(net, one, voucher, record) is VouchOutcome.UNKNOWN


def test_nobody_vouches_for_itself() -> None:
    net, one, _, (voucher,) = scene("apart")
    assert ask(net, one, voucher, voucher.record) is VouchOutcome.UNKNOWN
    assert net.dials == []


def test_too_many_dials_of_ours_prove_nothing() -> None:
    net, one, suspect, (voucher,) = scene("knows")
    suspect.is_silent = True
    net.say(one, voucher, VouchAsked(suspect.record))
    net.run(0.2)
    net.do(voucher, voucher.overlay.not_dialled(net.dials[0][2].attempt, net.now))
    net.run(0.2)
    assert answers(net) == [VouchOutcome.UNKNOWN]


def test_a_forged_record_ends_the_link() -> None:
    net, one, suspect, (voucher,) = scene("apart")
    assert ask(net, one, voucher, suspect.record[:-1] + b"\x00") is None
    assert (voucher, CloseReason.PROTOCOL) in [(n, why) for _, n, _, why in net.closed]


def test_who_asks_and_goes_gets_no_answer_and_holds_nothing() -> None:
    net, one, suspect, (voucher,) = scene("knows")
    suspect.is_silent = True
    net.say(one, voucher, VouchAsked(suspect.record))
    net.run(0.2)
    net.lose(one, voucher)
    net.run(CONFIG.link.connect_timeout_s)
    assert len(net.dials) == 1
    assert answers(net) == []
    assert not voucher.overlay.vouching.attempts
    assert not voucher.overlay.vouching._inquiries


def strangers(net: Net, voucher: Node, count: int) -> list[Node]:
    """Peers that a node has reached once, and that are silent now."""
    gone = [net.add(CONFIG) for _ in range(count)]
    for node in gone:
        net.knows_well(voucher, node)
        node.is_silent = True
    return gone


def test_one_link_cannot_have_many_dialled() -> None:
    net, one, _, (voucher,) = scene("apart")
    for node in strangers(net, voucher, 60):
        net.say(one, voucher, VouchAsked(node.record))
    net.run(CONFIG.link.connect_timeout_s + 1)
    assert len(net.dials) <= DETECTION.vouching_per_link_burst
    assert len(answers(net)) == 60  # whoever asks too much is told that nobody knows
    assert answers(net).count(VouchOutcome.UNKNOWN) >= 60 - DETECTION.vouching_per_link_burst
    assert one.number in voucher.neighbours


def test_nor_can_many_links_have_more_than_so_many() -> None:
    """At once: a node that may dial 32 at once keeps most of that for itself. And in the end."""
    net, _, _, (voucher,) = scene("apart")
    askers = [net.add(CONFIG) for _ in range(5)]
    for asker in askers:
        net.link(asker, voucher)
    gone = strangers(net, voucher, 40)
    under_way = [0]
    net.watch = lambda: under_way.append(len(voucher.overlay.vouching.attempts))
    for _ in range(12):
        for n, node in enumerate(gone):
            net.say(askers[n % 5], voucher, VouchAsked(node.record))
        net.run(5)
    assert max(under_way) == DETECTION.vouching_dials_max
    most = DETECTION.vouching_dials_burst + 60 * DETECTION.vouching_dials_per_s
    assert DETECTION.vouching_dials_burst < len(net.dials) <= most + 1
    assert voucher.overlay.vouching.counts["too many dials"] > 0


def test_all_who_ask_about_one_peer_have_one_dial() -> None:
    net, _, suspect, (voucher,) = scene("knows")
    askers = [net.add(CONFIG) for _ in range(5)]
    suspect.is_silent = True
    for asker in askers:
        net.link(asker, voucher)
        net.say(asker, voucher, VouchAsked(suspect.record))
    net.run(CONFIG.link.connect_timeout_s + 1)
    assert answers(net) == [VouchOutcome.SILENT] * 5
    assert len(net.dials) == 1


def test_a_dial_in_vain_for_another_is_no_answer_while_the_own_link_may_bring_one() -> None:
    net, one, suspect, (voucher,) = scene("knows")
    suspect.is_silent = True
    net.say(one, voucher, VouchAsked(suspect.record))
    net.run(0.2)
    asker = net.add(CONFIG)
    net.link(asker, voucher)
    suspect.is_silent = False
    net.link(suspect, voucher)
    for _ in range(CONFIG.link.rtt_window):
        voucher.link_to(suspect).round_trips.add(3.0, 0.0)  # a far one: it has time
    suspect.is_silent = True
    net.run(CONFIG.link.connect_timeout_s - 2)
    net.say(asker, voucher, VouchAsked(suspect.record))
    net.run(1.5)
    assert answers(net) == [VouchOutcome.SILENT]
    voucher.link_to(suspect).heard_at = net.now
    net.run(1)
    assert answers(net) == [VouchOutcome.SILENT, VouchOutcome.ALIVE]
