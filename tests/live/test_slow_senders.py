"""A request must arrive within 15 s: who takes longer is cut, who reads a long answer is not.

Real clocks, so all that one gateway can meet at once is in one test.
"""

import asyncio
import json
import resource
import select
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from urllib.parse import urlsplit

import pytest

from tests.live.asking import is_alive, until
from tests.live.leaving import open_files
from tests.live.raw import CHUNKED, LAST, post, statuses
from tests.live.reading import HEARTBEAT, ask, chat, request
from tests.live.servers import Gateway, SimulatorProcess

pytestmark = pytest.mark.anyio

CUT_AFTER_S = 15.0
LATE_S = 15.0  # how much later than that the cut may come on a machine that has much to do
PACE_S = 0.5
KNOWN = b"Content-Length: 1000"
JSON = b"Content-Type: application/json"

# What is sent at once, what then comes byte by byte, and the statuses that come back.
SLOW: dict[str, tuple[bytes, bytes, list[int]]] = {
    "nothing": (b"", b"", []),
    "line ends": (b"", b"\r\n" * 100, []),
    "a head": (b"", b"GET /chat?text=" + b"x" * 200, [408]),
    "a header": (LAST[:-2], b"x: " + b"y" * 200, [408]),
    "a body, nothing of it": (post(JSON, KNOWN, path=b"/chat"), b"", [408]),
    "a body": (post(JSON, KNOWN, path=b"/chat"), b" " * 200, [408]),
    "chunks": (post(JSON, CHUNKED, path=b"/chat"), b"1\r\n \r\n" * 100, [408]),
    "an extension": (post(JSON, CHUNKED, path=b"/chat") + b"1;", b"x" * 200, [408]),
    "trailers": (post(JSON, CHUNKED, path=b"/chat") + b"0\r\n", b"x: y\r\n" * 100, [408]),
    "a body that was refused": (post(KNOWN, path=b"/chat"), b" " * 200, [415]),
    "a second head": (
        b"GET /health HTTP/1.1\r\nHost: HOST\r\n\r\n",
        b"GET /" + b"x" * 200,
        [200, 408],
    ),
}


