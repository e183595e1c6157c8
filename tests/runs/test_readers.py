"""Readers come and go: what the supervisor makes of the last one that leaves."""

import asyncio

import pytest

from app.errors import Overloaded
from app.events.model import Token
from tests.runs.fakes import World, hangs, released, says

pytestmark = pytest.mark.anyio

GRACE_S = 0.05


async def test_without_grace_a_run_ends_with_its_last_reader() -> None:
    async with World(hangs("part")) as world:
        run = await world.start(grace_s=0)
        with world.supervisor.reading(run.run_id):
            await world.until(run, Token)
        assert await world.told(run) == ["part", "cancelled"]


async def test_a_reader_that_is_gone_before_the_run_began_takes_it_along() -> None:
    async with World(hangs("part")) as world:
        run = await world.start(grace_s=0)
        with world.supervisor.reading(run.run_id):
            pass
        assert await world.told(run) == ["cancelled"]


async def test_with_grace_a_run_outlives_its_last_reader_for_that_long() -> None:
    async with World(hangs("part")) as world:
        run = await world.start(grace_s=GRACE_S)
        with world.supervisor.reading(run.run_id):
            await world.until(run, Token)
        left = asyncio.get_running_loop().time()
        assert await world.told(run) == ["part", "cancelled"]
        assert asyncio.get_running_loop().time() - left >= GRACE_S - 0.005


async def test_a_run_that_finishes_within_the_grace_is_completed() -> None:
    gate = asyncio.Event()
    async with World(released(gate, "all")) as world:
        run = await world.start(grace_s=600)
        with world.supervisor.reading(run.run_id):
            await world.until(run, Token)
        gate.set()
        assert await world.told(run) == ["all", "final stop", "completed"]


async def test_a_reader_that_comes_back_in_time_saves_the_run() -> None:
    gate = asyncio.Event()
    async with World(released(gate, "all")) as world:
        run = await world.start(grace_s=GRACE_S)
        for _ in range(3):
            with world.supervisor.reading(run.run_id):
                await world.until(run, Token)
        with world.supervisor.reading(run.run_id):
            # Due after every grace clock that was started, so one that still ran would fire first.
            await asyncio.sleep(2 * GRACE_S)
            gate.set()
            assert await world.told(run) == ["all", "final stop", "completed"]


async def test_one_of_many_readers_that_leaves_changes_nothing() -> None:
    gate = asyncio.Event()
    async with World(released(gate)) as world:
        run = await world.start(grace_s=0)
        with world.supervisor.reading(run.run_id):
            for _ in range(3):
                with world.supervisor.reading(run.run_id):
                    await asyncio.sleep(0)
            gate.set()
            assert await world.told(run) == ["final stop", "completed"]


async def test_a_run_that_shall_continue_outlives_all_its_readers() -> None:
    gate = asyncio.Event()
    async with World(released(gate, "all")) as world:
        run = await world.start(grace_s=None)
        with world.supervisor.reading(run.run_id):
            await world.until(run, Token)
        await asyncio.sleep(0)
        gate.set()
        assert await world.told(run) == ["all", "final stop", "completed"]


async def test_a_run_that_nobody_has_read_yet_has_no_grace_clock() -> None:
    gate = asyncio.Event()
    async with World(released(gate, "all")) as world:
        run = await world.start(grace_s=GRACE_S)
        await world.until(run, Token)
        await asyncio.sleep(2 * GRACE_S)
        gate.set()
        assert await world.told(run) == ["all", "final stop", "completed"]


async def test_leaving_after_the_ending_is_no_cancel() -> None:
    async with World(says("all")) as world:
        run = await world.start(grace_s=0)
        with world.supervisor.reading(run.run_id):
            told = await world.told(run)
        assert told == await world.told(run) == ["all", "final stop", "completed"]
        with world.supervisor.reading(run.run_id):  # replays what has ended
            pass
        assert await world.cancel(run) == "completed"


async def test_a_reader_that_fails_has_left_too() -> None:
    async with World(hangs()) as world:
        run = await world.start(grace_s=0)
        with pytest.raises(ConnectionError), world.supervisor.reading(run.run_id):
            raise ConnectionError
        assert await world.told(run) == ["cancelled"]


async def test_above_max_readers_one_more_is_refused_until_one_has_left() -> None:
    async with World(hangs(), max_readers=2) as world:
        run = await world.start()
        with world.supervisor.reading(run.run_id):
            world.supervisor.expect_reader()
            with world.supervisor.reading("of an ended run"), pytest.raises(Overloaded):
                world.supervisor.expect_reader()
            world.supervisor.expect_reader()
        await world.cancel(run)
