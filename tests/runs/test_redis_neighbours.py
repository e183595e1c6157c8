"""Workers that talk to each other through a real Redis: readers, stops, conversations."""

import asyncio

import pytest

from app.runs import redis_neighbours
from app.runs.neighbours import Talker
from app.runs.redis_talks import RedisTalks
from tests.redis_server import RedisServer
from tests.runs.redis_workers import KEEP_S, PLACE, Worker, pair
from tests.runs.workers import eventually

pytestmark = pytest.mark.anyio


async def test_the_first_and_the_last_reader_elsewhere_are_told(redis_server: RedisServer) -> None:
    async with pair(redis_server) as (a, b):
        run = await a.make("r")
        b.neighbours.reads(run, yes=True)
        await eventually(lambda: a.told == [(run, True)])
        b.neighbours.reads(run, yes=True)
        b.neighbours.reads(run, yes=False)
        b.neighbours.reads(run, yes=False)
        await eventually(lambda: a.told == [(run, True), (run, False)])


async def test_a_reader_that_was_gone_before_it_was_told_is_told_all_the_same(
    redis_server: RedisServer,
) -> None:
    async with pair(redis_server) as (a, b):
        run = await a.make("r")
        b.neighbours.reads(run, yes=True)
        b.neighbours.reads(run, yes=False)
        await eventually(lambda: a.told == [(run, False)])


async def test_a_reader_that_was_announced_counts_before_it_reads(
    redis_server: RedisServer,
) -> None:
    async with pair(redis_server) as (a, b):
        run = await a.make("r")
        await b.neighbours.announce(run)
        assert a.neighbours.look(run)
        await eventually(lambda: (run, True) in a.told)
        assert (run, None) not in a.told


async def test_readers_of_one_worker_do_not_hide_those_of_another(
    redis_server: RedisServer,
) -> None:
    async with pair(redis_server) as (a, b):
        c = Worker(f"{redis_server.url}?prefix={a.link.keys.prefix}", "c")
        async with c.live():
            run = await a.make("r")
            b.neighbours.reads(run, yes=True)
            c.neighbours.reads(run, yes=True)
            await eventually(lambda: len(a.told) == 2)
            b.neighbours.reads(run, yes=False)
            await eventually(lambda: a.told == [(run, True)] * 3)
        await eventually(lambda: a.told[3:] == [(run, False)])  # c gave back what it claimed


async def test_looking_finds_who_reads_and_who_never_did(redis_server: RedisServer) -> None:
    async with pair(redis_server) as (a, b):
        run, other = await a.make("r"), await a.make("other")
        b.neighbours.reads(run, yes=True)
        await eventually(lambda: a.told == [(run, True)])
        assert a.neighbours.look(run)
        assert a.neighbours.look(other)
        await eventually(lambda: set(a.told[1:]) == {(run, True), (other, None)})


async def test_runs_that_have_ended_or_are_our_own_are_not_claimed(
    redis_server: RedisServer,
) -> None:
    async with pair(redis_server) as (a, b):
        ended, own, last = await a.make("ended"), await b.make("own"), await a.make("last")
        await a.end(ended)
        for run in (ended, own, last):
            b.neighbours.reads(run, yes=True)
        await eventually(lambda: a.told == [(last, True)])
        assert await a.link.call("EXISTS", *map(a.link.keys.readers, (ended, own))) == 0


async def test_a_run_that_is_not_there_yet_is_claimed_once_it_is(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_neighbours, "RENEW_S", 0.05)
    async with pair(redis_server) as (a, b):
        b.neighbours.reads("r", yes=True)
        await eventually(lambda: not b.neighbours._changed)
        await a.make("r")
        await eventually(lambda: a.told == [("r", True)])


async def test_a_claim_is_renewed_and_looked_at_as_long_as_it_is_held(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_neighbours, "RENEW_S", 0.05)
    monkeypatch.setattr(redis_neighbours, "LEASE_S", 0.3)
    async with pair(redis_server) as (a, b):
        run = await a.make("r")
        b.neighbours.reads(run, yes=True)
        await eventually(lambda: len(a.told) > 15)  # for longer than one lease
        assert set(a.told) == {(run, True)}
        b.neighbours._readers.clear()  # b is as good as dead
        b.neighbours._claimed.clear()
        await eventually(lambda: a.told[-1] == (run, False))
        count = len(a.told)
        a.neighbours.look(run)
        await eventually(lambda: len(a.told) == count + 1)


