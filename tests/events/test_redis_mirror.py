"""Runs of another worker, read through a real Redis."""

import asyncio
from collections.abc import Iterator

import pytest
import redis

from app.events.log import LogGone
from app.events.mirror import JUMP
from app.events.model import Entry
from app.events.redis_keys import Keys
from app.events.runlog import LOG_BYTES, RunLog
from app.wire.native import encode
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
from tests.events.making import record
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


async def test_what_was_stored_and_what_is_told_are_one_read(url: str, writer: Writer) -> None:
    writer.tell(3)
    async with following(url) as (_, mirrors):
        reader = mirrors.read(writer.run_id, 0)
        entries = await take(reader, 3)
        writer.tell(2)
        entries += await take(reader, 2)
        writer.end()
        entries += await to_end(reader)
    assert numbers(entries) == up_to(6)
    assert [entry.event for entry in entries] == writer.told
    assert all(one.frame == encode(writer.run_id, one.seq, one.event) for one in entries)


async def test_a_reader_at_any_cursor_gets_what_lies_behind_it(url: str, writer: Writer) -> None:
    for count in (1, 4, 2):
        writer.tell(count)
    writer.take_over()
    whole = [*up_to(7), JUMP, JUMP + 1]
    async with following(url) as (_, mirrors):
        for after in [*range(9), 5000, JUMP - 1, JUMP]:
            entries = await to_end(mirrors.read(writer.run_id, after))
            assert numbers(entries) == [seq for seq in whole if seq > after]
        past = mirrors.read(writer.run_id, JUMP + 1)
        assert list(await past.read(0.01)) == []


async def test_a_long_log_is_read_whole(url: str, writer: Writer) -> None:
    for _ in range(300):
        writer.tell(2)
    async with following(url) as (_, mirrors):
        reader = mirrors.read(writer.run_id, 0)
        entries = await take(reader, 600)
        writer.end()
        entries += await to_end(reader)
    assert numbers(entries) == up_to(601)


async def test_a_reader_that_is_ahead_of_what_is_stored_waits_for_its_turn(
    url: str, writer: Writer
) -> None:
    writer.tell(2)
    async with following(url) as (_, mirrors):
        reader = mirrors.read(writer.run_id, 4)
        assert list(await reader.read(0.05)) == []
        writer.tell(3)
        assert numbers(await take(reader, 1)) == [5]


async def test_all_readers_of_a_run_share_one_mirror_and_one_subscription(
    url: str, client: redis.Redis, writer: Writer
) -> None:
    writer.tell(5)
    async with following(url) as (_, mirrors), asyncio.TaskGroup() as tasks:
        reading = [
            tasks.create_task(to_end(mirrors.read(writer.run_id, at % 6))) for at in range(99)
        ]
        await until(lambda: writer.listeners() == 1)
        writer.tell(2)
        writer.end()
        seen = [numbers(await one) for one in reading]
        assert mirrors.bytes < 2 * LOG_BYTES + 4096
    assert seen == [up_to(8)[at % 6 :] for at in range(99)]


async def test_many_runs_are_read_over_few_connections(url: str, client: redis.Redis) -> None:
    writers = [Writer(client, KEYS) for _ in range(500)]
    for writer in writers:
        writer.tell(3)
    before = len(client.client_list())
    async with following(url) as (_, mirrors), asyncio.TaskGroup() as tasks:
        readers = [mirrors.read(writer.run_id, 0) for writer in writers]
        first = [await take(reader, 3) for reader in readers]
        assert len(client.client_list()) - before <= 10
        rest = [tasks.create_task(to_end(reader)) for reader in readers]
        for writer in writers:
            writer.tell(2)
            writer.end()
            await asyncio.sleep(0)
        for ours, theirs in zip(first, rest, strict=True):
            assert numbers(ours + await theirs) == up_to(6)


