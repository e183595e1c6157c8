"""Quotas in Redis while it is away, slow, restarted or emptied."""

import asyncio

import pytest

from app.access.model import Limits
from app.errors import StoreAway
from tests.access.quota_workers import Worker, working
from tests.access.quotas_contract import BOTH, BOUND_S, DAILY, Clock, left, refused, runs
from tests.access.test_redis_quotas import LEASE_S, ONE, RENEW_S, begins, lease_end
from tests.events.linked import own, until
from tests.redis_server import RedisServer, running_redis
from tests.tcp_proxy import TcpProxy, tcp_proxy

pytestmark = pytest.mark.anyio
TWO = Limits(max_runs=2)


async def away(worker: Worker) -> None:
    await until(lambda: worker.link.trouble)


def behind(proxy: TcpProxy, *, lease_s: float = 20.0) -> Worker:
    return Worker(own(proxy.url), lease_s=lease_s, renew_s=RENEW_S, clock=Clock())


async def test_no_run_begins_while_redis_is_away(redis_server: RedisServer) -> None:
    with tcp_proxy(redis_server.url) as proxy:
        worker = behind(proxy)
        async with asyncio.timeout(BOUND_S), working(worker):
            await worker.quotas.begin("me", "a", BOTH)
            proxy.refuse()
            proxy.cut()
            await away(worker)
            with pytest.raises(StoreAway):
                await worker.quotas.begin("me", "b", BOTH)
            assert not worker.quotas._returned, "an outage fills no memory"
            with pytest.raises(StoreAway):
                await worker.quotas.running("me")
            assert list(await worker.quotas.standing("me", BOTH)) == []
            proxy.accept()
            await worker.link.reachable()
            await runs(worker.quotas, 1)
            await worker.quotas.begin("me", "b", BOTH)


async def test_what_ends_while_redis_is_away_is_given_back_when_it_is_back(
    redis_server: RedisServer,
) -> None:
    with tcp_proxy(redis_server.url) as proxy:
        worker = behind(proxy)
        async with asyncio.timeout(BOUND_S), working(worker):
            for run_id in ("a", "b"):
                await worker.quotas.begin("me", run_id, TWO)
            proxy.refuse()
            proxy.cut()
            await away(worker)
            worker.quotas.end("me", "a")
            proxy.accept()
            await worker.link.reachable()
            await runs(worker.quotas, 1)
            assert await lease_end(worker, "b") > 0


async def test_a_begin_whose_answer_is_lost_holds_nothing(redis_server: RedisServer) -> None:
    with tcp_proxy(redis_server.url) as proxy:
        worker = behind(proxy)
        async with asyncio.timeout(BOUND_S), working(worker):
            await runs(worker.quotas, 0)
            proxy.hold(requests=False)
            begin = asyncio.ensure_future(worker.quotas.begin("me", "a", ONE))
            with redis_server.client() as client:
                await until(lambda: client.zcard(worker.link.keys.slots("me")))
            proxy.cut()
            with pytest.raises(StoreAway):
                await begin
            proxy.resume()
            await worker.link.reachable()
            await runs(worker.quotas, 0)
            await worker.quotas.begin("me", "a", ONE)


async def test_tokens_whose_answers_are_lost_are_neither_lost_nor_doubled(
    redis_server: RedisServer,
) -> None:
    with tcp_proxy(redis_server.url) as proxy, redis_server.client() as client:
        worker = Worker(own(proxy.url), renew_s=60.0, clock=Clock())
        key = worker.link.keys.tokens("me", 20_000)

        def told() -> list[bytes]:
            return [value.split()[1] for value in client.hvals(key)]

        async with asyncio.timeout(BOUND_S), working(worker):
            for total in (b"10", b"20", b"30"):
                await worker.quotas.begin("me", f"to {total!r}", DAILY)
                proxy.hold(requests=False)
                worker.quotas.count("me", f"to {total!r}", 10)
                worker.quotas.end("me", f"to {total!r}")
                await until(lambda: told() == [total])  # noqa: B023  # asked in this round only
                proxy.cut()
                await away(worker)
                proxy.resume()
                await worker.link.reachable()
                await until(lambda: not worker.quotas._unsaid)
                assert told() == [total]
            await left(worker.quotas, 70)


