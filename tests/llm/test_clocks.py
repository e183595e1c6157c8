"""The two clocks of a turn, and cancels from outside that meet them."""

import asyncio
import time

import pytest

from app.errors import UpstreamStalled, UpstreamTimeout
from app.llm import clocks
from app.llm.clocks import TurnClocks

pytestmark = pytest.mark.anyio

BOUND_S = 10
LONG_S = 60.0
SHORT_S = 0.03


def now() -> float:
    return asyncio.get_running_loop().time()


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_silence_before_the_first_token_is_a_timeout() -> None:
    async with asyncio.timeout(BOUND_S):
        began = now()
        with pytest.raises(UpstreamTimeout):
            async with TurnClocks(first_token_s=SHORT_S, stall_s=LONG_S):
                await for_ever()
        assert now() - began >= SHORT_S - 0.005


async def says_then_hangs(turn: TurnClocks) -> None:
    async with turn:
        turn.arrived(token=True)
        await for_ever()


async def test_silence_after_the_first_token_is_a_stall() -> None:
    async with asyncio.timeout(BOUND_S):
        with pytest.raises(UpstreamStalled):
            await says_then_hangs(TurnClocks(first_token_s=LONG_S, stall_s=SHORT_S))


async def test_the_stall_clock_begins_anew_with_each_chunk() -> None:
    last = 0.0

    async def answer() -> None:
        nonlocal last
        async with TurnClocks(first_token_s=LONG_S, stall_s=0.4) as turn:
            turn.arrived(token=True)
            for token in (True, False, True, False):  # a chunk without a token counts too
                await asyncio.sleep(0.15)
                turn.arrived(token=token)
            last = now()
            await for_ever()

    async with asyncio.timeout(BOUND_S):
        with pytest.raises(UpstreamStalled):
            await answer()
    assert last, "a chunk came too late, though each came in time"
    assert now() - last >= 0.39


async def test_chunks_without_a_token_do_not_feed_the_first_token_clock() -> None:
    turn = TurnClocks(first_token_s=SHORT_S, stall_s=LONG_S)

    async def says_nothing() -> None:
        async with turn:
            for _ in range(1000):
                await asyncio.sleep(0.005)
                turn.arrived(token=False)

    async with asyncio.timeout(BOUND_S):
        with pytest.raises(UpstreamTimeout):
            await says_nothing()
    assert not turn.first_token_seen


async def test_a_turn_within_its_clocks_is_left_alone() -> None:
    async with asyncio.timeout(BOUND_S):
        async with TurnClocks(first_token_s=LONG_S, stall_s=LONG_S) as turn:
            seen = [turn.first_token_seen]
            assert LONG_S - 5 < turn.remaining() <= LONG_S
            turn.arrived(token=True)
            seen.append(turn.first_token_seen)
        assert seen == [False, True]
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


async def test_a_clock_that_ended_in_time_never_fires_later() -> None:
    async with asyncio.timeout(BOUND_S):
        async with TurnClocks(first_token_s=SHORT_S, stall_s=SHORT_S) as turn:
            turn.arrived(token=True)
        await asyncio.sleep(2 * SHORT_S)  # the clock's own time: it must not cancel us here


async def test_an_error_inside_passes_as_it_is() -> None:
    with pytest.raises(KeyError):
        async with TurnClocks(first_token_s=LONG_S, stall_s=LONG_S):
            raise KeyError("x")


async def test_a_cancel_from_outside_passes_as_a_cancel() -> None:
    inside = asyncio.Event()

    async def turn() -> None:
        async with TurnClocks(first_token_s=LONG_S, stall_s=LONG_S):
            inside.set()
            await for_ever()

    async with asyncio.timeout(BOUND_S):
        task = asyncio.ensure_future(turn())
        await inside.wait()
        task.cancel()
        await asyncio.wait({task})
    assert task.cancelled()


@pytest.mark.parametrize("outside_first", [True, False])
async def test_a_cancel_from_outside_wins_over_a_clock_that_fires_with_it(
    outside_first: bool,
) -> None:
    tasks: list[asyncio.Task[None]] = []

    async def turn() -> None:
        async with TurnClocks(first_token_s=SHORT_S, stall_s=LONG_S):
            try:
                await for_ever()
            finally:
                if outside_first:
                    await asyncio.sleep(3 * SHORT_S)  # the clock fires while we clean up
                else:
                    tasks[0].cancel()

    async with asyncio.timeout(BOUND_S):
        tasks.append(asyncio.ensure_future(turn()))
        await asyncio.sleep(0)
        if outside_first:
            tasks[0].cancel()
        await asyncio.wait(tasks)
    assert tasks[0].cancelled()


async def test_a_cancelled_task_can_go_on_after_the_clock_was_its_only_reason() -> None:
    async with asyncio.timeout(BOUND_S):
        for _ in range(3):
            with pytest.raises(UpstreamTimeout):
                async with TurnClocks(first_token_s=0.001, stall_s=LONG_S):
                    await for_ever()
            await asyncio.sleep(0)  # would raise if a cancel were left over


async def test_a_timer_that_fired_late_because_of_us_gives_the_upstream_another_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """We were stopped ourselves: what was sent meanwhile is read before anybody is blamed."""
    monkeypatch.setattr(clocks, "LATE_S", 0.05)
    async with asyncio.timeout(BOUND_S):
        async with TurnClocks(first_token_s=0.02, stall_s=LONG_S) as turn:
            asyncio.get_running_loop().call_soon(time.sleep, 0.2)
            await asyncio.sleep(0.1)  # ends in the same pass in which the clock is late
            turn.arrived(token=True)
        assert turn.first_token_seen


async def test_the_second_look_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "LATE_S", 0.05)
    monkeypatch.setattr(clocks, "SECOND_LOOK_S", 0.05)
    async with asyncio.timeout(BOUND_S):
        asyncio.get_running_loop().call_soon(time.sleep, 0.2)  # runs once we wait
        with pytest.raises(UpstreamTimeout):
            async with TurnClocks(first_token_s=0.02, stall_s=LONG_S):
                await for_ever()
