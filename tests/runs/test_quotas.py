"""What runs take of their callers' limits, and that it is given back."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.access.model import Limits
from app.errors import (
    IdempotencyConflict,
    NotFound,
    Overloaded,
    RateLimited,
    StoreAway,
    UpstreamBroken,
)
from app.events.log import EventLog
from app.events.memory import MemoryEventLog
from app.events.model import RunRecord, Token
from tests.runs.archive import MemoryArchive
from tests.runs.fakes import OWNER, FarLog, LateLog, Script, World, hangs, released, says
from tests.runs.quotas import FarQuotas, passes
from tests.runs.workers import two_workers

pytestmark = pytest.mark.anyio

ONE = Limits(max_runs=1)
TWO = Limits(max_runs=2)


@pytest.fixture(params=["near", "far"])
def log(request: pytest.FixtureRequest) -> EventLog:
    if request.param == "near":
        return MemoryEventLog(memory_bytes=2**30, retention_s=900)
    return FarLog()


@pytest.fixture
def quotas() -> FarQuotas:
    return FarQuotas()


# -- who is refused -----------------------------------------------------------------------------


async def test_a_caller_at_its_limit_is_refused_and_told_which_one_and_others_are_not(
    log: EventLog, quotas: FarQuotas
) -> None:
    async with World(hangs("part"), log=log, quotas=quotas) as world:
        runs = [await world.start(limits=TWO) for _ in range(2)]
        with pytest.raises(RateLimited, match="2 runs at once") as refused:
            await world.start(limits=TWO)
        assert refused.value.retry_after_s > 0
        yours = await world.start(limits=TWO, owner="you")
        await world.cancel(runs[0])
        runs[0] = await world.start(limits=TWO)
        for run in runs:
            await world.cancel(run)
        await world.supervisor.cancel(yours.run_id, "you")
        assert len(world.model.replies) == 4, "the one that is refused costs nothing upstream"
    assert await quotas.running(OWNER) == await quotas.running("you") == 0


async def test_that_the_gateway_is_full_is_no_limit_of_a_caller(log: EventLog) -> None:
    async with World(hangs(), log=log, max_runs=1) as world:
        run = await world.start(limits=TWO)
        with pytest.raises(Overloaded):
            await world.start(limits=TWO)
        await world.cancel(run)


async def test_joining_a_run_takes_no_slot(log: EventLog, quotas: FarQuotas) -> None:
    gate = asyncio.Event()
    async with World(released(gate, "all"), log=log, quotas=quotas) as world:
        run = await world.start("k", limits=ONE)
        assert await world.start("k", limits=ONE) == run
        gate.set()
        await world.told(run)
        await world.cancel(run)
        other = await world.start(limits=ONE)
        assert await world.start("k", limits=ONE) == run, "a finished one neither"
        await world.told(other)


async def test_of_requests_that_come_at_once_with_one_key_none_is_refused(
    log: EventLog, quotas: FarQuotas
) -> None:
    gate = asyncio.Event()
    async with World(released(gate, "all"), log=log, quotas=quotas) as world:
        runs = await asyncio.gather(*(world.start("k", limits=ONE) for _ in range(10)))
        assert len({run.run_id for run in runs}) == 1
        with pytest.raises(IdempotencyConflict):
            await world.start("k", text="other", limits=ONE)
        gate.set()
    assert quotas.refused == 0


async def test_where_the_first_of_them_comes_to_nothing_the_next_one_takes_its_place() -> None:
    log, quotas = GatedLog(), FarQuotas()
    async with World(says("all"), log=log, quotas=quotas) as world:
        first = asyncio.ensure_future(world.start("k", limits=ONE))
        await log.opens.wait()
        second = asyncio.ensure_future(world.start("k", limits=ONE))
        await passes(20)
        first.cancel()
        log.gate.set()
        run = await second
        assert await world.told(run) == ["all", "final stop", "completed"]
    assert quotas.refused == 0
    assert await quotas.running(OWNER) == 0


@pytest.mark.parametrize("limits", [ONE, TWO])
async def test_an_interruption_at_the_limit_replaces_a_run_of_the_callers_own(
    log: EventLog, quotas: FarQuotas, limits: Limits
) -> None:
    async with World(hangs("part"), log=log, quotas=quotas) as world:
        first = await world.start(limits=limits)
        others = [await world.start(limits=limits) for _ in range((limits.max_runs or 0) - 1)]
        await world.until(first, Token)
        second = await world.start(
            conversation_id=first.conversation_id, if_busy="interrupt", limits=limits
        )
        assert await world.told(first) == ["part", "cancelled"]
        for run in (second, *others):
            await world.cancel(run)
    assert quotas.refused == 0


async def test_nothing_is_interrupted_for_a_run_that_cannot_begin(
    log: EventLog, quotas: FarQuotas
) -> None:
    spent = Limits(tokens_per_day=1)
    async with World(hangs("part"), log=log, quotas=quotas) as world:
        first = await world.start(limits=spent)
        await world.until(first, Token)
        again: dict[str, Any] = {
            "conversation_id": first.conversation_id,
            "if_busy": "interrupt",
        }
        with pytest.raises(RateLimited):
            await world.start(**again, limits=spent)
        with pytest.raises(NotFound):
            await world.start(**again, parent_message_id="nope")
        assert first.run_id in world.supervisor._runs
        assert world.supervisor._runs[first.run_id].stop_reason is None
        await world.cancel(first)


async def test_so_does_one_of_a_run_that_another_worker_makes(quotas: FarQuotas) -> None:
    async with two_workers(hangs("part"), quotas=quotas) as workers:
        first = await workers.a.start(limits=ONE)
        await workers.a.until(first, Token)
        second = await workers.b.start(
            conversation_id=first.conversation_id, if_busy="interrupt", limits=ONE
        )
        assert await workers.b.told(first) == ["part", "cancelled"]
        await workers.b.cancel(second)
    assert quotas.refused == 0


async def test_who_reads_done_and_asks_again_at_once_finds_room(quotas: FarQuotas) -> None:
    log = LateLog()
    async with World(says("all"), log=log, quotas=quotas) as world:
        try:
            for _ in range(3):
                await world.told(await world.start(limits=ONE))
        finally:
            log.gate.set()


# -- every way in which a run ends or never begins ----------------------------------------------


class GatedLog(FarLog):
    """``open`` waits for ``gate``, and then raises ``trouble`` or finds that ``holder`` has the
    key."""

    def __init__(self) -> None:
        super().__init__()
        self.opens, self.gate = asyncio.Event(), asyncio.Event()
        self.trouble: Exception | None = None
        self.holder_of_key: RunRecord | None = None

    async def open(self, record: RunRecord) -> RunRecord:
        self.opens.set()
        await self.gate.wait()
        if self.trouble is not None:
            raise self.trouble
        return self.holder_of_key or await super().open(record)


async def stop_by_cancel(world: World, run: RunRecord) -> None:
    await world.cancel(run)


async def stop_by_leaving(world: World, run: RunRecord) -> None:
    with world.supervisor.reading(run.run_id):
        pass


async def stop_by_drain(world: World, _: RunRecord) -> None:
    await world.supervisor.drain(0)


async def nothing(_: World, __: RunRecord) -> None:
    pass


@pytest.mark.parametrize(
    ("script", "stop"),
    [
        (says("all"), nothing),
        (says("part", then=UpstreamBroken()), nothing),
        (says("part", then=ValueError("bug")), nothing),
        (hangs("part"), nothing),
        (hangs("part"), stop_by_cancel),
        (hangs("part"), stop_by_leaving),
        (hangs("part"), stop_by_drain),
    ],
    ids=["completed", "failed", "bug", "timeout", "cancelled", "readers left", "drained"],
)
async def test_a_run_that_ends_gives_its_slot_back_and_its_tokens_are_counted_once(
    log: EventLog,
    quotas: FarQuotas,
    script: Script,
    stop: Callable[[World, RunRecord], Awaitable[None]],
) -> None:
    limits = Limits(max_runs=1, tokens_per_day=10**6)
    timeout_s = 0.02 if script.__qualname__.startswith("hangs") and stop is nothing else 60
    async with World(script, log=log, quotas=quotas, run_timeout_s=timeout_s) as world:
        run = await world.start(limits=limits, grace_s=0)
        assert await quotas.running(OWNER) == 1
        if timeout_s == 60:
            await world.until(run, Token)
        await stop(world, run)
        await world.told(run)
        await world.supervisor._idle.wait()
        assert await quotas.running(OWNER) == 0
        found = await world.log.find(run.run_id)
        assert found is not None
        assert found.done is not None
        assert quotas.counted == {run.run_id: found.done.usage.total_tokens}


async def refused_by(error: type[Exception], world: World, **more: Any) -> None:
    with pytest.raises(error):
        await world.start(limits=ONE, **more)


async def test_a_run_that_never_began_gives_its_slot_back(quotas: FarQuotas) -> None:
    log, archive = GatedLog(), MemoryArchive()
    log.gate.set()
    async with World(says("all"), log=log, quotas=quotas, archive=archive) as world:
        await refused_by(NotFound, world, conversation_id="nowhere")
        log.trouble = StoreAway()
        await refused_by(StoreAway, world)
        log.trouble = None
        mine = await world.start(limits=ONE)
        await world.told(mine)
        await world.cancel(mine)
        log.holder_of_key = mine
        assert await world.start(limits=ONE) == mine, "another worker was faster"
        assert await quotas.running(OWNER) == 0
    assert quotas.refused == 0


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_client_that_leaves_at_any_moment_of_the_start_leaves_no_slot_behind(
    key: str | None,
) -> None:
    too_late = 0
    for moment in range(30):
        quotas = FarQuotas()
        async with World(says("all"), quotas=quotas) as world:
            starting = asyncio.ensure_future(world.start(key, limits=ONE))
            await passes(moment)
            too_late += not starting.cancel()
            await asyncio.wait({starting})
        assert await quotas.running(OWNER) == 0, f"after {moment} passes"
        assert not quotas.held[OWNER]
    assert 0 < too_late < 30, "some left before the start was through, some after it"


async def test_a_gateway_that_goes_down_before_a_run_has_begun_gives_its_slot_back(
    quotas: FarQuotas,
) -> None:
    async with World(hangs(), quotas=quotas) as world:
        await world.start(limits=ONE)
        for task in asyncio.all_tasks():
            if task.get_name().startswith("run "):
                task.cancel()
    assert await quotas.running(OWNER) == 0
    assert world.model.asked == 0
