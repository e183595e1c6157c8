"""One question, and tools that may be called for it."""

import asyncio
from typing import Any, TypeVar

import pytest
from langchain_core.tools import BaseTool, tool

from app.errors import GatewayError
from app.events.model import Event
from app.events.queue import EventQueue
from app.llm.model import ChatModel
from app.llm.toolbox import Toolbox
from app.llm.upstream import UpstreamReader
from tests.llm.asking import BOUND_S, chat_model
from tests.llm.making import entry, prompt

TURNS = 4


@tool
async def weather(city: str) -> str:
    """The weather in a city."""
    return f"sun in {city}"


class Loop:
    """One question, and the tools that may be called for it."""

    def __init__(
        self,
        reader: UpstreamReader,
        text: str,
        *tools: BaseTool,
        toolbox: Toolbox | None = None,
        **more: Any,
    ) -> None:
        self.entry = entry("m", is_simulator=True, **more)
        made = chat_model(lambda: reader, self.entry)
        self.model: ChatModel = made
        made._tools = toolbox or Toolbox(tools)
        made._max_iterations = TURNS
        self.queue = EventQueue()
        names = tuple(one.name for one in tools)
        self.reply = made.reply(prompt(text, entry=self.entry, tools=names), self.queue)

    async def answer(self) -> str:
        async with asyncio.timeout(BOUND_S):
            await self.model.load()
            return await self.model.answer(self.reply)

    async def fails_with(self, error: type[GatewayError]) -> None:
        with pytest.raises(error):
            await self.answer()

    async def events(self) -> list[Event]:
        self.queue.close()
        return await self.queue.take()


Kind = TypeVar("Kind", bound=Event)


def only(kind: type[Kind], events: list[Event]) -> list[Kind]:
    return [event for event in events if isinstance(event, kind)]
