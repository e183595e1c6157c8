"""Which model answers: the fallbacks, before the first token and never after it."""

import asyncio
import random

import pytest

from app.errors import (
    UpstreamAuth,
    UpstreamBroken,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamStalled,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.events.model import Reasoning, Token, ToolResult
from app.llm import asking as asking_module
from app.llm import model as model_module
from app.llm.breaker import OPEN_S, Breaker
from app.llm.catalogue import Catalogue
from app.llm.turn import Turn
from app.llm.upstream import UpstreamFailure
from tests.llm.asking import AGAIN, Attempt, calls, fails, hangs, says
from tests.llm.making import entry
from tests.llm.models import DOWN, NO_MONEY, REJECTED, Clock, World

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking_module, "BACKOFF_BASE_S", 0)


# -- before and after the first token -----------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "attempts"),
    [
        (AGAIN, 3),
        (NO_MONEY, 1),
        (REJECTED, 1),
        (UpstreamFailure(UpstreamRateLimited(), again=True, retry_after_s=3600), 1),
        (UpstreamFailure(UpstreamBroken()), 1),
    ],
)
async def test_before_the_first_token_the_fallback_answers(
    failure: UpstreamFailure, attempts: int
) -> None:
    world = World("a", "b")
    world.plays |= {"a": fails(failure), "b": says("from b")}
    reply, events = await world.answer()
    assert events == [Token("from b")]
    assert world.newly_asked() == ["a"] * attempts + ["b"]
    assert (reply.answered_by, reply.attempts) == ("b", attempts + 1)


async def test_an_answer_that_ends_before_it_began_is_one_that_failed() -> None:
    world = World("a", "b")
    world.plays |= {"a": says(reason=None), "b": says("from b")}
    _, events = await world.answer()
    assert events == [Token("from b")]


@pytest.mark.parametrize("channel", ["text", "reasoning", "tool call"])
async def test_after_the_first_token_no_other_model_speaks(channel: str) -> None:
    async def breaks(turn: Turn) -> None:
        text, reasoning = "x" * (channel == "text"), "x" * (channel == "reasoning")
        turn.chunk(text, reasoning, tool_call=channel == "tool call")
        raise AGAIN

    world = World("a", "b")
    world.plays["a"] = breaks
    await world.fails_with(UpstreamUnavailable)
    assert world.newly_asked() == ["a"]


async def test_the_error_is_that_of_the_model_that_spoke() -> None:
    world = World("a", "b", "c")
    broken = UpstreamFailure(UpstreamBroken())
    world.plays |= {"a": fails(AGAIN), "b": says("x", reason=None, then=broken)}
    await world.fails_with(UpstreamBroken)
    assert "c" not in world.newly_asked()


async def test_where_all_fail_the_error_is_that_of_the_model_that_was_asked_for() -> None:
    world = World("a", "b")
    world.plays |= {"a": fails(UpstreamFailure(UpstreamAuth())), "b": fails(AGAIN)}
    await world.fails_with(UpstreamAuth)


async def test_the_clock_of_the_first_token_runs_through_all_models() -> None:
    world = World("a", "b", "c", first_token_s=0.1)
    world.plays |= {"a": fails(DOWN), "b": hangs}
    await world.fails_with(UpstreamTimeout)
    assert world.newly_asked() == ["a", "b"]


async def test_each_model_has_a_stall_clock_of_its_own() -> None:
    world = World("a", "b")
    patient, hurried = entry("a", fallbacks=("b",)), entry("b", stall_s=0.05)
    world.model._catalogue = Catalogue([patient, hurried], patient, is_from_file=True)

    async def stalls(turn: Turn) -> None:
        await says("x", reason=None)(turn)
        await hangs(turn)

    world.plays |= {"a": fails(DOWN), "b": stalls}
    await world.fails_with(UpstreamStalled)


async def test_the_model_that_spoke_stays_the_first_in_the_turns_that_follow() -> None:
    world = World("a", "b", "c")
    turns = iter([calls("f"), fails(DOWN)])
    world.plays |= {"a": fails(DOWN), "b": lambda turn: next(turns)(turn), "c": says("from c")}
    reply, events = await world.answer("f")
    assert world.newly_asked() == ["a", "b", "b", "a", "c"]
    assert (reply.answered_by, events[-1]) == ("c", Token("from c"))


# -- by chance ----------------------------------------------------------------------------------


def by_chance(chance: random.Random, name: str) -> Attempt:
    """A third fails before its first token, a third in the middle, the rest is whole."""

    async def attempt(turn: Turn) -> None:
        fate = chance.choice(["before", "middle", "whole"])
        if fate == "before":
            raise chance.choice([AGAIN, DOWN, NO_MONEY, REJECTED])
        for at in range(chance.randint(1, 5)):
            turn.chunk(f"{name}{at} ", name * chance.randint(0, 1), tool_call=False)
            await asyncio.sleep(0)
        if fate == "whole":
            turn.finished("stop")
        elif chance.random() < 0.5:
            raise AGAIN

    return attempt


async def test_text_of_one_answer_is_of_one_model_in_2000_turns_by_chance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(model_module, "Breaker", lambda: Breaker(clock))
    chance = random.Random(7)
    world = World("a", "b", "c")
    world.plays = {name: by_chance(chance, name) for name in world.plays}
    await world.model.load()
    whole = 0

    async def one() -> None:
        nonlocal whole
        reply, queue = world.asks()
        try:
            assert await world.model.answer(reply) == "stop"
            whole += 1
        except UpstreamError:
            pass
        queue.close()
        events = await queue.take()
        texts = [event.text for event in events if isinstance(event, Token | Reasoning)]
        assert len({text[0] for text in texts}) <= 1, texts
        assert not texts or texts[0][0] == reply.answered_by

    async with asyncio.timeout(60):
        for _ in range(100):
            await asyncio.gather(*(one() for _ in range(20)))
            clock.now += 10
    assert whole > 200
    clock.now += OPEN_S
    lost = [name for name, one in world.model._breakers.items() if not one.admits()]
    assert not lost, "a probe never told how it ended"


# -- what a fallback is, and not the model that it stands in for ---------------------------------


async def test_a_fallback_is_read_in_its_own_style() -> None:
    world = World("a", "b", b={"reasoning": "tags"})
    world.plays |= {"a": fails(DOWN), "b": says("<think>why", "</think>", "b")}
    _, events = await world.answer()
    assert events == [Reasoning("why"), Token("b")]


async def test_a_fallback_cannot_call_tools_that_it_may_not_use() -> None:
    world = World("a", "b", b={"tools": ("other",)})

    async def attempt(turn: Turn) -> None:
        await (says("sun") if turn.steps else calls("weather"))(turn)

    world.plays |= {"a": fails(DOWN), "b": attempt}
    _, events = await world.answer("weather", "other")
    (result,) = [event for event in events if isinstance(event, ToolResult)]
    assert result.is_error
    assert result.content == "There is no such tool. There are: other"
