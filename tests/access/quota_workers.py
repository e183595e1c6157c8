"""Workers as far as they keep quotas: each with a link of its own to one Redis."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from app.access.model import Limits
from app.access.quotas import Quotas
from app.access.redis_quotas import RedisQuotas
from app.access.requests import Standing
from app.events.redis_keys import LEASE_S, RENEW_S
from app.events.redis_link import Link


class Worker:
    """``lease_s`` and ``renew_s``: a test cannot wait for the real ones."""

    def __init__(
        self,
        address: str,
        *,
        lease_s: float = LEASE_S,
        renew_s: float = RENEW_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.link = Link(address)
        self.quotas = RedisQuotas(
            self.link, secrets.token_hex(4), lease_s=lease_s, renew_s=renew_s, clock=clock
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._tasks = [asyncio.ensure_future(part.run()) for part in (self.link, self.quotas)]
        await self.link.reachable()

    async def freeze(self) -> None:
        """It renews nothing any more, and hears nothing."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def crash(self) -> None:
        """Without a word to Redis."""
        await self.freeze()
        await self.link.aclose()

    async def stop(self) -> None:
        """As at exit."""
        link, quotas = self._tasks
        quotas.cancel()
        await asyncio.wait({quotas})
        await self.quotas.aclose()
        link.cancel()
        await asyncio.wait({link})
        await self.link.aclose()


@asynccontextmanager
async def working(*workers: Worker) -> AsyncIterator[None]:
    """What happens inside is its caller's to bound."""
    try:
        for worker in workers:
            await worker.start()
        yield
    finally:
        for worker in workers:
            await worker.stop()


class Across:
    """Each run begins on another worker than the one before; who asks, asks another one still."""

    def __init__(self, workers: Sequence[Quotas]) -> None:
        self._workers = workers
        self._turn = 0
        self._home: dict[str, Quotas] = {}

    async def begin(self, owner: str, run_id: str, limits: Limits) -> None:
        home = self._home.setdefault(run_id, self._next())
        await home.begin(owner, run_id, limits)

    def count(self, owner: str, run_id: str, tokens: int) -> None:
        self._home.get(run_id, self._next()).count(owner, run_id, tokens)

    def end(self, owner: str, run_id: str) -> None:
        self._home.get(run_id, self._next()).end(owner, run_id)

    async def standing(self, owner: str, limits: Limits) -> Sequence[Standing]:
        return await self._next().standing(owner, limits)

    async def running(self, owner: str) -> int:
        return await self._next().running(owner)

    def _next(self) -> Quotas:
        self._turn = (self._turn + 1) % len(self._workers)
        return self._workers[self._turn]


_: type[Quotas] = Across  # the type checker proves the promise is kept
