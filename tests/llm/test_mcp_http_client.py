"""What the MCP SDK's HTTP client does not notice by itself, with a server that plays a script."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
import pytest

from app.llm import mcp
from app.llm.mcp_file import HttpServer, Server, StdioServer
from app.llm.mcp_http import McpHttpClient, tls_context
from tests.llm.mcp_servers.running import kept

pytestmark = pytest.mark.anyio

BOUND_S = 10
CALL = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "x"}}
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
STAND_IN = b'{"jsonrpc":"2.0","id":7,"error":{"code":0,"message":"cancelled"}}'


class Scripted:
    """Answers each request with ``answer`` and waits; ends the connection at ``hang_up``."""

    def __init__(self, answer: bytes) -> None:
        self.asked, self.hang_up, self.left = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()
        self.url = ""
        self._answer = answer

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._play(reader, writer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(self._answer)
        self.asked.set()
        gone = asyncio.create_task(self._wait_for_leaving(reader))
        hang_up = asyncio.create_task(self.hang_up.wait())
        await asyncio.wait({gone, hang_up}, return_when=asyncio.FIRST_COMPLETED)
        writer.close()
        hang_up.cancel()
        await asyncio.wait({gone, hang_up})

    async def _wait_for_leaving(self, reader: asyncio.StreamReader) -> None:
        with suppress(ConnectionError):
            while await reader.read(65_536):
                pass
        self.left.set()


@asynccontextmanager
async def scripted(answer: bytes) -> AsyncIterator[Scripted]:
    script = Scripted(answer)
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    script.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    try:
        async with asyncio.timeout(BOUND_S):
            yield script
    finally:
        server.close()
        script.hang_up.set()
        if script.tasks:
            await asyncio.wait(script.tasks, timeout=BOUND_S)


class Asked:
    """One request, as the SDK makes it."""

    def __init__(self, script: Scripted) -> None:
        self.client = McpHttpClient({}, tls_context())
        self.lost, self.head, self.chunk = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.client.lost = self.lost.set
        self._script = script

    async def post(self, body: object = CALL, headers: dict[str, str] | None = None) -> bytes:
        async with (
            self.client,
            self.client.stream("POST", self._script.url, json=body, headers=headers) as response,
        ):
            self.head.set()
            content = b""
            async for chunk in response.aiter_bytes():
                content += chunk
                self.chunk.set()
            return content


@pytest.mark.parametrize(
    ("answer", "when", "content"),
    [
        (b"", "asked", STAND_IN),
        (STREAM, "head", b"\n\ndata: " + STAND_IN + b"\n\n"),
        (STREAM + b": hi\n\n", "chunk", b": hi\n\n\n\ndata: " + STAND_IN + b"\n\n"),
        (JSON, "head", STAND_IN),
    ],
)
async def test_a_dropped_calls_connection_is_closed_and_its_answer_made_up(
    answer: bytes, when: str, content: bytes
) -> None:
    async with scripted(answer) as script:
        asked = Asked(script)
        post = asyncio.create_task(asked.post())
        await {"asked": script.asked, "head": asked.head, "chunk": asked.chunk}[when].wait()
        asked.client.drop(7)
        assert await post == content
        await script.left.wait()
        assert not asked.lost.is_set()
        asked.client.drop(7)  # it is forgotten


async def test_other_calls_are_not_dropped_with_it() -> None:
    async with scripted(STREAM) as script:
        asked = Asked(script)
        post = asyncio.create_task(asked.post())
        await script.asked.wait()
        asked.client.drop(8)
        done, _ = await asyncio.wait({post}, timeout=0.05)
        assert not done
        post.cancel()
        await asyncio.wait({post})


@pytest.mark.parametrize("answer", [STREAM, STREAM + b": hi\n\n"])
async def test_a_stream_that_ends_without_the_answer_loses_the_connection(answer: bytes) -> None:
    async with scripted(answer) as script:
        asked = Asked(script)
        script.hang_up.set()
        await asked.post()
        assert asked.lost.is_set()


async def test_a_stream_that_can_be_resumed_is_the_sdks() -> None:
    async with scripted(STREAM + b"id: 1\ndata:\n\n") as script:
        asked = Asked(script)
        script.hang_up.set()
        await asked.post()
        assert not asked.lost.is_set()


@pytest.mark.parametrize("answer", [b"", JSON])
async def test_a_connection_that_breaks_is_lost(answer: bytes) -> None:
    async with scripted(answer) as script:
        asked = Asked(script)
        script.hang_up.set()
        with pytest.raises(httpx.TransportError):
            await asked.post()
        assert asked.lost.is_set()


@pytest.mark.parametrize(("headers", "lost"), [({"mcp-session-id": "x"}, True), ({}, False)])
async def test_a_server_that_forgot_the_session_is_lost(
    headers: dict[str, str], lost: bool
) -> None:
    answer = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\r\n"
    async with scripted(answer) as script:
        asked = Asked(script)
        await asked.post({"method": "ping"}, headers)
        assert asked.lost.is_set() is lost


async def test_a_refusal_is_said_by_its_status() -> None:
    answer = b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"
    async with scripted(answer) as script, kept(web=HttpServer(script.url, {})) as it:
        await it.becomes("web", "it answers HTTP 401")


@pytest.mark.parametrize("by", ["http", "stdio"])
async def test_a_server_that_never_answers_is_said(
    by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp, "START_S", 0.1)
    async with scripted(b"") as script:
        silent: dict[str, Server] = {
            "http": HttpServer(script.url, {}),
            "stdio": StdioServer("sleep", ("60",), {}, None),
        }
        async with kept(it=silent[by]) as it:
            await it.becomes("it", "it does not answer in time")
