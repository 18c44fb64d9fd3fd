"""The asynchronous side of own broadcasts: their turn, proof of work, waiting for receipts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from meshwalk.errors import Closed, InvalidArgument, NotRunning, TimedOut
from meshwalk.identity.keys import KeyPair, NodeSignatures
from meshwalk.net.solving import Progress, solved
from meshwalk.net.tracing import HOPS_KEPT_MAX, Trace, hops_of, silent_of
from meshwalk.proto.effects import ReceiptCame
from meshwalk.wire.content import encode_body
from meshwalk.wire.gossip import HopSeen
from meshwalk.wire.records import ASKS_RECEIPT, ASKS_TRACE, Domain

if TYPE_CHECKING:
    from meshwalk.net.driver import Driver
    from meshwalk.net.storage import NodeStorage

DRAFT_MARGIN_S: Final = 120.0  # guess: for the way, and a private one's time is cut to the minute
RECEIPT_TIMEOUT_MAX_S: Final = 3600.0  # guess: more than anybody waits for a count


class _Receipts:
    """What has come of one broadcast that asks for receipts."""

    def __init__(self, asks: int, timeout_s: float) -> None:
        self.asks = asks
        self.timeout_s = timeout_s
        self.number = 0
        """0 until it was sent."""
        self.peers = 0
        self.hops: list[HopSeen] = []
        self.is_over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done with the last receipt."""


