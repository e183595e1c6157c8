"""A file of models, one of which falls back to the others, each played by a script."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from app.errors import GatewayError, UpstreamRateLimited, UpstreamRejected, UpstreamUnavailable
from app.events.model import Event
from app.events.queue import EventQueue
from app.llm.catalogue import Catalogue, ModelEntry
from app.llm.model import ChatModel
from app.llm.reply import Reply
from app.llm.toolbox import Toolbox
from app.llm.turn import Turn
from app.llm.upstream import UpstreamFailure
from tests.llm.asking import BOUND_S, Attempt, FakeReader, says
from tests.llm.making import entry, prompt

NO_MONEY = UpstreamFailure(UpstreamRateLimited())
REJECTED = UpstreamFailure(UpstreamRejected())
DOWN = UpstreamFailure(UpstreamUnavailable())


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class World(FakeReader):
    """A file of models: the first falls back to the others. Each plays what it is told to.
    ``more``: of all entries, and under a model's name, of that one."""

    def __init__(self, *names: str, **more: Any) -> None:
        super().__init__()
        self.plays: dict[str, Attempt] = dict.fromkeys(names, says("?"))
        own = {name: more.pop(name, {}) for name in names}
        entries = [entry(name, **more, **own[name]) for name in names]
        entries[0] = replace(entries[0], fallbacks=names[1:])
        self.model = ChatModel(
            lambda: self,
            Catalogue(entries, entries[0], is_from_file=True),
            Toolbox(),
            max_iterations=5,
            max_answer_bytes=10**6,
        )

    async def ask(self, turn: Turn, entry: ModelEntry) -> None:
        self.names.append(entry.name)
        await asyncio.sleep(0)
        await self.plays[entry.name](turn)

    def asks(self, *tools: str) -> tuple[Reply, EventQueue]:
        queue = EventQueue()
        catalogue = self.model._catalogue
        return self.model.reply(prompt(entry=catalogue.default, tools=tools), queue), queue

    async def answer(self, *tools: str) -> tuple[Reply, list[Event]]:
        reply, queue = self.asks(*tools)
        async with asyncio.timeout(BOUND_S):
            await self.model.load()
            try:
                await self.model.answer(reply)
            finally:
                queue.close()
            return reply, await queue.take()

    async def fails_with(self, error: type[GatewayError]) -> None:
        with pytest.raises(GatewayError) as caught:
            await self.answer()
        assert type(caught.value) is error

    def newly_asked(self) -> list[str]:
        """The models that were asked since the last look."""
        names, self.names = self.names, []
        return names
