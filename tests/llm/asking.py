"""One question to a model whose upstream is played by a script."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from app.errors import GatewayError, UpstreamUnavailable
from app.events.model import Event
from app.events.queue import EventQueue
from app.llm.model import ChatModel
from app.llm.turn import Prompt, Turn, UpstreamFailure

BOUND_S = 10
AGAIN = UpstreamFailure(UpstreamUnavailable(), again=True)
Attempt = Callable[[Turn], Awaitable[None]]


class FakeReader:
    """Plays one script for each attempt, and the last one for ever."""

    def __init__(self, *attempts: Attempt) -> None:
        self._attempts = attempts
        self.asked: list[float] = []  # loop times
        self.closed = False

    async def ask(self, turn: Turn) -> None:
        self.asked.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0)
        await self._attempts[min(len(self.asked), len(self._attempts)) - 1](turn)

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


async def hangs(turn: Turn) -> None:
    await asyncio.get_running_loop().create_future()


class Asked:
    """How one question went."""

    def __init__(
        self, *attempts: Attempt, first_token_s: float = BOUND_S, stall_s: float = BOUND_S
    ) -> None:
        self.reader = FakeReader(*attempts)
        self.model = ChatModel(lambda: self.reader, first_token_s=first_token_s, stall_s=stall_s)
        self.queue = EventQueue()
        self.turn = self.model.turn(Prompt("abcdefgh", "m"), self.queue)

    async def answer(self) -> str:
        async with asyncio.timeout(BOUND_S):
            await self.model.load()
            return await self.model.answer(self.turn)

    async def fails_with(self, error: type[GatewayError]) -> None:
        with pytest.raises(error):
            await self.answer()

    async def events(self) -> list[Event]:
        self.queue.close()
        return await self.queue.take()
