"""Redis restarts and goes away under runs that go on."""

import asyncio
from collections.abc import Iterator

import pytest

from app.errors import StoreAway
from app.events import redis_patience, redis_writer
from app.events.model import Token
from tests.events.making import done, final, read_to_end, record, start
from tests.events.sharing import BOUND_S, shared_address, worker
from tests.redis_server import RedisServer, running_redis

pytestmark = pytest.mark.anyio


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """To be stopped."""
    with running_redis() as server:
        yield server


async def test_after_an_empty_restart_the_whole_log_is_written_again(
    own_redis: RedisServer,
) -> None:
    address = shared_address(own_redis.url)
    async with asyncio.timeout(BOUND_S), worker(address) as one, worker(address) as other:
        run = await one.log.open(record("k"))
        await one.log.append(run.run_id, [start(run), Token("a")])
        await one.shipped()
        reader = other.log.read(run.run_id, 0)
        seen = list(await reader.read(BOUND_S))
        own_redis.stop(keep=False)
        one.log.append_now(run.run_id, [Token("b")])
        own_redis.start()
        await one.link.reachable()
        await one.log.append(run.run_id, [final("ab"), done()])
        while seen[-1].event != done():
            seen += await reader.read(BOUND_S)
        assert [entry.seq for entry in seen] == [1, 2, 3, 4, 5]
        assert seen == await read_to_end(one.log, run.run_id)
        await other.link.reachable()
        assert seen == await read_to_end(other.log, run.run_id)
        assert await other.log.holder("me", "k") == run, "the key is claimed again"


async def test_what_redis_forgot_since_it_saved_its_data_is_sent_again(
    own_redis: RedisServer,
) -> None:
    address = shared_address(own_redis.url)
    async with asyncio.timeout(BOUND_S), worker(address) as one, worker(address) as other:
        run = await one.log.open(record())
        await one.log.append(run.run_id, [start(run), Token("a")])
        await one.shipped()
        with own_redis.client() as client:
            client.save()
        await one.log.append(run.run_id, [Token("b"), Token("c")])
        await one.shipped()
        own_redis.kill()
        own_redis.start()
        await one.log.append(run.run_id, [final("abc"), done()])
        await other.link.reachable()
        entries = await read_to_end(other.log, run.run_id)
        assert entries == await read_to_end(one.log, run.run_id)
        assert [entry.seq for entry in entries] == [1, 2, 3, 4, 5, 6]


async def test_without_redis_a_stream_goes_on_and_nothing_new_begins(
    own_redis: RedisServer,
) -> None:
    async with asyncio.timeout(BOUND_S), worker(shared_address(own_redis.url)) as one:
        run = await one.log.open(record())
        await one.log.append(run.run_id, [start(run)])
        reader = one.log.read(run.run_id, 1)
        own_redis.stop(keep=True)
        one.log.append_now(run.run_id, [Token("a")])
        assert [entry.event for entry in await reader.read(BOUND_S)] == [Token("a")]
        refused = record()
        with pytest.raises(StoreAway):
            await one.log.open(refused)
        with pytest.raises(StoreAway):
            await one.log.find(refused.run_id)
        before = one.log.bytes
        with pytest.raises(StoreAway):
            await one.log.open(record("k"))
        assert one.log.bytes == before, "a refused run leaves nothing behind"
        ending = asyncio.ensure_future(one.log.append(run.run_id, [final("a"), done()]))
        assert list(await reader.read(0.05)) == [], "the ending waits for Redis"
        own_redis.start()
        await ending
        assert [entry.seq for entry in await reader.read(BOUND_S)] == [3, 4]


async def test_an_ending_waits_for_redis_for_one_lease_and_is_shipped_later(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_patience, "LEASE_S", 0.3)
    monkeypatch.setattr(redis_patience, "AWAKE_S", 0.3)
    address = shared_address(own_redis.url)
    async with asyncio.timeout(BOUND_S), worker(address) as one, worker(address) as other:
        run = await one.log.open(record())
        await one.log.append(run.run_id, [start(run)])
        await one.shipped()
        own_redis.stop(keep=True)
        await one.log.append(run.run_id, [final(""), done()])
        assert [entry.seq for entry in await read_to_end(one.log, run.run_id)] == [1, 2, 3]
        own_redis.start()
        await one.link.reachable()
        await other.link.reachable()
        assert [entry.seq for entry in await read_to_end(other.log, run.run_id)] == [1, 2, 3]
        await one.shipped()
        assert not one.makes(run.run_id)


async def test_at_shutdown_an_ending_does_not_wait_long(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_writer, "HASTY_S", 0.05)
    async with asyncio.timeout(BOUND_S), worker(shared_address(own_redis.url)) as one:
        runs = [await one.log.open(record()) for _ in range(2)]
        for run in runs:
            await one.log.append(run.run_id, [start(run)])
        own_redis.stop(keep=True)
        waiting = asyncio.ensure_future(one.log.append(runs[0].run_id, [done("cancelled")]))
        await asyncio.sleep(0)
        one.log.hasten()
        await waiting
        await one.log.append(runs[1].run_id, [done("cancelled")])
        for run in runs:
            assert len(await read_to_end(one.log, run.run_id)) == 2
        own_redis.start()


async def test_once_nobody_ships_any_more_an_ending_does_not_wait(
    redis_server: RedisServer,
) -> None:
    async with asyncio.timeout(BOUND_S):
        async with worker(shared_address(redis_server.url)) as one:
            run = await one.log.open(record())
            await one.log.append(run.run_id, [start(run)])
        await one.log.append(run.run_id, [done("cancelled")])
        assert len(await read_to_end(one.log, run.run_id)) == 2


async def test_a_log_that_was_flushed_is_written_again_at_the_next_event(
    own_redis: RedisServer,
) -> None:
    address = shared_address(own_redis.url)
    async with asyncio.timeout(BOUND_S), worker(address) as one, worker(address) as other:
        run = await one.log.open(record())
        await one.log.append(run.run_id, [start(run), Token("a")])
        await one.shipped()
        own_redis.flush()
        await one.log.append(run.run_id, [Token("b")])
        await one.log.append(run.run_id, [final("ab"), done()])
        entries = await read_to_end(other.log, run.run_id)
        assert [entry.seq for entry in entries] == [1, 2, 3, 4, 5]
