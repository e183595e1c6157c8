"""Workers that die, and workers that are thought dead."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.events import redis_lost, redis_shipment
from app.events.log import Fenced
from app.events.mirror import JUMP
from app.events.model import Done, Entry, Error, Event, RunRecord, Token
from app.events.redis_lost import Lost
from tests.events.making import done, read_to_end, record, start
from tests.events.sharing import BOUND_S, Worker, shared_address, worker
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


async def overdue(one: Worker) -> str:
    """Wait for a run whose lease is over."""
    while True:
        for run_id in await one.lost.overdue():
            return run_id
        await asyncio.sleep(0.02)  # a poll, bounded by the test


async def taken_over(one: Worker) -> Lost:
    lost = await one.lost.whole(await overdue(one))
    assert lost is not None
    assert await one.lost.take_over(lost, ENDING)
    return lost


async def begun(one: Worker, key: str | None = None, *texts: str) -> RunRecord:
    run = await one.log.open(record(key))
    await one.log.append(run.run_id, [start(run), *map(Token, texts)])
    await one.shipped()
    return run


def numbers(entries: list[Entry]) -> list[int]:
    return [entry.seq for entry in entries]


async def test_a_dead_workers_run_is_ended_for_readers_everywhere(address: str) -> None:
    async with worker(address) as one:
        async with worker(address) as dead:
            run = await begun(dead, "k", "a", "b")
            early = one.log.read(run.run_id, 0)
            seen = list(await early.read(BOUND_S))
        lost = await taken_over(one)
        assert (lost.record, lost.last) == (run, 3)
        assert list(lost.events) == [start(run), Token("a"), Token("b")]
        while not isinstance(seen[-1].event, Done):
            seen += await early.read(BOUND_S)
        assert numbers(seen) == [1, 2, 3, JUMP, JUMP + 1]
        for after in (0, 2, 3, 50, JUMP):  # the dead one's readers had seen more
            entries = await read_to_end(one.log, run.run_id, after)
            assert entries == [entry for entry in seen if entry.seq > after]
        found = await one.log.find(run.run_id)
        assert found is not None
        assert (found.last_seq, found.error, found.done) == (JUMP + 1, *ENDING)
        assert await one.log.holder("me", "k") is None, "its key is free"
        assert await one.lost.overdue() == []


async def test_a_run_of_which_nothing_was_shipped_is_ended_too(address: str) -> None:
    async with worker(address) as one:
        async with worker(address) as dead:
            run = await dead.log.open(record())
        await taken_over(one)
        assert numbers(await read_to_end(one.log, run.run_id)) == [JUMP, JUMP + 1]


async def test_a_take_over_happens_once(address: str) -> None:
    async with worker(address) as one, worker(address) as other:
        async with worker(address) as dead:
            await begun(dead)
        lost = await one.lost.whole(await overdue(one))
        assert lost
        took = await asyncio.gather(
            *(each.lost.take_over(lost, ENDING) for each in (one, other, one, other))
        )
        assert sorted(took) == [False, False, False, True]
        assert await other.lost.whole(lost.record.run_id) is None


async def test_a_run_that_goes_on_meanwhile_is_not_taken_over(address: str) -> None:
    async with worker(address) as one, worker(address) as slow:
        run = await begun(slow)
        lost = await one.lost.whole(run.run_id)
        assert lost
        await slow.log.append(run.run_id, [Token("a")])
        await slow.shipped()
        assert not await one.lost.take_over(lost, ENDING)
        await slow.log.append(run.run_id, [done("cancelled")])


async def test_a_writer_that_was_thought_dead_is_told_and_writes_nothing_more(
    address: str,
) -> None:
    async with worker(address) as one, worker(address) as zombie:
        run = await begun(zombie, "k", "a")
        told: list[str] = []
        zombie.log.when_fenced(told.append)
        here = zombie.log.read(run.run_id, 2)
        await taken_over(one)
        await zombie.log.append(run.run_id, [Token("b")])
        with pytest.raises(Fenced):
            await zombie.log.append(run.run_id, [done("cancelled")])
        assert told == [run.run_id]
        assert not zombie.makes(run.run_id)
        with pytest.raises(Fenced):
            await zombie.log.append(run.run_id, [Token("c")])
        seen: list[Entry] = []
        while not seen or not isinstance(seen[-1].event, Done):
            seen += await here.read(BOUND_S)
        assert numbers(seen) == [3, JUMP, JUMP + 1], "its own readers get that ending"
        assert numbers(await read_to_end(one.log, run.run_id)) == [1, 2, JUMP, JUMP + 1]


async def test_a_silent_writer_that_was_thought_dead_is_told_when_it_renews(address: str) -> None:
    async with worker(address) as one, worker(address) as zombie:
        run = await begun(zombie)
        fenced = asyncio.Event()
        zombie.log.when_fenced(lambda _: fenced.set())
        await taken_over(one)
        await zombie.log._shipper.renew_now([run.run_id])
        await fenced.wait()
        assert numbers(await read_to_end(zombie.log, run.run_id)) == [1, JUMP, JUMP + 1]


async def test_nobody_is_declared_dead_by_one_who_was_cut_off_itself(address: str) -> None:
    async with worker(address) as dead:
        run = await begun(dead)
    async with worker(address) as one:
        began = asyncio.get_running_loop().time()
        assert await overdue(one) == run.run_id
        assert asyncio.get_running_loop().time() - began >= LEASE_S * 0.9
        one.link._fail("a test says so")
        assert await one.lost.overdue() == []
        await one.link.reachable()
        assert await one.lost.overdue() == []
        assert await overdue(one) == run.run_id


async def test_an_orphaned_lease_is_tidied_up(address: str) -> None:
    async with worker(address) as one:
        async with worker(address) as dead:
            run = await begun(dead)
        await one.link.call("DEL", one.link.keys.run(run.run_id))
        assert await one.lost.whole(await overdue(one)) is None
        assert await one.link.call("ZCARD", one.link.keys.leases) == 0


# -- cursors ahead of Redis -----------------------------------------------------------------


async def test_a_living_writer_is_asked_before_a_cursor_is_called_bad(address: str) -> None:
    async with worker(address) as one, worker(address) as writer:
        run = await begun(writer, None, "a")
        writer.log.append_now(run.run_id, [Token("b"), Token("c")])
        found = await one.log.find(run.run_id, 4)
        assert found is not None
        assert (found.last_seq, found.lags) == (4, False)
        found = await one.log.find(run.run_id, 5)
        assert found is not None
        assert (found.last_seq, found.lags) == (4, False), "surely bad"
        await writer.log.append(run.run_id, [done("cancelled")])


async def test_of_a_dead_writer_nobody_knows_what_its_readers_saw(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.events.redis.ASK_S", 0.1)
    async with worker(address) as one:
        async with worker(address) as dead:
            run = await begun(dead, None, "a")
        found = await one.log.find(run.run_id, 5)
        assert found is not None
        assert (found.last_seq, found.lags) == (2, True)
        await taken_over(one)
        found = await one.log.find(run.run_id, 5)
        assert found is not None
        assert (found.last_seq, found.lags) == (JUMP + 1, False)