@pytest.mark.parametrize("publish", [0, 2])
async def test_a_message_that_is_lost_or_doubled_is_neither_missed_nor_repeated(
    url: str, writer: Writer, publish: int
) -> None:
    writer.tell()
    async with following(url) as (_, mirrors):
        reader = mirrors.read(writer.run_id, 0)
        entries = await take(reader, 1)
        writer.tell(3, publish=publish)
        writer.tell(2)
        writer.repeat(3, 6)
        writer.end()
        entries += await to_end(reader)
    assert numbers(entries) == up_to(7)


async def test_an_ending_whose_message_is_lost_is_found_all_the_same(
    url: str, writer: Writer
) -> None:
    writer.tell()
    async with following(url, watch_s=0.1) as (_, mirrors):
        reader = mirrors.read(writer.run_id, 0)
        await take(reader, 1)
        writer.end(publish=0)
        assert numbers(await to_end(reader)) == [2]


async def test_what_was_told_while_nobody_heard_it_is_read_again(
    url: str, client: redis.Redis, writer: Writer
) -> None:
    writer.tell()
    async with following(url) as (_, mirrors):
        reader, entries = mirrors.read(writer.run_id, 0), list[Entry]()
        for _ in range(5):
            entries += await take(reader, 1)
            client.client_kill_filter(_type="pubsub")
            writer.tell(3)
        writer.end()
        entries += await to_end(reader)
    assert numbers(entries) == up_to(17)


async def test_an_ending_of_another_worker_comes_behind_all_that_was_stored(
    url: str, writer: Writer
) -> None:
    writer.tell(2)
    async with following(url) as (_, mirrors):
        reader = mirrors.read(writer.run_id, 0)
        entries = await take(reader, 2)
        writer.tell(3, publish=0)
        writer.take_over()
        entries += await to_end(reader)
    assert numbers(entries) == [*up_to(5), JUMP, JUMP + 1]


async def test_an_unknown_run_is_told_at_the_first_read(url: str) -> None:
    async with following(url) as (_, mirrors):
        with pytest.raises(LogGone):
            await mirrors.read(record().run_id, 0).read(NEVER_S)
        assert mirrors.bytes == 0


async def test_a_run_that_vanishes_is_waited_for_and_then_given_up(
    url: str, writer: Writer
) -> None:
    writer.tell(2)
    async with following(url, lease_s=1.0, watch_s=0.1) as (_, mirrors):
        reader = mirrors.read(writer.run_id, 0)
        assert len(await take(reader, 2)) == 2
        writer.forget()
        began = asyncio.get_running_loop().time()
        with pytest.raises(LogGone):
            await reader.read(NEVER_S)
        assert asyncio.get_running_loop().time() - began >= 0.9
        assert mirrors.bytes == 0


async def test_who_owns_the_mirrors_may_end_a_run_that_vanished(url: str, writer: Writer) -> None:
    writer.tell(2)

    def end(log: RunLog, epoch: int) -> None:
        assert (log.record, epoch) == (writer.record, writer.epoch)
        log.extend(log.number(writer.told[-1:]))

    async with following(url, lease_s=0.3, watch_s=0.1) as (_, mirrors):
        mirrors.on_vanished = end
        reader = mirrors.read(writer.run_id, 0)
        await take(reader, 2)
        writer.forget()
        assert numbers(await take(reader, 1)) == [3]
        assert mirrors.bytes == 0
        reader.close()


async def test_each_time_a_run_is_missing_it_is_waited_for_as_long(
    url: str, writer: Writer
) -> None:
    writer.tell(2)
    async with following(url, lease_s=1.0, watch_s=0.1) as (_, mirrors):
        reader = mirrors.read(writer.run_id, 0)
        await take(reader, 2)
        for _ in range(3):
            writer.forget()
            assert list(await reader.read(0.7)) == []
            writer.write_again(2, publish=0)
            writer.tell(publish=0)
            assert len(await take(reader, 1)) == 1
