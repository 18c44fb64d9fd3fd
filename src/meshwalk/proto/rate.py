"""Token bucket arithmetic: how many of something in a stretch of time. Knows no messages."""

from __future__ import annotations

from collections.abc import Iterator


class TokenBucket:
    """Allows `burst` at once and `per_s` a second in the long run."""

    __slots__ = ("_at", "_tokens", "burst", "per_s")

    def __init__(self, per_s: float, burst: int) -> None:
        self.per_s = per_s
        self.burst = burst
        self._tokens = float(burst)
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """Take one token if there is one; False means: not now."""
        if self._at is not None:
            self._tokens = min(self.burst, self._tokens + (now - self._at) * self.per_s)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class BucketPerLink:
    """A bucket for each link, by its number, made when it is first wanted."""

    __slots__ = ("_buckets", "burst", "per_s")

    def __init__(self, per_s: float, burst: int) -> None:
        self.per_s = per_s
        self.burst = burst
        self._buckets: dict[int, TokenBucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def __iter__(self) -> Iterator[int]:
        """The numbers of the links that have one."""
        return iter(self._buckets)

    def take(self, link: int, now: float) -> bool:
        """Take one token of this link if there is one; False means: not now."""
        bucket = self._buckets.get(link)
        if bucket is None:
            bucket = self._buckets[link] = TokenBucket(self.per_s, self.burst)
        return bucket.take(now)

    def forget(self, link: int) -> None:
        """The link has ended."""
        self._buckets.pop(link, None)

    def clear(self) -> None:
        """All links have ended."""
        self._buckets.clear()


class ByteBucket:
    """Allows `burst` bytes at once and `per_s` a second in the long run, in units of any size.

    What is sent may be larger than what is left: the debt is paid before the next. So the rate
    holds over time, and a message larger than the burst goes out as well.
    """

    __slots__ = ("_at", "_owed", "_tokens", "burst", "per_s")

    def __init__(self, per_s: float, burst: int) -> None:
        self.per_s = per_s
        self.burst = burst
        self._tokens = float(burst)
        self._owed = 0.0
        """Of what others have sent, what is not paid for: a second's worth at the most."""
        self._at: float | None = None

    def ready_at(self, now: float) -> float:
        """When something may be sent: `now`, or later, as far as can be told."""
        if self._at is not None:
            gained = (now - self._at) * self.per_s
            paid = min(self._owed, gained / 2)
            self._owed -= paid
            self._tokens = min(self.burst, self._tokens + gained - paid)
        self._at = now
        if self._tokens > 0.0:
            return now
        missing = -self._tokens
        return now + (missing + min(self._owed, missing)) / self.per_s

    def spend(self, size: int) -> None:
        """So many bytes are sent."""
        self._tokens -= size

    def borrow(self, size: int) -> None:
        """So many bytes are sent, whether there is room or not, by who is asked to wait before the
        next: the debt stays below what comes in within a second."""
        self._tokens = min(self._tokens, max(self._tokens - size, -self.per_s))

    def charge(self, size: int) -> None:
        """So many bytes are sent by others, whom nobody asks to wait. They take up to half of what
        comes in from now on, so that they slow the rest down and never stop it."""
        self._owed = min(self._owed + size, self.per_s)