@asynccontextmanager
async def connected(
    gateway: Gateway,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    at = urlsplit(gateway.url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def trickle(writer: asyncio.StreamWriter, data: bytes) -> None:
    for byte in data:
        writer.write(bytes([byte]))
        await asyncio.sleep(PACE_S)  # this is the slowness


async def cut(gateway: Gateway, at_once: bytes, then: bytes) -> tuple[list[int], float, bytes]:
    """Statuses, seconds until the connection ended, all that came."""
    async with connected(gateway) as (reader, writer), asyncio.TaskGroup() as tasks:
        began = time.monotonic()
        writer.write(at_once.replace(b"HOST", urlsplit(gateway.url).netloc.encode()))
        sender = tasks.create_task(trickle(writer, then))
        received = b""
        try:
            async with asyncio.timeout(CUT_AFTER_S + LATE_S):
                while data := await reader.read(65_536):
                    received += data
        except ConnectionResetError:  # it sent a byte more
            pass
        took = time.monotonic() - began
        sender.cancel()
    return statuses(received), took, received


async def read_on(gateway: Gateway) -> None:
    """Two questions on one connection, the second one beginning while the first is answered: its
    clock stands still until then. And a pause between requests is nobody's slowness."""
    first, second = (
        request("GET", f"/chat?text={text.replace(' ', '%20')}")
        for text in (ask("tokens,n=19,interval=1"), ask("tokens,n=1"))
    )
    async with connected(gateway) as (reader, writer), asyncio.timeout(60):
        writer.write(first + second[:10])
        await reader.readuntil(b"event: done")
        await reader.readuntil(b"0\r\n\r\n")
        writer.write(second[10:])
        await reader.readuntil(b"event: done")


async def send_slowly_but_steadily(gateway: Gateway) -> None:
    """A body at 32 KiB a second for longer than a request may take without one."""
    question = json.dumps({"text": ask("tokens,n=1")}).encode()
    pieces = 17
    async with connected(gateway) as (reader, writer):
        length = str(pieces * 32 * 1024 + len(question))
        fields = {"content-type": "application/json", "content-length": length}
        writer.write(request("POST", "/chat", headers=fields))
        for _ in range(pieces):
            writer.write(b" " * 32 * 1024)
            await asyncio.sleep(1)  # this is the slowness
        writer.write(question)
        async with asyncio.timeout(20):
            await reader.readuntil(b"event: done")


async def listen(gateway: Gateway) -> None:
    """To a model that says nothing for longer than a request may take."""
    async with chat(gateway.url, ask("slow,first=18")) as stream:
        await stream.until("done")
        assert HEARTBEAT in stream.writes


def files(gateway: Gateway, simulator: SimulatorProcess) -> int:
    """Open ones, but for connections to the model."""
    return open_files(gateway.pid, urlsplit(simulator.url).port or 0)[0]


async def test_a_slow_sender_is_cut_and_nobody_else(
    start_gateway: Callable[..., Gateway], simulator: SimulatorProcess
) -> None:
    gateway = await asyncio.to_thread(start_gateway, heartbeat_seconds=1)
    await is_alive(gateway)
    before = files(gateway, simulator)
    async with asyncio.TaskGroup() as tasks:
        for innocent in (read_on, send_slowly_but_steadily, listen):
            tasks.create_task(innocent(gateway))
        cuts = {
            name: tasks.create_task(cut(gateway, at_once, then))
            for name, (at_once, then, _) in SLOW.items()
        }

    for name, task in cuts.items():
        said, took, received = task.result()
        assert said == SLOW[name][2], (name, received)
        assert took >= CUT_AFTER_S - 0.1, (name, took)
        if said[-1:] == [408]:
            problem = json.loads(received.rpartition(b"\r\n\r\n")[2])
            assert (problem["status"], problem["code"]) == (408, "request_timeout"), name
    await until(lambda: files(gateway, simulator) <= before, "nothing is left open")
    await is_alive(gateway)
    assert "Traceback" not in gateway.output


@contextmanager
def idle(gateway: Gateway, count: int) -> Iterator[list[socket.socket]]:
    at = urlsplit(gateway.url)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with ExitStack() as stack:
            yield [
                stack.enter_context(socket.create_connection((at.hostname, at.port), 20))
                for _ in range(count)
            ]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def rest(connection: socket.socket) -> bytes:
    received = b""
    while data := connection.recv(4096):
        received += data
    return received


def ended(connections: list[socket.socket], seconds: float) -> dict[int, bytes]:
    """What those got that have ended after so many seconds, by place."""
    got: dict[int, bytes] = {}
    poll = select.poll()
    places = {connection.fileno(): place for place, connection in enumerate(connections)}
    for file in places:
        poll.register(file, select.POLLIN)
    deadline = time.monotonic() + seconds
    while len(got) < len(connections) and (left := deadline - time.monotonic()) > 0:
        for file, _ in poll.poll(left * 1000):
            poll.unregister(file)
            got[places[file]] = rest(connections[places[file]])
    return got


async def test_five_thousand_idle_connections_are_cut_and_cost_nobody_an_answer(
    start_gateway: Callable[..., Gateway], simulator: SimulatorProcess
) -> None:
    gateway = await asyncio.to_thread(start_gateway)
    await is_alive(gateway)
    before = files(gateway, simulator)
    began = time.monotonic()
    with idle(gateway, 5_000) as connections:
        for _ in range(5):
            await is_alive(gateway)
        early = began + CUT_AFTER_S - time.monotonic() - 1
        assert await asyncio.to_thread(ended, connections, early) == {}
        cut = await asyncio.to_thread(ended, connections, LATE_S + 1)
        assert len(cut) == 5_000
        assert set(cut.values()) == {b""}
    await until(lambda: files(gateway, simulator) <= before, "nothing is left open")
    await is_alive(gateway)


async def test_a_connection_too_many_is_refused_and_the_others_are_served(
    start_gateway: Callable[..., Gateway],
) -> None:
    """4,000 beside the readers (app.server.SPARE_CONNECTIONS)."""
    gateway = await asyncio.to_thread(start_gateway, max_readers=10)
    async with connected(gateway) as (reader, writer), asyncio.timeout(90):
        writer.write(request("GET", "/health"))
        await reader.readuntil(b'"ok"}')
        with idle(gateway, 4_050) as connections:
            refused = await asyncio.to_thread(ended, connections, 5)
            assert len(refused) == 4_050 + 1 - 4_010
            for answer in refused.values():
                head, _, body = answer.partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 503 ")
                assert b"\r\nretry-after: 2" in head
                assert json.loads(body)["code"] == "overloaded"
            writer.write(request("GET", "/health"))
            await reader.readuntil(b'"ok"}')
        await until(lambda: "a further one is refused" in gateway.output, "an operator hears of it")
        await is_alive(gateway)
