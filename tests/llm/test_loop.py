"""The loop of model turns and tools, over HTTP to the simulator."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.tools import BaseTool, tool

from app.environment import load
from app.errors import GatewayError, TooManyIterations
from app.events.model import Retract, Token, ToolCall, ToolResult, Usage
from app.llm.langchain import LangChainReader
from app.llm.toolbox import Toolbox
from app.simulator import Simulator
from app.simulator.texts import PREAMBLE
from tests.llm.looping import TURNS, Loop, only, weather

pytestmark = pytest.mark.anyio


@tool
async def broken(city: str) -> str:
    """Fails."""
    raise RuntimeError("secret")


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as server:
        yield server


class Real:
    """Loops over the real reader."""

    def __init__(self, simulator: Simulator, kind: str) -> None:
        self.simulator = simulator
        self.settings = load({"GATEWAY_UPSTREAM_READER": kind})
        self.readers: list[LangChainReader] = []

    def loop(self, text: str, *tools: BaseTool, **more: Any) -> Loop:
        toolbox = Toolbox(tools)
        reader = LangChainReader(self.settings, self.simulator.url, toolbox)
        self.readers.append(reader)
        return Loop(reader, text, *tools, toolbox=toolbox, **more)


@pytest.fixture(params=["lean", "langchain"])
async def real(request: pytest.FixtureRequest, simulator: Simulator) -> AsyncIterator[Real]:
    real = Real(simulator, request.param)
    yield real
    for reader in real.readers:
        await reader.aclose()


async def test_calls_run_and_the_model_answers_with_their_results(real: Real) -> None:
    loop = real.loop("sim:tool,name=weather,preamble=1,calls=2", weather)
    assert await loop.answer() == "stop"
    events = await loop.events()
    first, second = (ToolCall(f"call_1_{at}", "weather", '{"city": "Paris"}') for at in (0, 1))
    at = events.index(Retract(PREAMBLE))
    assert "".join(event.text for event in only(Token, events[:at])) == PREAMBLE
    assert events[at + 1 : at + 3] == [first, second]
    assert {event.id for event in only(ToolResult, events[at + 3 : at + 5])} == {
        first.id,
        second.id,
    }
    assert "".join(event.text for event in only(Token, events[at + 5 :])) == (
        "The tool says: sun in Paris; sun in Paris"
    )
    assert (loop.reply.attempts, loop.reply.answered_by) == (2, "m")


async def test_results_go_back_under_their_ids_in_the_order_of_the_calls(real: Real) -> None:
    @tool
    async def slow(city: str) -> str:
        """Ends after the other one."""
        await asyncio.sleep(0.05)
        return "slow"

    loop = real.loop("sim:tool,name=slow+weather,preamble=1", slow, weather)
    await loop.answer()
    assert [result.content for result in only(ToolResult, await loop.events())] == [
        "sun in Paris",
        "slow",
    ]
    first, second = real.simulator.requests()
    assert [one["function"]["name"] for one in first["tools"]] == ["slow", "weather"]
    assert second["tools"] == first["tools"]
    _, assistant, *results = second["messages"]
    assert assistant["content"] == PREAMBLE
    assert [call["id"] for call in assistant["tool_calls"]] == ["call_1_0", "call_1_1"]
    assert results == [
        {"role": "tool", "content": "slow", "tool_call_id": "call_1_0"},
        {"role": "tool", "content": "sun in Paris", "tool_call_id": "call_1_1"},
    ]


async def test_a_model_that_calls_for_ever_is_stopped_after_so_many_turns(real: Real) -> None:
    loop = real.loop(f"sim:tool,name=weather,rounds={TURNS},preamble=1", weather)
    await loop.fails_with(TooManyIterations)
    events = await loop.events()
    assert len(only(ToolCall, events)) == len(only(ToolResult, events)) == TURNS - 1
    assert len(only(Retract, events)) == TURNS == len(real.simulator.requests())


async def test_the_last_turn_may_answer(real: Real) -> None:
    loop = real.loop(f"sim:tool,name=weather,rounds={TURNS - 1}", weather)
    assert await loop.answer() == "stop"


async def test_a_model_repairs_arguments_that_are_no_json(real: Real) -> None:
    loop = real.loop("sim:tool,name=weather,repair=1", weather)
    assert await loop.answer() == "stop"
    wrong, right = only(ToolResult, await loop.events())
    assert (wrong.is_error, right) == (
        True,
        ToolResult(right.id, "weather", "sun in Paris", is_error=False),
    )
    again = real.simulator.requests()[1]["messages"]
    written = json.loads(again[1]["tool_calls"][0]["function"]["arguments"])
    assert list(written) == ["invalid"]
    assert "not a JSON object" in again[2]["content"]


async def test_a_tool_that_raises_or_is_not_there_is_an_error_result(real: Real) -> None:
    loop = real.loop("sim:tool,name=broken+other", broken, weather)
    assert await loop.answer() == "stop"
    results = {result.tool: result for result in only(ToolResult, await loop.events())}
    assert all(result.is_error for result in results.values())
    assert "secret" not in results["broken"].content
    assert results["other"].content == "There is no such tool. There are: broken, weather"


async def test_usage_is_that_of_all_turns(real: Real) -> None:
    loop = real.loop("sim:tool,name=weather", weather)
    await loop.answer()
    first, second = (turn.usage() for turn in loop.reply.turns)
    assert loop.reply.usage() == Usage(
        first.input_tokens + second.input_tokens,
        first.output_tokens + second.output_tokens,
        first.total_tokens + second.total_tokens,
        estimated=False,
    )


async def test_a_model_that_was_offered_no_tools_calls_none(real: Real) -> None:
    loop = real.loop("sim:tool,name=weather,preamble=1")
    assert await loop.answer() == "tool_calls"
    assert not only(Retract, await loop.events())


async def test_tools_that_an_entry_may_not_use_are_not_offered_to_it(real: Real) -> None:
    loop = real.loop("sim:echo hi", weather, broken, tools=("broken",))
    await loop.answer()
    (request,) = real.simulator.requests()
    assert [one["function"]["name"] for one in request["tools"]] == ["broken"]


@pytest.mark.parametrize("real", ["lean"], indirect=True)
@pytest.mark.parametrize("is_enough", [True, False])
async def test_done_alone_is_an_ending_only_where_the_entry_says_so(
    real: Real, is_enough: bool
) -> None:
    loop = real.loop("sim:done_only", done_is_enough=is_enough)
    if is_enough:
        assert await loop.answer() == "stop"
    else:
        with pytest.raises(GatewayError, match="broke off"):
            await loop.answer()
    cut = real.loop("sim:eof", done_is_enough=is_enough)
    with pytest.raises(GatewayError, match="broke off"):
        await cut.answer()
