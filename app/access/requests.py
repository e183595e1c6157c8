"""Requests of a caller in a window, counted with the ``limits`` library in memory or in Redis.

While Redis is away each worker counts for itself: a caller may then have its limit from each, and
nobody waits or is refused because of Redis.
"""

from __future__ import annotations  # types of a library that is imported where it is needed

import asyncio
import logging
import math
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from app.access.model import Caller
from app.errors import RateLimited
from app.events.redis_keys import Keys

if TYPE_CHECKING:
    from limits import RateLimitItem, WindowStats
    from limits.aio.strategies import RateLimiter

    Taken = tuple[bool, WindowStats]  # whether it is one more

logger = logging.getLogger(__name__)

CALL_S = 1.0  # for Redis to count one request
RETRY_S = 5.0  # after a failure, until one request tries Redis again


@dataclass(frozen=True, slots=True)
class Policy:
    """``window_s``: None where the quota is of what is there at once."""

    name: str
    quota: int
    window_s: int | None


@dataclass(frozen=True, slots=True)
class Standing:
    """How a caller stands with a policy. ``resets_s``: seconds until there is more, None where that
    is not a matter of time."""

    policy: Policy
    remaining: int
    resets_s: int | None


class RequestQuota:
    """``redis_url``: None: counted in memory. ``prefix``: of names in Redis."""

    def __init__(self, redis_url: str | None, prefix: str) -> None:
        """Connects to nothing yet. Raises ``ValueError``."""
        from app.access.windows import MemoryWindows, limiting  # here, because it is slow

        self._keys = Keys(prefix)
        self._memory = limiting(MemoryWindows())
        self._redis = _Redis(redis_url, prefix) if redis_url is not None else None

    async def count(self, caller: Caller) -> Standing | None:
        """One more. None: there is no limit. Raises ``RateLimited``, and then it does not count."""
        if caller.limits.rate is None:
            return None
        item = _parsed(caller.limits.rate)
        name = self._keys.requests(caller.id)
        taken = await self._redis.take(item, name) if self._redis is not None else None
        is_taken, stats = taken or await _take(self._memory, item, name)
        resets_s = max(1, math.ceil(stats.reset_time - time.time()))
        if not is_taken:
            raise RateLimited(_words(item), resets_s)
        return _standing(item, stats.remaining, resets_s)

    @staticmethod
    def refused(caller: Caller, refusal: RateLimited) -> Standing | None:
        """How a caller stands whom ``count`` has just refused. None: there is no limit."""
        if caller.limits.rate is None:
            return None
        return _standing(_parsed(caller.limits.rate), 0, refusal.retry_after_s)

    async def aclose(self) -> None:
        if self._redis is not None:
            await self._redis.aclose()


class _Redis:
    """Its counts, as long as it answers."""

    def __init__(self, url: str, prefix: str) -> None:
        from app.access.redis_windows import RedisWindows  # here, because it is slow
        from app.access.windows import limiting

        self._windows = RedisWindows(url, prefix)
        self._limiter = limiting(self._windows)
        self._is_away = False
        self._retry_at = 0.0

    async def take(self, item: RateLimitItem, name: str) -> Taken | None:
        """None: it is away."""
        is_try = self._is_away
        if is_try:
            now = time.monotonic()
            if now < self._retry_at:
                return None
            self._retry_at = now + RETRY_S  # one tries, the others go on without
        try:
            async with asyncio.timeout(CALL_S):
                taken = await _take(self._limiter, item, name)
        except Exception as error:  # noqa: BLE001  # no request fails because it cannot be counted
            self._failed(error)
            return None
        if is_try:
            logger.info("requests are counted in Redis")
            self._is_away = False
        return taken

    async def aclose(self) -> None:
        await self._windows.aclose()

    def _failed(self, error: Exception) -> None:
        from app.events.redis_wire import matter

        self._retry_at = time.monotonic() + RETRY_S
        if not self._is_away:
            logger.warning("requests are counted in this worker alone: Redis: %s", matter(error))
            self._is_away = True


async def _take(limiter: RateLimiter, item: RateLimitItem, name: str) -> Taken:
    is_taken = await limiter.hit(item, name)
    return is_taken, await limiter.get_window_stats(item, name)


@lru_cache(256)  # each request asks, always of the same few
def _parsed(rate: str) -> RateLimitItem:
    from limits import parse

    item = parse(rate)
    item.namespace = "requests"  # a part of the name in Redis
    return item


def _standing(item: RateLimitItem, remaining: int, resets_s: int) -> Standing:
    """More comes bit by bit as the window slides. Who may have many at once is told a time over
    which it can spread them, or it would spend them in the second until the next one
    (draft-ietf-httpapi-ratelimit-headers-10, "Resource exhaustion")."""
    policy = Policy("requests", item.amount, item.get_expiry())
    spread_s = math.ceil(remaining * item.get_expiry() / item.amount)
    return Standing(policy, remaining, max(resets_s, spread_s))


def _words(item: RateLimitItem) -> str:
    window = item.GRANULARITY.name
    if item.multiples > 1:
        window = f"{item.multiples} {window}s"
    return f"{item.amount} requests per {window}"
