"""Workers as far as they are neighbours: each with a link of its own to one Redis."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.events.redis_channel import Channel
from app.events.redis_link import Link
from app.runs.redis_neighbours import RedisNeighbours
from tests.redis_server import RedisServer

BOUND_S = 20
KEEP_S = 60.0
PLACE = ("me", "conversation")


class Worker:
    """One worker's neighbours. ``runs``: those that it makes; ``told``: what it hears of them."""

    def __init__(self, address: str, name: str) -> None:
        self.link = Link(address)
        self.channel = Channel(self.link)
        self.name = name
        self.neighbours = RedisNeighbours(self.link, self.channel, name, KEEP_S)
        self.neighbours.listen(self)
        self.runs: list[str] = []
        self.told: list[tuple[str, bool | None]] = []
        self.stopped: list[str] = []

    async def make(self, run_id: str) -> str:
        """As far as neighbours see it."""
        await self.link.call("HSET", self.link.keys.run(run_id), "writer", self.name)
        await self.link.call("PEXPIRE", self.link.keys.run(run_id), 60_000)
        self.runs.append(run_id)
        return run_id

    async def end(self, run_id: str) -> None:
        await self.link.call("HSET", self.link.keys.run(run_id), "ending", "x")

    async def talker(self, place: tuple[str, str] = PLACE) -> str | None:
        """Which run talks there."""
        found = await self.neighbours.talks.talker(*place)
        return found.run_id if found else None

    def running(self) -> list[str]:
        return self.runs

    def asked_to_stop(self, run_id: str) -> None:
        self.stopped.append(run_id)

    def read_elsewhere(self, run_id: str, are_there: bool | None) -> None:
        self.told.append((run_id, are_there))

    @asynccontextmanager
    async def live(self) -> AsyncIterator[None]:
        parts = (self.link, self.channel, self.neighbours)
        tasks = [asyncio.ensure_future(part.run()) for part in parts]
        try:
            async with asyncio.timeout(BOUND_S):
                await self.link.reachable()
                yield
        finally:
            for task in tasks[1:]:
                task.cancel()
            await asyncio.wait(tasks[1:])
            await self.neighbours.aclose()
            tasks[0].cancel()
            await asyncio.wait(tasks[:1])
            await self.link.aclose()


@asynccontextmanager
async def pair(server: RedisServer) -> AsyncIterator[tuple[Worker, Worker]]:
    address = f"{server.url}?prefix=test-{secrets.token_hex(6)}"
    a, b = Worker(address, "a"), Worker(address, "b")
    async with a.live(), b.live():
        await heard(a)
        await heard(b)
        yield a, b


async def heard(worker: Worker) -> None:
    """Until its channel works."""
    channel = worker.link.keys.worker(worker.name)
    while not await worker.link.call("PUBLISH", channel, "hello"):  # noqa: ASYNC110  Redis tells nobody
        await asyncio.sleep(0.001)
