"""The load: many streams at once against one target, every token of each checked."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from re import Pattern

from tests.bench.client import Client, Failed, Tally
from tests.bench.shapes import expected


@dataclass(frozen=True)
class Plan:
    """``model`` says what is streamed, see ``shapes``."""

    model: str
    streams: int
    seconds: float = 0.0  # for so long a stream that has ended begins anew; 0: one answer each
    ramp_s: float = 0.0  # over which the streams begin
    leave_after: int = 0  # tokens, then the client closes; 0: reads to the end
    window_s: tuple[float, float] | None = None  # what CPU and tokens count; None: all of it
    limit_s: float = 120.0  # a stream that has not ended by then has failed


@dataclass(frozen=True)
class Asking:
    """How the streams of one target are asked for and read."""

    port: int
    request: Callable[[str], bytes]  # HTTP/1.1, from a tag that goes into the prompt
    token: Pattern[bytes]  # see `Frames`


class Load:
    def __init__(self, plan: Plan, asking: Asking) -> None:
        self.tally = Tally()
        self._plan = plan
        self._asking = asking
        self._expected = expected(plan.model)
        # Not evenly: streams that begin a multiple of the pace apart would tick together.
        scatter = random.Random(1)
        self._starts_s = [
            plan.ramp_s * (k + scatter.random()) / plan.streams for k in range(plan.streams)
        ]

    async def run(self) -> None:
        deadline = time.monotonic() + self._plan.seconds
        try:
            async with asyncio.timeout(self._plan.limit_s), asyncio.TaskGroup() as streams:
                for number in range(self._plan.streams):
                    streams.create_task(self._stream(number, deadline))
        except TimeoutError:  # each stream that was still running has said so
            pass

    async def _stream(self, number: int, deadline: float) -> None:
        client: Client | None = None
        try:
            await asyncio.sleep(self._starts_s[number])
            for turn in count():
                if client is None or client.closed:
                    client = await self._connect()
                if client is not None:
                    await self._answer(client, f"s{number}.{turn}")
                if time.monotonic() >= deadline:
                    return
        except asyncio.CancelledError:
            self.tally.errors[f"no end within {self._plan.limit_s:g} s"] += 1
            raise
        finally:
            if client is not None:
                client.close()

    async def _connect(self) -> Client | None:
        loop = asyncio.get_running_loop()
        try:
            _, client = await loop.create_connection(
                lambda: Client(self._asking.token, self.tally), "127.0.0.1", self._asking.port
            )
        except OSError as error:
            self.tally.errors[f"no connection: {type(error).__name__}"] += 1
            await asyncio.sleep(0.005)  # a server that refuses is not asked in a busy loop
            return None
        return client

    async def _answer(self, client: Client, tag: str) -> None:
        try:
            text = await client.ask(self._asking.request(tag), self._plan.leave_after)
        except Failed as failure:
            self.tally.errors[str(failure)] += 1
            client.close()
            return
        whole = (
            self._expected.startswith(text) if self._plan.leave_after else text == self._expected
        )
        if not whole:
            self.tally.errors["wrong text"] += 1
            return
        self.tally.ok += 1
        if self._plan.leave_after:
            self.tally.left[tag] = client.left_at
