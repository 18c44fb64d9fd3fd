"""The public `Node`, over real TCP on loopback: its calls, its errors, its life."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import meshwalk
from meshwalk import Node
from meshwalk.config import BroadcastConfig, Config, LinkConfig, OverlayConfig
from meshwalk.wire.messages import RefusalCode
from meshwalk.wire.peerid import PeerId

DEADLINE_S = 20


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition on nodes that run on this loop."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.01)


def local(**options: Any) -> Node:
    return Node(listen="127.0.0.1:0", **options)


async def linked(one: Node, other: Node) -> None:
    await other.join(one.address)
    await until(lambda: other.id in one.neighbours and one.id in other.neighbours)


# Talking.


async def test_broadcast_send_and_request() -> None:
    async with local() as one, local() as two:
        await linked(one, two)
        heard = one.messages()

        @one.on("double")
        def double(request: meshwalk.Request) -> Any:
            assert request.peer == two.id
            return request.body * 2

        @one.on("later")
        async def later(request: meshwalk.Request) -> Any:
            await asyncio.sleep(0)
            return {"type": request.type}

        assert await two.broadcast("hello", topic="greetings") == 1
        message = await anext(heard)
        assert (message.origin, message.body, message.topic) == (two.id, "hello", "greetings")
        assert message.is_broadcast
        assert message.hops == 1
        await two.send(one.id, {"n": [1, 2]}, type="numbers")
        message = await anext(heard)
        assert (message.origin, message.body, message.topic) == (two.id, {"n": [1, 2]}, "numbers")
        assert not message.is_broadcast
        assert await two.request(one.id, 21, type="double") == 42
        assert await two.request(one.id, type="later") == {"type": "later"}
        assert 0 < await two.ping(one.id) < DEADLINE_S
        assert 0 < await two.ping(one.address) < DEADLINE_S


async def test_a_request_that_is_not_answered_is_a_typed_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with local() as one, local() as two:
        await linked(one, two)

        @one.on("broken")
        def broken(request: meshwalk.Request) -> None:
            raise RuntimeError("the password is swordfish")

        @one.on("unsendable")
        def unsendable(request: meshwalk.Request) -> object:
            return object()

        @one.on("never")
        async def never(request: meshwalk.Request) -> None:
            await asyncio.Event().wait()

        with pytest.raises(meshwalk.Refused) as refused:
            await two.request(one.id, type="unheard of")
        assert refused.value.code == RefusalCode.NO_HANDLER
        with caplog.at_level(logging.CRITICAL, logger="meshwalk"):
            for kind in ("broken", "unsendable"):
                with pytest.raises(meshwalk.Refused) as refused:
                    await two.request(one.id, type=kind)
                assert refused.value.code == RefusalCode.HANDLER_FAILED
                assert "swordfish" not in str(refused.value)
        with pytest.raises(meshwalk.TimedOut):
            await two.request(one.id, type="never", timeout_s=0.05)
        waiting = asyncio.create_task(two.request(one.id, type="never"))
        await until(lambda: two.statistics().node.requests_waiting == 1)
        await one.stop()
        with pytest.raises(meshwalk.Closed):
            await waiting
        assert two.statistics().node.requests_waiting == 0


async def test_bad_calls_are_errors_at_the_call() -> None:
    config = Config(broadcast=BroadcastConfig(body_bytes_max=1000))
    async with local(config=config) as node:
        with pytest.raises(meshwalk.TooBig, match="1,001"):
            await node.broadcast(bytes(1001))
        with pytest.raises(meshwalk.InvalidArgument):
            await node.broadcast("x", topic="x" * 300)
        with pytest.raises(meshwalk.InvalidArgument):
            await node.broadcast(object())
        with pytest.raises(meshwalk.InvalidAddress):
            await node.join("not an address")
        with pytest.raises(meshwalk.InvalidInvite):
            await node.join("meshwalk://nonsense")
        with pytest.raises(meshwalk.InvalidArgument, match="elsewhere"):
            await node.join(str(meshwalk.Invite("elsewhere", node.id, (node.address,))))


async def test_whoever_nobody_knows_is_unreachable_at_once() -> None:
    stranger = PeerId(bytes(range(32)))
    async with local() as node, asyncio.timeout(DEADLINE_S):
        for _ in range(2):
            with pytest.raises(meshwalk.Unreachable, match=stranger.short):
                await node.send(stranger, b"")
            with pytest.raises(meshwalk.Unreachable, match=stranger.short):
                await node.request(stranger, b"")
            with pytest.raises(meshwalk.Unreachable, match=stranger.short):
                await node.open(stranger, "t").receive()
        with pytest.raises(meshwalk.Unreachable, match=stranger.short):
            await node.ping(stranger)
        statistics = node.statistics().node
        assert (statistics.conversations_open, statistics.reaching.wanted) == (0, 0)


async def test_a_node_talks_to_itself() -> None:
    async with local() as node, asyncio.timeout(DEADLINE_S):
        node.on("double")(lambda request: request.body * 2)
        heard = node.messages()
        await node.send(node.id, "note", type="to myself")
        message = await anext(heard)
        assert (message.origin, message.body, message.topic) == (node.id, "note", "to myself")
        assert await node.request(node.id, 21, type="double") == 42


async def test_a_peer_that_is_no_neighbour_is_reached() -> None:
    """It is found through the one in the middle, and the connection ends when it is unused."""
    few = Config(
        overlay=OverlayConfig(links_min=1, links_max=3),
        link=LinkConfig(ping_interval_s=0.05, idle_timeout_s=2.0, temporary_timeout_s=0.3),
    )
    async with (
        local(config=few) as one,
        local(config=few) as two,
        local(config=few) as three,
        asyncio.timeout(DEADLINE_S),
    ):
        await linked(one, two)
        await three.join(one.address)  # its walk may end at either
        await until(lambda: sum(len(n.neighbours) for n in (one, two, three)) == 4)
        left, right = (node for node in (one, two, three) if len(node.neighbours) == 1)
        right.on("double")(lambda request: request.body * 2)
        assert await left.request(right.id, 21, type="double") == 42
        assert right.id not in left.neighbours
        assert left.statistics().node.links == 2
        await until(lambda: left.statistics().node.links == 1)


async def test_a_slow_reader_loses_messages_and_is_told() -> None:
    async with local() as one, local() as two:
        await linked(one, two)
        events, slow = one.events(), one.messages(limit=10)
        for number in range(25):
            await two.send(one.id, number)
        async with asyncio.timeout(DEADLINE_S):
            async for event in events:
                if isinstance(event, meshwalk.MessagesDropped):
                    break
        await until(lambda: slow.dropped == 15)
        assert one.statistics().messages_dropped == 15
        assert [(await anext(slow)).body for _ in range(10)] == list(range(10))


async def test_a_reader_that_keeps_up_loses_nothing() -> None:
    count = 100_000  # more than the queue holds: only turns for the reader save it
    async with local() as one, local() as two:
        await linked(one, two)
        messages = one.messages(limit=5_000)

        async def write() -> None:
            for _ in range(count):
                await two.send(one.id, b"x" * 100)

        writer = asyncio.create_task(write())
        async with asyncio.timeout(60):
            for _ in range(count):
                await anext(messages)
        await writer
        assert messages.dropped == 0


# Joining.


async def test_joining_nobody_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with local() as node:
        with pytest.raises(meshwalk.Unreachable, match=f"127.0.0.1:{port}: nobody"):
            await node.join(f"127.0.0.1:{port}", timeout_s=0.3)


async def test_another_network_or_secret_is_not_admitted_at_once() -> None:
    async with local(secret="one") as one, local(secret="two") as two, local() as three:
        for other in (two, three):
            async with asyncio.timeout(5):
                with pytest.raises(meshwalk.NotAdmitted):
                    await other.join(one.address)
        assert one.neighbours == []


async def test_an_invite_for_somebody_else_is_not_admitted() -> None:
    async with local() as one, local() as two:
        wrong = str(meshwalk.Invite(one.network.name, two.id, (one.address,)))
        async with local() as three:
            with pytest.raises(meshwalk.NotAdmitted):
                await three.join(wrong)


async def test_joining_oneself_is_noticed() -> None:
    async with local() as node:
        with pytest.raises(meshwalk.Unreachable, match="itself"):
            await node.join(node.address, timeout_s=0.5)


async def test_events_tell_of_neighbours() -> None:
    async with local() as one:
        links = (meshwalk.LinkOpened, meshwalk.LinkClosed)
        events = (e async for e in one.events() if not isinstance(e, links))
        async with local() as two:
            await linked(one, two)
            up = [await anext(events), await anext(events)]
            assert [type(event) for event in up] == [meshwalk.NeighbourUp, meshwalk.Joined]
            id = two.id
            (info,) = one.peers()
            assert (info.peer, info.state) == (id, "neighbour")
        down = [await anext(events), await anext(events)]
        assert isinstance(down[0], meshwalk.NeighbourDown)
        assert down[0].peer == id
        assert "leaving" in down[0].reason
        assert isinstance(down[1], meshwalk.Alone)


async def test_events_tell_of_connections_and_may_be_of_one_peer() -> None:
    async with local() as one:
        async with local() as two, local() as three:
            events = one.events(peer=two.id)
            await linked(one, three)
            await linked(one, two)
            id, address = two.id, two.address
        async with asyncio.timeout(DEADLINE_S):
            seen: list[meshwalk.Event] = []
            while not any(isinstance(event, meshwalk.LinkClosed) for event in seen):
                seen.append(await anext(events))
        opened = next(event for event in seen if isinstance(event, meshwalk.LinkOpened))
        assert (opened.peer, opened.address.host) == (id, address.host)
        closed = next(event for event in seen if isinstance(event, meshwalk.LinkClosed))
        assert (closed.peer, closed.purpose) == (id, opened.purpose)
        assert {getattr(event, "peer", id) for event in seen} == {id}


# Listening and living.


async def test_a_taken_port_is_an_error_when_it_was_asked_for() -> None:
    async with local() as node:
        with pytest.raises(meshwalk.AddressInUse, match=str(node.address.port)):
            await Node(listen=node.address.host_and_port).start()


async def test_without_a_port_the_next_free_one_is_taken() -> None:
    async with Node(listen="127.0.0.1") as one, Node(listen="127.0.0.1") as two:
        assert 55555 <= one.address.port < two.address.port < 55655


async def test_every_interface_means_addresses_that_can_be_dialled() -> None:
    async with Node() as node, local() as other:
        assert node.address.is_unspecified
        assert node.addresses
        assert not any(a.is_unspecified or a.port != node.address.port for a in node.addresses)
        await other.join(f"127.0.0.1:{node.address.port}")


async def test_a_node_that_does_not_run_says_so() -> None:
    node = local()
    for call in (lambda: node.id, lambda: node.address, lambda: node.neighbours, node.statistics):
        with pytest.raises(meshwalk.NotRunning):
            call()
    await node.start()
    with pytest.raises(meshwalk.NotRunning):
        await node.start()
    await node.stop()
    await node.stop()
    with pytest.raises(meshwalk.NotRunning):
        await node.broadcast(b"")


async def test_a_failed_start_leaves_nothing_open(tmp_path: Path) -> None:
    async with local() as taken:
        node = Node(listen=taken.address.host_and_port, data=tmp_path)
        with pytest.raises(meshwalk.AddressInUse):
            await node.start()
    async with local(data=tmp_path):
        pass  # the store was let go


async def test_identity_and_peers_outlive_a_node(tmp_path: Path) -> None:
    async with local(data=tmp_path / "one") as one, local() as entry, local() as third:
        await linked(entry, one)
        await linked(entry, third)
        await until(lambda: third.id in one.neighbours)
        id, address = one.id, third.id
    async with local(data=tmp_path / "one") as one:
        assert one.id == id
        assert address in [peer.peer for peer in one.peers()]


async def test_stopping_ends_the_readers() -> None:
    node = await local().start()
    messages, events = node.messages(), node.events()
    await node.stop()
    assert [m async for m in messages] == []
    assert [e async for e in events] == []


async def test_many_nodes_in_one_process_keep_apart() -> None:
    config = Config(link=LinkConfig(ping_interval_s=0.05, idle_timeout_s=1.0))
    async with local(network="a", config=config) as a, local(network="b", config=config) as b:
        with pytest.raises(meshwalk.NotAdmitted):
            await a.join(b.address)
        assert a.neighbours == b.neighbours == []
