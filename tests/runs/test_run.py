"""One run by itself: its readers and their grace, its stop, and cancels that get lost."""

import asyncio

import pytest

from app.errors import Draining, RunTimeout
from app.runs import run as run_module
from app.runs.neighbours import Alone
from app.runs.run import Cancelled, Outcome, Run
from tests.events.making import record
from tests.runs.fakes import lone_run

pytestmark = pytest.mark.anyio

BOUND_S = 10
SHORT_S = 0.03


def run_with(grace_s: float | None) -> Run:
    return lone_run(record(grace_s=grace_s), Alone().look)


async def for_ever() -> Outcome:
    await asyncio.get_running_loop().create_future()
    raise AssertionError("for ever has ended")


async def later(seconds: float) -> None:
    """For clocks that must not fire: due later than theirs, so theirs would have been first."""
    await asyncio.sleep(seconds)


async def test_the_last_reader_that_leaves_starts_the_grace_clock() -> None:
    run = run_with(SHORT_S)
    async with asyncio.timeout(BOUND_S):
        call = asyncio.ensure_future(for_ever())
        run.calls(call)
        run.joined()
        run.joined()
        run.left()
        await later(2 * SHORT_S)
        assert not call.done(), "somebody still reads"
        began = asyncio.get_running_loop().time()
        run.left()
        await asyncio.wait({call})
        assert asyncio.get_running_loop().time() - began >= SHORT_S - 0.005
    assert run.stop_reason is Cancelled.READERS_LEFT
    assert call.cancelled()


async def test_a_reader_that_comes_back_in_time_stops_the_clock() -> None:
    run = run_with(SHORT_S)
    run.joined()
    for _ in range(3):
        run.left()
        await asyncio.sleep(0)
        run.joined()
    await later(2 * SHORT_S)
    assert run.stop_reason is None


async def test_without_grace_the_last_reader_takes_the_run_along() -> None:
    run = run_with(0)
    run.joined()
    run.left()
    assert run.stop_reason is Cancelled.READERS_LEFT


async def test_a_run_that_goes_on_without_readers_has_no_clock() -> None:
    run = run_with(None)
    run.joined()
    run.left()
    await asyncio.sleep(0)
    assert run.stop_reason is None


async def test_a_run_that_nobody_ever_read_has_no_clock() -> None:
    run = run_with(0)
    await later(SHORT_S)
    assert run.stop_reason is None


async def test_leaving_after_the_ending_is_no_cancel() -> None:
    for grace_s in (0.0, SHORT_S):
        run = run_with(grace_s)
        run.joined()
        run.end()
        run.left()
        await later(2 * grace_s)
        assert run.stop_reason is None


async def test_the_ending_stops_a_clock_that_runs() -> None:
    run = run_with(SHORT_S)
    run.joined()
    run.left()
    run.end()
    await later(2 * SHORT_S)
    assert run.stop_reason is None
    assert run.ended.done()


async def test_the_first_reason_to_stop_stands() -> None:
    run = run_with(0)
    first = RunTimeout()
    run.stop(first)
    run.stop(Draining())
    run.stop(Cancelled.BY_REQUEST)
    assert run.stop_reason is first


async def test_a_stop_before_the_call_began_cancels_it_as_soon_as_it_is_known() -> None:
    run = run_with(0)
    run.stop(Cancelled.BY_REQUEST)
    call = asyncio.ensure_future(for_ever())
    run.calls(call)
    async with asyncio.timeout(BOUND_S):
        await asyncio.wait({call})
    assert call.cancelled()


async def test_a_cancel_that_is_swallowed_is_sent_again_until_it_is_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_module, "CANCEL_AGAIN_S", 0.01)
    swallowed = 0

    async def deaf() -> Outcome:
        nonlocal swallowed
        while swallowed < 3:
            try:
                await for_ever()
            except asyncio.CancelledError:
                swallowed += 1
        return await for_ever()

    run = run_with(0)
    call = asyncio.ensure_future(deaf())
    run.calls(call)
    await asyncio.sleep(0)
    run.stop(Cancelled.BY_REQUEST)
    async with asyncio.timeout(BOUND_S):
        await asyncio.wait({call})
    assert (swallowed, call.cancelled()) == (3, True)


async def test_a_call_that_has_ended_is_not_cancelled() -> None:
    async def answer() -> Outcome:
        return "stop"

    run = run_with(0)
    call = asyncio.ensure_future(answer())
    run.calls(call)
    async with asyncio.timeout(BOUND_S):
        await call
    run.stop(Cancelled.BY_REQUEST)
    assert call.result() == "stop"
