"""Workers that tell each other through a real Redis who has signed out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.access import redis_signed_out, signed_out
from app.access.redis_signed_out import RedisSignedOut
from app.events.redis_link import Link
from tests.events.linked import linked, own, until
from tests.redis_server import RedisServer, running_redis

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_signed_out, "READ_S", 0.05)


@asynccontextmanager
async def worker(url: str) -> AsyncIterator[tuple[RedisSignedOut, Link]]:
    async with linked(url) as link:
        known = RedisSignedOut(link)
        task = asyncio.ensure_future(known.run())
        try:
            await link.reachable()
            yield known, link
        finally:
            task.cancel()
            await asyncio.wait({task})


async def test_other_workers_hear_of_it(redis_server: RedisServer) -> None:
    url = own(redis_server.url)
    async with worker(url) as (a, _), worker(url) as (b, _):
        a.add("one")
        assert "one" in a
        assert "one" not in b
        await until(lambda: "one" in b)
        b.add("two")
        await until(lambda: "two" in a)
        assert "three" not in a


async def test_a_worker_that_starts_later_reads_all_there_are(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_signed_out, "AT_ONCE", 3)
    monkeypatch.setattr(redis_signed_out, "READ_S", 1000.0)
    url = own(redis_server.url)
    sessions = [f"session {number}" for number in range(11)]
    async with worker(url) as (a, link):
        for session in sessions:
            a.add(session)
        await until_stored(link, len(sessions))
        async with worker(url) as (b, _):
            await until(lambda: all(session in b for session in sessions))


async def test_a_look_reads_nothing_twice(redis_server: RedisServer) -> None:
    url = own(redis_server.url)
    async with worker(url) as (a, link), worker(url) as (b, _):
        a.add("one")
        a.add("two")
        await until(lambda: "two" in b)
        since = b._read_to
        assert since != "-inf"
        a.add("one")  # known: no news
        a.add("three")
        await until(lambda: "three" in b)
        scores = await link.call("ZRANGE", a._name, 0, -1, "WITHSCORES")
        assert scores[::2] == [b"one", b"two", b"three"]
        assert len(set(scores[1::2])) == 3
        assert since == f"({scores[3].decode()}"


async def test_each_is_newer_than_the_last_though_the_clock_went_back(
    redis_server: RedisServer,
) -> None:
    url = own(redis_server.url)
    ahead_ms = 2**42
    async with worker(url) as (a, link), worker(url) as (b, _):
        await link.call("ZADD", a._name, ahead_ms, "of the future")
        await until(lambda: "of the future" in b)
        a.add("one")
        await until(lambda: "one" in b)
        assert await link.call("ZSCORE", a._name, "one") == str(ahead_ms + 1).encode()


async def test_redis_forgets_what_no_session_can_outlive_and_the_oldest_of_too_many(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_signed_out, "KEPT", 3)
    async with worker(own(redis_server.url)) as (a, link):
        seconds, _ = await link.call("TIME")
        long_ago_s = int(seconds) - signed_out.SESSION_S
        await link.call("ZADD", a._name, round((long_ago_s - 5) * 1000), "over")
        await link.call("ZADD", a._name, round((long_ago_s + 300) * 1000), "nearly")
        a.add("one")
        await until(lambda: not a._unsaid)
        assert await link.call("ZRANGE", a._name, 0, -1) == [b"nearly", b"one"]
        a.add("two")
        a.add("three")
        await until(lambda: not a._unsaid)
        assert await link.call("ZRANGE", a._name, 0, -1) == [b"one", b"two", b"three"]
        left_ms = await link.call("PTTL", a._name)
        assert 0 < left_ms <= signed_out.SESSION_S * 1000


async def test_what_is_signed_out_while_redis_is_away_is_told_later() -> None:
    with running_redis() as server:
        url = own(server.url)
        async with worker(url) as (a, link), worker(url) as (b, other):
            server.kill()
            await until(lambda: link.trouble and other.trouble)
            a.add("one")
            assert "one" in a
            server.start()
            await until(lambda: "one" in b)


async def test_an_empty_redis_is_told_again_by_whoever_knows() -> None:
    with running_redis() as server:
        url = own(server.url)
        async with worker(url) as (a, link):
            a.add("one")
            await until_stored(link, 1)
            server.flush()
            await until_stored(link, 1)
            async with worker(url) as (b, _):
                await until(lambda: "one" in b)


async def test_one_that_nobody_can_be_told_of_takes_no_memory_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (redis_signed_out, signed_out):
        monkeypatch.setattr(module, "KEPT", 2)
    known = RedisSignedOut(Link("redis://127.0.0.1:1"))
    for session in ("one", "two", "three"):
        known.add(session)
    assert list(known._unsaid) == ["two", "three"]


async def until_stored(link: Link, count: int) -> None:
    """The caller bounds it."""
    name = f"{link.keys.prefix}:signed_out"
    while await link.call("ZCARD", name) != count:  # noqa: ASYNC110  Redis tells nobody
        await asyncio.sleep(0.005)
