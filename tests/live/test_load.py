"""Many at once: a thousand streams on one worker, and what happens at the limits."""

import asyncio
import re
import resource
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from urllib.parse import urlsplit

import httpx
import pytest

from app.simulator.scripts import expected_text
from tests.live.asking import Answer, ask, assert_problem, client, marker, until
from tests.live.servers import PLAIN, Gateway, SimulatorProcess

pytestmark = pytest.mark.anyio

STREAMS = 1_000
SCRIPT = "sim:tokens,n=60,interval=0.5"
USUAL_FILES = 1024  # what a shell gives a process; each run has two connections
ENDLESS = "sim:tokens,n=10000,interval=0.5"


@contextmanager
def soft_limit_of_files(soft: int) -> Iterator[None]:
    """Of this process, and of those that it starts meanwhile."""
    old, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (old, hard))


async def answer_over_a_socket(gateway: Gateway, text: str) -> bytes:
    """Raw, because a thousand streams through httpx cost this process more than the gateway."""
    address = urlsplit(gateway.url)
    body = f'{{"text":"{text}"}}'
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(
            f"POST /chat HTTP/1.1\r\nhost: {address.netloc}\r\nconnection: close\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
        )
        return await reader.read()
    finally:
        writer.close()


def unchunked(raw: bytes) -> Answer:
    """Raises where the head is no 200 or the body has no proper end (RFC 9112 section 7.1)."""
    head, _, rest = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), raw[:500]
    body = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        assert rest[length : length + 2] == b"\r\n", "cut inside a chunk"
        if length == 0:
            assert rest == b"\r\n"
            return Answer(httpx.Headers(), body)
        body += rest[:length]
        rest = rest[length + 2 :]


@pytest.mark.timeout(330)
async def test_a_thousand_streams_at_once_are_all_complete_and_exact(
    start_gateway: Callable[..., Gateway], simulator: SimulatorProcess
) -> None:
    """60 tokens at 500 ms each, which alone are 30 s, from a gateway with the usual limits."""
    with soft_limit_of_files(USUAL_FILES):
        gateway = start_gateway()
    word = marker()
    with soft_limit_of_files(2 * STREAMS):
        async with asyncio.timeout(300), asyncio.TaskGroup() as tasks:
            streams = [
                tasks.create_task(answer_over_a_socket(gateway, f"{SCRIPT} {word}"))
                for _ in range(STREAMS)
            ]

    text = expected_text(SCRIPT)
    for stream in streams:
        answer = unchunked(stream.result())
        assert answer.names == ["start", *["token"] * 60, "final", "done"]
        assert answer.text == answer.one("final")["text"] == text
        assert answer.one("done")["status"] == "completed"
    stats = simulator.stats(word)
    assert (stats["started"], stats["finished"]) == (STREAMS, STREAMS)


async def test_the_gateway_raises_its_own_limit_of_open_files(
    start_gateway: Callable[..., Gateway],
) -> None:
    """A run is two connections, 5,000 runs are allowed, and a shell gives 1,024 files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with soft_limit_of_files(256):
        gateway = start_gateway()

    assert resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE) == (hard, hard)


def assert_overloaded(response: httpx.Response) -> None:
    assert_problem(response, 503, "overloaded")
    assert re.fullmatch(r"[1-9][0-9]*", response.headers["retry-after"])


def look(gateway: Gateway, path: str) -> httpx.Response:
    return httpx.get(gateway.url + path, **PLAIN, timeout=10)


async def start(http: httpx.AsyncClient, text: str = ENDLESS) -> str:
    """A run without a reader."""
    response = await http.post("/runs", json={"text": text, "on_disconnect": "continue"})
    assert response.status_code == 201, response.text
    run_id: str = response.json()["run_id"]
    return run_id


async def test_runs_above_the_limit_are_refused_until_one_has_ended(
    start_gateway: Callable[..., Gateway], simulator: SimulatorProcess
) -> None:
    gateway = await asyncio.to_thread(start_gateway, max_runs=3)
    async with asyncio.timeout(60), client(gateway) as http:
        first, *others = [await start(http) for _ in range(3)]
        word = marker()
        for _ in range(3):
            assert_overloaded(await http.post("/chat", json={"text": word}))
            assert_overloaded(await http.post("/runs", json={"text": word}))
            assert_overloaded(await http.get("/chat", params={"text": word}))
        assert (await http.get(f"/runs/{first}")).json()["status"] == "running"

        assert (await http.delete(f"/runs/{first}")).json()["status"] == "cancelled"
        others.append(await start(http))
        assert_overloaded(await http.post("/chat", json={"text": word}))
        for run_id in others:
            await http.delete(f"/runs/{run_id}")
        for _ in range(4):  # whatever is refused or ends keeps no slot
            assert (await ask(gateway, "sim:tokens,n=2")).names[-1] == "done"
    assert simulator.stats(word)["started"] == 0


async def test_readers_above_the_limit_are_refused_until_one_has_left(
    start_gateway: Callable[..., Gateway], simulator: SimulatorProcess
) -> None:
    gateway = await asyncio.to_thread(start_gateway, max_readers=3)
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        http = await stack.enter_async_context(client(gateway))
        run_id, ended = await start(http), await start(http, "sim:tokens,n=1")
        events = f"/runs/{run_id}/events"
        first = await stack.enter_async_context(AsyncExitStack())
        for owner in (first, stack, stack):
            response = await owner.enter_async_context(http.stream("GET", events))
            assert response.status_code == 200
        word = marker()
        assert_overloaded(await http.get(events))
        assert_overloaded(await http.post("/chat", json={"text": word}))
        assert_overloaded(await http.get("/chat", params={"text": word}))
        assert simulator.stats(word)["started"] == 0, "a run that nobody may read is not begun"
        assert (await http.get(f"/runs/{run_id}")).status_code == 200, "a look needs no slot"

        await first.aclose()
        await until(lambda: look(gateway, f"/runs/{ended}/events").is_success, "a slot came back")
        await http.delete(f"/runs/{run_id}")


async def test_logs_above_the_limit_of_memory_refuse_runs_until_one_can_be_dropped(
    start_gateway: Callable[..., Gateway],
) -> None:
    gateway = await asyncio.to_thread(start_gateway, log_memory_bytes=256 * 1024)
    async with asyncio.timeout(60), client(gateway) as http:
        run_id = await start(http, "sim:bulk,bytes=1000000,chunk=100000,interval=0.1")
        await until(
            lambda: look(gateway, f"/runs/{run_id}").json()["last_seq"] > 4,
            "the log is over the limit",
        )
        assert_overloaded(await http.post("/chat", json={"text": "Hello"}))
        # Not cut short for room: it ends whole, and only then it may go.
        await until(
            lambda: look(gateway, f"/runs/{run_id}").json()["status"] == "completed",
            "the large run has ended",
        )
        answer = await ask(gateway, "sim:tokens,n=2")
        assert answer.names[-1] == "done"
        assert (await http.get(f"/runs/{run_id}")).status_code == 404, "dropped to make room"
