"""Runs of another worker, read while Redis goes away, comes back empty, or loses what it says."""

import asyncio
import random
from collections.abc import Iterator

import pytest
import redis

from app.events.log import LogGone
from app.events.mirror import JUMP
from app.events.model import Done, Entry
from app.events.redis_keys import Keys
from app.events.redis_link import CALL_S, POOL
from app.events.redis_mirror import Mirrors
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
from tests.redis_server import RedisServer, running_redis

pytestmark = pytest.mark.anyio

KEYS = Keys("breaks")


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """One that may be stopped."""
    with running_redis() as server:
        yield server


@pytest.mark.parametrize("batch", [1, 3, 64])
async def test_after_redis_came_back_empty_readers_go_on_where_they_were(
    own_redis: RedisServer, batch: int
) -> None:
    with own_redis.client() as client:
        writer = Writer(client, KEYS)
        writer.tell(5)
        async with following(f"{own_redis.url}?prefix=breaks") as (link, mirrors):
            reader = mirrors.read(writer.run_id, 0)
            entries = await take(reader, 5)
            await asyncio.to_thread(own_redis.stop, keep=False)
            await asyncio.to_thread(own_redis.start)
            await link.reachable()
            late = mirrors.read(writer.run_id, 2)
            assert numbers(await take(late, 3)) == [3, 4, 5]
            assert list(await reader.read(0.7)) == []  # it is missing, and was looked for
            writer.tell(2, publish=0)  # before it was known to be lost
            writer.write_again(batch)
            writer.tell(2)
            writer.end()
            entries += await to_end(reader)
            assert numbers(await to_end(late)) == numbers(entries)[5:]
    assert numbers(entries) == up_to(10)


async def test_who_joins_after_redis_came_back_empty_waits_for_the_run_to_be_written(
    own_redis: RedisServer,
) -> None:
    with own_redis.client() as client:
        writer = Writer(client, KEYS)
        writer.tell(5)
        async with following(f"{own_redis.url}?prefix=breaks") as (link, mirrors):
            await asyncio.to_thread(own_redis.stop, keep=False)
            await asyncio.to_thread(own_redis.start)
            await until(link.unsettled)
            reader = mirrors.read(writer.run_id, 0)
            assert list(await reader.read(0.7)) == []
            writer.write_again(2, publish=0)
            assert numbers(await take(reader, 5)) == up_to(5)


async def test_a_loss_of_all_data_is_noticed_though_no_connection_broke(
    own_redis: RedisServer,
) -> None:
    with own_redis.client() as client:
        writer = Writer(client, KEYS)
        writer.tell()
        async with following(f"{own_redis.url}?prefix=breaks", lease_s=0.5) as (_, mirrors):
            reader = mirrors.read(writer.run_id, 0)
            await take(reader, 1)
            assert list(await reader.read(1.0)) == []  # the first of its own looks is over
            own_redis.flush()
            with pytest.raises(LogGone):
                await reader.read(NEVER_S)


async def test_a_look_that_got_no_connection_is_taken_again(own_redis: RedisServer) -> None:
    with own_redis.client() as client:
        writer = Writer(client, KEYS)
        writer.tell()
        async with following(f"{own_redis.url}?prefix=breaks") as (link, mirrors):
            for _ in range(POOL):
                await link._slots.acquire()
            reader = mirrors.read(writer.run_id, 0)
            assert list(await reader.read(CALL_S + 0.5)) == []
            assert link.trouble is None
            for _ in range(POOL):
                link._slots.release()
            assert numbers(await take(reader, 1)) == [1]


async def test_what_is_wanted_during_a_look_leads_to_another(own_redis: RedisServer) -> None:
    with own_redis.client() as client:
        writer = Writer(client, KEYS)
        writer.tell()
        async with following(f"{own_redis.url}?prefix=breaks") as (_, mirrors):
            await take(mirrors.read(writer.run_id, 0), 1)
            mirror = mirrors._mirrors[writer.run_id]
            with own_redis.frozen():
                mirrors.want(mirror)
                await until(lambda: mirror.is_asked)
                mirror.subscribed()
                assert mirror.is_due
            await until(lambda: not mirror.is_due and not mirror.is_asked)


