"""A bounded queue between a node and one reader of its messages or events."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Generic, Self, TypeVar

_Item = TypeVar("_Item")

ITEMS_MAX = 65_536  # guess: a tenth of a second of the fastest sender, minutes of a person
BYTES_MAX = 64 << 20  # guess: 256 of the largest broadcasts


class Subscription(Generic[_Item], AsyncIterator[_Item]):
    """Iterate over it with `async for`; it ends when the node stops or `close` is called.

    It takes items from its creation on, whether or not anybody iterates. When `limit` items wait,
    or bodies of `limit_bytes` together, new ones are dropped and counted in `dropped`; a node
    reports that as `MessagesDropped`.
    """

    def __init__(
        self,
        limit: int = ITEMS_MAX,
        on_close: Callable[[Subscription[_Item]], None] | None = None,
        limit_bytes: int = BYTES_MAX,
    ) -> None:
        self.limit = limit
        self.limit_bytes = limit_bytes
        self.dropped = 0
        """Items that found the queue full."""
        self._items: deque[tuple[_Item, int]] = deque()
        self._bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._is_closed = False
        self._on_close = on_close

    def __len__(self) -> int:
        """Items that wait to be read."""
        return len(self._items)

    def put(self, item: _Item, size: int = 0) -> bool:
        """Add an item whose body has `size` bytes; false when it was dropped. For the node."""
        if self._is_closed:
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

    def close(self) -> None:
        """Take nothing more; what waits can still be read."""
        if not self._is_closed:
            self._is_closed = True
            self._wake()
            if self._on_close is not None:
                self._on_close(self)

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
