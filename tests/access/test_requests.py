"""Requests per window: in memory, in Redis, and in memory while Redis is away."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from limits import parse

from app.access import requests
from app.access.model import Caller, Limits
from app.access.redis_windows import RedisWindows
from app.access.requests import RequestQuota, Standing
from app.access.windows import SWEEP_S, MemoryWindows, limiting
from app.errors import RateLimited
from app.events.redis_wire import Address
from tests.events.linked import own, until
from tests.redis_server import RedisServer, running_redis
from tests.tcp_proxy import tcp_proxy

pytestmark = pytest.mark.anyio
BOUND_S = 20


def caller(rate: str | None = "3/minute", name: str = "key:me") -> Caller:
    return Caller(name, Limits(rate))


@asynccontextmanager
async def counting(url: str | None) -> AsyncIterator[RequestQuota]:
    quota = RequestQuota(url, Address(url).prefix if url else "")
    try:
        async with asyncio.timeout(BOUND_S):
            yield quota
    finally:
        await quota.aclose()


@pytest.fixture(params=["memory", "redis", "unix socket"])
def url(request: pytest.FixtureRequest, redis_server: RedisServer) -> str | None:
    addresses = {
        "memory": None,
        "redis": own(redis_server.url),
        "unix socket": own(f"unix://{redis_server.home}/socket"),
    }
    return addresses[request.param]


async def spend(quota: RequestQuota, who: Caller, count: int = 3) -> Standing:
    for _ in range(count):
        standing = await quota.count(who)
    assert standing is not None
    return standing


async def refused(quota: RequestQuota, who: Caller) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        await quota.count(who)
    return caught.value


async def test_a_caller_without_a_limit_is_not_counted(url: str | None) -> None:
    async with counting(url) as quota:
        for _ in range(10):
            assert await quota.count(caller(None)) is None
        assert quota.refused(caller(None), RateLimited("", 1)) is None


async def test_a_window_has_so_many_requests_and_no_more(url: str | None) -> None:
    async with counting(url) as quota:
        left = [(await spend(quota, caller(), 1)).remaining for _ in range(3)]
        assert left == [2, 1, 0]
        for _ in range(3):
            refusal = await refused(quota, caller())
            assert "limit of 3 requests per minute" in refusal.detail
            assert 1 <= refusal.retry_after_s <= 60


async def test_callers_and_limits_are_counted_apart(url: str | None) -> None:
    async with counting(url) as quota:
        await spend(quota, caller())
        await refused(quota, caller())
        assert (await spend(quota, caller(name="key:you"), 1)).remaining == 2
        assert (await spend(quota, caller("5/minute"), 1)).remaining == 4


async def test_after_the_time_that_a_refusal_names_there_is_one_more(url: str | None) -> None:
    """The window is 1 s: whatever is named, then there is."""
    async with counting(url) as quota:
        who = caller("2/second")
        await spend(quota, who, 2)
        refusal = await refused(quota, who)
        assert refusal.retry_after_s == 1
        await asyncio.sleep(refusal.retry_after_s)
        await spend(quota, who, 1)


async def test_of_many_at_once_only_so_many_pass(url: str | None) -> None:
    async with counting(url) as quota:
        tries = (quota.count(caller("20/day")) for _ in range(100))
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(result, Standing) for result in results) == 20
        assert sum(isinstance(result, RateLimited) for result in results) == 80


async def test_a_standing_names_the_policy_and_spreads_what_is_left(url: str | None) -> None:
    async with counting(url) as quota:
        standing = await spend(quota, caller("4/2hour"), 1)
        assert (standing.policy.name, standing.policy.quota) == ("requests", 4)
        assert (standing.policy.window_s, standing.remaining) == (7200, 3)
        assert standing.resets_s in range(5400, 7201)
        await spend(quota, caller("4/2hour"), 3)
        refusal = await refused(quota, caller("4/2hour"))
        assert "limit of 4 requests per 2 hours" in refusal.detail
        assert quota.refused(caller("4/2hour"), refusal) == Standing(
            standing.policy, 0, refusal.retry_after_s
        )


async def test_the_window_slides() -> None:
    clock = [1000 * 60.0]
    limiter, item = limiting(MemoryWindows(lambda: clock[0])), parse("60/minute")
    for _ in range(60):
        assert await limiter.hit(item, "me")
    for second in range(60):  # until the window ends
        clock[0] = 1000 * 60.0 + second
        assert not await limiter.hit(item, "me")
    for second in range(1, 60):  # the one before fades out, one each second
        clock[0] = 1001 * 60.0 + second
        assert await limiter.hit(item, "me")
        assert not await limiter.hit(item, "me")
    clock[0] = 1003 * 60.0
    assert (await limiter.get_window_stats(item, "me")).remaining == 60


async def test_only_the_window_just_before_counts() -> None:
    clock = [0.0]
    limiter, item = limiting(MemoryWindows(lambda: clock[0])), parse("5/second")
    for now, left in ((0.0, 4), (1.0, 3), (3.0, 4)):
        clock[0] = now
        assert await limiter.hit(item, "me")
        assert (await limiter.get_window_stats(item, "me")).remaining == left


async def test_windows_that_are_over_are_forgotten() -> None:
    clock = [0.0]
    windows = MemoryWindows(lambda: clock[0])
    limiter = limiting(windows)
    for number in range(100):
        await limiter.hit(parse("5/minute"), f"{number}")
    await limiter.hit(parse("5/hour"), "me")
    clock[0] = 60.0 + SWEEP_S
    await limiter.hit(parse("5/minute"), "you")
    assert len(windows) == 2


# -- Redis ------------------------------------------------------------------------------------


async def test_workers_count_together(redis_server: RedisServer) -> None:
    url = own(redis_server.url)
    async with counting(url) as one, counting(url) as other:
        await spend(one, caller(), 2)
        assert (await spend(other, caller(), 1)).remaining == 0
        await refused(one, caller())
        await refused(other, caller())


async def test_names_in_redis_begin_with_the_prefix_tell_no_caller_and_expire(
    redis_server: RedisServer,
) -> None:
    url = own(redis_server.url)
    async with counting(url) as quota:
        await spend(quota, caller(name="token:}secret{"))
        with redis_server.client() as client:
            (name,) = client.keys(f"{Address(url).prefix}:{{requests/*")
            assert b"secret" not in name
            assert 0 < client.ttl(name) <= 120


async def test_both_windows_are_read_in_seconds(redis_server: RedisServer) -> None:
    windows = RedisWindows(redis_server.url, "test-windows")
    async with asyncio.timeout(BOUND_S):
        with redis_server.client() as client:
            client.set("test-windows:{me}/-1", 3, px=30_000)
            client.set("test-windows:{me}", 1, px=90_000)
        assert await windows.acquire_sliding_window_entry("me", 10, 60)
        before, before_s, count, count_s = await windows.get_sliding_window("me", 60)
        assert (before, round(before_s, -1), count, round(count_s, -1)) == (3, 30, 2, 90)
        await windows.acquire_sliding_window_entry("you", 10, 60)
        assert (await windows.get_sliding_window("me", 60))[2] == 2
        await windows.acquire_sliding_window_entry("me", 10, 60)
        await windows.get_sliding_window("you", 60)
        await windows.get_sliding_window("me", 60)
        assert not windows._seen
        await windows.aclose()


async def test_a_redis_that_forgot_its_scripts_is_used_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(requests, "RETRY_S", 0.0)
    with running_redis() as server:
        async with counting(own(server.url)) as quota:
            await spend(quota, caller(), 1)
            with server.client() as client:
                client.flushall()
                client.script_flush()
                await spend(quota, caller(), 2)  # one here, one there
                assert client.dbsize() == 1


async def test_requests_go_on_while_redis_is_away_and_are_limited_here(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with tcp_proxy(redis_server.url) as proxy, caplog.at_level(logging.INFO):
        async with counting(own(proxy.url)) as quota:
            await spend(quota, caller(), 2)
            proxy.refuse()
            proxy.cut()
            await spend(quota, caller())
            refusal = await refused(quota, caller())
            assert "3 requests per minute" in refusal.detail
    said = [record.getMessage() for record in caplog.records if record.name == requests.__name__]
    assert len(said) == 1
    assert "in this worker alone" in said[0]
    assert "127.0.0.1" not in said[0]


async def test_a_redis_that_does_not_answer_is_not_asked_by_each_request(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "CALL_S", 0.2)
    with tcp_proxy(redis_server.url) as proxy:
        async with counting(own(proxy.url)) as quota:
            await spend(quota, caller("100/minute"), 1)
            proxy.hold()
            await spend(quota, caller("100/minute"), 50)
            assert proxy.accepted == 1, "the first one has found out"
            assert proxy.held <= 1
            proxy.resume()


async def test_one_request_tries_whether_redis_is_back_and_the_others_do_not_wait(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "CALL_S", 0.2)
    monkeypatch.setattr(requests, "RETRY_S", 0.0)
    with tcp_proxy(redis_server.url) as proxy:
        async with counting(own(proxy.url)) as quota:
            proxy.hold()
            await spend(quota, caller("100/minute"), 1)
            monkeypatch.setattr(requests, "RETRY_S", 60.0)
            await asyncio.gather(*(quota.count(caller("100/minute")) for _ in range(20)))
            assert proxy.accepted == 2
            proxy.resume()


async def test_a_redis_that_is_back_counts_again(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(requests, "RETRY_S", 0.0)
    with tcp_proxy(redis_server.url) as proxy, caplog.at_level(logging.INFO):
        async with counting(own(proxy.url)) as quota:
            await spend(quota, caller("9/day"), 2)
            proxy.refuse()
            proxy.cut()
            await until(lambda: not proxy.connections)
            assert (await spend(quota, caller("9/day"), 4)).remaining == 5, "counted here"
            proxy.accept()
            for left in (6, 5):
                assert (await spend(quota, caller("9/day"), 1)).remaining == left
                monkeypatch.setattr(requests, "RETRY_S", 60.0)
    said = [record.getMessage() for record in caplog.records if record.name == requests.__name__]
    assert [text.partition(" in ")[2].split(":")[0] for text in said] == [
        "this worker alone",
        "Redis",
    ]


async def test_a_request_that_is_cancelled_leaves_no_answer_to_the_next(
    redis_server: RedisServer,
) -> None:
    async with counting(own(redis_server.url)) as quota:
        for passes in range(12):
            count = asyncio.ensure_future(quota.count(caller("1000/day")))
            for _ in range(passes):
                await asyncio.sleep(0)
            count.cancel()
            await asyncio.wait({count})
        before = await spend(quota, caller("1000/day"), 1)
        after = await spend(quota, caller("1000/day"), 1)
        assert after.remaining == before.remaining - 1


@pytest.mark.parametrize("url", ["http://host", "redis://host?nonsense=1", "redis://host:port"])
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="Redis"):
        RequestQuota(url, "gateway")
