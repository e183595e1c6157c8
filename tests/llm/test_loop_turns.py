"""The loop of model turns and tools, with an upstream that is played."""

import asyncio

import pytest
from langchain_core.tools import BaseTool, tool

from app.errors import UpstreamUnavailable
from app.events.model import Draft, Retract, Token, ToolCall, ToolResult
from app.llm.turn import Turn
from tests.llm.asking import AGAIN, BOUND_S, FakeReader, calls, fails, hangs, says
from tests.llm.looping import Loop, only, weather

pytestmark = pytest.mark.anyio


def hanging(began: asyncio.Event, ended: asyncio.Event) -> BaseTool:
    @tool
    async def hanging(city: str) -> str:
        """Never ends."""
        began.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()
        return ""

    return hanging


async def test_tools_run_at_the_same_time() -> None:
    both = asyncio.Barrier(3)

    @tool
    async def meets(city: str) -> str:
        """Ends once all of them run."""
        await both.wait()
        return "met"

    reader = FakeReader(calls("meets", "meets", "meets", arguments='{"city": "x"}'), says("ok"))
    loop = Loop(reader, "hi", meets)
    assert await loop.answer() == "stop"
    assert len(only(ToolResult, await loop.events())) == 3


async def test_an_id_that_a_server_gives_in_each_turn_is_told_apart() -> None:
    turn = calls("weather", arguments='{"city": "x"}')
    loop = Loop(FakeReader(turn, turn, says("ok")), "hi", weather)
    await loop.answer()
    events = await loop.events()
    ids = [call.id for call in only(ToolCall, events)]
    assert len(set(ids)) == 2
    assert [result.id for result in only(ToolResult, events)] == ids


async def test_text_beside_calls_is_no_answer_though_the_model_stops() -> None:
    async def both(turn: Turn) -> None:
        turn.chunk("a", "", tool_call=False)
        turn.tool_call_piece(0, "x", "weather", '{"city": "x"}')
        turn.chunk("b", "", tool_call=True)
        turn.finished("stop")

    loop = Loop(FakeReader(both, says("ok")), "hi", weather)
    assert await loop.answer() == "stop"
    events = await loop.events()
    assert events[:3] == [Token("a"), Retract("a"), Draft("b")]
    assert events[-1] == Token("ok")
    (step,) = loop.reply.steps
    assert (step.text, step.calls[0].tool, step.results[0].content) == ("a", "weather", "sun in x")


async def test_a_failure_in_a_later_turn_ends_the_run_with_its_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.llm.asking.BACKOFF_BASE_S", 0)
    loop = Loop(FakeReader(calls("weather", preamble="I look."), fails(AGAIN)), "hi", weather)
    await loop.fails_with(UpstreamUnavailable)
    assert loop.reply.attempts == 1 + 3
    assert loop.reply.usage().estimated
    assert len(loop.reply.steps) == 1


async def test_retries_count_for_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.llm.asking.BACKOFF_BASE_S", 0)
    again = fails(AGAIN)
    reader = FakeReader(again, again, calls("weather"), again, again, says("ok"))
    loop = Loop(reader, "hi", weather)
    assert await loop.answer() == "stop"
    assert loop.reply.attempts == 6


async def test_the_clocks_rest_while_tools_run() -> None:
    @tool
    async def slow(city: str) -> str:
        """Takes longer than a model may."""
        await asyncio.sleep(0.5)
        return "late"

    turn = calls("slow", arguments='{"city": "x"}')
    loop = Loop(FakeReader(turn, says("ok")), "hi", slow, first_token_s=0.3, stall_s=0.3)
    assert await loop.answer() == "stop"


async def test_a_cancel_ends_the_tools_that_run() -> None:
    began, ended = asyncio.Event(), asyncio.Event()
    turn = calls("hanging", "weather", arguments='{"city": "x"}')
    loop = Loop(FakeReader(turn, hangs), "hi", hanging(began, ended), weather)
    async with asyncio.timeout(BOUND_S):
        answering = asyncio.ensure_future(loop.answer())
        await began.wait()
        answering.cancel()
        await asyncio.wait({answering})
    assert (answering.cancelled(), ended.is_set()) == (True, True)
    assert {result.tool for result in only(ToolResult, await loop.events())} <= {"weather"}
