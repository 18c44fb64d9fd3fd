"""What every transport promises, in one suite that runs against each of them.

The promises are in `meshwalk/net/transport.py`. Each scenario runs on memory, on TCP with stock
asyncio and on TCP with uvloop.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from random import Random
from typing import cast

import pytest
from worlds import ANY_PORT, QUICK, Gate, Reader, World, keys, scenario

from meshwalk.errors import AddressInUse, InvalidArgument, NotAdmitted, Unreachable
from meshwalk.identity.network import Network
from meshwalk.net.tcppipe import TcpPipe
from meshwalk.wire.address import Address

MEGABYTE = 1_000_000  # guess: some multiples of it are more than the system's buffers hold
TCP = ("tcp", "tcp-uvloop")


async def _both_ways(world: World) -> None:
    a, read_a, b, read_b = await world.pair()
    for number in range(100):
        a.write(b"%d," % number)
        b.write(bytearray(b"%d;" % number))
    sent = b"".join(b"%d," % n for n in range(100))
    await read_b.until_bytes(len(sent))
    await read_a.until_bytes(len(sent))
    assert read_b.data == sent
    assert read_a.data == sent.replace(b",", b";")
    assert (a.peer, b.peer) == (keys(1).peer_id, keys(2).peer_id)
    assert (a.remote, a.local) == (b.local, b.remote)
    assert a.unsent_bytes == b.unsent_bytes == 0


test_bytes_arrive_in_order_both_ways = scenario()(_both_ways)


async def _bulk(world: World) -> None:
    a, _, b, read_b = await world.pair()
    data = Random(1).randbytes(20 * MEGABYTE)
    for start in range(0, len(data), MEGABYTE):
        a.write(data[start : start + MEGABYTE])
    await read_b.until_bytes(len(data))
    assert read_b.data == data
    read_b.data.clear()
    a.write(data)  # and at once
    await read_b.until_bytes(len(data))
    assert read_b.data == data
    del b


test_twenty_megabytes_arrive_intact = scenario()(_bulk)


async def _close_delivers(world: World) -> None:
    a, read_a, b, read_b = await world.pair()
    data = Random(2).randbytes(5 * MEGABYTE)
    a.write(data)
    a.close()
    a.write(b"too late")
    # A peer that speaks meanwhile must not cost the closing end its last words.
    while read_b.why is None:
        b.write(b"are you still there?")
        await asyncio.sleep(0)
    assert await read_a.until_lost() == ""
    assert read_b.why == ""
    assert read_b.data == data
    assert read_a.data == b""
    assert read_a.events[-1] == "lost"


test_what_is_written_before_close_is_delivered = scenario()(_close_delivers)


async def _abort(world: World) -> None:
    a, read_a, b, read_b = await world.pair()
    world.pause(b)
    a.write(bytes(5 * MEGABYTE))
    a.abort()
    a.abort()
    a.close()
    a.write(b"too late")
    assert await read_a.until_lost() != ""
    world.resume(b)
    assert await read_b.until_lost() != ""
    assert len(read_b.data) < 5 * MEGABYTE
    assert read_a.events.count("lost") == read_b.events.count("lost") == 1
    assert a.unsent_bytes == 0


test_abort_discards_and_the_peer_hears_of_it = scenario()(_abort)


async def _lost_once(world: World) -> None:
    a, read_a, b, read_b = await world.pair()
    a.write(b"x")
    a.close()
    b.close()
    a.close()
    assert await read_a.until_lost() == ""
    assert await read_b.until_lost() == ""
    a.abort()
    b.close()
    for _ in range(5):
        await asyncio.sleep(0)
    assert read_a.events == read_b.events == ["lost"]


test_lost_comes_once_when_both_close = scenario()(_lost_once)


async def _not_admitted_by_place(world: World) -> None:
    gate = Gate(is_open=False)
    address = await world.listen(world.transport(1), gate)
    with pytest.raises(Unreachable, match="closed the connection at once"):
        await world.transport(2).dial(address, None)
    assert gate.failed == []
    gate.is_open = True
    world.pipes.append(await world.transport(2).dial(address, keys(1).peer_id))
    await gate.until(lambda: len(gate.pipes) == 1)
    assert [remote.host for remote in gate.admitted] == ["127.0.0.1"] * 2


test_a_full_acceptor_closes_unread = scenario()(_not_admitted_by_place)


async def _stalls(world: World) -> None:
    a, read_a, b, read_b = await world.pair()
    world.pause(b)
    written = 0
    while read_a.events == []:  # until the system's buffers are full too
        a.write(bytes(100_000))
        written += 100_000
        await asyncio.sleep(0)
    assert read_a.events == ["stalled"]
    assert a.unsent_bytes > QUICK.send_buffer_high_bytes
    a.write(bytes(4 * MEGABYTE))
    written += 4 * MEGABYTE
    assert a.unsent_bytes > 4 * MEGABYTE
    world.resume(b)
    await read_a.until(lambda: len(read_a.events) > 1)
    assert read_a.events == ["stalled", "resumed"]
    assert a.unsent_bytes <= QUICK.send_buffer_high_bytes // 2
    await read_b.until_bytes(written)
    assert len(read_b.data) == written


test_a_peer_that_does_not_read_stalls_the_writer = scenario()(_stalls)


async def _close_ends_anyway(world: World) -> None:
    a, read_a, b, _ = await world.pair()
    world.pause(b)
    a.write(bytes(20 * MEGABYTE))
    a.close()
    why = await read_a.until_lost()
    assert "did not read the last" in why
    assert a.unsent_bytes == 0


test_close_ends_although_the_peer_never_reads = scenario()(_close_ends_anyway)


async def _nobody(world: World) -> None:
    listener = await world.transport(1).listen(ANY_PORT, Gate())
    await listener.close()
    await listener.close()
    with pytest.raises(Unreachable, match=f"nobody listens at {listener.address}"):
        await world.transport(2).dial(listener.address, None)


test_dialling_nobody = scenario()(_nobody)


async def _another_peer(world: World) -> None:
    gate = Gate()
    address = await world.listen(world.transport(1), gate)
    with pytest.raises(NotAdmitted, match="was expected"):
        await world.transport(2).dial(address, keys(3).peer_id)
    await gate.until(lambda: len(gate.failed) == 1)
    assert gate.pipes == []
    pipe = await world.transport(2).dial(address, keys(1).peer_id)
    world.pipes.append(pipe)
    assert pipe.peer == keys(1).peer_id


test_another_peer_than_expected_is_refused = scenario()(_another_peer)


async def _another_network(world: World) -> None:
    gate = Gate()
    address = await world.listen(world.transport(1), gate)
    for network in (Network("contract", b"a guess"), Network("contract"), Network("other")):
        with pytest.raises(NotAdmitted, match="another network or secret"):
            await world.transport(2, network).dial(address, None)
    await gate.until(lambda: len(gate.failed) == 3)
    assert [link for link, _ in gate.failed] == [1, 2, 3]
    assert gate.pipes == []
    world.pipes.append(await world.transport(2).dial(address, None))


test_another_network_or_secret_is_refused = scenario()(_another_network)


async def _cancelled(world: World) -> None:
    gate = Gate()
    address = await world.listen(world.transport(1), gate)
    for turns in range(6):
        dial = asyncio.create_task(world.transport(2).dial(address, None))
        for _ in range(turns):
            await asyncio.sleep(0)
        dial.cancel()
        (outcome,) = await asyncio.gather(dial, return_exceptions=True)
        if isinstance(outcome, BaseException):
            assert isinstance(outcome, asyncio.CancelledError)
        else:
            outcome.abort()
    world.pipes.append(await world.transport(2).dial(address, None))
    world.pipes += gate.pipes


test_a_dial_can_be_cancelled_at_any_step = scenario()(_cancelled)


async def _many(world: World) -> None:
    gate = Gate()
    address = await world.listen(world.transport(1), gate)
    dialler = world.transport(2)
    texts = [Random(seed).randbytes(300_000 + seed) for seed in range(20)]
    pipes = await asyncio.gather(*(dialler.dial(address, None) for _ in texts))
    readers = [Reader() for _ in texts]
    for pipe, reader in zip(pipes, readers, strict=True):
        pipe.start(reader)
    await gate.until(lambda: len(gate.pipes) == len(texts))
    world.pipes += [*pipes, *gate.pipes]
    by_remote = {pipe.remote: gate.readers[i] for i, pipe in enumerate(gate.pipes)}
    back = {pipe.remote: pipe for pipe in gate.pipes}
    for start in range(0, 300_020, 10_000):
        for pipe, text in zip(pipes, texts, strict=True):
            pipe.write(text[start : start + 10_000])
            back[pipe.local].write(text[start : start + 10_000])
    for pipe, reader, text in zip(pipes, readers, texts, strict=True):
        await by_remote[pipe.local].until_bytes(len(text))
        await reader.until_bytes(len(text))
        assert by_remote[pipe.local].data == text
        assert reader.data == text


test_many_pipes_do_not_mix_their_bytes = scenario()(_many)


async def _before_start(world: World) -> None:
    gate = Gate(starts=False)
    address = await world.listen(world.transport(1), gate)
    pipe = await world.transport(2).dial(address, None)
    await gate.until(lambda: len(gate.pipes) == 1)
    world.pipes += [pipe, *gate.pipes]
    data = Random(3).randbytes(2 * MEGABYTE)
    gate.pipes[0].write(data)  # right after the handshake, and more than is kept
    gate.pipes[0].start(gate.readers[0])
    for _ in range(20):
        await asyncio.sleep(0)
    reader = Reader()
    pipe.start(reader)
    assert not reader.data, "nothing comes from within start"
    await reader.until_bytes(len(data))
    assert reader.data == data


test_what_comes_before_start_is_kept = scenario()(_before_start)


async def _ended_before_start(world: World) -> None:
    gate = Gate()
    address = await world.listen(world.transport(1), gate)
    pipe = await world.transport(2).dial(address, None)
    await gate.until(lambda: len(gate.pipes) == 1)
    world.pipes += [pipe, *gate.pipes]
    gate.pipes[0].write(b"hello and goodbye")
    gate.pipes[0].close()
    if world.kind == "tcp":  # there the goodbye is answered without the owner
        assert await gate.readers[0].until_lost() == ""
    reader = Reader()
    pipe.start(reader)
    assert await reader.until_lost() == ""
    assert reader.data == b"hello and goodbye"
    assert reader.events == ["lost"]


test_a_pipe_that_ended_before_start_still_tells_all = scenario()(_ended_before_start)


async def _not_reentrant(world: World) -> None:
    gate = Gate(starts=False)
    address = await world.listen(world.transport(1), gate)
    pipe = await world.transport(2).dial(address, None)
    await gate.until(lambda: len(gate.pipes) == 1)
    other, reader = gate.pipes[0], gate.readers[0]
    pipe.write(b"something to read")
    world.pipes += [pipe, other]
    reader.is_calling_the_pipe = True
    other.start(reader)
    reader.is_calling_the_pipe = False
    await reader.until_bytes(1)
    reader.is_calling_the_pipe = True
    other.write(bytes(20 * MEGABYTE))  # enough to stall
    other.close()
    other.abort()
    reader.is_calling_the_pipe = False
    await reader.until_lost()


test_the_reader_is_never_called_from_within_a_call = scenario()(_not_reentrant)


async def _listener_closes(world: World) -> None:
    a, _, b, read_b = await world.pair()
    await world.listeners[0].close()
    with pytest.raises(Unreachable):
        await world.transport(3).dial(world.listeners[0].address, None)
    a.write(b"still here")
    await read_b.until_bytes(10)
    del b


test_pipes_outlive_their_listener = scenario()(_listener_closes)


async def _port_in_use(world: World) -> None:
    address = await world.listen(world.transport(1), Gate())
    assert address.port != 0
    with pytest.raises(AddressInUse):
        await world.transport(2).listen(address, Gate())


test_a_port_in_use_is_said_to_be = scenario()(_port_in_use)


async def _ipv6(world: World) -> None:
    gate = Gate()
    address = await world.listen(world.transport(1), gate, Address("::1", 0))
    assert address.host == "::1"
    pipe = await world.transport(2).dial(address, None)
    world.pipes.append(pipe)
    assert pipe.remote == address
    assert pipe.local.host == "::1" or world.kind == "memory"
    await gate.until(lambda: len(gate.pipes) == 1)
    world.pipes += gate.pipes


HAS_IPV6 = socket.has_dualstack_ipv6()
test_ipv6 = pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 here")(scenario()(_ipv6))


async def _dual_stack(world: World) -> None:
    gate = Gate()
    address = await world.listen(world.transport(1), gate, Address("::", 0))
    assert address.is_unspecified
    for host in ("127.0.0.1", "::1"):
        world.pipes.append(await world.transport(2).dial(Address(host, address.port), None))
    await gate.until(lambda: len(gate.pipes) == 2)
    world.pipes += gate.pipes
    assert sorted(remote.host for remote in gate.admitted) == ["127.0.0.1", "::1"]
    assert sorted(pipe.local.host for pipe in gate.pipes) == ["127.0.0.1", "::1"]


test_all_interfaces_in_both_families = pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 here")(
    scenario(*TCP)(_dual_stack)
)


async def _by_name(world: World) -> None:
    gate = Gate()
    address = await world.listen(world.transport(1), gate, Address("localhost", 0))
    world.pipes.append(await world.transport(2).dial(Address("localhost", address.port), None))
    await gate.until(lambda: len(gate.pipes) == 1)
    world.pipes += gate.pipes
    await world.listeners[0].close()
    with pytest.raises(Unreachable, match=f"nobody listens at tcp://localhost:{address.port}"):
        await world.transport(2).dial(Address("localhost", address.port), None)


test_a_name_is_listened_at_and_dialled = scenario(*TCP)(_by_name)


async def _not_ours(world: World) -> None:
    with pytest.raises(InvalidArgument, match=r"192\.0\.2\.1"):
        await world.transport(1).listen(Address("192.0.2.1", 0), Gate())  # RFC 5737: nobody's


test_listening_at_an_address_of_others = scenario(*TCP)(_not_ours)


async def _no_delay(world: World) -> None:
    a, _, b, _ = await world.pair()
    for pipe in (a, b):
        raw = cast("TcpPipe", pipe)._raw
        assert raw is not None
        sock = raw.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


test_small_writes_are_not_held_back = pytest.mark.skipif(
    sys.platform == "win32", reason="the option cannot be read there"
)(scenario(*TCP)(_no_delay))
