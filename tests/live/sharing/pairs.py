"""Gateways that share a Redis and a database: how they are started, read and looked into."""

import asyncio
import random
import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from app.events.redis_keys import Keys
from app.wire.parse import Event, EventParser, parse
from tests.live.leaving import LEAVE
from tests.live.reading import (
    HEARTBEAT,
    Stream,
    client,
    followed,
    frames,
    opened,
    payload,
    seqs,
    until,
)
from tests.live.servers import Gateway, SimulatorProcess, running_gateway
from tests.live.test_resume import WAYS
from tests.redis_server import RedisServer


class Store(NamedTuple):
    """A Redis, and one deployment's names in it."""

    redis: RedisServer
    prefix: str

    @property
    def url(self) -> str:
        return f"{self.redis.url}?prefix={self.prefix}"

    @property
    def keys(self) -> Keys:
        return Keys(self.prefix)

    def leases(self) -> list[str]:
        """The runs that have one."""
        with self.redis.client() as redis:
            return [run_id.decode() for run_id in redis.zrange(self.keys.leases, 0, -1)]

    def lasting(self) -> list[str]:
        """The keys that never expire, less the mark of the store itself."""
        with self.redis.client() as redis:
            names = list(redis.scan_iter(f"{self.prefix}:*", count=1000))
            return [
                name.decode()
                for name in names
                if redis.ttl(name) == -1 and name.decode() != self.keys.store
            ]


class Pair(NamedTuple):
    a: Gateway
    b: Gateway
    store: Store


def store_in(redis: RedisServer) -> Store:
    return Store(redis, f"live-{secrets.token_hex(6)}")


@contextmanager
def several(
    simulator: SimulatorProcess, cwds: list[Path], settings: dict[str, Any]
) -> Iterator[list[Gateway]]:
    """One gateway for each directory, which are started at once."""
    with ExitStack() as stack, ThreadPoolExecutor(len(cwds)) as threads:

        def start(cwd: Path) -> Gateway:
            return stack.enter_context(running_gateway(cwd, simulator.url, **settings))

        yield list(threads.map(start, cwds))


async def start(gateway: Gateway, prompt: str, **fields: Any) -> str:
    """A run that nobody reads yet; ``headers`` apart, the fields are the body's."""
    headers = fields.pop("headers", None)
    async with client(gateway.url) as http:
        response = await http.post("/runs", json={"text": prompt, **fields}, headers=headers)
    assert response.status_code == 201, response.text
    run_id: str = response.json()["run_id"]
    return run_id


async def look(gateway: Gateway, run_id: str) -> dict[str, Any]:
    """``GET /runs/{id}``."""
    async with client(gateway.url) as http:
        response = await http.get(f"/runs/{run_id}")
    assert response.status_code == 200, response.text
    run: dict[str, Any] = response.json()
    return run


async def ending(gateway: Gateway, run_id: str) -> dict[str, Any]:
    """The same, once the run has ended."""
    return await until(
        lambda: look(gateway, run_id), lambda run: run["status"] != "running", "an end"
    )


async def cancel(gateway: Gateway, run_id: str) -> tuple[int, dict[str, Any]]:
    """``DELETE``: status and answer."""
    async with client(gateway.url) as http:
        response = await http.delete(f"/runs/{run_id}")
    return response.status_code, response.json()


async def read(gateway: Gateway, run_id: str, cursor: str | None = None, **query: Any) -> bytes:
    """The frames behind the cursor, to the end of the body."""
    async with followed(gateway.url, run_id, cursor, **query) as stream:
        body: bytes = await stream.body()
        assert stream.status == 200, body
    return b"".join(frame for frame in frames(body) if frame != HEARTBEAT)


def assert_contiguous(events: list[Event]) -> None:
    """From the first event to the last, once each."""
    assert seqs(events) == list(range(1, len(events) + 1))


def assert_lost(events: list[Event]) -> None:
    """What a run whose worker died ends with."""
    error, done = events[-2:]
    assert seqs([error, done]) == [1_000_000, 1_000_001]
    assert (error.event, done.event) == ("error", "done")
    assert (payload(error)["code"], payload(error)["retryable"]) == ("worker_lost", True)
    assert payload(done)["status"] == "failed"


class Place(Protocol):
    """Where a gateway can be asked."""

    @property
    def url(self) -> str: ...


class Wanderer:
    """A reader whose connection breaks after some bytes, again and again, and that comes back to
    any of the gateways."""

    def __init__(self, gateways: Sequence[Place], seed: int, most: int = 1500) -> None:
        self._gateways = gateways
        self._random = random.Random(seed)
        self._most = most
        self._cursor = ""
        self.run_id = ""
        self.events: list[Event] = []
        self.cuts = 0

    async def ask(self, prompt: str, **fields: Any) -> None:
        gateway = self._random.choice(self._gateways)
        async with opened(gateway.url, "POST", "/chat", {"text": prompt, **fields}) as stream:
            self.run_id = await stream.run_id()
            await self._some(stream)
        while not self.events or self.events[-1].event != "done":
            url = self._random.choice(self._gateways).url
            way = self._random.choice(list(WAYS.values()))
            async with (
                way(url, self._cursor) if self._cursor else followed(url, self.run_id) as stream
            ):
                await stream.head()
                assert stream.status == 200, (self._cursor, await stream.body())
                await self._some(stream)

    async def _some(self, stream: Stream) -> None:
        left = self._random.randrange(1, self._most)
        parser = EventParser()
        while left and (data := await stream.write()):
            self.events += parser.feed(data[:left])
            left -= min(left, len(data))
        self._cursor = parser.last_event_id or self._cursor
        if not stream.ended:
            self.cuts += 1
            self._random.choice(list(LEAVE.values()))(stream)


async def quiet(store: Store) -> None:
    """Everything has ended: no run has a lease, and no key stays for ever."""

    async def left() -> tuple[list[str], list[str]]:
        return await asyncio.to_thread(store.leases), await asyncio.to_thread(store.lasting)

    await until(left, lambda seen: seen == ([], []), "leases, lasting keys")


def seen(stream: Stream) -> list[Event]:
    """All that it got so far."""
    return parse(b"".join(stream.writes).replace(HEARTBEAT, b""))
