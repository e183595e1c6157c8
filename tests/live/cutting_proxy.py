"""A TCP proxy that spoils event streams on their way to the reader, and notes what passed.

Everything but ``text/event-stream`` goes through unharmed. Each stream takes the next ``Fate``;
when there is none left it goes through as well. The server's ``retry:`` is rewritten to 10 ms (in
as many digits, so that no length changes), because a test has no use for a second of waiting.
"""

import asyncio
import re
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

_CHUNKED = re.compile(rb"\r\ntransfer-encoding: chunked\r\n", re.IGNORECASE)
_RETRY = re.compile(rb"\nretry: ([0-9]{2,})\n")
_LINGER_0 = struct.pack("ii", 1, 0)  # close() then sends RST


@dataclass(frozen=True)
class Fate:
    """Spoil one stream behind so many events, or ``size`` bytes, of its body.

    0: the head is lost too.
    ``end``: the body seems to be over. ``reset``: RST, which takes along what was not read yet.
    ``silence``: the connection stays, and nothing more comes.
    """

    how: Literal["end", "reset", "silence"]
    events: int | None = None
    size: int | None = None

    def reach(self, body: bytes) -> int | None:
        """How much of ``body`` goes through; None: all of it, and the stream goes on."""
        if self.size is not None:
            return self.size if self.size <= len(body) else None
        at = 0
        for _ in range(self.events or 0):
            at = body.find(b"\n\n", at) + 2
            if at == 1:
                return None
        return at


@dataclass
class Exchange:
    """A request and the status of its answer; 0 until one came."""

    method: str
    target: str
    headers: dict[str, str]
    status: int = 0
    is_stream: bool = False


class CuttingProxy:
    """``exchanges``: all requests so far, oldest first. ``cuts``: streams that met their fate."""

    def __init__(self, target: str, port: int = 0) -> None:
        at = urlsplit(target)
        self.upstream = (at.hostname or "", at.port or 0)
        self.fates: deque[Fate] = deque()
        self.exchanges: list[Exchange] = []
        self.cuts = 0
        self._pipes: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self.released = asyncio.Event()
        listener = socket.create_server(("127.0.0.1", port))
        self.port: int = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._run, args=(listener,), daemon=True)
        self._thread.start()

    def asked(self, contains: str) -> list[Exchange]:
        """The requests whose method and target hold that."""
        return [each for each in self.exchanges if contains in f"{each.method} {each.target}"]

    @property
    def streams(self) -> list[Exchange]:
        return [each for each in self.exchanges if each.is_stream]

    def release(self) -> None:
        """Streams that were silenced so far go on, with all that they missed."""
        self._loop.call_soon_threadsafe(self.released.set)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)

    def _run(self, listener: socket.socket) -> None:
        self._loop.run_until_complete(self._serve(listener))
        self._loop.close()

    async def _serve(self, listener: socket.socket) -> None:
        server = await asyncio.start_server(self._accept, sock=listener, limit=2**20)
        await self._stopping.wait()
        server.close()
        for pipe in self._pipes:
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pipes.add(task)
        try:
            with suppress(asyncio.CancelledError, OSError):
                await _Pipe(self, reader, writer).run()
        finally:
            writer.transport.abort()
            self._pipes.discard(task)


class _Pipe:
    """One connection of the browser, and the one to the gateway that belongs to it."""

    def __init__(
        self, proxy: CuttingProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._reader = reader
        self._writer = writer
        self._exchange: Exchange | None = None

    async def run(self) -> None:
        """Until either end leaves. Nobody listening upstream is a reset."""
        try:
            reader, writer = await asyncio.open_connection(*self._proxy.upstream)
        except OSError:
            self._reset()
            return
        ways = [asyncio.create_task(self._up(writer)), asyncio.create_task(self._down(reader))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            writer.transport.abort()

    async def _up(self, above: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = await self._reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                return
            exchange = self._exchange = _exchange(head)
            self._proxy.exchanges.append(exchange)
            above.write(head)
            left = int(exchange.headers.get("content-length", 0))
            while left and (data := await self._reader.read(min(left, 65_536))):
                above.write(data)
                left -= len(data)

    async def _down(self, above: asyncio.StreamReader) -> None:
        while head := await above.readuntil(b"\r\n\r\n"):
            assert self._exchange is not None
            self._exchange.is_stream = b"\r\ncontent-type: text/event-stream" in head.lower()
            self._exchange.status = int(head.split(b" ", 2)[1])
            if self._exchange.is_stream and self._exchange.status == 200:
                await self._stream(_CHUNKED.sub(b"\r\nconnection: close\r\n", head), above)
                return
            self._writer.write(head)
            length = re.search(rb"\r\ncontent-length: ([0-9]+)\r\n", head.lower())
            if length and self._exchange.method != "HEAD":
                self._writer.write(await above.readexactly(int(length[1])))

    async def _stream(self, head: bytes, above: asyncio.StreamReader) -> None:
        """The body without HTTP's chunks, so that it can end anywhere."""
        fates = self._proxy.fates
        fate = fates.popleft() if fates else None
        body, sent = b"", 0
        if not (fate and fate.reach(b"") == 0):
            self._writer.write(head)
            head = b""
        while size := int(await above.readuntil(b"\r\n"), 16):
            body += _RETRY.sub(_soon, (await above.readexactly(size + 2))[:-2])
            limit = fate.reach(body) if fate else None
            self._writer.write(body[sent:limit])
            sent = len(body) if limit is None else limit
            if fate and limit is not None:
                self._proxy.cuts += 1
                if fate.how == "reset":
                    return self._reset()
                if fate.how == "end":
                    return await self._finish()
                await self._proxy.released.wait()
                self._writer.write(head + body[sent:])
                fate, sent = None, len(body)
            await self._writer.drain()
        await self._finish()
        return None

    async def _finish(self) -> None:
        """FIN, and no reset after it, so that what is on its way is read; ``_up`` sees theirs."""
        self._writer.write_eof()
        await asyncio.Event().wait()  # cancelled by ``run``

    def _reset(self) -> None:
        sock: socket.socket = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
        self._writer.transport.abort()


def _soon(match: re.Match[bytes]) -> bytes:
    return b"\nretry: " + b"10".rjust(len(match[1]), b"0") + b"\n"


def _exchange(head: bytes) -> Exchange:
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    fields = (line.partition(":") for line in lines)
    return Exchange(method, target, {name.lower(): value.strip() for name, _, value in fields})


@contextmanager
def cutting_proxy(target: str, port: int = 0) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(target, port)
    try:
        yield proxy
    finally:
        proxy.stop()