async def test_tokens_counted_while_others_are_on_their_way_are_not_lost(
    redis_server: RedisServer,
) -> None:
    with tcp_proxy(redis_server.url) as proxy, redis_server.client() as client:
        worker = Worker(own(proxy.url), renew_s=60.0, clock=Clock())
        key = worker.link.keys.tokens("me", 20_000)
        async with asyncio.timeout(BOUND_S), working(worker):
            for run_id in ("a", "b"):
                await worker.quotas.begin("me", run_id, DAILY)
            proxy.hold(requests=False)
            worker.quotas.count("me", "a", 10)
            worker.quotas.end("me", "a")
            await until(lambda: client.hlen(key))
            worker.quotas.count("me", "b", 5)
            worker.quotas.end("me", "b")
            proxy.resume()
            await until(lambda: any(value.endswith(b" 15") for value in client.hvals(key)))


async def test_tokens_counted_while_redis_is_away_are_not_lost(redis_server: RedisServer) -> None:
    with tcp_proxy(redis_server.url) as proxy:
        worker = behind(proxy)
        async with asyncio.timeout(BOUND_S), working(worker):
            await worker.quotas.begin("me", "a", DAILY)
            proxy.refuse()
            proxy.cut()
            await away(worker)
            worker.quotas.count("me", "a", 40)
            worker.quotas.count("me", "a", 2)
            worker.quotas.end("me", "a")
            proxy.accept()
            await worker.link.reachable()
            with redis_server.client() as client:
                key = worker.link.keys.tokens("me", 20_000)
                await until(lambda: any(v.endswith(b" 42") for v in client.hvals(key)))


async def test_after_an_outage_nobody_declares_the_leases_of_others_over(
    redis_server: RedisServer,
) -> None:
    """It took longer than a lease: all have lapsed, and one worker is back before the other."""
    with tcp_proxy(redis_server.url) as one_way, tcp_proxy(redis_server.url) as other_way:
        one = behind(one_way, lease_s=LEASE_S)
        prefix = one.link.keys.prefix
        other = Worker(f"{other_way.url}?prefix={prefix}", lease_s=LEASE_S, renew_s=RENEW_S)
        async with asyncio.timeout(BOUND_S), working(one, other):
            await one.quotas.begin("me", "a", ONE)
            for proxy in (one_way, other_way):
                proxy.refuse()
                proxy.cut()
            await away(one)
            await away(other)
            with redis_server.client() as client:
                key = one.link.keys.slots("me")
                over = client.zscore(key, "a")
                assert isinstance(over, float)
                await until(lambda: client.time()[0] * 1000 > over)
            other_way.accept()
            await other.link.reachable()
            await refused(other.quotas, "b", ONE)
            one_way.accept()
            await one.link.reachable()
            await runs(other.quotas, 1)
            await refused(other.quotas, "b", ONE)


async def test_slots_and_tokens_are_written_again_where_redis_comes_back_empty() -> None:
    with running_redis() as server:
        worker = Worker(own(server.url), renew_s=60.0, clock=Clock())
        async with asyncio.timeout(BOUND_S), working(worker):
            await worker.quotas.begin("me", "a", BOTH)
            await worker.quotas.begin("me", "gone", BOTH)
            worker.quotas.count("me", "gone", 42)
            worker.quotas.end("me", "gone")
            await runs(worker.quotas, 1)
            server.kill()
            await away(worker)
            server.start()
            await worker.link.reachable()
            with pytest.raises(StoreAway):
                await worker.quotas.begin("me", "b", TWO)  # others may hold slots too
            await runs(worker.quotas, 1)
            with server.client() as client:
                key = worker.link.keys.tokens("me", 20_000)
                await until(lambda: any(v.endswith(b" 42") for v in client.hvals(key)))
            await begins(worker, "b", TWO)
            await refused(worker.quotas, "c", TWO)


async def test_at_exit_everything_is_given_back(redis_server: RedisServer) -> None:
    address = own(redis_server.url)
    leaving, staying = Worker(address, clock=Clock()), Worker(address, clock=Clock())
    async with asyncio.timeout(BOUND_S), working(staying):
        async with working(leaving):
            await leaving.quotas.begin("me", "a", BOTH)
            leaving.quotas.count("me", "a", 42)
        assert await staying.quotas.running("me") == 0
        await left(staying.quotas, 58)
