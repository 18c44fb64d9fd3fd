"""A bounded queue between a node and one reader of its messages or events."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Generic, Self, TypeVar

_Item = TypeVar("_Item")

ITEMS_MAX = 65_536  # guess: about six seconds of the fastest sender, 30 MiB of small messages


class Subscription(Generic[_Item], AsyncIterator[_Item]):
    """Iterate over it with `async for`; it ends when the node stops or `close` is called.

    It takes items from its creation on, whether or not anybody iterates. When `limit` items wait,
    new ones are dropped and counted in `dropped`; a node reports that as `MessagesDropped`.
    """

    def __init__(
        self, limit: int = ITEMS_MAX, on_close: Callable[[Subscription[_Item]], None] | None = None
    ) -> None:
        self.limit = limit
        self.dropped = 0
        """Items that found the queue full."""
        self._items: deque[_Item] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._is_closed = False
        self._on_close = on_close

    def __len__(self) -> int:
        """Items that wait to be read."""
        return len(self._items)

    def put(self, item: _Item) -> bool:
        """Add an item; false when it was dropped. For the node."""
        if self._is_closed:
            return True
        if len(self._items) >= self.limit:
            self.dropped += 1
            return False
        self._items.append(item)
        self._wake()
        return True

    def get_nowait(self) -> _Item | None:
        """The next item, or None when nothing waits."""
        return self._items.popleft() if self._items else None

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
        return self._items.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
