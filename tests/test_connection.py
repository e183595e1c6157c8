"""The clock of a request, looked at as if time had passed; and what no application may see."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.types import Message, Receive, Scope, Send
from uvicorn.server import ServerState

from app.connection import BODY_BYTES_PER_S, RECEIVE_S, Connection
from tests.live.raw import CHUNKED, statuses

pytestmark = pytest.mark.anyio

WAIT_S = 10.0
LATE_S = RECEIVE_S + 1
GET = b"GET /first HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /second HTTP/1.1\r\nHost: x\r\n"
KNOWN = b"Content-Length: 1000000\r\n\r\n"


class App:
    """Answers with the names of the request's headers, once ``may_answer``. ``reads``: it takes
    the body before it begins to."""

    def __init__(self, *, reads: bool = True) -> None:
        self._reads = reads
        self.asked: list[str] = []
        self.heard: list[Message] = []
        self.may_answer = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope["path"])
        more = self._reads
        while more:
            message = await receive()
            self.heard.append(message)
            if message["type"] == "http.disconnect":
                return
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await self.may_answer.wait()
        names = b" ".join(name for name, _ in scope["headers"])
        await send({"type": "http.response.body", "body": names})


class Client:
    def __init__(
        self, server: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.server = server
        self._reader = reader
        self.send: Callable[[bytes], None] = writer.write

    @property
    def is_cut(self) -> bool:
        return self.server.transport.is_closing()

    def look_after(self, seconds: float) -> None:
        self.server.look(time.monotonic() + seconds)

    async def rest(self) -> bytes:
        async with asyncio.timeout(WAIT_S):
            return await self._reader.read()

    async def until(self, text: bytes) -> bytes:
        async with asyncio.timeout(WAIT_S):
            return await self._reader.readuntil(text)


@asynccontextmanager
async def connected(app: App) -> AsyncIterator[Client]:
    config = uvicorn.Config(
        app, ws="none", lifespan="off", log_config=None, access_log=False, timeout_keep_alive=75
    )
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(config, state, {}), "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await until(lambda: state.connections)
        (connection,) = state.connections
        assert isinstance(connection, Connection)
        yield Client(connection, reader, writer)
        writer.transport.abort()
        app.may_answer.set()
        await until(lambda: not state.connections and not state.tasks)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110  # uvicorn's state tells nobody
            await asyncio.sleep(0.001)


async def test_whoever_waits_for_a_body_that_is_late_hears_that_it_will_not_come() -> None:
    app = App()
    async with connected(app) as client:
        client.send(POST + KNOWN + b"a")
        await until(lambda: app.heard)
        client.look_after(RECEIVE_S - 1)
        assert not client.is_cut
        client.look_after(LATE_S)

        assert statuses(await client.rest()) == [408]
        await until(lambda: app.heard[-1]["type"] == "http.disconnect")


async def test_a_body_earns_its_time_as_it_comes() -> None:
    app = App()
    async with connected(app) as client:
        earned_s = 20
        client.send(POST + KNOWN + bytes(earned_s * BODY_BYTES_PER_S))
        await until(lambda: sum(len(message["body"]) for message in app.heard) >= 20 * 2**14)
        client.look_after(RECEIVE_S + earned_s - 1)
        assert not client.is_cut
        client.look_after(LATE_S + earned_s)
        assert statuses(await client.rest()) == [408]


async def test_what_comes_after_the_answer_earns_nothing() -> None:
    app = App(reads=False)
    app.may_answer.set()
    async with connected(app) as client:
        client.send(POST + b"X: y\r\n" + KNOWN)
        answer = await client.until(b"0\r\n\r\n")
        client.send(bytes(500_000))
        await until(lambda: client.server._content_bytes >= 500_000)
        client.look_after(LATE_S)

        assert client.is_cut
        assert statuses(answer + await client.rest()) == [200]


async def test_no_second_answer_is_written_into_one_that_has_begun() -> None:
    app = App(reads=False)
    async with connected(app) as client:
        client.send(POST + KNOWN)
        head = await client.until(b"\r\n\r\n")
        client.look_after(LATE_S)
        assert client.is_cut
        assert client.server.cycle.disconnected, "what it still wrote would keep the connection"
        assert statuses(head + await client.rest()) == [200]


async def test_the_clock_stands_still_while_nobody_takes_the_body() -> None:
    app = App(reads=False)
    async with connected(app) as client:
        client.send(POST + KNOWN + bytes(400_000))
        await until(lambda: client.server.flow.read_paused)
        client.look_after(LATE_S + 60)
        assert not client.is_cut


async def test_the_next_request_has_its_time_once_the_one_before_is_answered() -> None:
    app = App()
    async with connected(app) as client:
        client.send(GET + POST + KNOWN)
        await until(lambda: app.heard and client.server.pipeline)
        client.look_after(LATE_S)
        assert not client.is_cut
        app.may_answer.set()
        await until(lambda: app.asked == ["/first", "/second"])
        client.look_after(RECEIVE_S - 1)
        assert not client.is_cut
        client.look_after(LATE_S)
        assert statuses(await client.rest()) == [200, 408]


async def test_a_broken_request_behind_another_lets_that_have_its_answer() -> None:
    app = App()
    async with connected(app) as client:
        client.send(GET + POST + CHUNKED + b"\r\n\r\nzz")
        await until(lambda: client.server._due == float("inf"))
        app.may_answer.set()

        answers = await client.rest()
        assert statuses(answers) == [200]
        assert answers.endswith(b"0\r\n\r\n")
        assert app.asked == ["/first"]


async def test_a_kept_connection_has_all_its_time_between_requests() -> None:
    app = App()
    app.may_answer.set()
    async with connected(app) as client:
        client.send(GET)
        await client.until(b"0\r\n\r\n")
        client.look_after(LATE_S)
        assert not client.is_cut


async def test_trailers_are_no_headers() -> None:
    """Who checked the head has not seen them."""
    app = App()
    app.may_answer.set()
    async with connected(app) as client:
        client.send(POST + CHUNKED + b"\r\n\r\n1\r\na\r\n0\r\nX-Api-Key: k\r\n\r\n")
        answer = await client.until(b"0\r\n\r\n")
        assert b"host transfer-encoding\r\n" in answer
        assert b"x-api-key" not in answer
