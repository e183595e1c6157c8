"""Reading the gateway's streams over bare sockets: every byte, chunk, id and heartbeat is visible.

Events are cut out by ``app.wire.parse``, the project's own parser of the standard. All waits are
bounded by ``WAIT_S``, far above what any of them takes, so that a hang says what hung.
"""

import asyncio
import json
import re
import secrets
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast
from urllib.parse import urlencode

import httpx

from app.wire.parse import Event, EventParser
from tests.live.servers import SimulatorProcess

WAIT_S = 20.0
HEARTBEAT = b": hb\n"
_FRAME = re.compile(rb"(?:[a-z]+: [\x20-\x7e]*\n)+\n|: hb\n")
_LINGER_0 = struct.pack("ii", 1, 0)  # close() then sends RST
Body = Mapping[str, Any] | bytes | None
T = TypeVar("T")
# httpx reads certificates for a third of a second unless told not to.
_PLAIN: dict[str, Any] = {"trust_env": False, "verify": False, "timeout": WAIT_S}


def ask(script: str, text: str = "") -> str:
    """A prompt that plays ``script`` and can be told from all others in the simulator's stats."""
    return f"sim:{script} {secrets.token_hex(8)}{text}"


def payload(event: Event) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(event.data)
    return fields


def answer(events: Sequence[Event]) -> str:
    """The texts of ``token``, joined."""
    return "".join(payload(event)["text"] for event in events if event.event == "token")


def names(events: Sequence[Event]) -> list[str]:
    return [event.event for event in events]


def seqs(events: Sequence[Event]) -> list[int]:
    return [int(event.id.rpartition(".")[2]) for event in events]


def frames(body: bytes) -> list[bytes]:
    """The body cut at its blank lines and heartbeats; it must hold nothing else."""
    cut = _FRAME.findall(body)
    assert b"".join(cut) == body
    return cut


