"""What a gateway has with Redis: the parts share its connections, so they are made together.

Slow to import (0.2 s): the composition root does so only where there is a Redis.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.access.redis_quotas import RedisQuotas
from app.access.redis_signed_out import RedisSignedOut
from app.conversations.journal import Journal
from app.events.redis import RedisEventLog
from app.events.redis_channel import Channel
from app.events.redis_keys import LEASE_S
from app.events.redis_link import Link
from app.runs.redis_neighbours import RedisNeighbours
from app.runs.rescue import Rescue
from app.settings import Settings

LAST_WORDS_S = 3.0  # at exit, for what Redis does not have yet


class Sharing:
    """This worker among others. ``url``: of Redis."""

    def __init__(self, url: str, settings: Settings) -> None:
        retention_s, timeout_s = settings.run_retention_seconds, settings.run_timeout_seconds
        worker = secrets.token_urlsafe(8)
        self._link = Link(url)
        self._channel = Channel(self._link)
        self.log = RedisEventLog(
            self._link,
            self._channel,
            worker,
            memory_bytes=settings.log_memory_bytes,
            retention_s=retention_s,
            run_timeout_s=timeout_s,
        )
        keep_s = timeout_s + retention_s + LEASE_S
        self.neighbours = RedisNeighbours(self._link, self._channel, worker, keep_s)
        self.quotas = RedisQuotas(self._link, worker)
        self.signed_out = RedisSignedOut(self._link)
        self.prefix = self._link.keys.prefix

    def trouble(self) -> str | None:
        """Why no new run can begin just now, in a word or two."""
        return self._link.trouble or ("was restarted just now" if self._link.unsettled() else None)

    @asynccontextmanager
    async def running(self, tasks: asyncio.TaskGroup, journal: Journal) -> AsyncIterator[None]:
        """At its end, when no run runs any more, Redis gets what it does not have yet."""
        rescue = Rescue(self.log.lost, journal)
        link = tasks.create_task(self._link.run(), name="Redis's pulse")
        log = tasks.create_task(self.log.run(), name="share the event log")
        others = [
            tasks.create_task(self._channel.run(), name="hear other workers"),
            tasks.create_task(self.neighbours.run(), name="talk to other workers"),
            tasks.create_task(rescue.run(), name="look after dead workers' runs"),
            tasks.create_task(self.quotas.run(), name="share quotas"),
            tasks.create_task(self.signed_out.run(), name="share signed-out sessions"),
        ]
        try:
            yield
        finally:
            for task in (log, *others):
                task.cancel()
            await asyncio.wait({log, *others})
            await self.log.drain(LAST_WORDS_S)
            await self.neighbours.aclose()
            await self.quotas.aclose()
            link.cancel()
            await asyncio.wait({link})
            await self._link.aclose()
