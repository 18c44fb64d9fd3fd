"""Bounded queues between a node and the readers of its messages or events."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Generic, Self, TypeVar

_Item = TypeVar("_Item")

ITEMS_MAX = 65_536  # guess: a tenth of a second of the fastest sender, minutes of a person
BYTES_MAX = 64 << 20  # guess: 256 of the largest broadcasts


class Subscription(Generic[_Item], AsyncIterator[_Item]):
    """Iterate over it with `async for`; it ends when the node stops or `close` is called.

    It takes items from its creation on, whether or not anybody iterates, until `close`, the end of
    an `async with`, or until nobody holds it any more. When `limit` items wait, or bodies of
    `limit_bytes` together, new ones are dropped and counted in `dropped`; a node reports that as
    `MessagesDropped`.
    """

    def __init__(
        self,
        limit: int = ITEMS_MAX,
        limit_bytes: int = BYTES_MAX,
        wanted: Callable[[_Item], bool] | None = None,
    ) -> None:
        """`wanted`: which items it takes; all without it."""
        self._wanted = wanted
        self.limit = limit
        self.limit_bytes = limit_bytes
        self.dropped = 0
        """Items that found the queue full."""
        self._items: deque[tuple[_Item, int]] = deque()
        self._bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._is_closed = False

    def __len__(self) -> int:
        """Items that wait to be read."""
        return len(self._items)

    def put(self, item: _Item, size: int = 0) -> bool:
        """Add an item whose body has `size` bytes; false when it was dropped. For the node."""
        if self._is_closed:
            return True  # nobody misses it
        if self._wanted is not None and not self._wanted(item):
            return True
        if len(self._items) >= self.limit or self._bytes + size > self.limit_bytes:
            self.dropped += 1
            return False
        self._items.append((item, size))
        self._bytes += size
        self._wake()
        return True

    def get_nowait(self) -> _Item | None:
        """The next item, or None when nothing waits."""
        return self._take() if self._items else None

    @property
    def is_closed(self) -> bool:
        """Whether it takes nothing more."""
        return self._is_closed

    def close(self) -> None:
        """Take nothing more; what waits can still be read."""
        if not self._is_closed:
            self._is_closed = True
            self._wake()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _Item:
        while not self._items:
            if self._is_closed:
                raise StopAsyncIteration
            if self._waiter is not None:
                raise RuntimeError("a subscription has one reader; make one for each")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._take()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def _take(self) -> _Item:
        item, size = self._items.popleft()
        self._bytes -= size
        return item

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Subscribers(Generic[_Item]):
    """The readers of one node's messages, or of its events. Holds them weakly: whoever leaves an
    `async for` early does not leave a queue behind that fills up."""

    def __init__(self) -> None:
        # Replaced as a whole, so that a reader that goes away never upsets a loop over the others.
        self._readers: tuple[weakref.ref[Subscription[_Item]], ...] = ()
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._living())

    def open(self) -> None:
        """Take readers again, after `close`."""
        self._is_closed = False

    def subscribe(
        self, limit: int, wanted: Callable[[_Item], bool] | None = None
    ) -> Subscription[_Item]:
        """One more reader, of all or of those items; closed already when the node has stopped."""
        subscription: Subscription[_Item] = Subscription(limit, wanted=wanted)
        self.add(subscription)
        return subscription

    def add(self, subscription: Subscription[_Item]) -> None:
        """One more reader; it is closed when the node has stopped."""
        if self._is_closed:
            subscription.close()
        else:
            self._readers = (*self._living(), weakref.ref(subscription))

    def put(self, item: _Item, size: int = 0) -> Subscription[_Item] | None:
        """Give an item to every reader; returns one that had no room for it, if any had none."""
        full = None
        for reference in self._readers:
            subscription = reference()
            if subscription is None:
                self._readers = self._living()
            elif not subscription.put(item, size):
                full = subscription
        return full

    def close(self) -> None:
        """End every reader after what waits for it, and all that come later at once."""
        self._is_closed = True
        for reference in self._readers:
            if (subscription := reference()) is not None:
                subscription.close()
        self._readers = ()

    def _living(self) -> tuple[weakref.ref[Subscription[_Item]], ...]:
        # Not by the references' own callbacks: those run in whatever thread collects garbage.
        return tuple(reference for reference in self._readers if reference() is not None)
