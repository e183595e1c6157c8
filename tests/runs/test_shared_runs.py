"""Two workers with all that they share in a real Redis: log, signals, leases."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from app.access.model import Limits
from app.access.redis_quotas import RedisQuotas
from app.errors import ConversationBusy
from app.events import redis_lost
from app.events.model import Done, Error, Token
from app.runs.redis_neighbours import RedisNeighbours
from app.runs.rescue import Rescue
from tests.events import sharing
from tests.events.making import read_to_end
from tests.redis_server import RedisServer
from tests.runs.archive import MemoryArchive
from tests.runs.fakes import BOUND_S, OWNER, Script, World, hangs, released, says
from tests.runs.workers import eventually

pytestmark = pytest.mark.anyio

GRACE_S = 0.2


class Gateway:
    """One worker; leaving the context of its world waits for its runs."""

    def __init__(self, worker: sharing.Worker, script: Script, archive: MemoryArchive) -> None:
        self.worker = worker
        self.neighbours = RedisNeighbours(worker.link, worker.channel, worker.log.worker, 120)
        self.quotas = RedisQuotas(worker.link, worker.log.worker)
        self.world = World(
            script,
            log=worker.log,
            neighbours=self.neighbours,
            archive=archive,
            quotas=self.quotas,
        )


@asynccontextmanager
async def gateways(server: RedisServer, script: Script) -> AsyncIterator[tuple[Gateway, Gateway]]:
    address, archive, made = sharing.shared_address(server.url), MemoryArchive(), list[Gateway]()
    async with AsyncExitStack() as stack:
        for _ in range(2):
            worker = await stack.enter_async_context(sharing.worker(address))
            made.append(Gateway(worker, script, archive))
        parts = [part for each in made for part in (each.neighbours, each.quotas)]
        running = [asyncio.ensure_future(part.run()) for part in parts]
        try:
            async with made[0].world, made[1].world:
                yield made[0], made[1]
                await made[0].world.supervisor._idle.wait()  # the second one looks for leaks first
        finally:
            for task in running:
                task.cancel()
            await asyncio.wait(running)


async def test_a_run_is_read_and_cancelled_on_another_worker(redis_server: RedisServer) -> None:
    async with gateways(redis_server, hangs("part")) as (a, b):
        run = await a.world.start()
        await b.world.until(run, Token)
        stopped = await b.world.supervisor.cancel(run.run_id, OWNER)
        assert stopped.status == "cancelled"
        assert await b.world.told(run) == await a.world.told(run) == ["part", "cancelled"]


async def test_the_last_reader_anywhere_starts_the_clock(redis_server: RedisServer) -> None:
    async with gateways(redis_server, hangs("part")) as (a, b):
        run = await a.world.start(grace_s=GRACE_S)
        with b.world.supervisor.reading(run.run_id):
            with a.world.supervisor.reading(run.run_id):
                await a.world.until(run, Token)
            await asyncio.sleep(2 * GRACE_S)  # a clock that ran would be over
            assert run.run_id in a.world.supervisor._runs
        assert await b.world.told(run) == ["part", "cancelled"]


async def test_a_conversation_is_talked_in_by_one_run(redis_server: RedisServer) -> None:
    async with gateways(redis_server, hangs("part")) as (a, b):
        first = await a.world.start()
        id_ = first.conversation_id
        await a.world.until(first, Token)
        with pytest.raises(ConversationBusy):
            await b.world.start(conversation_id=id_)
        second = await b.world.start(conversation_id=id_, if_busy="interrupt")
        assert await a.world.told(first) == ["part", "cancelled"]
        await a.world.supervisor.silence(id_, OWNER)
        assert await a.world.told(second) == ["part", "cancelled"]


async def test_the_same_key_at_the_same_time_joins_one_run(redis_server: RedisServer) -> None:
    async with gateways(redis_server, says("once")) as (a, b):
        begun = await a.world.start()
        await a.world.told(begun)
        for id_ in (None, begun.conversation_id):
            runs = await asyncio.gather(
                *(each.world.start(f"of {id_}", conversation_id=id_) for each in [a, b] * 10)
            )
            assert len({run.run_id for run in runs}) == 1
            assert await b.world.told(runs[0]) == ["once", "final stop", "completed"]
        assert a.world.model.asked + b.world.model.asked == 3


async def test_whose_only_run_has_ended_finds_room_on_another_worker(
    redis_server: RedisServer,
) -> None:
    limits = Limits(max_runs=1)
    async with gateways(redis_server, says("all")) as (a, b):
        for first, second in [(a, b), (b, a)] * 10:
            await second.world.told(await first.world.start(limits=limits))
            await first.world.told(await second.world.start(limits=limits))
        assert await a.quotas.running(OWNER) <= 1


async def test_an_interruption_at_the_limit_replaces_a_run_of_another_worker(
    redis_server: RedisServer,
) -> None:
    limits = Limits(max_runs=1)
    async with gateways(redis_server, hangs("part")) as (a, b):
        run = await a.world.start(limits=limits)
        for world in [b.world, a.world] * 5:
            await world.until(run, Token)
            run = await world.start(
                conversation_id=run.conversation_id, if_busy="interrupt", limits=limits
            )
        await a.world.cancel(run)
        await b.world.cancel(run)


async def test_a_run_is_taken_over_and_its_worker_writes_no_more(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_lost, "LEASE_S", 0.1)
    gate = asyncio.Event()
    async with gateways(redis_server, released(gate, "part")) as (a, b):
        run = await a.world.start("k")
        await b.world.until(run, Token)
        await b.worker.link.call("ZADD", b.worker.link.keys.leases, 1, run.run_id)  # a seems dead
        rescue = asyncio.ensure_future(Rescue(b.worker.lost, b.world.journal).run())
        try:
            async with asyncio.timeout(BOUND_S):
                entries = await read_to_end(b.world.log, run.run_id)
            assert [entry.seq for entry in entries] == [1, 2, 1_000_000, 1_000_001]
            error, done = entries[-2].event, entries[-1].event
            assert isinstance(error, Error)
            assert isinstance(done, Done)
            assert (error.code, done.status) == ("worker_lost", "failed")
            gate.set()  # a would be done now
            await eventually(lambda: not a.world.supervisor._runs)
            assert await read_to_end(a.world.log, run.run_id) == entries
            await b.world.journal.settled(run.conversation_id)
            stored = b.world.archive.told(run.conversation_id)
            assert stored[-1] == ("assistant", "part", "failed")
            monkeypatch.undo()
            again = await b.world.start("k", conversation_id=run.conversation_id)
            assert again.run_id != run.run_id
            assert await a.world.told(again) == ["part", "final stop", "completed"]
        finally:
            rescue.cancel()
            await asyncio.wait({rescue})
