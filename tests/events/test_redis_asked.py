"""Cursors ahead of Redis: the writer is asked how far it is, and says so once that is stored."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from app.events.model import RunRecord, Snapshot, Token
from app.events.redis_scripts import APPEND
from tests.events.making import done, record, start
from tests.events.sharing import BOUND_S, Worker, shared_address, until, worker
from tests.redis_server import RedisServer
from tests.tcp_proxy import TcpProxy, tcp_proxy

pytestmark = pytest.mark.anyio


@pytest.fixture
async def address(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """Who gets no answer soon gives up."""
    monkeypatch.setattr("app.events.redis.ASK_S", 0.3)
    async with asyncio.timeout(BOUND_S):
        yield shared_address(redis_server.url)


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[TcpProxy]:
    with tcp_proxy(redis_server.url) as proxy:
        yield proxy


async def begun(one: Worker) -> RunRecord:
    """Two events."""
    run = await one.log.open(record())
    await one.log.append(run.run_id, [start(run), Token("a")])
    await one.shipped()
    return run


async def noted(one: Worker, run: RunRecord) -> str | None:
    told = await one.link.call("HGET", one.link.keys.run(run.run_id), "asked")
    return told.decode() if told else None


def short(found: Snapshot | None) -> tuple[int, bool]:
    assert found is not None
    return found.last_seq, found.lags


async def test_a_lease_that_is_renewed_meanwhile_is_no_answer(address: str) -> None:
    async with worker(address) as one:
        async with worker(address) as silent:
            run = await begun(silent)
        asking = asyncio.ensure_future(one.log.find(run.run_id, 5))
        lease = 10**15
        while not asking.done():
            lease += 1
            await one.link.call("ZADD", one.link.keys.leases, lease, run.run_id)
        assert short(await asking) == (2, True), "nobody knows what its readers saw"


async def test_what_others_asked_before_is_no_answer(address: str) -> None:
    async with worker(address) as one:
        async with worker(address) as silent:
            run = await begun(silent)
        await one.link.call("HSET", one.link.keys.run(run.run_id), "asked", "other and-another")
        assert short(await one.log.find(run.run_id, 5)) == (2, True)


async def test_many_who_ask_at_once_are_all_answered(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.events.redis.ASK_S", BOUND_S)
    async with worker(address) as one, worker(address) as writer:
        run = await begun(writer)
        found = await asyncio.gather(*(one.log.find(run.run_id, 5) for _ in range(20)))
        assert {short(each) for each in found} == {(2, False)}
        await writer.log.append(run.run_id, [done("cancelled")])


@pytest.mark.parametrize(
    ("last", "answer", "is_noted"),
    [(2, [b"stored", 2], True), (3, [b"refused", 2], False), (1, [b"doubled", 2], False)],
    ids=["all is stored", "something is missing", "from long ago"],
)
async def test_a_question_is_noted_only_where_all_that_comes_before_is_stored(
    address: str, last: int, answer: list[object], is_noted: bool
) -> None:
    async with worker(address) as one:
        run = await begun(one)
        keys = one.link.keys
        told = await one.link.script(
            APPEND,
            [keys.run(run.run_id), keys.log(run.run_id)],
            *(keys.events(run.run_id), 1, last + 1, last, b"", "", 0, "me"),
        )
        assert told == answer
        assert await noted(one, run) == ("me" if is_noted else None)


async def test_a_question_that_comes_while_something_is_under_way_is_answered(
    redis_server: RedisServer, address: str, proxy: TcpProxy
) -> None:
    through = address.replace(str(redis_server.port), str(proxy.port))
    async with worker(address) as one, worker(through) as writer:
        run = await begun(writer)
        proxy.hold(requests=False)
        writer.log.append_now(run.run_id, [Token("b")])
        while await one.link.call("XLEN", one.link.keys.log(run.run_id)) < 2:
            pass
        writer.log._shipper.answer(run.run_id, "me")
        await until(lambda: proxy.held > 0)
        proxy.resume()
        while await noted(one, run) != "me":
            pass
        await writer.log.append(run.run_id, [done("cancelled")])


async def test_a_question_about_what_is_not_sent_yet_is_answered_behind_it(address: str) -> None:
    async with worker(address) as one, worker(address) as writer:
        run = await begun(writer)
        for text in "bcd":
            writer.log.append_now(run.run_id, [Token(text)])
        writer.log._shipper.answer(run.run_id, "me")
        assert await noted(one, run) is None
        while await noted(one, run) != "me":
            pass
        assert short(await one.log.find(run.run_id)) == (5, False)
        await writer.log.append(run.run_id, [done("cancelled")])
