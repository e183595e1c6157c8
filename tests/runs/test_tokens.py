"""Tokens of a caller: counted while its runs go, and in the end as they really were."""

import asyncio

import pytest

from app.access.model import Limits
from app.errors import RateLimited
from app.events.model import Done, Token, Usage
from app.llm.turn import Turn
from app.runs import account, drive
from tests.runs.fakes import OWNER, LateLog, World, for_ever, hangs, released, says
from tests.runs.quotas import FarQuotas
from tests.runs.test_fenced import SharedLog
from tests.runs.workers import eventually

pytestmark = pytest.mark.anyio

A_DAY = Limits(tokens_per_day=1000)
QUESTION = "x" * 400  # 100 tokens, as they are estimated


@pytest.fixture
def quotas() -> FarQuotas:
    return FarQuotas()


async def tokens_left(quotas: FarQuotas) -> int:
    [standing] = await quotas.standing(OWNER, A_DAY)
    return standing.remaining


async def test_what_is_asked_counts_before_anything_is_answered(quotas: FarQuotas) -> None:
    async with World(hangs(), quotas=quotas) as world:
        run = await world.start(text=QUESTION, limits=A_DAY)
        await world.model.began.wait()
        assert await tokens_left(quotas) == 900
        await world.cancel(run)
    assert await tokens_left(quotas) == 900


async def test_what_is_answered_counts_while_the_run_still_goes_and_ends_no_run(
    quotas: FarQuotas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "COUNT_S", 0.001)
    limits = Limits(tokens_per_day=102)
    gate = asyncio.Event()
    async with World(released(gate, "a", "b"), quotas=quotas) as world:
        run = await world.start(text=QUESTION, limits=limits)
        await eventually(lambda: quotas.counted[run.run_id] == 102)
        with pytest.raises(RateLimited, match="102 tokens per day"):
            await world.start(limits=limits)
        gate.set()
        assert await world.told(run) == ["a", "b", "final stop", "completed"]
    assert quotas.counted == {run.run_id: 102}


async def test_in_the_end_what_the_upstream_told_is_what_counts(
    quotas: FarQuotas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "COUNT_S", 0.001)
    gate = asyncio.Event()

    async def tells(turn: Turn) -> str:
        reason = await released(gate, "a", "b", "c")(turn)
        turn.used(Usage(5, 2, 7, estimated=False))
        return reason

    async with World(tells, quotas=quotas) as world:
        run = await world.start(text=QUESTION, limits=A_DAY)
        await eventually(lambda: quotas.counted[run.run_id] == 103)
        gate.set()
        await world.until(run, Done)
        assert await tokens_left(quotas) == 993
    assert quotas.counted == {run.run_id: 7}, "less than was estimated"


async def test_a_run_that_another_worker_ended_counts_once_as_far_as_it_came(
    quotas: FarQuotas,
) -> None:
    log = SharedLog()
    async with World(hangs("a"), log=log, quotas=quotas) as world:
        run = await world.start(text=QUESTION, limits=Limits(max_runs=1, tokens_per_day=1000))
        await world.until(run, Token)
        assert log.tell is not None
        log.tell(run.run_id)
        await world.supervisor._idle.wait()
        assert quotas.counted == {run.run_id: 101}
        assert await quotas.running(OWNER) == 0


async def test_what_an_upstream_says_that_no_cancel_ends_counts_until_it_is_given_up(
    quotas: FarQuotas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drive, "ENDINGS_WAIT_S", 0.01)
    gate, log = asyncio.Event(), LateLog()

    async def goes_on(turn: Turn) -> str:
        turn.chunk("a", "", tool_call=False)
        try:
            await for_ever()
        except asyncio.CancelledError:
            await gate.wait()
        turn.chunk("b", "", tool_call=False)
        log.gate.set()
        return "stop"

    async with World(goes_on, log=log, quotas=quotas, max_answer_bytes=0) as world:
        run = await world.start(text=QUESTION, limits=A_DAY)
        await world.until(run, Done)
        gate.set()
    assert quotas.counted == {run.run_id: 101}


async def test_nothing_is_counted_of_a_caller_without_a_limit(quotas: FarQuotas) -> None:
    async with World(says("all"), quotas=quotas) as world:
        await world.told(await world.start(limits=Limits(max_runs=5)))
    assert quotas.counted == {}


async def test_the_clock_of_a_run_ends_with_it(
    quotas: FarQuotas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "COUNT_S", 0.001)
    async with World(says("all"), quotas=quotas) as world:
        run = await world.start(text=QUESTION, limits=A_DAY)
        await world.told(run)
        await world.supervisor._idle.wait()
        world.model.replies[0].turns[0].chunk("late", "", tool_call=False)
        await asyncio.sleep(0.01)  # a clock that still went would see that
    assert quotas.counted == {run.run_id: 101}
