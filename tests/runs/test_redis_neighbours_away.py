"""Redis goes away and comes back, with its data or without."""

import time

import pytest

from app.errors import StoreAway
from app.runs import redis_neighbours
from app.runs.run import Cancelled
from tests.events.making import record
from tests.redis_server import running_redis
from tests.runs.fakes import lone_run
from tests.runs.redis_workers import BOUND_S, PLACE, Worker, pair
from tests.runs.workers import eventually

pytestmark = pytest.mark.anyio


async def test_what_happens_while_redis_is_away_is_told_when_it_is_back() -> None:
    with running_redis() as server:
        async with pair(server) as (a, b):
            run, left, brief = [await a.make(name) for name in ("r", "left", "brief")]
            b.neighbours.reads(left, yes=True)
            await eventually(lambda: a.told == [(left, True)])
            await a.neighbours.talks.claim(*PLACE, "r1", None)
            server.stop(keep=True)
            await eventually(lambda: None not in (a.link.trouble, b.link.trouble))
            assert a.neighbours.look(run) is True, "it is tried again"
            for refused in (
                b.neighbours.stop(run),
                b.neighbours.talks.claim(*PLACE, "r2", None),
                b.neighbours.talks.talker(*PLACE),
            ):
                with pytest.raises(StoreAway):
                    await refused
            b.neighbours.reads(run, yes=True)
            b.neighbours.reads(left, yes=False)
            b.neighbours.reads(brief, yes=True)
            b.neighbours.reads(brief, yes=False)
            a.neighbours.talks.release(*PLACE, "r1")
            a.neighbours.talks.forgotten()
            with pytest.raises(StoreAway):
                await a.neighbours.talks.flush()
            assert a.neighbours.talks._is_forgotten
            server.start()
            news = {(run, True), (left, False), (brief, False)}
            await eventually(lambda: news <= set(a.told), BOUND_S)
            await eventually(lambda: not a.neighbours.talks._released)
            assert await b.talker() is None


async def test_after_an_empty_restart_claims_are_written_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_neighbours, "RENEW_S", 0.05)
    with running_redis() as server:
        async with pair(server) as (a, b):
            run = await a.make("r")
            b.neighbours.reads(run, yes=True)
            await eventually(lambda: a.told == [(run, True)])
            await a.neighbours.talks.claim(*PLACE, "r1", None)
            server.stop(keep=False)
            await eventually(lambda: None not in (a.link.trouble, b.link.trouble))
            server.start()
            await a.link.reachable()
            await b.link.reachable()
            with pytest.raises(StoreAway):  # nobody knows yet who talks
                await b.neighbours.talks.claim(*PLACE, "r2", None)
            assert await b.neighbours.stop(run) is True, "its worker may write it again"
            await a.make(run)
            a.told.clear()
            await eventually(lambda: (run, True) in a.told)
            await eventually(lambda: not a.neighbours.talks._is_forgotten)
            assert await b.talker() == "r1"
            assert (run, False) not in a.told


# -- looks in doubt -----------------------------------------------------------------------------


async def tried(worker: Worker, times: int) -> None:
    """Until it has looked so often again."""
    looks = 0
    look = worker.neighbours._look

    async def counted() -> None:
        nonlocal looks
        await look()
        looks += 1

    worker.neighbours._look = counted  # type: ignore[method-assign]  # to count
    await eventually(lambda: looks >= times, BOUND_S)


async def test_while_redis_is_away_a_look_is_tried_again_and_nothing_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_neighbours, "LOOK_AGAIN_S", 0.01)
    monkeypatch.setattr(redis_neighbours, "DOUBT_S", 60)
    with running_redis() as server:
        async with pair(server) as (a, b):
            moved, left = [await a.make(name) for name in ("moved", "left")]
            server.stop(keep=True)
            await eventually(lambda: None not in (a.link.trouble, b.link.trouble))
            for run in (moved, left):
                assert a.neighbours.look(run)
            await tried(a, 5)
            server.start()
            await a.link.reachable()
            await tried(a, 5)
            assert a.told == [], "who moved there may not have been able to say so"
            b.neighbours.reads(moved, yes=True)
            await eventually(lambda: (moved, True) in a.told, BOUND_S)
            assert a.told == [(moved, True)]
            monkeypatch.setattr(redis_neighbours, "DOUBT_S", 0)
            await eventually(lambda: (left, None) in a.told, BOUND_S)
            assert (moved, None) not in a.told
            assert not a.neighbours._patience


async def test_who_moved_while_redis_was_away_keeps_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_neighbours, "LOOK_AGAIN_S", 0.01)
    with running_redis() as server:
        async with pair(server) as (a, b):
            run = lone_run(record(grace_s=0), a.neighbours.look)
            run_id = await a.make(run.record.run_id)
            monkeypatch.setattr(a, "read_elsewhere", lambda _, there: run.read_elsewhere(there))
            run.joined()
            server.stop(keep=True)
            await eventually(lambda: None not in (a.link.trouble, b.link.trouble))
            run.left()
            b.neighbours.reads(run_id, yes=True)
            await tried(a, 3)
            assert run.stop_reason is None
            server.start()
            await eventually(lambda: run._has_claim, BOUND_S)
            b.neighbours.reads(run_id, yes=False)
            await eventually(lambda: run.stop_reason is Cancelled.READERS_LEFT, BOUND_S)


async def test_a_look_that_redis_stays_away_from_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_neighbours, "LOOK_AGAIN_S", 0.01)
    monkeypatch.setattr(redis_neighbours, "PATIENCE_S", 0.2)
    with running_redis() as server:
        async with pair(server) as (a, b):
            run = await a.make("r")
            server.stop(keep=True)
            await eventually(lambda: None not in (a.link.trouble, b.link.trouble))
            began = time.monotonic()
            await eventually(lambda: a.neighbours.look(run) and bool(a.told))  # over and over
            assert a.told[0] == (run, None)
            assert time.monotonic() - began >= 0.2
            server.start()
