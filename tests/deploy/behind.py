"""Two gateways behind the load balancer, who answers there, and a gateway that never does."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from app.wire.parse import Event, EventParser
from tests.live.reading import WAIT_S
from tests.live.servers import PLAIN, Gateway, SimulatorProcess, running_gateway
from tests.nginx import Nginx, running_nginx

ENDLESS = "tokens,n=10000,interval=0.05"


class Pair:
    """``settings`` are those of both gateways. They share no Redis: a run is known to one."""

    def __init__(
        self, upstream: SimulatorProcess, folder: Callable[[str], Path], **settings: Any
    ) -> None:
        self._upstream = upstream
        self._folder = folder
        self._settings = settings
        self._stack = ExitStack()
        self.gateways: list[Gateway] = []
        self.nginx: Nginx

    def __enter__(self) -> "Pair":
        with self._stack as stack:
            for name in ("one", "two"):
                gateway = running_gateway(self._folder(name), self._upstream.url, **self._settings)
                self.gateways.append(stack.enter_context(gateway))
            self.nginx = stack.enter_context(running_nginx(self.ports))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def ports(self) -> list[int]:
        return [httpx.URL(gateway.url).port or 0 for gateway in self.gateways]

    def writer(self, run_id: str) -> int:
        """Which of the two has that run."""
        (known,) = [
            at
            for at, gateway in enumerate(self.gateways)
            if httpx.get(f"{gateway.url}/runs/{run_id}", **PLAIN).status_code == 200
        ]
        return known


class Deaf:
    """Takes whole requests and hangs up, as a gateway does that is killed in that moment."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.port = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Deaf"]:
        server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        self.taken.append(head + await reader.readexactly(int(length[1]) if length else 0))
        writer.transport.abort()


class Plain:
    """A gateway that streams and says nothing to proxies: its head, then a heartbeat each time."""

    def __init__(self) -> None:
        self.port = 0
        self._turns = asyncio.Queue[None]()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Plain"]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    def beat(self) -> None:
        self._turns.put_nowait(None)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(3):
            await self._turns.get()
            writer.write(b"5\r\n: hb\n\r\n")
        await reader.read()
        writer.close()


class Http2:
    """An answer as ``curl --http2 -N`` writes it: nothing is kept back."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._parser = EventParser()
        self.head: list[str] = []
        self.body = b""
        self.events: list[Event] = []

    async def read_head(self) -> None:
        assert self._process.stdout
        async with asyncio.timeout(WAIT_S):
            while (line := await self._process.stdout.readline()).strip():
                self.head.append(line.decode().strip().lower())

    async def until(self, holds: Callable[["Http2"], bool]) -> None:
        assert self._process.stdout
        async with asyncio.timeout(WAIT_S):
            while not holds(self):
                data = await self._process.stdout.read(65_536)
                assert data, f"the body ended: {self.head} {self.body[-300:]!r}"
                self.body += data
                self.events += self._parser.feed(data)

    def leave(self) -> None:
        self._process.kill()


@asynccontextmanager
async def http2(nginx: Nginx, path: str, *arguments: str) -> AsyncIterator[Http2]:
    """Its head is read when this begins."""
    curl = ["curl", "-sS", "-N", "-i", "--http2", "--noproxy", "*"]
    process = await asyncio.create_subprocess_exec(
        *curl,
        *("--cacert", str(nginx.certificate), *arguments, f"{nginx.tls_url}{path}"),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        answer = Http2(process)
        await answer.read_head()
        yield answer
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def asked(nginx: Nginx, prompt: str, *, get: bool = False) -> tuple[int, str]:
    """Ask for one answer, by ``POST /chat`` or ``GET /chat``: status and whole body."""
    async with httpx.AsyncClient(base_url=nginx.url, timeout=WAIT_S, **PLAIN) as client:
        response = await (
            client.get("/chat", params={"text": prompt})
            if get
            else client.post("/chat", json={"text": prompt})
        )
        return response.status_code, response.text
