"""A link to Redis whose pulse beats, and a channel that listens, for tests of what uses them."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from app.events.redis_channel import Channel
from app.events.redis_link import Link

BOUND_S = 30.0


def own(url: str) -> str:
    """With names of the test's own."""
    return f"{url}?prefix=test-{secrets.token_hex(6)}"


@asynccontextmanager
async def linked(url: str) -> AsyncIterator[Link]:
    """It may not be reachable yet. What happens inside is bounded."""
    link = Link(url)
    pulse = asyncio.ensure_future(link.run())
    try:
        async with asyncio.timeout(BOUND_S):
            yield link
    finally:
        pulse.cancel()
        await asyncio.wait({pulse})
        await link.aclose()


async def until(holds: Callable[[], object]) -> None:
    """The caller bounds it."""
    while not holds():  # noqa: ASYNC110  # another process' doing: nothing tells
        await asyncio.sleep(0.005)


class Ear:
    """``story``: all that it was told, in order."""

    def __init__(self) -> None:
        self.story: list[str | bytes] = []

    def subscribed(self) -> None:
        self.story.append("subscribed")

    def heard(self, message: bytes) -> None:
        self.story.append(message)

    def deaf(self) -> None:
        self.story.append("deaf")

    async def told(self, *story: str | bytes) -> None:
        try:
            await until(lambda: len(self.story) >= len(story))
        finally:
            assert self.story == list(story)

    async def last_told(self, word: str | bytes) -> None:
        await until(lambda: self.story[-1:] == [word])


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[tuple[Link, Channel]]:
    async with linked(url) as link:
        channel = Channel(link)
        task = asyncio.ensure_future(channel.run())
        try:
            await link.reachable()
            yield link, channel
        finally:
            task.cancel()
            await asyncio.wait({task})


async def listeners(link: Link, *names: str) -> list[int]:
    """How many connections Redis has subscribed to each."""
    answer = await link.call("PUBSUB", "NUMSUB", *names)
    return list(answer[1::2])


async def asked(link: Link) -> dict[str, int]:
    """How often Redis was asked for each command."""
    lines = (await link.call("INFO", "commandstats")).decode().split()
    parts = (line.removeprefix("cmdstat_").split(":calls=") for line in lines if ":calls=" in line)
    return {name: int(rest.partition(",")[0]) for name, rest in parts}
