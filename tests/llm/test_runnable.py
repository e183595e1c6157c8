"""A LangGraph agent in place of our own loop: real models, over HTTP."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from app.environment import load
from app.errors import TooManyIterations
from app.events.model import Draft, Retract, ToolCall, ToolResult
from app.events.queue import EventQueue
from app.llm.langchain import LangChainReader
from app.llm.toolbox import Toolbox
from app.llm.turn import Prompt
from app.simulator import Simulator
from app.simulator.texts import PREAMBLE
from tests.llm.agents import BOUND_S, CALL, Ran, agent, ended, openai_model, text_of
from tests.llm.asking import chat_model
from tests.llm.looping import only, weather
from tests.llm.making import entry, message

pytestmark = pytest.mark.anyio


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as server:
        yield server


async def test_an_agent_s_turns_calls_and_results_come_in_their_order(simulator: Simulator) -> None:
    ran = Ran(agent(openai_model(simulator), weather), CALL)
    events = await ended(ran)
    (call,), (result,) = only(ToolCall, events), only(ToolResult, events)
    assert call == ToolCall("call_1_0", "weather", '{"city": "Paris"}')
    assert result == ToolResult("call_1_0", "weather", "sun in Paris", is_error=False)
    at = events.index(call)
    assert events[at - 1] == Retract(PREAMBLE)
    assert events[at + 1] == result
    assert text_of(events) == "The tool says: sun in Paris"
    assert (ran.reply.answered_by, ran.reply.attempts) == ("agent", 1)


async def test_usage_is_that_of_all_turns(simulator: Simulator) -> None:
    ran = Ran(agent(openai_model(simulator), weather), CALL)
    await ended(ran)
    first, second = (turn.usage() for turn in ran.reply.turns)
    assert {first.estimated, second.estimated} == {False}
    assert ran.reply.usage().total_tokens == first.total_tokens + second.total_tokens


async def test_tokens_come_while_the_model_still_speaks(simulator: Simulator) -> None:
    ran = Ran(agent(openai_model(simulator), weather), "sim:tokens,n=100000,interval=0.001")
    async with asyncio.timeout(BOUND_S):
        asked = asyncio.ensure_future(ran.answer())
        taken = 0
        while taken < 20:
            taken += len(await ran.queue.take())
        assert not asked.done()
        assert simulator.stats.view().open == 1
        asked.cancel()
        await asyncio.wait({asked})
    assert asked.cancelled()


async def test_the_same_id_in_each_turn_is_told_apart(simulator: Simulator) -> None:
    model = openai_model(simulator)
    stream = model._astream

    async def one_id(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async for chunk in stream(*args, **kwargs):
            for piece in getattr(chunk.message, "tool_call_chunks", ()):
                piece["id"] = piece["id"] and "same"
            yield chunk

    object.__setattr__(model, "_astream", one_id)
    ran = Ran(agent(model, weather), f"{CALL},rounds=3")
    events = await ended(ran)
    calls = [call.id for call in only(ToolCall, events)]
    assert len(set(calls)) == 3
    assert [result.id for result in only(ToolResult, events)] == calls


async def test_a_tool_that_raises_is_an_error_result(simulator: Simulator) -> None:
    @tool
    async def weather(city: str) -> str:
        """The weather in a city."""
        raise RuntimeError("secret")

    made = agent(openai_model(simulator), weather)
    made.nodes["tools"].bound._handle_tool_errors = True
    events = await ended(Ran(made, CALL))
    (result,) = only(ToolResult, events)
    assert (result.is_error, "secret" in result.content) == (True, False)


@pytest.mark.parametrize(("recursion_limit", "turns"), [(4, 100), (100, 2)])
async def test_an_agent_that_never_ends_is_ended_by_its_own_limit_or_ours(
    simulator: Simulator, recursion_limit: int, turns: int
) -> None:
    made = agent(openai_model(simulator), weather).with_config(recursion_limit=recursion_limit)
    ran = Ran(made, f"{CALL},rounds=100", turns=turns)
    await ran.fails_with(TooManyIterations)
    assert len(ran.reply.turns) == 2


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_model_in_a_thread_is_heard_too(simulator: Simulator, streaming: bool) -> None:
    model = openai_model(simulator, disable_streaming=not streaming)
    bound = model.bind_tools([weather])
    threads: set[int] = set()

    def ask(state: MessagesState) -> dict[str, Any]:
        threads.add(threading.get_ident())
        return {"messages": [bound.invoke(state["messages"])]}

    events = await ended(Ran(agent(model, weather, node=ask), CALL))
    assert threading.get_ident() not in threads
    assert [event.id for event in only(ToolCall, events) + only(ToolResult, events)] == [
        "call_1_0",
        "call_1_0",
    ]
    assert text_of(events) == "The tool says: sun in Paris"


async def test_a_tool_s_result_that_ends_the_graph_is_the_answer(simulator: Simulator) -> None:
    bound = openai_model(simulator).bind_tools([weather])

    async def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await bound.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", ask)
    graph.add_node("tools", ToolNode([weather]))
    graph.add_edge(START, "model")
    graph.add_edge("model", "tools")
    graph.add_edge("tools", END)
    ran = Ran(graph.compile(), CALL)
    assert text_of(await ended(ran)) == "sun in Paris"
    assert not ran.reply.usage().estimated


async def test_a_model_inside_a_tool_is_not_the_answer(simulator: Simulator) -> None:
    @tool
    async def weather(city: str) -> str:
        """The weather in a city."""
        return (await openai_model(simulator).ainvoke("sim:echo inner")).text

    events = await ended(Ran(agent(openai_model(simulator), weather), CALL))
    assert text_of(events) == "The tool says: inner"
    assert "".join(event.text for event in only(Draft, events)) == "inner"


async def test_the_history_is_what_it_is_asked(simulator: Simulator) -> None:
    class State(TypedDict):
        messages: list[BaseMessage]

    heard: list[BaseMessage] = []

    def node(state: State) -> State:
        heard.extend(state["messages"])
        return {"messages": [AIMessage("ok")]}

    graph = StateGraph(State)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    ran = Ran(graph.compile())
    ran.messages = [HumanMessage("one"), AIMessage("two"), HumanMessage("three")]
    assert text_of(await ended(ran)) == "ok"
    assert heard == ran.messages


async def test_the_reader_passes_the_conversation_and_finds_the_runnable(
    simulator: Simulator,
) -> None:
    asked = entry("agent", runnable="tests.llm.test_runnable:REPEATS")
    model = chat_model(lambda: LangChainReader(load({}), None, Toolbox()), asked)
    await model.load()
    talk = (message("q1"), message("a1", "assistant"), message("q2"))
    queue = EventQueue()
    reply = model.reply(Prompt(asked, talk), queue)
    async with asyncio.timeout(BOUND_S):
        assert await model.answer(reply) == "stop"
        queue.close()
        assert text_of(await queue.take()) == "human:q1 ai:a1 human:q2"
        await model.aclose()


def repeats(asked: dict[str, list[BaseMessage]]) -> str:
    return " ".join(f"{one.type}:{one.text}" for one in asked["messages"])


REPEATS: Runnable[Any, str] = RunnableLambda(repeats)
