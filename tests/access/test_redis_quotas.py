"""Quotas in Redis: the contract on one worker and across several, and workers that die or sleep.
Redis away: test_redis_quotas_away.py."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest

from app.access.model import Limits
from app.access.quotas import DAY_S, Quotas
from app.access.redis_quotas import RedisQuotas
from app.access.redis_scripts import SAY
from app.events.redis_link import Link
from tests.access.quota_workers import Across, Worker, working
from tests.access.quotas_contract import (
    BOTH,
    BOUND_S,
    DAILY,
    Clock,
    QuotasContract,
    left,
    refused,
    runs,
)
from tests.access.random_slots import Several, play
from tests.events.linked import own, until
from tests.redis_server import RedisServer

pytestmark = pytest.mark.anyio
ROUNDS = 500
ONE = Limits(max_runs=1)
LEASE_S, RENEW_S = 1.0, 0.1


class TestOnItsOwnWorker(QuotasContract):
    @pytest.fixture
    async def quotas(self, redis_server: RedisServer, clock: Clock) -> AsyncIterator[Quotas]:
        worker = Worker(own(redis_server.url), clock=clock)
        async with working(worker):
            yield worker.quotas


class TestAcrossWorkers(QuotasContract):
    @pytest.fixture
    async def quotas(self, redis_server: RedisServer, clock: Clock) -> AsyncIterator[Quotas]:
        address = own(redis_server.url)
        workers = [Worker(address, clock=clock) for _ in range(3)]
        async with working(*workers):
            yield Across([worker.quotas for worker in workers])


def pair(server: RedisServer, clock: Clock | None = None) -> tuple[Worker, Worker]:
    """With short leases."""
    address = own(server.url)
    one, other = (
        Worker(address, lease_s=LEASE_S, renew_s=RENEW_S, clock=clock or Clock()) for _ in range(2)
    )
    return one, other


async def begins(worker: Worker, run_id: str, limits: Limits = ONE) -> None:
    """As soon as there is a slot."""
    while True:
        try:
            return await worker.quotas.begin("me", run_id, limits)
        except Exception:  # noqa: BLE001  # the test's bound says what hung
            await asyncio.sleep(0.01)


async def lease_end(worker: Worker, run_id: str) -> float:
    """In seconds of Redis's clock."""
    score = await worker.link.call("ZSCORE", worker.link.keys.slots("me"), run_id)
    return float(score) / 1000


async def test_a_caller_without_limits_costs_no_call() -> None:
    link = Link("redis://127.0.0.1:1")  # it would raise
    quotas = RedisQuotas(link, "w")
    await quotas.begin("me", "a", Limits(rate="1/day"))
    quotas.count("me", "a", 1)
    quotas.end("me", "a")
    assert list(await quotas.standing("me", Limits())) == []
    assert not quotas._work.is_set()


async def test_a_slot_is_free_for_the_same_worker_as_soon_as_it_is_given_back(
    redis_server: RedisServer,
) -> None:
    worker = Worker(own(redis_server.url))
    async with asyncio.timeout(BOUND_S), working(worker):
        for number in range(200):
            await worker.quotas.begin("me", f"{number}", ONE)
            worker.quotas.end("me", f"{number}")


async def test_a_killed_workers_slots_are_free_once_its_leases_are_over(
    redis_server: RedisServer,
) -> None:
    dead, other = pair(redis_server)
    async with asyncio.timeout(BOUND_S), working(other):
        await dead.start()
        await dead.quotas.begin("me", "a", ONE)
        await dead.crash()
        await refused(other.quotas, "b", ONE)
        over = await lease_end(other, "a")
        await begins(other, "b")
        assert await lease_end(other, "b") >= over + LEASE_S
        assert await other.quotas.running("me") == 1


async def test_a_lease_is_renewed_as_long_as_its_run_runs(redis_server: RedisServer) -> None:
    one, other = pair(redis_server)
    async with asyncio.timeout(BOUND_S), working(one, other):
        await one.quotas.begin("me", "a", ONE)
        began = await lease_end(one, "a")
        while await lease_end(one, "a") < began + 2 * LEASE_S:
            await refused(other.quotas, "b", ONE)
            assert await other.quotas.running("me") == 1
            await asyncio.sleep(0.01)


async def test_what_is_given_back_is_never_renewed_again(redis_server: RedisServer) -> None:
    worker = Worker(own(redis_server.url), renew_s=0.0)  # all the time
    many = Limits(max_runs=1000)
    async with asyncio.timeout(BOUND_S), working(worker):
        for number in range(300):
            await worker.quotas.begin("me", f"{number}", many)
            await asyncio.sleep(0)
            worker.quotas.end("me", f"{number}")
        await runs(worker.quotas, 0)
        held = ("ZCARD", worker.link.keys.slots("me"))
        for _ in range(20):
            assert await worker.link.call(*held) == 0


