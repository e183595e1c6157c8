"""Readers on another worker: they keep a run alive, and the last one anywhere starts the clock."""

import asyncio

import pytest

from app.events.model import Token
from app.runs import run as run_module
from app.runs.run import Cancelled, Run
from tests.events.making import record
from tests.runs.fakes import BOUND_S, hangs, lone_run, released
from tests.runs.workers import two_workers

pytestmark = pytest.mark.anyio

GRACE_S = 0.05


async def later(seconds: float) -> None:
    """For clocks that must not fire: due later than theirs, so theirs would have been first."""
    await asyncio.sleep(seconds)


@pytest.mark.parametrize("grace_s", [0, GRACE_S])
async def test_a_reader_elsewhere_keeps_a_run_until_it_leaves(grace_s: float) -> None:
    async with two_workers(hangs("part")) as workers:
        run = await workers.a.start(grace_s=grace_s)
        with workers.b.supervisor.reading(run.run_id):
            with workers.a.supervisor.reading(run.run_id):
                await workers.a.until(run, Token)
            await later(3 * GRACE_S)
            assert run.run_id in workers.a.supervisor._runs
        assert await workers.b.told(run) == ["part", "cancelled"]


@pytest.mark.parametrize("grace_s", [0, GRACE_S])
async def test_a_reader_here_keeps_a_run_that_others_have_left(grace_s: float) -> None:
    gate = asyncio.Event()
    async with two_workers(released(gate, "all")) as workers:
        run = await workers.a.start(grace_s=grace_s)
        with workers.a.supervisor.reading(run.run_id):
            with workers.b.supervisor.reading(run.run_id):
                await workers.a.until(run, Token)
            await later(3 * GRACE_S)
            gate.set()
            assert await workers.a.told(run) == ["all", "final stop", "completed"]


async def test_a_reader_that_comes_back_on_another_worker_saves_the_run() -> None:
    gate = asyncio.Event()
    async with two_workers(released(gate, "all")) as workers:
        run = await workers.a.start(grace_s=GRACE_S)
        for world in [workers.a, workers.b] * 3:
            with world.supervisor.reading(run.run_id):
                await world.until(run, Token)
        with workers.b.supervisor.reading(run.run_id):
            await later(3 * GRACE_S)
            gate.set()
            assert await workers.b.told(run) == ["all", "final stop", "completed"]


@pytest.mark.parametrize("grace_s", [0, GRACE_S])
@pytest.mark.parametrize("is_seen", [True, False])
async def test_a_run_that_was_read_elsewhere_only_ends_when_it_is_left(
    grace_s: float, is_seen: bool
) -> None:
    async with two_workers(hangs("part")) as workers:
        run = await workers.a.start(grace_s=grace_s)
        await workers.a.until(run, Token)
        with workers.b.supervisor.reading(run.run_id):
            if is_seen:
                await later(3 * GRACE_S)
        assert await workers.b.told(run) == ["part", "cancelled"]


async def test_a_run_that_nobody_has_read_anywhere_goes_on() -> None:
    gate = asyncio.Event()
    async with two_workers(released(gate, "all")) as workers:
        run = await workers.a.start(grace_s=0)
        workers.a.supervisor._elsewhere.read_elsewhere(run.run_id, None)
        await later(GRACE_S)
        gate.set()
        assert await workers.a.told(run) == ["all", "final stop", "completed"]


async def test_a_run_that_shall_continue_outlives_readers_elsewhere() -> None:
    gate = asyncio.Event()
    async with two_workers(released(gate, "all")) as workers:
        run = await workers.a.start(grace_s=None)
        with workers.b.supervisor.reading(run.run_id):
            await workers.b.until(run, Token)
        await later(GRACE_S)
        gate.set()
        assert await workers.a.told(run) == ["all", "final stop", "completed"]


async def test_readers_elsewhere_are_counted_out_of_what_has_ended_too() -> None:
    async with two_workers(hangs("part")) as workers:
        run = await workers.a.start(grace_s=0)
        with workers.b.supervisor.reading(run.run_id):
            await workers.a.cancel(run)
        await later(0)
        assert workers.hub.readers == {run.run_id: 0}


# -- one run by itself --------------------------------------------------------------------------


def read_by_nobody_here() -> tuple[Run, list[str]]:
    """A run whose last reader here has left, and the looks around that it asked for."""
    looks: list[str] = []

    def look(run_id: str) -> bool:
        looks.append(run_id)
        return True

    run = lone_run(record(grace_s=0), look)
    run.joined()
    run.left()
    return run, looks


@pytest.mark.parametrize("answer", [False, None])
async def test_a_run_ends_only_when_a_look_around_finds_nobody(answer: bool | None) -> None:
    run, looks = read_by_nobody_here()
    assert (run.stop_reason, looks) == (None, [run.record.run_id])
    run.read_elsewhere(answer)
    assert run.stop_reason is Cancelled.READERS_LEFT


async def test_a_reader_that_comes_during_the_look_around_saves_the_run() -> None:
    run, _ = read_by_nobody_here()
    run.joined()
    run.read_elsewhere(None)
    run.read_elsewhere(False)
    assert run.stop_reason is None


async def test_what_cannot_be_told_leaves_a_claim_as_it_was() -> None:
    run, looks = read_by_nobody_here()
    for answer in (True, None, True, None):
        run.read_elsewhere(answer)
    assert (run.stop_reason, len(looks)) == (None, 1)
    run.read_elsewhere(False)
    assert (run.stop_reason, len(looks)) == (None, 2)
    run.read_elsewhere(False)
    assert run.stop_reason is Cancelled.READERS_LEFT


async def test_a_clock_that_is_late_looks_around_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "LATE_S", -1)
    monkeypatch.setattr(run_module, "SECOND_LOOK_S", 0)
    looked = asyncio.Event()

    def look(_: str) -> bool:
        looked.set()
        return True

    run = lone_run(record(grace_s=0.001), look)
    run.joined()
    run.left()
    async with asyncio.timeout(BOUND_S):
        await looked.wait()
    assert run.stop_reason is None


async def test_claims_count_as_one_reader() -> None:
    run = lone_run(record(grace_s=0), lambda _: False)
    for answer in (True, True, True, False):
        run.read_elsewhere(answer)
    assert run.stop_reason is Cancelled.READERS_LEFT
