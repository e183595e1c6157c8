"""How long an ending waits for Redis before readers here see it without."""

import asyncio

from app.events.redis_keys import LEASE_S

AWAKE_S = 5.0  # an ending waits for so long at least
LATE_S = 1.0  # a timer that is so late shows that we slept
# Whoever slept for so long may have been thought dead: it must hear first what became of its runs,
# so their endings wait for Redis for a whole lease from then on.
SLEPT_S = LEASE_S / 2
TICK_S = 1.0


class Patience:
    def __init__(self) -> None:
        self._clock = asyncio.get_running_loop().time
        self._longest_s = LEASE_S
        self._waiting: set[asyncio.Timeout] = set()
        self._tick_at = self._clock()
        self._sure_at = 0.0  # until then we may have been thought dead, and not know it
        self._tick()

    def at_most(self, seconds: float) -> None:
        """From now on, for those who wait already too."""
        self._longest_s = seconds
        until = self._clock() + seconds
        for waiting in self._waiting:
            if not waiting.expired():  # nor about to be
                waiting.reschedule(min(waiting.when() or until, until))

    async def wait(self, ended: asyncio.Future[None], contact: float) -> bool:
        """Whether it has ended within a lease after ``contact``, loop time when Redis was last
        heard of. Raises what ``ended`` does."""
        while not ended.done():
            now = self._clock()
            until = max(contact + LEASE_S, now + AWAKE_S, self._sure_at)
            until = min(until, now + self._longest_s)
            is_over = not await self._until(ended, until) and not ended.done()
            if is_over and self._clock() - until < LATE_S and not self._has_slept():
                return False
        await ended
        return True

    def _has_slept(self) -> bool:
        return self._longest_s >= LEASE_S and self._clock() < self._sure_at

    def _tick(self) -> None:
        now = self._clock()
        if now - self._tick_at > SLEPT_S:
            self._sure_at = now + LEASE_S
        self._tick_at = now + TICK_S
        if self._longest_s > 0:
            asyncio.get_running_loop().call_later(TICK_S, self._tick)

    async def _until(self, ended: asyncio.Future[None], until: float) -> bool:
        timeout = asyncio.timeout_at(until)
        try:
            async with timeout:
                self._waiting.add(timeout)
                await asyncio.shield(ended)
        except TimeoutError:
            return False
        finally:
            self._waiting.discard(timeout)
        return True
