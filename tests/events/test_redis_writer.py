"""How a worker's runs get into Redis: in few commands, once, and not for ever."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from app.events.log import LogGone
from app.events.model import Event, RunRecord, Token
from app.events.packed import unpack
from app.events.redis_scripts import APPEND
from app.events.redis_shipment import BATCH_EVENTS
from tests.events.making import done, final, read_to_end, record, start
from tests.events.sharing import BOUND_S, Worker, shared_address, until, worker
from tests.redis_server import RedisServer
from tests.tcp_proxy import TcpProxy, tcp_proxy

pytestmark = pytest.mark.anyio


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[TcpProxy]:
    with tcp_proxy(redis_server.url) as proxy:
        yield proxy


async def stream(one: Worker, run: RunRecord) -> list[Any]:
    """The entries in Redis: their ids, and what is in them."""
    entries = await one.link.call("XRANGE", one.link.keys.log(run.run_id), "-", "+")
    return [(id_.decode(), unpack(blob)) for id_, (_, blob) in entries]


async def test_events_that_come_together_are_one_entry_under_their_last_number(
    redis_server: RedisServer,
) -> None:
    async with asyncio.timeout(BOUND_S), worker(shared_address(redis_server.url)) as one:
        run = await one.log.open(record())
        events: list[Event] = [start(run), *[Token(f"tok{at} ") for at in range(200)]]
        for event in events:
            one.log.append_now(run.run_id, [event])
        await one.log.append(run.run_id, [final("x"), done()])
        entries = await stream(one, run)
    numbers = [batch.last for _, batch in entries]
    assert [id_ for id_, _ in entries] == [f"1-{number}" for number in numbers]
    assert numbers == [BATCH_EVENTS, 2 * BATCH_EVENTS, 3 * BATCH_EVENTS, 201, 203]
    assert [event for _, batch in entries for event in batch.events][:201] == events


async def test_an_append_that_timed_out_after_it_succeeded_is_not_doubled(
    redis_server: RedisServer, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.events.redis_link.CALL_S", 0.3)
    address = shared_address(redis_server.url)
    through = address.replace(str(redis_server.port), str(proxy.port))
    async with asyncio.timeout(BOUND_S), worker(through) as one, worker(address) as other:
        run = await one.log.open(record())
        await one.log.append(run.run_id, [start(run)])
        await one.shipped()
        proxy.hold(requests=False)
        one.log.append_now(run.run_id, [Token("a"), Token("b")])
        await until(lambda: one.link.trouble is not None)
        found = await other.log.find(run.run_id)
        assert found is not None
        assert found.last_seq == 3, "it has succeeded, and nobody was told"
        proxy.resume()
        await one.link.reachable()
        await one.log.append(run.run_id, [Token("c"), final("abc"), done()])
        entries = await read_to_end(other.log, run.run_id)
        assert [entry.seq for entry in entries] == [1, 2, 3, 4, 5, 6]
        stored = await stream(other, run)
        assert [id_ for id_, _ in stored] == ["1-1", "1-3", "1-6"]


@pytest.mark.parametrize(
    ("epoch", "first", "last", "answer"),
    [
        (1, 2, 3, [b"doubled", 3]),
        (1, 3, 4, [b"doubled", 3]),
        (1, 5, 6, [b"refused", 3]),
        (2, 4, 5, [b"fenced", 3]),
        (1, 4, 3, [b"stored", 3]),
    ],
    ids=["again", "overlapping", "with a gap", "of another epoch", "only a look"],
)
async def test_an_append_that_is_not_stored_tells_why_and_publishes_nothing(
    redis_server: RedisServer, epoch: int, first: int, last: int, answer: list[Any]
) -> None:
    async with asyncio.timeout(BOUND_S), worker(shared_address(redis_server.url)) as one:
        run = await one.log.open(record())
        await one.log.append(run.run_id, [start(run), Token("a"), Token("b")])
        await one.shipped()
        before = await stream(one, run)
        keys = one.link.keys
        with redis_server.client() as client, client.pubsub() as listening:
            listening.subscribe(keys.events(run.run_id))
            assert listening.get_message(timeout=BOUND_S)
            told = await one.link.script(
                APPEND,
                [keys.run(run.run_id), keys.log(run.run_id)],
                *(keys.events(run.run_id), epoch, first, last, b"no batch", "", 0, ""),
            )
            client.publish(keys.events(run.run_id), "the end")
            message: Any = listening.get_message(timeout=BOUND_S)
        assert told == answer
        assert message["data"] == b"the end"
        assert await stream(one, run) == before


async def test_an_append_to_no_run_says_so(redis_server: RedisServer) -> None:
    async with asyncio.timeout(BOUND_S), worker(shared_address(redis_server.url)) as one:
        told = await one.link.script(APPEND, ["a", "b"], "c", 1, 1, 1, b"", "", 0, "")
        assert told == [b"gone", 0]
        assert await one.link.call("EXISTS", "b") == 0


async def test_nothing_stays_in_redis_for_ever(redis_server: RedisServer) -> None:
    address = shared_address(redis_server.url)
    async with asyncio.timeout(BOUND_S), worker(address, retention_s=0.3) as one:
        prefix = one.link.keys.prefix

        async def names() -> list[str]:
            return sorted(name.decode() for name in await one.link.call("KEYS", f"{prefix}:*"))

        run = await one.log.open(record("k"))
        one.log.append_now(run.run_id, [start(run)])
        await one.shipped()
        for name in await names():
            if name not in (one.link.keys.store, one.link.keys.leases):
                left_ms = await one.link.call("PTTL", name)
                assert 60_000 < left_ms < 200_000, f"{name}: run timeout, retention and some more"
        await one.log.append(run.run_id, [done("cancelled")])
        with pytest.raises(LogGone):
            await one.log.read(run.run_id, 2).read(BOUND_S)
        await asyncio.sleep(0.05)  # Redis may be a little behind our own memory
        assert await names() == [one.link.keys.store]
        assert await one.log.find(run.run_id) is None
        assert await one.log.holder("me", "k") is None


async def test_a_run_that_could_not_be_opened_leaves_nothing_in_redis(
    redis_server: RedisServer, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.events.redis_link.CALL_S", 0.3)
    address = shared_address(redis_server.url)
    through = address.replace(str(redis_server.port), str(proxy.port))
    async with asyncio.timeout(BOUND_S), worker(through) as one, worker(address) as other:
        proxy.hold(requests=False)
        with pytest.raises(Exception, match="cannot be reached"):
            await one.log.open(record("k"))
        proxy.resume()
        await one.link.reachable()
        await until(lambda: not one.log._shipper._debris)
        left = await other.link.call("KEYS", f"{other.link.keys.prefix}:*")
        assert left == [other.link.keys.store.encode()]


async def test_starts_with_one_key_on_two_workers_at_once_open_one_run(
    redis_server: RedisServer,
) -> None:
    address = shared_address(redis_server.url)
    async with asyncio.timeout(BOUND_S), worker(address) as one, worker(address) as other:
        runs = [record("k") for _ in range(40)]
        opened = ((one, other)[at % 2].log.open(run) for at, run in enumerate(runs))
        holders = await asyncio.gather(*opened)
        assert len({holder.run_id for holder in holders}) == 1
        begun = [run for run in runs if await one.log.find(run.run_id)]
        assert begun == [holders[0]]
        assert await one.link.call("ZRANGE", one.link.keys.leases, 0, -1) == [
            begun[0].run_id.encode()
        ]


async def test_a_key_whose_run_is_gone_can_be_had(redis_server: RedisServer) -> None:
    async with asyncio.timeout(BOUND_S), worker(shared_address(redis_server.url)) as one:
        key = one.link.keys.idempotency("me", "k")
        await one.link.call("SET", key, "of a run that nobody knows")
        assert await one.log.holder("me", "k") is None
        run = await one.log.open(record("k"))
        assert await one.log.holder("me", "k") == run


async def test_a_run_whose_keys_somebody_meddled_with_holds_up_no_other(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.events.redis_patience.LEASE_S", 0.2)
    monkeypatch.setattr("app.events.redis_patience.AWAKE_S", 0.2)
    monkeypatch.setattr("app.events.redis_writer.PAUSE_S", 0.02)
    address = shared_address(redis_server.url)
    async with asyncio.timeout(BOUND_S), worker(address) as one, worker(address) as other:
        bad, good = await one.log.open(record()), await one.log.open(record())
        await one.link.call("SET", one.link.keys.log(bad.run_id), "no stream")
        for run in (bad, good):
            one.log.append_now(run.run_id, [start(run)])
        await one.log.append(good.run_id, [Token("a"), done()])
        assert [entry.seq for entry in await read_to_end(other.log, good.run_id)] == [1, 2, 3]
        await one.log.append(bad.run_id, [done("cancelled")])
        assert len(await read_to_end(one.log, bad.run_id)) == 2, "its readers here get their ending"
        await until(lambda: not one.makes(bad.run_id))
        assert one.link.trouble is None
