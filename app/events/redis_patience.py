"""How long an ending waits for Redis before readers here see it without."""

import asyncio

from app.events.redis_keys import LEASE_S

# Who slept for a lease must hear first what became of its runs, so it waits for so long at least.
AWAKE_S = 5.0
LATE_S = 1.0  # a timer that is so late shows that we slept


class Patience:
    def __init__(self) -> None:
        self._clock = asyncio.get_running_loop().time
        self._longest_s = LEASE_S
        self._waiting: set[asyncio.Timeout] = set()

    def at_most(self, seconds: float) -> None:
        """From now on, for those who wait already too."""
        self._longest_s = seconds
        until = self._clock() + seconds
        for waiting in self._waiting:
            waiting.reschedule(min(waiting.when() or until, until))

    async def wait(self, ended: asyncio.Future[None], contact: float) -> bool:
        """Whether it has ended within a lease after ``contact``, loop time when Redis was last
        heard of. Raises what ``ended`` does."""
        while not ended.done():
            now = self._clock()
            until = min(max(contact + LEASE_S, now + AWAKE_S), now + self._longest_s)
            is_over = not await self._until(ended, until) and not ended.done()
            if is_over and self._clock() - until < LATE_S:
                return False
        await ended
        return True

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
