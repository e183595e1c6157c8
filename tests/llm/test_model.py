"""One turn of a model: its clocks, the retries before the first token, and none after it."""

import asyncio

import pytest

from app.errors import (
    Internal,
    UpstreamBroken,
    UpstreamRateLimited,
    UpstreamStalled,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.events.model import Reasoning, Token, Usage
from app.events.queue import EventQueue
from app.llm import asking as asking_module
from app.llm import clocks
from app.llm.asking import ATTEMPTS, BACKOFF_BASE_S, BACKOFF_CAP_S
from app.llm.turn import Turn
from app.llm.upstream import UpstreamFailure
from tests.llm.asking import AGAIN, BOUND_S, Asked, FakeReader, chat_model, fails, hangs, says
from tests.llm.making import entry, prompt

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Takes the chance out of the jitter: bounds are noted, and the wait is none."""
    bounds: list[tuple[float, float]] = []

    class NoChance:
        @staticmethod
        def uniform(low: float, high: float) -> float:
            bounds.append((low, high))
            return low

    monkeypatch.setattr(asking_module, "random", NoChance)
    return bounds


async def test_an_answer_goes_to_the_queue_and_ends_with_its_finish_reason() -> None:
    asked = Asked(says("Hel", "lo", reason="length"))
    assert await asked.answer() == "length"
    assert await asked.events() == [Token("Hel"), Token("lo")]
    assert len(asked.reader.asked) == 1


async def test_reasoning_and_text_keep_their_order_and_their_own_halves() -> None:
    async def attempt(turn: Turn) -> None:
        turn.chunk("", "why \ud83d", tool_call=False)
        turn.chunk("a \ud83d", "", tool_call=False)
        turn.chunk("", "\ude00", tool_call=False)
        turn.finished("stop")

    asked = Asked(attempt)
    await asked.answer()
    assert await asked.events() == [
        Reasoning("why "),
        Token("a "),
        Reasoning("\U0001f600"),
        Token("\ufffd"),
    ]


async def test_what_is_held_back_comes_out_of_a_failed_answer_too() -> None:
    asked = Asked(says("\ud83d", reason=None, then=AGAIN))
    await asked.fails_with(UpstreamUnavailable)
    assert await asked.events() == [Token("\ufffd")]


# -- retries ------------------------------------------------------------------------------------


async def test_what_may_pass_is_tried_three_times_and_no_more() -> None:
    asked = Asked(fails(AGAIN))
    await asked.fails_with(UpstreamUnavailable)
    assert len(asked.reader.asked) == ATTEMPTS == 3


async def test_the_attempt_that_works_is_the_answer() -> None:
    asked = Asked(fails(AGAIN), fails(AGAIN), says("ok"))
    assert await asked.answer() == "stop"
    assert await asked.events() == [Token("ok")]


async def test_what_cannot_pass_is_tried_once() -> None:
    asked = Asked(fails(UpstreamFailure(UpstreamBroken())))
    await asked.fails_with(UpstreamBroken)
    assert len(asked.reader.asked) == 1


async def test_the_error_of_the_last_attempt_is_the_one_that_is_told() -> None:
    limited = UpstreamFailure(UpstreamRateLimited(), again=True)
    await Asked(fails(AGAIN), fails(AGAIN), fails(limited)).fails_with(UpstreamRateLimited)


async def test_waits_between_attempts_are_full_jitter_that_grows_up_to_its_cap(
    waits: list[tuple[float, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking_module, "ATTEMPTS", 8)
    await Asked(fails(AGAIN)).fails_with(UpstreamUnavailable)
    lows, highs = zip(*waits[:7], strict=True)
    assert set(lows) == {0}
    assert sorted(highs) == list(highs)
    assert BACKOFF_BASE_S <= highs[0] <= 2 * BACKOFF_BASE_S
    assert highs[1] == 2 * highs[0]
    assert highs[-1] == BACKOFF_CAP_S


async def test_retry_after_is_waited_for() -> None:
    asked = Asked(
        fails(UpstreamFailure(UpstreamRateLimited(), again=True, retry_after_s=0.05)), says("ok")
    )
    await asked.answer()
    first, second = asked.reader.asked
    assert second - first >= 0.045


async def test_a_retry_after_beyond_the_first_token_clock_fails_at_once() -> None:
    far = UpstreamFailure(UpstreamRateLimited(), again=True, retry_after_s=BOUND_S + 1)
    asked = Asked(fails(far), says("too late"))
    await asked.fails_with(UpstreamRateLimited)  # Asked bounds it below that wait
    assert len(asked.reader.asked) == 1


async def test_the_first_token_clock_runs_through_all_attempts() -> None:
    slow = UpstreamFailure(UpstreamUnavailable(), again=True, retry_after_s=0.1)
    asked = Asked(fails(slow), hangs, first_token_s=0.5)
    await asked.fails_with(UpstreamTimeout)
    first, second = asked.reader.asked
    assert second - first >= 0.095
    assert asyncio.get_running_loop().time() - first >= 0.49


@pytest.mark.parametrize("channel", ["text", "reasoning", "tool call"])
async def test_after_the_first_token_nothing_is_tried_again(channel: str) -> None:
    async def attempt(turn: Turn) -> None:
        text, reasoning = channel == "text", channel == "reasoning"
        turn.chunk("x" * text, "x" * reasoning, tool_call=channel == "tool call")
        raise AGAIN

    asked = Asked(attempt, says("second"))
    await asked.fails_with(UpstreamUnavailable)
    assert len(asked.reader.asked) == 1
    assert Token("second") not in await asked.events()


async def test_a_chunk_without_any_content_is_no_first_token() -> None:
    asked = Asked(says("", reason=None, then=AGAIN), says("ok"))
    assert await asked.answer() == "stop"
    assert await asked.events() == [Token("ok")]


# -- endings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("texts", [(), ("whole",)])
async def test_an_answer_is_whole_once_its_finish_reason_was_seen(texts: tuple[str, ...]) -> None:
    asked = Asked(says(*texts, then=UpstreamFailure(UpstreamBroken())), says("again"))
    assert await asked.answer() == "stop"
    assert len(asked.reader.asked) == 1


@pytest.mark.parametrize("texts", [(), ("whole",)])
async def test_a_server_that_keeps_the_connection_cannot_keep_the_answer(
    monkeypatch: pytest.MonkeyPatch, texts: tuple[str, ...]
) -> None:
    monkeypatch.setattr(clocks, "TRAILER_S", 0.02)

    async def attempt(turn: Turn) -> None:
        await says(*texts)(turn)
        await hangs(turn)

    assert await Asked(attempt).answer() == "stop"


async def test_an_answer_without_a_finish_reason_broke_off() -> None:
    asked = Asked(says("part", reason=None))
    await asked.fails_with(UpstreamBroken)
    assert await asked.events() == [Token("part")]


async def test_silence_before_the_first_token_is_a_timeout() -> None:
    await Asked(hangs, first_token_s=0.02).fails_with(UpstreamTimeout)


async def test_silence_after_the_first_token_is_a_stall() -> None:
    async def attempt(turn: Turn) -> None:
        turn.chunk("part", "", tool_call=False)
        await hangs(turn)

    asked = Asked(attempt, stall_s=0.02)
    await asked.fails_with(UpstreamStalled)
    assert await asked.events() == [Token("part")]


# -- usage --------------------------------------------------------------------------------------


async def test_usage_is_what_the_upstream_told() -> None:
    told = Usage(7, 8, 15, estimated=False)

    async def attempt(turn: Turn) -> None:
        await says("a")(turn)
        turn.used(told)

    asked = Asked(attempt)
    await asked.answer()
    assert asked.reply.usage() == told


@pytest.mark.parametrize(("texts", "answered"), [((), 0), (("a", "b", "c"), 3), (("x" * 40,), 10)])
async def test_usage_is_estimated_where_the_upstream_never_told(
    texts: tuple[str, ...], answered: int
) -> None:
    asked = Asked(says(*texts))
    await asked.answer()
    assert asked.reply.usage() == Usage(2, answered, 2 + answered, estimated=True)


# -- loading ------------------------------------------------------------------------------------


async def test_an_answer_waits_until_the_library_is_loaded_and_its_clock_begins_then() -> None:
    asked = Asked(says("ok"), first_token_s=0.3)
    async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(asked.model.answer(asked.reply))
        await asyncio.sleep(0.35)  # longer than the clock, which must not run yet
        assert (asked.model.state, waiting.done()) == ("loading", False)
        await asked.model.load()
        assert await waiting == "stop"
    assert asked.model.state == "ready"
    await asked.model.aclose()
    assert asked.reader.closed


async def test_a_library_that_cannot_be_loaded_fails_every_answer_and_says_so() -> None:
    def broken() -> FakeReader:
        raise ImportError("no such library")

    model = chat_model(broken, entry())
    async with asyncio.timeout(BOUND_S):
        await model.load()
        assert model.state == "failed"
        with pytest.raises(Internal):
            await model.answer(model.reply(prompt(), EventQueue()))
        await model.aclose()
