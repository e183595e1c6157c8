"""A LangGraph agent, and what a reader sees of a runnable that answers."""

import asyncio
from typing import Any

import openai
import pytest
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import Runnable
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from app.errors import GatewayError
from app.events.model import Event, Retract, Token
from app.events.queue import EventQueue
from app.llm.reply import Reply
from app.llm.runnable import run
from app.simulator import Simulator
from tests.llm.asking import FakeReader, chat_model
from tests.llm.making import entry, prompt

BOUND_S = 30
CALL = "sim:tool,preamble=1,name=weather"


def openai_model(simulator: Simulator, **more: Any) -> ChatOpenAI:
    """With clients of its own that keep no connection: those that LangChain shares by address would
    outlive the test's loop."""
    values: dict[str, Any] = {"model": "m", "api_key": "k", "max_retries": 0, "stream_usage": True}
    return ChatOpenAI(
        base_url=simulator.url,
        http_client=openai.DefaultHttpxClient(),
        http_async_client=openai.DefaultAsyncHttpxClient(),
        default_headers={"connection": "close"},
        **(values | more),
    )


def agent(model: ChatOpenAI, *tools: Any, node: Any = None) -> Any:
    """The usual circle of a model and its tools."""
    bound = model.bind_tools(tools)

    async def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await bound.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", node or ask)
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile()


class Ran:
    """One question to a runnable."""

    def __init__(
        self, runnable: Runnable[Any, Any], text: str = "hi", *, turns: int = 100, **more: Any
    ) -> None:
        self.runnable = runnable
        self.queue = EventQueue()
        asked = prompt(text, entry=entry("agent", runnable="x:y", **more))
        self.reply = Reply(asked, self.queue)
        self.model = chat_model(FakeReader, asked.entry)
        self.model._max_iterations = turns
        self.messages: list[BaseMessage] = [HumanMessage(text)]

    async def answer(self) -> str:
        async with asyncio.timeout(BOUND_S):
            return await run(self.runnable, self.messages, self.reply, self.model._begin)

    async def fails_with(self, error: type[GatewayError] | str) -> None:
        with pytest.raises(GatewayError) as caught:
            await self.answer()
        told = caught.value
        assert (told.code if isinstance(error, str) else type(told)) == error

    async def events(self) -> list[Event]:
        self.queue.close()
        return await self.queue.take()


def text_of(events: list[Event]) -> str:
    """The answer, as a reader of the stream puts it together."""
    text = ""
    for event in events:
        if isinstance(event, Token):
            text += event.text
        elif isinstance(event, Retract):
            assert text.endswith(event.text)
            text = text.removesuffix(event.text)
    return text


async def ended(ran: Ran) -> list[Event]:
    assert await ran.answer() == "stop"
    return await ran.events()
