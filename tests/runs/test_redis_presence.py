"""A worker that Redis does not hear of may have readers of which nobody knows."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.runs import redis_neighbours, redis_presence
from tests.redis_server import RedisServer
from tests.runs.redis_workers import BOUND_S, Worker, heard
from tests.runs.workers import eventually
from tests.tcp_proxy import TcpProxy

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_neighbours, "LOOK_AGAIN_S", 0.02)
    monkeypatch.setattr(redis_neighbours, "BEAT_S", 0.05)
    monkeypatch.setattr(redis_presence, "SILENT_S", 0.5)
    monkeypatch.setattr(redis_neighbours, "DOUBT_S", 0)


@asynccontextmanager
async def pair(server: RedisServer, proxy: TcpProxy) -> AsyncIterator[tuple[Worker, Worker]]:
    """The second one has its connections to Redis through the proxy."""
    prefix = f"?prefix=test-{secrets.token_hex(6)}"
    a, b = Worker(server.url + prefix, "a"), Worker(proxy.url + prefix, "b")
    async with a.live(), b.live():
        await heard(a)
        await heard(b)
        await known(a, b"a", b"b")
        yield a, b


async def known(worker: Worker, *names: bytes) -> None:
    """Until these workers and no others are said to be there."""
    async with asyncio.timeout(BOUND_S):
        while await _present(worker) != set(names):  # noqa: ASYNC110  # Redis tells nobody
            await asyncio.sleep(0.01)


async def _present(worker: Worker) -> set[bytes]:
    return set(await worker.link.call("ZRANGE", worker.link.keys.workers, 0, -1))


async def silent(worker: Worker) -> int:
    """How many workers cannot tell just now who reads there."""
    (count,) = await worker.link.calls([worker.neighbours._presence.silent()])
    return int(count)


async def eventually_silent(worker: Worker, count: int) -> None:
    async with asyncio.timeout(BOUND_S):
        while await silent(worker) != count:  # noqa: ASYNC110  # Redis tells nobody
            await asyncio.sleep(0.01)


async def test_a_run_lives_until_a_worker_that_was_cut_off_can_tell_of_its_readers(
    redis_server: RedisServer,
) -> None:
    proxy = TcpProxy(redis_server.url)
    try:
        async with pair(redis_server, proxy) as (a, b):
            moved, left = [await a.make(name) for name in ("moved", "left")]
            proxy.hold()
            await eventually(lambda: b.link.trouble is not None, BOUND_S)
            b.neighbours.reads(moved, yes=True)
            assert a.neighbours.look(moved)
            assert a.neighbours.look(left)
            await eventually_silent(a, 1)
            assert a.told == []
            proxy.resume()
            await eventually(lambda: {(moved, True), (left, None)} <= set(a.told), BOUND_S)
            assert (moved, None) not in a.told
    finally:
        proxy.stop()


async def test_a_worker_that_has_just_come_back_has_time_to_tell(
    redis_server: RedisServer,
) -> None:
    proxy = TcpProxy(redis_server.url)
    try:
        async with pair(redis_server, proxy) as (a, b):
            run = await a.make("run")
            proxy.hold()
            await eventually_silent(a, 1)
            proxy.resume()
            await b.link.reachable()
            beat = b.neighbours._beat
            await eventually(lambda: b.neighbours._beat > beat, BOUND_S)
            assert a.neighbours.look(run), "while nobody is silent any more"
            b.neighbours.reads(run, yes=True)
            await eventually(lambda: (run, True) in a.told, BOUND_S)
            assert (run, None) not in a.told
    finally:
        proxy.stop()


async def test_a_worker_that_is_dead_holds_up_others_for_a_lease(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_presence, "LEASE_S", 2.0)
    proxy = TcpProxy(redis_server.url)
    try:
        async with pair(redis_server, proxy) as (a, _):
            run = await a.make("run")
            proxy.refuse()
            proxy.cut()
            await eventually_silent(a, 1)
            assert a.neighbours.look(run)
            await eventually_silent(a, 0)
            await eventually(lambda: a.told == [(run, None)])
            proxy.accept()
    finally:
        proxy.stop()


async def test_a_worker_that_leaves_is_not_waited_for(redis_server: RedisServer) -> None:
    prefix = f"?prefix=test-{secrets.token_hex(6)}"
    a, b = Worker(redis_server.url + prefix, "a"), Worker(redis_server.url + prefix, "b")
    async with a.live():
        async with b.live():
            await known(a, b"a", b"b")
        await known(a, b"a")