async def test_a_worker_that_slept_for_longer_has_its_slots_again_and_nobody_more(
    redis_server: RedisServer,
) -> None:
    sleeper, other = pair(redis_server)
    two = Limits(max_runs=2)
    async with asyncio.timeout(BOUND_S), working(other):
        await sleeper.start()
        for run_id in ("a", "b"):
            await sleeper.quotas.begin("me", run_id, two)
        await sleeper.freeze()
        for run_id in ("c", "d"):
            await begins(other, run_id, two)
        await sleeper.start()
        await runs(other.quotas, 4)
        for run_id in ("a", "c"):
            await refused(other.quotas, "e", two)
            (sleeper if run_id == "a" else other).quotas.end("me", run_id)
        await runs(other.quotas, 2)
        await refused(other.quotas, "e", two)
        sleeper.quotas.end("me", "b")
        await begins(other, "e", two)
        await sleeper.stop()


async def test_a_worker_that_has_just_come_declares_no_lease_over(
    redis_server: RedisServer,
) -> None:
    dead, young = pair(redis_server)
    async with asyncio.timeout(BOUND_S):
        await dead.start()
        await dead.quotas.begin("me", "a", ONE)
        over = await lease_end(dead, "a")
        await dead.crash()
        with redis_server.client() as client:
            await until(lambda: client.time()[0] > over)
        async with working(young):
            assert await young.quotas.running("me") == 0
            await refused(young.quotas, "b", ONE)
            await begins(young, "b")


async def test_a_begin_that_is_cancelled_takes_nothing(redis_server: RedisServer) -> None:
    worker = Worker(own(redis_server.url))
    async with asyncio.timeout(BOUND_S), working(worker):
        for passes in range(40):
            begin = asyncio.ensure_future(worker.quotas.begin("me", f"{passes}", ONE))
            for _ in range(passes % 8):
                await asyncio.sleep(0)
            begin.cancel()
            await asyncio.wait({begin})
            if not begin.cancelled():
                worker.quotas.end("me", f"{passes}")
            await runs(worker.quotas, 0)


async def test_estimates_reach_other_workers_while_a_run_runs(redis_server: RedisServer) -> None:
    one, other = pair(redis_server)
    async with asyncio.timeout(BOUND_S), working(one, other):
        await one.quotas.begin("me", "a", BOTH)
        one.quotas.count("me", "a", 50)
        await left(one.quotas, 50)
        await left(other.quotas, 50)
        await other.quotas.begin("me", "b", DAILY)
        other.quotas.count("me", "b", -20)
        await left(one.quotas, 70)
        other.quotas.count("me", "b", 20)
        one.quotas.count("me", "a", 50)
        await left(other.quotas, 0)
        await refused(other.quotas, "c", DAILY)


async def test_a_total_that_comes_late_changes_nothing(redis_server: RedisServer) -> None:
    worker = Worker(own(redis_server.url))
    async with asyncio.timeout(BOUND_S), working(worker):
        key = worker.link.keys.tokens("me", 1) + secrets.token_hex(4)
        for serial, tokens in ((9, 10), (10, 20), (8, 99), (10, 99)):
            await worker.link.script(SAY, [key], "w", serial, tokens, 10_000)
        assert await worker.link.call("HGET", key, "w") == b"10 20"


async def test_what_is_kept_in_redis_expires(redis_server: RedisServer) -> None:
    clock = Clock()
    worker = Worker(own(redis_server.url), renew_s=60.0, clock=clock)
    async with asyncio.timeout(BOUND_S), working(worker):
        keys, day = worker.link.keys, int(clock.now // DAY_S)
        for run_id in ("a", "b"):
            await worker.quotas.begin("me", run_id, BOTH)
        worker.quotas.count("me", "a", 1)
        worker.quotas.end("me", "a")
        await until(lambda: not worker.quotas._unsaid)
        lives_ms = await worker.link.call("PTTL", keys.tokens("me", day))
        assert DAY_S < lives_ms / 1000 <= 2 * DAY_S
        assert 0 < await worker.link.call("PTTL", keys.slots("me")) <= 3_600_000


async def test_callers_with_nothing_running_and_an_old_day_are_forgotten(
    redis_server: RedisServer,
) -> None:
    clock = Clock()
    worker, _ = pair(redis_server, clock)
    async with asyncio.timeout(BOUND_S), working(worker):
        for number in range(20):
            await worker.quotas.begin(f"{number}", "a", BOTH)
            worker.quotas.count(f"{number}", "a", 1)
            worker.quotas.end(f"{number}", "a")
        clock.now += DAY_S
        await until(lambda: not _kept(worker.quotas))


async def test_no_slot_is_left_after_random_starts_cancels_timeouts_and_crashes(
    redis_server: RedisServer,
) -> None:
    tally = await play(Several(own(redis_server.url)), ROUNDS)
    assert tally.keys() >= {"refused", "completed", "cancelled", "timed out", "failed", "killed"}


def _kept(quotas: RedisQuotas) -> list[object]:
    return [*quotas._held, *quotas._returned, *quotas._counted, *quotas._tokens, *quotas._unsaid]
