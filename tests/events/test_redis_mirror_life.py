"""Readers of runs of another worker come and go; what is kept for them comes and goes with them."""

import asyncio
from collections.abc import Iterator

import pytest
import redis

from app.events.log import LogGone
from app.events.model import Entry
from app.events.redis_keys import Keys
from tests.events.following import (
    NEVER_S,
    Writer,
    following,
    numbers,
    take,
    to_end,
    until,
    up_to,
)
from tests.redis_server import RedisServer

pytestmark = pytest.mark.anyio

PREFIX = "mirror"
KEYS = Keys(PREFIX)


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis_server.client() as client:
        yield client


@pytest.fixture
def url(redis_server: RedisServer) -> str:
    return f"{redis_server.url}?prefix={PREFIX}"


@pytest.fixture
def writer(client: redis.Redis) -> Writer:
    return Writer(client, KEYS)


async def test_a_cancelled_reader_misses_nothing_and_leaves_the_others_reading(
    url: str, writer: Writer
) -> None:
    async with following(url) as (_, mirrors), asyncio.TaskGroup() as tasks:
        other = tasks.create_task(to_end(mirrors.read(writer.run_id, 0)))
        reader, entries = mirrors.read(writer.run_id, 0), list[Entry]()
        for passes in range(1, 12):
            reading = asyncio.ensure_future(reader.read(NEVER_S))
            for _ in range(passes):
                await asyncio.sleep(0)
            writer.tell()
            reading.cancel()
            await asyncio.wait({reading})
            entries += [] if reading.cancelled() else reading.result()
        writer.end()
        entries += await to_end(reader)
        assert numbers(entries) == numbers(await other) == up_to(12)


async def test_a_mirror_outlives_its_last_reader_for_a_while(url: str, writer: Writer) -> None:
    writer.tell()
    async with following(url, linger_s=1.0) as (_, mirrors):
        for after in range(3):
            reader = mirrors.read(writer.run_id, after)
            assert numbers(await take(reader, 1)) == [after + 1]
            reader.close()
            reader.close()  # twice is once
            writer.tell()
            assert writer.listeners() == 1
        stays = mirrors.read(writer.run_id, 0)
        await asyncio.sleep(1.6)  # longer than it would have lingered
        assert writer.listeners() == 1
        stays.close()
        assert writer.listeners() == 1
        await until(lambda: mirrors.bytes == 0)
        await until(lambda: writer.listeners() == 0)


async def test_a_reader_that_never_read_leaves_nothing_behind(url: str, writer: Writer) -> None:
    async with following(url, linger_s=0.0) as (_, mirrors):
        mirrors.read(writer.run_id, 0).close()
        await until(lambda: mirrors.bytes == 0)
        await until(lambda: writer.listeners() == 0)


async def test_an_ended_run_is_heard_no_more_and_stays_for_those_who_read_it(
    url: str, writer: Writer
) -> None:
    writer.tell(2)
    async with following(url, linger_s=0.0) as (_, mirrors):
        late, reader = mirrors.read(writer.run_id, 0), mirrors.read(writer.run_id, 0)
        await take(reader, 2)
        writer.end()
        await to_end(reader)
        await until(lambda: writer.listeners() == 0)
        writer.forget()
        await asyncio.sleep(0.6)  # more than a tick
        assert numbers(await to_end(late)) == up_to(3)
        await until(lambda: mirrors.bytes == 0)


async def test_for_room_mirrors_without_readers_go_first(url: str, client: redis.Redis) -> None:
    writers = [Writer(client, KEYS) for _ in range(3)]
    for writer in writers:
        writer.tell(64)  # 18 KB of memory
    one, two, three = writers
    async with following(url, memory_bytes=45_000, linger_s=60) as (_, mirrors):
        stays, goes = mirrors.read(one.run_id, 0), mirrors.read(two.run_id, 0)
        assert numbers(await take(stays, 64) + await take(goes, 64)) == up_to(64) * 2
        goes.close()
        await asyncio.sleep(0.1)
        assert [writer.listeners() for writer in writers] == [1, 1, 0]
        comes = mirrors.read(three.run_id, 0)
        await take(comes, 64)
        await until(lambda: [writer.listeners() for writer in writers] == [1, 0, 1])
        three.tell(64)
        await take(comes, 64)
        assert mirrors.bytes > 45_000
        comes.close()
        await until(lambda: [writer.listeners() for writer in writers] == [1, 0, 0])
        one.tell()
        assert numbers(await take(stays, 1)) == [65]


async def test_readers_that_are_let_go_get_the_rest_and_who_comes_later_nothing(
    url: str, writer: Writer
) -> None:
    writer.tell(3)
    async with following(url) as (_, mirrors):
        late, waiting = mirrors.read(writer.run_id, 1), mirrors.read(writer.run_id, 0)
        await take(waiting, 3)
        mirrors.let_go()
        assert numbers(list(await late.read(NEVER_S))) == [2, 3]
        for reader in (late, waiting):
            with pytest.raises(LogGone):
                await reader.read(NEVER_S)
            reader.close()
        await until(lambda: writer.listeners() == 0)
        with pytest.raises(LogGone):
            await mirrors.read(writer.run_id, 0).read(NEVER_S)
        assert mirrors.bytes == 0
