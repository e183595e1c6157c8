"""One question to a model whose upstream is played by a script."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from app.errors import GatewayError, UpstreamUnavailable
from app.events.model import Event
from app.events.queue import EventQueue
from app.llm.catalogue import Catalogue, ModelEntry
from app.llm.model import ChatModel
from app.llm.reply import Reply
from app.llm.toolbox import Toolbox
from app.llm.turn import Turn
from app.llm.upstream import Begin, UpstreamFailure, UpstreamReader
from tests.llm.making import entry, prompt

BOUND_S = 10
AGAIN = UpstreamFailure(UpstreamUnavailable(), again=True)
Attempt = Callable[[Turn], Awaitable[None]]


class FakeReader:
    """Plays one script for each attempt, and the last one for ever."""

    def __init__(self, *attempts: Attempt) -> None:
        self._attempts = attempts
        self.asked: list[float] = []  # loop times
        self.names: list[str] = []  # of the models that were asked
        self.closed = False

    async def ask(self, turn: Turn, entry: ModelEntry) -> None:
        self.asked.append(asyncio.get_running_loop().time())
        self.names.append(entry.name)
        await asyncio.sleep(0)
        await self._attempts[min(len(self.asked), len(self._attempts)) - 1](turn)

    async def run(self, reply: Reply, begin: Begin) -> str:
        raise NotImplementedError

    async def aclose(self) -> None:
        self.closed = True


def says(*texts: str, reason: str | None = "stop", then: Exception | None = None) -> Attempt:
    async def attempt(turn: Turn) -> None:
        for text in texts:
            turn.chunk(text, "", tool_call=False)
            await asyncio.sleep(0)
        if reason is not None:
            turn.finished(reason)
        if then is not None:
            raise then

    return attempt


def fails(failure: UpstreamFailure) -> Attempt:
    return says(reason=None, then=failure)


def calls(*tools: str, preamble: str = "", arguments: str = "{}") -> Attempt:
    async def attempt(turn: Turn) -> None:
        if preamble:
            turn.chunk(preamble, "", tool_call=False)
        for at, tool in enumerate(tools):
            turn.chunk("", "", tool_call=True)
            turn.tool_call_piece(at, f"call_{at}", tool, arguments)
            await asyncio.sleep(0)
        turn.finished("tool_calls")

    return attempt


async def hangs(turn: Turn) -> None:
    await asyncio.get_running_loop().create_future()


def chat_model(
    build: Callable[[], UpstreamReader], *entries: ModelEntry, is_from_file: bool = False
) -> ChatModel:
    """The first of ``entries`` is the default."""
    catalogue = Catalogue(entries, entries[0], is_from_file=is_from_file)
    return ChatModel(build, catalogue, Toolbox(), max_iterations=3, max_answer_bytes=10**6)


class Asked:
    """How one question went."""

    def __init__(
        self, *attempts: Attempt, first_token_s: float = BOUND_S, stall_s: float = BOUND_S
    ) -> None:
        self.reader = FakeReader(*attempts)
        self.entry = entry(first_token_s=first_token_s, stall_s=stall_s)
        self.model = chat_model(lambda: self.reader, self.entry)
        self.queue = EventQueue()
        self.reply = self.model.reply(prompt("abcdefgh", entry=self.entry), self.queue)

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
