"""A TCP proxy in front of any server, for tests of what a bad network does.

It runs in a thread of its own, so that tests with and without a loop can use it. What is told to it
holds when the call returns.
"""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

BOUND_S = 10.0
_READ_BYTES = 64 * 1024


class TcpProxy:
    """``url``: as the server's, with our port. ``accepted``: connections so far. ``held``: pieces
    that are held back just now."""

    def __init__(self, target: str) -> None:
        at = urlsplit(target)
        self._target = at.hostname or "", at.port or 0
        self.accepted = 0
        self.held = 0
        self._pipes: set[asyncio.Task[None]] = set()
        listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = listener.getsockname()[1]
        user, is_user, _ = at.netloc.rpartition("@")
        self.url = at._replace(netloc=f"{user}{is_user}127.0.0.1:{self.port}").geturl()
        self._requests, self._replies = asyncio.Event(), asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._do(self._listen, listener)
        self.resume()

    @property
    def connections(self) -> int:
        """Open ones."""
        return len(self._pipes)

    def hold(self, *, requests: bool = True, replies: bool = True) -> None:
        """Connections stay and new ones are made, but what is sent from now on does not arrive
        until ``resume``; nor does their end."""
        self._do(self._set, not requests, not replies)

    def resume(self) -> None:
        """What was held back arrives, where its connection still is."""
        self._do(self._set, True, True)

    def cut(self) -> None:
        """All connections are lost; new ones are made."""
        self._do(self._cut)

    def refuse(self) -> None:
        """No new connections until ``accept``."""
        self._do(self._close)

    def accept(self) -> None:
        self._do(self._listen, socket.create_server(("127.0.0.1", self.port)))

    def stop(self) -> None:
        self._do(self._close)
        self._do(self._cut)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(BOUND_S)
        self._loop.close()

    def _do(self, function: Callable[..., Awaitable[None]], *arguments: object) -> None:
        async def call() -> None:
            await function(*arguments)

        asyncio.run_coroutine_threadsafe(call(), self._loop).result(BOUND_S)

    async def _listen(self, listener: socket.socket) -> None:
        self._server = await asyncio.start_server(self._accept, sock=listener)

    async def _close(self) -> None:
        self._server.close()

    async def _set(self, requests: bool, replies: bool) -> None:
        for gate, is_open in ((self._requests, requests), (self._replies, replies)):
            if is_open:
                gate.set()
            else:
                gate.clear()

    async def _cut(self) -> None:
        pipes = list(self._pipes)
        for pipe in pipes:
            pipe.cancel()
        await asyncio.gather(*pipes, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._pipes.add(task)
        try:
            with suppress(asyncio.CancelledError, OSError):
                await self._pipe(reader, writer)
        finally:
            self._pipes.discard(task)
            writer.transport.abort()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until either end leaves."""
        above_reader, above_writer = await asyncio.open_connection(*self._target)
        ways = [
            asyncio.create_task(self._pump(reader, above_writer, self._requests)),
            asyncio.create_task(self._pump(above_reader, writer, self._replies)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            above_writer.transport.abort()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event
    ) -> None:
        while data := await reader.read(_READ_BYTES):
            self.held += 1
            try:
                await gate.wait()
            finally:
                self.held -= 1
            writer.write(data)
            await writer.drain()
        await gate.wait()


@contextmanager
def tcp_proxy(target: str) -> Iterator[TcpProxy]:
    proxy = TcpProxy(target)
    try:
        yield proxy
    finally:
        proxy.stop()