async def test_while_redis_is_away_there_is_silence_and_then_the_end(
    own_redis: RedisServer,
) -> None:
    with own_redis.client() as client:
        writer, ended = Writer(client, KEYS), Writer(client, KEYS)
        writer.tell(2)
        ended.end()
        async with following(f"{own_redis.url}?prefix=breaks", away_s=1.5) as (link, mirrors):
            reader, replay = mirrors.read(writer.run_id, 0), mirrors.read(ended.run_id, 0)
            assert numbers(await take(reader, 2)) == [1, 2]
            await until(lambda: ended.listeners() == 0)
            await asyncio.to_thread(own_redis.stop, keep=True)
            await until(lambda: link.trouble is not None)
            assert list(await reader.read(0.1)) == []
            with pytest.raises(LogGone):
                await reader.read(NEVER_S)
            late = mirrors.read(ended.run_id, 0)
            assert numbers(await to_end(replay)) == numbers(await to_end(late)) == [1], "all here"
            late = mirrors.read(writer.run_id, 2)
            assert list(await late.read(0.7)) == [], "its time begins when it comes"
            with pytest.raises(LogGone):
                await late.read(NEVER_S)
            again = mirrors.read(writer.run_id, 2)
            await asyncio.to_thread(own_redis.start)
            writer.tell()
            assert numbers(await take(again, 1)) == [3]


async def test_a_short_absence_is_not_seen(own_redis: RedisServer) -> None:
    with own_redis.client() as client:
        writer = Writer(client, KEYS)
        writer.tell(2)
        async with following(f"{own_redis.url}?prefix=breaks") as (_, mirrors):
            reader = mirrors.read(writer.run_id, 0)
            entries = await take(reader, 2)
            await asyncio.to_thread(own_redis.stop, keep=True)
            await asyncio.to_thread(own_redis.start)
            writer.tell(3)
            writer.end()
            entries += await to_end(reader)
    assert numbers(entries) == up_to(6)


async def read_somehow(mirrors: Mirrors, run_id: str, after: int, luck: random.Random) -> list[int]:
    """Cancelled now and then, closed and resumed now and then."""
    seen, entries = list[int](), list[Entry]()
    reader = mirrors.read(run_id, after)
    while not entries or type(entries[-1].event) is not Done:
        if luck.random() < 0.1:
            reader.close()
            await asyncio.sleep(luck.choice((0.0, 0.02)))
            reader = mirrors.read(run_id, seen[-1] if seen else after)
        try:
            async with asyncio.timeout(luck.choice((0.001, 0.01, NEVER_S))):
                entries = list(await reader.read(luck.choice((0.0, 0.005, NEVER_S))))
        except TimeoutError:
            continue
        seen += numbers(entries)
    reader.close()
    return seen


def disturb(client: redis.Redis, writer: Writer, luck: random.Random) -> None:
    match luck.choice(("tell", "tell", "tell", "lose", "double", "repeat", "deaf", "empty")):
        case "tell":
            writer.tell(luck.randint(1, 5))
        case "lose":
            writer.tell(luck.randint(1, 5), publish=0)
        case "double":
            writer.tell(luck.randint(1, 5), publish=2)
        case "repeat" if writer.told:
            first = luck.randint(1, len(writer.told))
            writer.repeat(first, luck.randint(first, len(writer.told)))
        case "deaf":
            client.client_kill_filter(_type="pubsub")
        case "empty":
            writer.forget()
            writer.write_again(luck.randint(1, 30), publish=luck.randint(0, 1))


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_each_reader_sees_every_event_once_and_then_the_ending(
    own_redis: RedisServer, seed: int
) -> None:
    luck = random.Random(seed)
    with own_redis.client() as client:
        writers = [Writer(client, KEYS) for _ in range(10)]
        async with (
            following(f"{own_redis.url}?prefix=breaks", watch_s=0.3, linger_s=0.01) as (_, mirrors),
            asyncio.TaskGroup() as tasks,
        ):
            reading = []
            for at in range(300):
                writer = luck.choice(writers)
                disturb(client, writer, luck)
                if at % 4 == 0:
                    after = luck.randint(0, len(writer.told))
                    how = read_somehow(mirrors, writer.run_id, after, random.Random(at))
                    reading.append((writer, after, tasks.create_task(how)))
                await asyncio.sleep(luck.choice((0.0, 0.0, 0.001, 0.02)))
            endings = {}
            for writer in writers:
                length, publish = len(writer.told), luck.randint(0, 1)
                if luck.random() < 0.5:
                    writer.end(publish=publish)
                    endings[writer] = [*up_to(length), length + 1]
                else:
                    writer.take_over(publish=publish)
                    endings[writer] = [*up_to(length), JUMP, JUMP + 1]
            for writer, after, read in reading:
                assert await read == [seq for seq in endings[writer] if seq > after]
            await until(lambda: mirrors.bytes == 0)