class Broadcasting:
    """The broadcasts of one running node."""

    def __init__(self, driver: Driver) -> None:
        config = driver.core.config
        self._driver = driver
        self._network_id = driver.core.network_id
        self._difficulty = config.broadcast.difficulty
        self._is_paced = config.pacing.is_on
        self._confirm_timeout_s = config.broadcast.confirm_timeout_s
        self._waiting: dict[int, _Receipts] = {}
        """By the broadcast's number; as many as there are callers that wait."""
        self._drafting = asyncio.Lock()
        """A draft has its number already: no other may take it meanwhile."""
        self._prover: asyncio.Task[Any] | None = None
        """Who waits for a proof of work."""
        self._good_for_s = config.broadcast.age_max_s - DRAFT_MARGIN_S
        self._has_stopped = False

    async def broadcast(
        self,
        body: Any,
        topic: str,
        storage: NodeStorage | None,
        confirm: bool,
        private: bool,
        timeout_s: float | None,
        progress: Progress | None,
    ) -> int:
        """See `Node.broadcast`."""
        if timeout_s is not None:
            self._timeout(timeout_s)
        if confirm:
            if private:
                raise InvalidArgument("receipts lead to the origin, so a private one asks for none")
            receipts = _Receipts(ASKS_RECEIPT, self._timeout(timeout_s))
            await self._confirmed(receipts, body, topic, storage, progress)
            return receipts.peers
        if self._difficulty or private:
            return await self._send(body, topic, storage, None, private, progress)
        # The common case, many thousand times a second: no further coroutine.
        content, data = encode_body(body)
        driver = self._driver
        if self._has_stopped:
            self._check_running()
        if driver.congested or self._is_paced or driver.core.gossip.publishing.is_ahead:
            await self._turn()
        number, effects = driver.core.broadcast(topic, content, data, driver.clock())
        driver.command(effects)
        if storage is not None and storage.keeps_history:
            storage.sent(driver.core.me, number, topic, content, data)
        if driver.must_yield(len(data)):
            await asyncio.sleep(0)
        return number

    async def trace(
        self,
        body: Any,
        topic: str,
        storage: NodeStorage | None,
        timeout_s: float | None,
        progress: Progress | None,
    ) -> Trace:
        """See `Node.trace_broadcast`."""
        me = self._driver.core.me
        neighbours = list(self._driver.core.overlay.membership.neighbours)
        receipts = _Receipts(ASKS_RECEIPT | ASKS_TRACE, self._timeout(timeout_s))
        await self._confirmed(receipts, body, topic, storage, progress)
        hops = hops_of(receipts.hops, me)
        return Trace(
            origin=me,
            number=receipts.number,
            peers=receipts.peers,
            hops=tuple(hops),
            silent=silent_of(hops, me, neighbours),
            is_complete=receipts.is_over.done(),
        )

    # For the driver.

    def told(self, effect: ReceiptCame) -> None:
        """More peers have an own broadcast."""
        receipts = self._waiting.get(effect.number)
        if receipts is None:
            return  # too late, or nobody waits any more
        receipts.peers += effect.peers
        receipts.hops += effect.hops[: HOPS_KEPT_MAX - len(receipts.hops)]
        if effect.is_last and not receipts.is_over.done():
            receipts.is_over.set_result(None)

    def stop(self) -> None:
        """The node has stopped."""
        is_again, self._has_stopped = self._has_stopped, True
        if self._prover is not None and not is_again:
            self._prover.cancel()
        for receipts in self._waiting.values():
            if not receipts.is_over.done():
                receipts.is_over.set_exception(Closed("the node has stopped"))

    # Steps.

    async def _turn(self) -> None:
        """Wait until the neighbours' links and pacing allow one more broadcast."""
        driver = self._driver
        if driver.congested:
            await driver.room_for_broadcast()
        while (at := driver.core.may_broadcast_at(now := driver.clock())) > now:
            await asyncio.sleep(at - now)
            self._check_running()
        self._check_running()

    async def _confirmed(
        self,
        receipts: _Receipts,
        body: Any,
        topic: str,
        storage: NodeStorage | None,
        progress: Progress | None,
    ) -> None:
        """Send, and wait for the last receipt, or until its time is over."""
        try:
            await self._send(body, topic, storage, receipts, False, progress)
            await asyncio.wait([receipts.is_over], timeout=receipts.timeout_s)
            if receipts.is_over.done():
                receipts.is_over.result()
        finally:
            self._waiting.pop(receipts.number, None)

    async def _send(
        self,
        body: Any,
        topic: str,
        storage: NodeStorage | None,
        receipts: _Receipts | None,
        private: bool,
        progress: Progress | None,
    ) -> int:
        """Send one that is not as most are: with receipts, proof of work, or a one-time key."""
        content, data = encode_body(body)
        core, clock = self._driver.core, self._driver.clock
        asks = receipts.asks if receipts is not None else 0
        pseudonym = NodeSignatures(KeyPair.generate(), self._network_id) if private else None
        origin = bytes(pseudonym.peer_id) if pseudonym is not None else b""
        await self._turn()
        if self._difficulty or private:
            async with self._drafting:
                self._check_running()
                payload = core.draft(topic, content, data, clock(), asks, origin)
                work = 0
                if self._difficulty:
                    work = await self._worked(payload, progress)
                signature = b""
                if pseudonym is not None:
                    signature = pseudonym.sign(Domain.BROADCAST, payload)
                number, effects = core.broadcast_draft(payload, work, clock(), signature)
        else:
            number, effects = core.broadcast(topic, content, data, clock(), asks)
        if receipts is not None:
            # Before anything is sent: with no neighbour the last receipt is among the effects.
            receipts.number = number
            self._waiting[number] = receipts
        self._driver.command(effects)
        # A private one is not noted: nothing here shall say who wrote it.
        if storage is not None and storage.keeps_history and not private:
            storage.sent(core.me, number, topic, content, data)
        if self._driver.must_yield(len(data)):
            await asyncio.sleep(0)
        return number

    async def _worked(self, payload: bytes, progress: Progress | None) -> int:
        """The proof of work for a payload; one at a time, see `_drafting`."""
        drafted_at = self._driver.clock()
        self._prover = task = asyncio.current_task()
        try:
            work = await solved(payload, self._difficulty, progress)
        except asyncio.CancelledError:
            if self._has_stopped and task is not None and not task.uncancel():
                self._check_running()  # it was `stop` that cancelled it, and nobody else
            raise
        finally:
            self._prover = None
        self._check_running()
        if self._driver.clock() - drafted_at > self._good_for_s:
            text = "the proof of work took longer than a broadcast is good for; nothing was sent"
            raise TimedOut(text)
        return work

    def _timeout(self, given_s: float | None) -> float:
        if given_s is None:
            return self._confirm_timeout_s
        if isinstance(given_s, bool) or not isinstance(given_s, int | float):
            raise InvalidArgument("timeout_s is a number of seconds")
        if not 0 <= given_s <= RECEIPT_TIMEOUT_MAX_S:  # NaN is neither
            raise InvalidArgument(f"receipts are waited for 0 to {RECEIPT_TIMEOUT_MAX_S:,.0f} s")
        return given_s

    def _check_running(self) -> None:
        if self._has_stopped:
            raise NotRunning("the node has stopped; nothing was sent")
