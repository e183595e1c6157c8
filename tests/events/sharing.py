"""Workers that share a Redis, as far as the event log is concerned, in one process."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from app.events.log import EventLog, Reader
from app.events.model import Event, RunRecord, Snapshot
from app.events.redis import RedisEventLog
from app.events.redis_channel import Channel
from app.events.redis_link import Link

MIB = 1024 * 1024
BOUND_S = 20
RETENTION_S = 60.0


async def until(holds: Callable[[], bool]) -> None:
    """The caller bounds it."""
    while not holds():  # noqa: ASYNC110  what it looks at tells nobody when it changes
        await asyncio.sleep(0.002)


def shared_address(url: str) -> str:
    """With names of the test's own."""
    return f"{url}?prefix=test-{secrets.token_hex(6)}"


class Worker:
    """What one gateway process has of the log."""

    def __init__(self, address: str, *, retention_s: float = RETENTION_S) -> None:
        self.link = Link(address)
        self.channel = Channel(self.link)
        self.log = RedisEventLog(
            self.link,
            self.channel,
            secrets.token_urlsafe(8),
            memory_bytes=64 * MIB,
            retention_s=retention_s,
            run_timeout_s=60,
        )
        self.lost = self.log.lost

    def makes(self, run_id: str) -> bool:
        return run_id in self.log._shipper

    async def shipped(self) -> None:
        """Until Redis has all."""
        async with asyncio.timeout(BOUND_S):
            await until(lambda: not self.log._shipper._changed)


@asynccontextmanager
async def worker(address: str, *, retention_s: float = RETENTION_S) -> AsyncIterator[Worker]:
    one = Worker(address, retention_s=retention_s)
    tasks = [asyncio.ensure_future(part.run()) for part in (one.link, one.channel, one.log)]
    try:
        async with asyncio.timeout(BOUND_S):
            await one.link.reachable()
        yield one
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await one.link.aclose()


class Across:
    """An event log of which one worker writes everything and another one reads everything."""

    def __init__(self, writer: Worker, reader: Worker) -> None:
        self._writer, self._reader = writer, reader

    async def holder(self, owner: str, idempotency_key: str) -> RunRecord | None:
        return await self._reader.log.holder(owner, idempotency_key)

    async def open(self, record: RunRecord) -> RunRecord:
        return await self._writer.log.open(record)

    async def append(self, run_id: str, events: Sequence[Event]) -> None:
        await self._writer.log.append(run_id, events)
        await self._writer.shipped()

    async def find(self, run_id: str, reaching: int = 0) -> Snapshot | None:
        return await self._reader.log.find(run_id, reaching)

    def read(self, run_id: str, after: int) -> Reader:
        return self._reader.log.read(run_id, after)


_: type[EventLog] = Across
