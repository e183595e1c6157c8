"""Every way out of a run writes exactly one ending, and leaves nothing behind.

``World`` checks both for every test: see ``fakes``.
"""

import asyncio

import pytest

from app.errors import (
    AnswerTooLarge,
    Internal,
    NotFound,
    Overloaded,
    RunTimeout,
    UpstreamBroken,
    UpstreamUnavailable,
)
from app.events.log import EventLog
from app.events.memory import MemoryEventLog
from app.events.model import RunRecord, Start, Token
from app.llm.turn import Turn
from app.runs import run as run_module
from app.runs import supervisor as supervisor_module
from app.runs.drive import RETRY_MS
from tests.events.making import read_to_end
from tests.runs.fakes import FarLog, World, failed, for_ever, hangs, released, says

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["near", "far"])
def log(request: pytest.FixtureRequest) -> EventLog:
    """One that never waits, as in memory, and one that always does, as across a network."""
    if request.param == "near":
        return MemoryEventLog(memory_bytes=2**30, retention_s=900)
    return FarLog()


async def test_a_run_that_finishes_tells_its_whole_answer(log: EventLog) -> None:
    async with World(says("Hel", "lo", reason="length"), log=log) as world:
        run = await world.start()
        assert await world.told(run) == ["Hel", "lo", "final length", "completed"]
        assert (await world.supervisor.find(run.run_id, "me")).status == "completed"


async def test_an_answer_of_nothing_is_an_answer(log: EventLog) -> None:
    async with World(says(), log=log) as world:
        assert await world.told(await world.start()) == ["final stop", "completed"]


async def test_start_tells_the_heartbeat_and_a_pause_that_differs_from_run_to_run() -> None:
    async with World(says()) as world:
        pauses = set()
        for _ in range(20):
            run = await world.start()
            start = (await read_to_end(world.log, run.run_id))[0].event
            assert isinstance(start, Start)
            assert (start.run_id, start.heartbeat_ms) == (run.run_id, 10_000)
            pauses.add(start.retry_ms)
    assert len(pauses) > 1
    assert RETRY_MS[0] <= min(pauses) <= max(pauses) <= RETRY_MS[1]


@pytest.mark.parametrize("texts", [(), ("part",)])
async def test_a_failure_keeps_what_was_said_before_it(
    log: EventLog, texts: tuple[str, ...]
) -> None:
    async with World(says(*texts, then=UpstreamUnavailable()), log=log) as world:
        assert await world.told(await world.start()) == failed(UpstreamUnavailable, *texts)


@pytest.mark.parametrize("bug", [KeyError("sk-secret"), RuntimeError("sk-secret")])
async def test_a_bug_in_the_model_fails_its_run_without_a_word_of_it(
    log: EventLog, bug: Exception
) -> None:
    async with World(says("part", then=bug), log=log) as world:
        run = await world.start()
        assert await world.told(run) == failed(Internal, "part")
        assert all(b"secret" not in e.frame for e in await read_to_end(log, run.run_id))


async def test_a_model_that_cancels_itself_still_has_one_ending(log: EventLog) -> None:
    async with World(says("part", then=asyncio.CancelledError()), log=log) as world:
        part, code, status = await world.told(await world.start())
        assert (part, status) == ("part", "failed")
        assert code in {"internal", "draining"}


# -- cancelled by request -----------------------------------------------------------------------


async def test_a_run_cancelled_before_it_began_never_asks_the_model() -> None:
    near = MemoryEventLog(memory_bytes=2**20, retention_s=900)
    async with World(says("never"), log=near) as world:
        run = await world.start()
        assert await world.cancel(run) == "cancelled"
        assert await world.told(run) == ["cancelled"]
        assert world.model.asked == 0


async def test_a_run_can_be_cancelled_before_the_first_token(log: EventLog) -> None:
    async with World(hangs(), log=log) as world:
        run = await world.start()
        await world.model.began.wait()
        assert await world.cancel(run) == "cancelled"
        assert await world.told(run) == ["cancelled"]


async def test_a_run_cancelled_mid_answer_keeps_the_part(log: EventLog) -> None:
    async with World(hangs("part"), log=log) as world:
        run = await world.start()
        await world.until(run, Token)
        assert await world.cancel(run) == "cancelled"
        assert await world.told(run) == ["part", "cancelled"]


async def test_a_cancelled_run_tells_the_usage_of_its_part() -> None:
    async with World(hangs("part")) as world:
        run = await world.start()
        await world.until(run, Token)
        await world.cancel(run)
        done = (await world.supervisor.find(run.run_id, "me")).done
        assert done is not None
        assert (done.usage.output_tokens, done.usage.estimated) == (1, True)


async def test_cancelling_again_and_together_gives_the_same_answer(log: EventLog) -> None:
    async with World(hangs(), log=log) as world:
        run = await world.start()
        await world.model.began.wait()
        together = await asyncio.gather(*(world.cancel(run) for _ in range(5)))
        assert together == ["cancelled"] * 5
        again = await world.supervisor.cancel(run.run_id, "me")
        assert (again.status, again.stopped_after_ms) == ("cancelled", 0)
        assert await world.told(run) == ["cancelled"]


