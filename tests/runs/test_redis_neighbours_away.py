"""Redis goes away and comes back, with its data or without."""

import pytest

from app.errors import StoreAway
from app.runs import redis_neighbours
from tests.redis_server import running_redis
from tests.runs.redis_workers import BOUND_S, PLACE, pair
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
            assert a.neighbours.look(run) is False, "there is nowhere to look"
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
            assert await b.neighbours.talks.talker(*PLACE) is None


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
            assert await b.neighbours.talks.talker(*PLACE) == "r1"
            assert (run, False) not in a.told
