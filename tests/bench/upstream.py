"""The mock model server: OpenAI's streamed chat completions, as cheap as can be, because it must
not be what is measured. ``python -m tests.bench.upstream PORT``.

The model's name chooses the answer, see ``shapes``. ``GET /stats`` answers ``Stats`` as JSON,
``POST /reset`` begins to count anew.
"""

import asyncio
import gc
import re
import sys
import time
from functools import lru_cache
from typing import cast

import httptools
import msgspec
import uvloop

from tests.bench.machine import raise_file_limit
from tests.bench.player import Player, Turns
from tests.bench.shapes import shape

BACKLOG = 4096  # connections that wait to be accepted; all streams of a scenario may come at once
_TAG = re.compile(rb"#([\w.]+)")  # in a prompt: which of the load's streams asks
_baked = lru_cache(maxsize=None)(shape)


class Stats(msgspec.Struct):
    """Streams asked for since the last reset."""

    started: int = 0
    finished: int = 0
    # Whose connection was closed before the end: tag of the prompt, and ``time.monotonic()``,
    # which on one machine is the same clock in every process.
    left: dict[str, float] = msgspec.field(default_factory=dict)


class Upstream:
    def __init__(self) -> None:
        self.stats = Stats()
        self.turns = Turns()


class Connection(asyncio.Protocol):
    """One request at a time; nobody here pipelines."""

    _transport: asyncio.Transport  # from `connection_made` on

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._parser = httptools.HttpRequestParser(self)
        self._player: Player | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        self._transport.set_write_buffer_limits(high=0)  # resume only when all has left

    def connection_lost(self, exc: Exception | None) -> None:
        if self._player is not None:
            self._player.lost()
            self._player = None
            self._upstream.stats.left[self._tag] = time.monotonic()

    def pause_writing(self) -> None:
        if self._player is not None:
            self._player.pause()

    def resume_writing(self) -> None:
        if self._player is not None:
            self._player.resume()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._target = self._body = b""

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._target.endswith(b"/chat/completions"):
            self._stream()
        elif self._target == b"/stats":
            self._answer(b"200 OK", msgspec.json.encode(self._upstream.stats))
        elif self._target == b"/reset":
            self._upstream.stats = Stats()
            self._answer(b"200 OK", b"{}")
        else:
            self._answer(b"404 Not Found", b"{}")

    def _answer(self, status: bytes, body: bytes) -> None:
        head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self._transport.write(head % (status, len(body)) + body)

    def _stream(self) -> None:
        request = msgspec.json.decode(self._body)
        if not request.get("stream"):
            self._answer(b"400 Bad Request", b'{"error":{"message":"only streams are answered"}}')
            return
        tag = _TAG.search(self._body)
        self._tag = tag[1].decode() if tag else ""
        self._upstream.stats.started += 1
        self._player = Player(
            self._transport,
            _baked(request["model"]),
            self._upstream.turns,
            self._ended,
            usage=bool((request.get("stream_options") or {}).get("include_usage")),
        )
        self._player.play()

    def _ended(self) -> None:
        self._player = None
        self._upstream.stats.finished += 1


async def serve(port: int) -> None:
    upstream = Upstream()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(upstream), "127.0.0.1", port, backlog=BACKLOG
    )
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    raise_file_limit()
    gc.freeze()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))