class Stream:
    """One answer on a connection of its own. Nothing is read before it is asked for.

    ``writes``: the HTTP chunks so far, which are the gateway's writes.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._parser = EventParser()
        self._events: list[Event] = []
        self._taken = 0
        self._head: httpx.Headers | None = None
        self.status = 0
        self.writes: list[bytes] = []
        self.ended = False

    async def head(self) -> httpx.Headers:
        if self._head is None:
            async with asyncio.timeout(WAIT_S):
                raw = await self._reader.readuntil(b"\r\n\r\n")
            first, *lines = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
            self.status = int(first.split(" ")[1])
            self._head = httpx.Headers([_field(line) for line in lines])
        return self._head

    async def write(self) -> bytes:
        """The next HTTP chunk; empty at the end of the body."""
        headers = await self.head()
        if self.ended:
            return b""
        async with asyncio.timeout(WAIT_S):
            if headers.get("transfer-encoding") == "chunked":
                size = int((await self._reader.readuntil(b"\r\n")).strip(), 16)
                data = (await self._reader.readexactly(size + 2))[:-2]
                self.ended = size == 0
            else:
                data = await self._reader.readexactly(int(headers.get("content-length", 0)))
                self.ended = True
        if data:
            self.writes.append(data)
            self._events += self._parser.feed(data)
        return data

    async def event(self) -> Event | None:
        """The next event; None at the end of the body."""
        while self._taken == len(self._events):
            if not await self.write():
                return None
        self._taken += 1
        return self._events[self._taken - 1]

    async def events(self, count: int) -> list[Event]:
        """The next ``count`` events, which must exist."""
        got = [event for _ in range(count) if (event := await self.event())]
        assert len(got) == count, f"the body ended after {names(got)}"
        return got

    async def until(self, name: str) -> list[Event]:
        """The next events up to and with the first one of that name."""
        got: list[Event] = []
        while event := await self.event():
            got.append(event)
            if event.event == name:
                return got
        raise AssertionError(f"no {name} in {names(got)}")

    async def rest(self) -> list[Event]:
        """All further events, up to the proper end of the body."""
        got = []
        while event := await self.event():
            got.append(event)
        return got

    async def body(self) -> bytes:
        """The whole body from its first byte."""
        await self.rest()
        return b"".join(self.writes)

    async def problem(self) -> dict[str, Any]:
        """The body of an error by contract section 8, whose status and shape are checked."""
        headers = await self.head()
        assert headers["content-type"] == "application/problem+json", (self.status, headers)
        shown: dict[str, Any] = json.loads(await self.body())
        assert set(shown) == {"type", "title", "status", "detail", "code", "request_id"}
        assert shown["status"] == self.status
        assert shown["request_id"] == headers["x-request-id"]
        return shown

    async def run_id(self) -> str:
        location = (await self.head())["content-location"]
        assert location.startswith("/runs/")
        return str(location.removeprefix("/runs/"))

    def send(self, data: bytes) -> None:
        """The next request on the same connection, whose answer then counts."""
        assert self.ended
        self._head, self._parser, self.ended = None, EventParser(), False
        self.writes.clear()
        self._events, self._taken = [], 0
        self._writer.write(data)

    def reset(self) -> None:
        """Leave with RST, as a process that is killed does."""
        sock: socket.socket = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
        self._writer.transport.abort()

    def freeze(self) -> None:
        """Take nothing more from the kernel, whose buffers then fill up."""
        cast("asyncio.Transport", self._writer.transport).pause_reading()

    def close(self) -> None:
        """Leave with FIN, as a tab that is closed does."""
        self._writer.write_eof()

    async def gone(self) -> None:
        """Wait until the gateway has closed its side too; what it still sent is dropped."""
        async with asyncio.timeout(WAIT_S):
            while await self._reader.read(65_536):
                pass


def request(
    method: str, path: str, body: Body = None, headers: Mapping[str, str] | None = None
) -> bytes:
    data = json.dumps(body).encode() if isinstance(body, Mapping) else body
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1"]
    if data is not None:
        lines += ["content-type: application/json", f"content-length: {len(data)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (data or b"")


@asynccontextmanager
async def opened(
    url: str,
    method: str,
    path: str,
    body: Body = None,
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[Stream]:
    """Send one request. The connection is aborted in the end."""
    at = httpx.URL(url)
    async with asyncio.timeout(WAIT_S):
        reader, writer = await asyncio.open_connection(at.host, at.port, limit=2**25)
    try:
        writer.write(request(method, path, body, headers))
        yield Stream(reader, writer)
    finally:
        writer.transport.abort()


def chat(url: str, text: str, **fields: Any) -> Any:
    """``POST /chat`` as ``opened`` opens it; ``headers`` apart, the fields are the body's."""
    headers = fields.pop("headers", None)
    return opened(url, "POST", "/chat", {"text": text, **fields}, headers)


def followed(url: str, run_id: str, cursor: str | None = None, **query: Any) -> Any:
    """``GET /runs/{id}/events``; ``cursor`` is the id of the last event seen."""
    path = f"/runs/{run_id}/events" + (f"?{urlencode(query)}" if query else "")
    return opened(url, "GET", path, headers=None if cursor is None else {"last-event-id": cursor})


def client(url: str) -> httpx.AsyncClient:
    """For plain requests."""
    return httpx.AsyncClient(base_url=url, **_PLAIN)


async def stats(simulator: SimulatorProcess, contains: str = "") -> dict[str, Any]:
    """What the upstream saw of the calls with ``contains`` in the prompt."""
    return await asyncio.to_thread(simulator.stats, contains)


async def until(probe: Callable[[], Awaitable[T]], holds: Callable[[T], bool], what: str) -> T:
    """Poll another process until ``holds`` is true of what it says."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WAIT_S
    while not holds(seen := await probe()):
        if loop.time() > deadline:
            raise AssertionError(f"never came: {what}; last seen: {seen}")
        await asyncio.sleep(0.02)  # a poll of another process, bounded above
    return seen


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name, value.strip()