async def test_cancelling_what_has_ended_tells_how_it_ended(log: EventLog) -> None:
    async with World(says("a"), log=log) as world:
        run = await world.start()
        await world.told(run)
        assert await world.cancel(run) == "completed"
        assert await world.told(run) == ["a", "final stop", "completed"]


async def test_a_cancel_waits_until_the_upstream_call_has_ended() -> None:
    closing, closed = asyncio.Event(), asyncio.Event()

    async def slow_to_close(turn: Turn) -> str:
        try:
            await for_ever()
        finally:
            closing.set()
            await closed.wait()
        return "never"

    async with World(slow_to_close) as world:
        run = await world.start()
        await world.model.began.wait()
        cancelling = world.tasks.create_task(world.supervisor.cancel(run.run_id, "me"))
        await closing.wait()
        await asyncio.sleep(0.01)
        assert not cancelling.done()
        assert (await world.supervisor.find(run.run_id, "me")).status == "running"
        closed.set()
        stopped = await cancelling
        assert (stopped.run_id, stopped.status) == (run.run_id, "cancelled")
        assert stopped.stopped_after_ms >= 9


async def test_a_cancel_that_takes_too_long_says_that_the_run_still_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor_module, "CANCEL_WAIT_S", 0.02)
    closed = asyncio.Event()

    async def deaf(turn: Turn) -> str:
        while not closed.is_set():
            try:
                await closed.wait()
            except asyncio.CancelledError:
                continue
        raise asyncio.CancelledError

    async with World(deaf) as world:
        run = await world.start()
        await world.model.began.wait()
        assert await world.cancel(run) == "running"
        closed.set()
        assert await world.told(run) == ["cancelled"]


async def test_a_cancel_that_the_model_swallows_once_is_sent_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_module, "CANCEL_AGAIN_S", 0.01)

    async def swallows_one(turn: Turn) -> str:
        try:
            await for_ever()
        except asyncio.CancelledError:
            turn.chunk("still here", "", tool_call=False)
        await for_ever()
        return "never"

    async with World(swallows_one) as world:
        run = await world.start()
        await world.model.began.wait()
        assert await world.cancel(run) == "cancelled"
        assert await world.told(run) == ["still here", "cancelled"]


async def test_what_a_cancel_breaks_upstream_is_a_cancel_and_no_failure(log: EventLog) -> None:
    """Libraries turn a cancel into an error of their own now and then."""

    async def breaks(turn: Turn) -> str:
        try:
            await for_ever()
        except asyncio.CancelledError:
            raise UpstreamBroken from None
        return "never"

    async with World(breaks, log=log) as world:
        run = await world.start()
        await world.model.began.wait()
        assert await world.cancel(run) == "cancelled"
        assert await world.told(run) == ["cancelled"]


async def test_nobody_can_cancel_or_find_what_is_not_theirs() -> None:
    async with World(hangs()) as world:
        run = await world.start()
        for run_id, owner in ((run.run_id, "you"), ("unknown" * 4, "me")):
            with pytest.raises(NotFound):
                await world.supervisor.cancel(run_id, owner)
            with pytest.raises(NotFound):
                await world.supervisor.find(run_id, owner)
        assert (await world.supervisor.find(run.run_id, "me")).status == "running"
        await world.cancel(run)


# -- limits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("texts", [(), ("part",)])
async def test_a_run_that_takes_too_long_is_ended(log: EventLog, texts: tuple[str, ...]) -> None:
    async with World(hangs(*texts), log=log, run_timeout_s=0.05) as world:
        assert await world.told(await world.start()) == failed(RunTimeout, *texts)


async def test_an_answer_that_is_too_large_keeps_what_fitted_and_ends_the_call(
    log: EventLog,
) -> None:
    async with World(hangs("ééé", "x", "y"), log=log, max_answer_bytes=6) as world:
        assert await world.told(await world.start()) == failed(AnswerTooLarge, "ééé")


async def test_no_ending_is_written_before_the_upstream_call_has_ended(log: EventLog) -> None:
    async def slow_to_close(turn: Turn) -> str:
        try:
            return await hangs("too large")(turn)
        finally:
            for _ in range(20):
                await asyncio.sleep(0)

    async with World(slow_to_close, log=log, max_answer_bytes=3) as world:
        assert await world.told(await world.start()) == failed(AnswerTooLarge)
        assert world.model.open == 0


async def test_an_answer_that_just_fits_is_whole(log: EventLog) -> None:
    async with World(says("ééé", "x"), log=log, max_answer_bytes=7) as world:
        assert (await world.told(await world.start()))[-1] == "completed"


async def test_too_large_is_told_even_if_the_model_had_finished_by_then(log: EventLog) -> None:
    async def at_once(turn: Turn) -> str:
        turn.chunk("abc", "", tool_call=False)
        turn.chunk("def", "", tool_call=False)
        return "stop"

    async with World(at_once, log=log, max_answer_bytes=5) as world:
        assert await world.told(await world.start()) == failed(AnswerTooLarge, "abc")


async def test_above_max_runs_a_start_is_refused_until_one_has_ended(log: EventLog) -> None:
    gate = asyncio.Event()
    async with World(released(gate), log=log, max_runs=2) as world:
        runs: list[RunRecord] = [await world.start(), await world.start()]
        with pytest.raises(Overloaded):
            await world.start()
        gate.set()
        for run in runs:
            await world.cancel(run)  # also waits until an ending run is gone
        await world.told(await world.start())
