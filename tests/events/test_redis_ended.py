"""Runs that have ended: Redis forgets it, or another worker had ended them before."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from app.events import redis_patience
from app.events.log import LogGone
from app.events.mirror import JUMP
from app.events.model import Entry, Event, RunRecord, Token
from tests.events.making import done, final, read_to_end, record, start
from tests.events.sharing import BOUND_S, Worker, shared_address, until, worker
from tests.redis_server import RedisServer, running_redis
from tests.tcp_proxy import TcpProxy, tcp_proxy

pytestmark = pytest.mark.anyio

LOST: list[Event] = [Token("lost"), done("failed")]


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """To be stopped."""
    with running_redis() as server:
        yield server


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[TcpProxy]:
    with tcp_proxy(redis_server.url) as proxy:
        yield proxy


@pytest.fixture
async def bounded() -> AsyncIterator[None]:
    async with asyncio.timeout(BOUND_S):
        yield


async def begun(one: Worker, *texts: str) -> RunRecord:
    run = await one.log.open(record("k"))
    await one.log.append(run.run_id, [start(run), *map(Token, texts)])
    await one.shipped()
    return run


async def restarted(server: RedisServer, workers: list[Worker], stop: Callable[[], None]) -> None:
    """Until all of them know, and have shipped what is to be shipped."""
    await asyncio.to_thread(stop)
    await until(lambda: all(each.link.trouble is not None for each in workers))
    await asyncio.to_thread(server.start)
    for each in workers:
        await each.link.reachable()
        await each.shipped()


async def leases(one: Worker) -> int:
    return int(await one.link.call("ZCARD", one.link.keys.leases))


def numbers(entries: list[Entry]) -> list[int]:
    return [entry.seq for entry in entries]


@pytest.mark.usefixtures("bounded")
async def test_an_ending_that_redis_forgot_is_shipped_again(own_redis: RedisServer) -> None:
    address = shared_address(own_redis.url)
    async with worker(address) as one, worker(address) as other:
        run = await begun(one, "a")
        with own_redis.client() as client:
            client.save()
        await one.log.append(run.run_id, [Token("b"), final("ab"), done()])
        assert not one.makes(run.run_id)
        await restarted(own_redis, [one, other], own_redis.kill)
        found = await other.log.find(run.run_id)
        assert found is not None
        assert (found.done, found.error) == (done(), None)
        assert await read_to_end(other.log, run.run_id) == await read_to_end(one.log, run.run_id)
        assert await leases(one) == 0, "nobody misses its worker"
        assert not one.makes(run.run_id)


@pytest.mark.usefixtures("bounded")
async def test_a_finished_log_is_written_again_after_an_empty_restart(
    own_redis: RedisServer,
) -> None:
    def empty() -> None:
        own_redis.stop(keep=False)

    address = shared_address(own_redis.url)
    async with worker(address) as one, worker(address) as other:
        run = await begun(one, "a")
        await one.log.append(run.run_id, [final("a"), done()])
        before = await read_to_end(one.log, run.run_id)
        for _ in range(2):
            await restarted(own_redis, [one, other], empty)
            assert await read_to_end(other.log, run.run_id, 1) == before[1:]
            assert await other.log.holder("me", "k") == run
            assert await leases(one) == 0
        assert await read_to_end(one.log, run.run_id) == before, "its own copy has not grown"


@pytest.mark.usefixtures("bounded")
async def test_what_has_ended_is_remembered_no_longer_than_its_log(
    redis_server: RedisServer,
) -> None:
    async with worker(shared_address(redis_server.url), retention_s=0.1) as one:
        run = await begun(one)
        await one.log.append(run.run_id, [done("cancelled")])
        assert one.log._shipper._ended.keys() == {run.run_id}
        await until(lambda: not one.log._shipper._ended)


# -- fenced -------------------------------------------------------------------------------------


async def end_elsewhere(other: Worker, run: RunRecord) -> None:
    """Before its lease is over."""
    lost = await other.lost.whole(run.run_id)
    assert lost is not None
    assert await other.lost.take_over(lost, LOST)


@pytest.mark.usefixtures("bounded")
async def test_a_run_that_turns_out_fenced_has_no_lease(redis_server: RedisServer) -> None:
    address = shared_address(redis_server.url)
    async with worker(address) as zombie, worker(address) as other:
        run = await begun(zombie)
        await end_elsewhere(other, run)
        assert await leases(other) == 0
        zombie.log._shipper._look_at_all()  # it makes its leases anew, and looks
        await until(lambda: not zombie.makes(run.run_id))
        assert await leases(other) == 0


@pytest.mark.usefixtures("bounded")
async def test_who_ended_a_run_alone_and_was_fenced_tells_later_readers_what_redis_has(
    redis_server: RedisServer, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_patience, "LEASE_S", 0.1)
    monkeypatch.setattr(redis_patience, "AWAKE_S", 0.1)
    address = shared_address(redis_server.url)
    through = address.replace(str(redis_server.port), str(proxy.port))
    async with worker(through) as zombie, worker(address) as other:
        run = await begun(zombie, "a")
        early = zombie.log.read(run.run_id, 2)
        proxy.refuse()
        proxy.cut()
        await zombie.log.append(run.run_id, [final("a"), done()])
        assert numbers(list(await early.read(BOUND_S))) == [3, 4], "told, as Redis is away"
        await end_elsewhere(other, run)
        proxy.accept()
        await zombie.link.reachable()
        await until(lambda: not zombie.makes(run.run_id))
        seen = await read_to_end(zombie.log, run.run_id)
        assert numbers(seen) == [1, 2, JUMP, JUMP + 1]
        assert seen == await read_to_end(other.log, run.run_id)
        found = await zombie.log.find(run.run_id)
        assert found is not None
        assert found.done == LOST[-1]
        assert await leases(other) == 0


# -- a worker that goes -------------------------------------------------------------------------


@pytest.mark.usefixtures("bounded")
async def test_who_goes_lets_go_of_readers_of_others_runs_and_not_of_its_own(
    redis_server: RedisServer,
) -> None:
    address = shared_address(redis_server.url)
    async with worker(address) as goes, worker(address) as stays:
        own, others = await begun(goes), await stays.log.open(record())
        await stays.log.append(others.run_id, [start(others)])
        near, far = goes.log.read(own.run_id, 0), goes.log.read(others.run_id, 0)
        assert [len(await each.read(BOUND_S)) for each in (near, far)] == [1, 1]
        goes.log.let_go()
        with pytest.raises(LogGone):
            await far.read(BOUND_S)
        await goes.log.append(own.run_id, [done("cancelled")])
        assert numbers(list(await near.read(BOUND_S))) == [2]
        await stays.log.append(others.run_id, [done("cancelled")])