async def test_a_lapsed_claim_counts_until_its_worker_had_time_to_renew_it(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(redis_server) as (a, _):
        run = await a.make("r")
        await a.link.call("ZADD", a.link.keys.readers(run), 1, "dead")
        a.neighbours.look(run)
        await eventually(lambda: a.told == [(run, None)])  # connected for less than a lease
        monkeypatch.setattr(redis_neighbours, "LEASE_S", 0.01)
        await asyncio.sleep(0.02)
        a.neighbours.look(run)
        await eventually(lambda: a.told[1:] == [(run, False)])


async def test_a_claim_that_is_gone_with_its_worker_is_missed(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(redis_server) as (a, b):
        run = await a.make("r")
        b.neighbours.reads(run, yes=True)
        await eventually(lambda: a.told == [(run, True)])
        await a.link.call("DEL", a.link.keys.readers(run))
        a.neighbours.look(run)
        await eventually(lambda: a.told[1:] == [(run, None)])
        monkeypatch.setattr(redis_neighbours, "LEASE_S", 0)
        a.neighbours.look(run)
        a.neighbours.look("never read")
        await eventually(lambda: set(a.told[2:]) == {(run, False), ("never read", None)})


async def test_a_worker_that_was_cut_off_alone_claims_again_and_says_so(
    redis_server: RedisServer,
) -> None:
    async with pair(redis_server) as (a, b):
        run = await a.make("r")
        b.neighbours.reads(run, yes=True)
        await eventually(lambda: a.told == [(run, True)])
        await a.link.call("ZADD", a.link.keys.readers(run), 0, "b")
        a.neighbours.look(run)
        await eventually(lambda: a.told[1:] == [(run, False)])
        b.neighbours._returned()
        await eventually(lambda: a.told[2:] == [(run, True)])


async def test_a_stop_reaches_the_worker_that_makes_the_run(redis_server: RedisServer) -> None:
    async with pair(redis_server) as (a, b):
        run = await a.make("r")
        assert await b.neighbours.stop(run) is True
        await eventually(lambda: a.stopped == [run])
        assert await a.neighbours.stop(run) is False
        assert await b.neighbours.stop("unknown") is False


async def test_what_is_none_of_our_messages_is_not_heeded(redis_server: RedisServer) -> None:
    async with pair(redis_server) as (a, b):
        for message in (b"", b"\xff\xfe", b"stop", b"other r", b"readers"):
            await b.link.call("PUBLISH", b.link.keys.worker("a"), message)
        run = await a.make("r")
        await b.neighbours.stop(run)
        await eventually(lambda: a.stopped[-1:] == [run])


# -- conversations ------------------------------------------------------------------------------


async def test_one_run_talks_in_a_conversation(redis_server: RedisServer) -> None:
    async with pair(redis_server) as (a, b):
        assert await a.neighbours.talks.claim(*PLACE, "r1", None) is None
        assert await a.neighbours.talks.claim(*PLACE, "r1", None) is None, "asked twice"
        held = await b.neighbours.talks.claim(*PLACE, "r2", None)
        assert isinstance(held, Talker)
        assert (held.run_id, held.age_s < 5) == ("r1", True)
        assert await b.talker() == "r1"
        assert await b.neighbours.talks.claim("somebody else", PLACE[1], "r2", None) is None
        assert await b.neighbours.talks.claim(*PLACE, "r2", "r1") is None
        a.neighbours.talks.release(*PLACE, "r1")  # not its own any more
        await eventually(lambda: not a.neighbours.talks._released)
        assert await a.talker() == "r2"
        b.neighbours.talks.release(*PLACE, "r2")
        await eventually(lambda: not b.neighbours.talks._released)
        assert await a.talker() is None


async def test_what_is_released_meanwhile_is_not_forgotten(redis_server: RedisServer) -> None:
    async with pair(redis_server) as (a, _):
        talks = RedisTalks(a.link, KEEP_S, lambda: None)
        for name in ("one", "two"):
            assert await talks.claim("me", name, "r", None) is None
        talks.release("me", "one", "r")
        flushing = asyncio.ensure_future(talks.flush())
        await asyncio.sleep(0)
        talks.release("me", "two", "r")
        await flushing
        assert [await a.talker(("me", name)) for name in ("one", "two")] == [None, "r"]
        await talks.flush()
        assert await a.talker(("me", "two")) is None


async def test_everything_that_is_kept_expires(redis_server: RedisServer) -> None:
    async with pair(redis_server) as (a, b):
        run = await a.make("r")
        await a.neighbours.talks.claim(*PLACE, run, None)
        b.neighbours.reads(run, yes=True)
        await eventually(lambda: a.told == [(run, True)])
        keys = a.link.keys
        for key in (keys.readers(run), keys.talk(*PLACE)):
            assert 0 < await a.link.call("PTTL", key) <= KEEP_S * 1000
