"""One TCP connection: HTTP/1.1 requests in, answers out, one at a time and in order.

1. Reading never pauses while an answer runs, because only a reading socket learns at once that
   its peer has left; pipelined requests wait in a short queue instead.
2. A peer that sends FIN has left (RFC 9112, section 9.6 allows that reading), so an answer that
   is still running ends as aborted without waiting for a write to fail.
"""

import asyncio
import socket
from collections import deque
from typing import cast
from urllib.parse import unquote

import httptools

from app.simulator.player import Player
from app.simulator.routes import Answer, Request, Routes, error
from app.simulator.stats import Outcome, Stats

MAX_BODY_BYTES = 64 * 1024 * 1024  # twice what the gateway takes at most
MAX_HEAD_BYTES = 64 * 1024  # target and headers; uvicorn's limit with httptools is the same
LINGER_S = 1.0  # for a client that is refused while it sends to read why
MAX_PIPELINED = 128  # requests waiting behind a running answer; more is an attack, not a client


class Connection(asyncio.Protocol):
    _transport: asyncio.Transport  # from `connection_made` on

    def __init__(self, routes: Routes, stats: Stats, connections: "set[Connection]") -> None:
        self._routes = routes
        self._stats = stats
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[Answer | Request] = deque()
        self._connected = False
        self._player: Player | None = None
        self._outcome: Outcome | None = None  # of a running call, when we close it ourselves
        self._pumping = self._deaf = self._stopped = False
        self._linger: asyncio.TimerHandle | None = None
        connections.add(self)  # already here: the server may stop before `connection_made`

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        self._connected = True
        self._transport.set_write_buffer_limits(high=0)  # see `player`
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a write is a segment
        self._stats.connections += 1
        self._stats.changed()
        if self._stopped:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  the base class's
        self._deaf = True
        self._queue.clear()
        self._connections.discard(self)
        if self._linger is not None:
            self._linger.cancel()
        self._stats.connections -= 1
        if self._player is not None:
            self._player.lost(self._outcome)
            self._player = None
        self._stats.changed()

    def eof_received(self) -> None:
        self._transport.abort()

    def pause_writing(self) -> None:
        if self._player is not None:
            self._player.pause()

    def resume_writing(self) -> None:
        if self._player is not None:
            self._player.resume()

    def stop(self) -> None:
        """Close at once, whatever is running."""
        self._outcome = Outcome.FAILED
        self._stopped = True
        if self._connected:
            self._transport.abort()

    # -- requests ---------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        try:
            while data and not self._deaf:
                data = self._feed(data)
        except httptools.HttpParserError as problem:
            if not self._deaf:  # else a callback of ours refused, and has said so
                self._refuse(400, f"not an HTTP request: {problem}", "invalid_request")

    def _feed(self, data: bytes) -> bytes:
        """What is left over, when a request asked for an upgrade that we do not make."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._parser = httptools.HttpRequestParser(self)
            return data[upgrade.args[0] :]
        return b""

    def _refuse(self, status: int, text: str, code: str) -> None:
        """Answer when it is this request's turn, then close: the parser's place is lost."""
        self._deaf = True
        self._enqueue(error(status, text, code, keep_alive=False))

    def on_message_begin(self) -> None:
        self._target = b""
        self._body: list[bytes] = []
        self._head_size = self._body_size = 0
        self._expects_continue = False

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value))
        lower = name.lower()
        if lower == b"expect" and value.lower() == b"100-continue":
            self._expects_continue = True
        elif lower == b"content-length" and value.isdigit() and int(value) > MAX_BODY_BYTES:
            self._count_body(int(value))

    def on_headers_complete(self) -> None:
        if self._expects_continue and self._player is None and not self._deaf:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)
        self._count_body(len(body))

    def on_message_complete(self) -> None:
        if self._deaf:
            return
        path, _, query = self._target.decode("latin-1").partition("?")
        http11 = self._parser.get_http_version() == "1.1"
        self._enqueue(
            Request(
                method=self._parser.get_method().decode("latin-1"),
                path=unquote(path),
                query=query,
                body=b"".join(self._body),
                keep_alive=http11 and self._parser.should_keep_alive(),
                http11=http11,
            )
        )

    def _count_head(self, size: int) -> None:
        self._head_size += size
        if self._head_size > MAX_HEAD_BYTES and not self._deaf:
            self._refuse(431, f"more than {MAX_HEAD_BYTES} bytes of headers", "headers_too_large")

    def _count_body(self, size: int) -> None:
        self._body_size += size
        if self._body_size > MAX_BODY_BYTES and not self._deaf:
            self._body.clear()
            self._refuse(413, f"more than {MAX_BODY_BYTES} bytes of body", "payload_too_large")

    # -- answers ----------------------------------------------------------------------------

    def _enqueue(self, what: Answer | Request) -> None:
        if len(self._queue) >= MAX_PIPELINED:
            self._transport.abort()
            return
        self._queue.append(what)
        self._pump()

    def _pump(self) -> None:
        """Play answers while they end at once; a loop, so that pipelining cannot recurse."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._queue and self._player is None and not self._transport.is_closing():
                what = self._queue.popleft()
                answer = self._routes(what) if isinstance(what, Request) else what
                self._keep_alive = answer.keep_alive
                self._player = Player(answer, self._transport, self._stats, self._answered)
                self._player.run()
        finally:
            self._pumping = False

    def _answered(self) -> None:
        self._player = None
        if self._keep_alive:
            self._pump()
        elif self._deaf:
            # The client may still be sending what we refuse to read; closing now would reset the
            # connection and take our answer with it (RFC 9112, section 9.6).
            self._transport.write_eof()
            loop = asyncio.get_running_loop()
            self._linger = loop.call_later(LINGER_S, self._transport.abort)
        else:
            self._transport.close()
