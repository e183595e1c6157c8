"""One key, one run: who joins, who conflicts, and when a key is free again."""

import asyncio

import pytest

from app.errors import (
    Draining,
    IdempotencyConflict,
    Internal,
    Overloaded,
    UpstreamRejected,
    UpstreamUnavailable,
)
from app.events.log import EventLog
from app.events.memory import MemoryEventLog
from app.events.model import RunRecord
from tests.runs.fakes import FarLog, Script, World, hangs, released, says

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["near", "far"])
def log(request: pytest.FixtureRequest) -> EventLog:
    if request.param == "near":
        return MemoryEventLog(memory_bytes=2**30, retention_s=900)
    return FarLog()


async def ended(world: World, run: RunRecord) -> list[str]:
    """How it ended, once nothing of it is left."""
    told = await world.told(run)
    await world.cancel(run)
    return told


async def test_the_same_key_joins_the_run_that_runs_and_the_one_that_has_finished(
    log: EventLog,
) -> None:
    gate = asyncio.Event()
    async with World(released(gate, "once"), log=log) as world:
        first = await world.start("k")
        assert await world.start("k") == first
        gate.set()
        await ended(world, first)
        assert await world.start("k") == first
        assert world.model.asked == 1


async def test_other_keys_and_no_key_start_runs_of_their_own(log: EventLog) -> None:
    async with World(says(), log=log) as world:
        runs = {(await world.start(key)).run_id for key in ("k", "K", "k2", None, None)}
        assert len(runs) == 5


async def test_the_same_key_with_another_body_conflicts(log: EventLog) -> None:
    async with World(says(), log=log) as world:
        run = await world.start("k")
        with pytest.raises(IdempotencyConflict):
            await world.start("k", text="other")
        await ended(world, run)
        with pytest.raises(IdempotencyConflict):
            await world.start("k", text="other")
        assert world.model.asked == 1


async def test_keys_of_different_callers_never_meet(log: EventLog) -> None:
    async with World(says(), log=log) as world:
        mine = await world.start("k")
        yours = await world.start("k", owner="you", text="other")
        assert mine.run_id != yours.run_id
        assert await world.start("k") == mine


@pytest.mark.parametrize("count", [2, 20])
async def test_starts_at_the_same_time_with_one_key_start_one_run(
    log: EventLog, count: int
) -> None:
    async with World(says("once"), log=log) as world:
        runs = await asyncio.gather(*(world.start("k") for _ in range(count)))
        assert len({run.run_id for run in runs}) == 1
        assert await ended(world, runs[0]) == ["once", "final stop", "completed"]
        assert world.model.asked == 1


async def test_of_different_bodies_at_the_same_time_one_wins_and_the_others_conflict(
    log: EventLog,
) -> None:
    async with World(says(), log=log) as world:
        told = await asyncio.gather(
            *(world.start("k", text=str(number)) for number in range(10)), return_exceptions=True
        )
        started = [one for one in told if isinstance(one, RunRecord)]
        assert len(started) == 1
        assert sum(isinstance(one, IdempotencyConflict) for one in told) == 9
        await ended(world, started[0])


# -- when a key is free -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "freed"),
    [
        (says("all"), False),
        (says("part", then=UpstreamUnavailable()), True),
        (says("part", then=UpstreamRejected()), False),
        (says("part", then=Internal()), False),
        (says("part", then=ValueError("bug")), False),
    ],
    ids=["completed", "retryable", "not retryable", "internal", "bug"],
)
async def test_only_a_retryable_failure_frees_the_key(
    log: EventLog, script: Script, freed: bool
) -> None:
    async with World(script, log=log) as world:
        first = await world.start("k")
        await ended(world, first)
        again = await world.start("k")
        assert (again.run_id != first.run_id) == freed
        await ended(world, again)
        assert world.model.asked == 1 + freed


async def test_readers_that_left_free_the_key(log: EventLog) -> None:
    async with World(hangs("part"), log=log) as world:
        first = await world.start("k", grace_s=0)
        with world.supervisor.reading(first.run_id):
            pass
        assert (await ended(world, first))[-1] == "cancelled"
        second = await world.start("k")
        assert second.run_id != first.run_id
        await world.cancel(second)


async def test_a_cancel_by_request_keeps_the_key(log: EventLog) -> None:
    async with World(hangs(), log=log) as world:
        first = await world.start("k")
        await world.cancel(first)
        assert await world.start("k") == first


@pytest.mark.parametrize("limits", [{"run_timeout_s": 0.02}, {"max_answer_bytes": 3}])
async def test_a_run_that_met_its_limits_keeps_the_key(
    log: EventLog, limits: dict[str, float]
) -> None:
    async with World(hangs("part"), log=log, **limits) as world:  # type: ignore[arg-type]
        first = await world.start("k")
        assert (await ended(world, first))[-1] == "failed"
        assert await world.start("k") == first


# -- when there is no room ----------------------------------------------------------------------


async def test_joining_needs_no_room_and_goes_on_while_the_gateway_drains(log: EventLog) -> None:
    gate = asyncio.Event()
    async with World(released(gate), log=log, max_runs=1) as world:
        first = await world.start("k")
        assert await world.start("k") == first
        with pytest.raises(Overloaded):
            await world.start("other")
        draining = world.tasks.create_task(world.supervisor.drain(60))
        await asyncio.sleep(0)
        assert await world.start("k") == first
        with pytest.raises(Draining):
            await world.start("other")
        gate.set()
        await draining


async def test_a_start_that_found_no_room_in_the_log_leaves_nothing_behind() -> None:
    full = MemoryEventLog(memory_bytes=3000, retention_s=900)  # room for one
    async with World(hangs(), log=full) as world:
        first = await world.start("k")
        for _ in range(3):
            with pytest.raises(Overloaded):
                await world.start("other")
        assert len(world.supervisor._runs) == 1
        await world.cancel(first)
        await world.cancel(await world.start("other"))


async def test_a_start_whose_request_is_cancelled_leaves_nothing_behind() -> None:
    far = FarLog()
    async with World(says(), log=far) as world:
        for passes in range(5):
            starting = asyncio.ensure_future(world.start(f"k{passes}"))
            for _ in range(passes):
                await asyncio.sleep(0)
            starting.cancel()
            await asyncio.wait({starting})
