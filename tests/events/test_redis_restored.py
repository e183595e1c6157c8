"""Redis came back empty and the writer is dead: what readers have seen is the only copy left."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.events import redis_lost, redis_shipment
from app.events.log import LogGone, Reader
from app.events.mirror import JUMP
from app.events.model import Entry, Error, Event, RunRecord, Token
from tests.events.making import done, read_to_end, record, start
from tests.events.sharing import BOUND_S, Worker, shared_address, until, worker
from tests.redis_server import RedisServer

pytestmark = pytest.mark.anyio

LEASE_S = 0.3
LOST = Error("worker_lost", "gone", retryable=True, request_id="req")
ENDING: list[Event] = [LOST, done("failed", frees_key=True)]


@pytest.fixture
async def address(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """Leases are short."""
    monkeypatch.setattr(redis_shipment, "LEASE_MS", round(LEASE_S * 1000))
    monkeypatch.setattr(redis_lost, "LEASE_S", LEASE_S)
    async with asyncio.timeout(BOUND_S):
        yield shared_address(redis_server.url)


class Survivor:
    """A worker with one reader of a run, who has seen all of it so far."""

    def __init__(self, here: Worker, run: RunRecord) -> None:
        self.here = here
        here.log._mirrors._lease_s = LEASE_S
        here.log._mirrors._watch_s = LEASE_S
        self.lost = here.lost
        self.reader: Reader = here.log.read(run.run_id, 0)
        self.seen: list[Entry] = []

    async def catch_up(self, count: int) -> None:
        while len(self.seen) < count:
            self.seen += await self.reader.read(BOUND_S)

    async def gives_up(self) -> None:
        """Its mirror does."""
        await until(lambda: bool(self.lost._vanished))

    async def come_back(self, run: RunRecord) -> None:
        """Once its stream is cut."""
        with pytest.raises(LogGone):
            await self.reader.read(BOUND_S)
        self.seen += await read_to_end(self.here.log, run.run_id, self.seen[-1].seq)

    def numbers(self) -> list[int]:
        return [entry.seq for entry in self.seen]


async def dead_writers_run(
    address: str, survivors: list[Worker]
) -> tuple[RunRecord, list[Survivor]]:
    """With a reader on each of the survivors; Redis knows nothing of it any more."""
    async with worker(address) as dead:
        run = await dead.log.open(record("k"))
        await dead.log.append(run.run_id, [start(run), *(Token(f"t{at} ") for at in range(150))])
        made = [Survivor(each, run) for each in survivors]
        for each in made:
            await each.catch_up(151)
    link = survivors[0].link
    await link.call("DEL", *(link.keys.run(run.run_id), link.keys.log(run.run_id)))
    await link.call("DEL", link.keys.leases, link.keys.idempotency("me", "k"))
    return run, made


async def overdue(one: Survivor) -> str:
    while True:
        for run_id in await one.lost.overdue():
            return run_id
        await asyncio.sleep(0.02)  # a poll, bounded by the test


async def rescue(one: Survivor, run: RunRecord) -> bool:
    """Whether it was us."""
    lost = await one.lost.whole(run.run_id)
    return lost is not None and await one.lost.take_over(lost, ENDING)


async def test_a_run_that_only_a_reader_has_is_written_again_and_ended(address: str) -> None:
    async with worker(address) as one, worker(address) as third:
        run, [survivor] = await dead_writers_run(address, [one])
        await survivor.gives_up()
        assert list(await survivor.reader.read(0)) == [], "its stream goes on until Redis has it"
        assert await overdue(survivor) == run.run_id
        restored = await survivor.lost.whole(run.run_id)
        assert restored is not None
        assert (restored.record, restored.last) == (run, 151)
        assert list(restored.events) == [entry.event for entry in survivor.seen]
        assert await one.log.holder("me", "k") == run
        assert await rescue(survivor, run)
        await survivor.come_back(run)
        assert survivor.numbers() == [*range(1, 152), JUMP, JUMP + 1]
        assert [entry.event for entry in survivor.seen[-2:]] == ENDING
        assert await read_to_end(third.log, run.run_id) == survivor.seen
        assert await one.log.holder("me", "k") is None, "the ending frees it"
        assert await one.link.call("ZCARD", one.link.keys.leases) == 0


@pytest.mark.parametrize("is_early", [True, False], ids=["at once", "after the other's rescue"])
async def test_two_workers_that_write_it_again_do_no_harm(address: str, is_early: bool) -> None:
    async with worker(address) as one, worker(address) as two, worker(address) as third:
        run, survivors = await dead_writers_run(address, [one, two])
        for each in survivors:
            await each.gives_up()
        first, second = survivors
        if is_early:
            assert await asyncio.gather(*map(overdue, survivors)) == [run.run_id] * 2
            rescued = await asyncio.gather(*(rescue(each, run) for each in survivors))
        else:
            await overdue(first)
            rescued = [await rescue(first, run)]
            await second.lost.overdue()
            rescued.append(await rescue(second, run))
        assert sorted(rescued) == [False, True]
        for each in survivors:
            await each.come_back(run)
            assert each.numbers() == [*range(1, 152), JUMP, JUMP + 1]
        assert await read_to_end(third.log, run.run_id) == first.seen == second.seen
        assert await first.lost.overdue() == []
        assert await one.link.call("ZCARD", one.link.keys.leases) == 0


async def test_what_was_restored_is_told_only_when_redis_has_it(address: str) -> None:
    async with worker(address) as one:
        run, [survivor] = await dead_writers_run(address, [one])
        await survivor.gives_up()
        one.link._fail("a test says so")
        with pytest.raises(Exception, match="cannot be reached"):
            await survivor.lost.overdue()
        assert list(await survivor.reader.read(0)) == []
        await one.link.reachable()
        assert await overdue(survivor) == run.run_id
        assert await rescue(survivor, run)
        await survivor.come_back(run)
        assert survivor.numbers() == [*range(1, 152), JUMP, JUMP + 1]
