"""uvicorn as the gateway runs it: its socket, its connections, its way down.

What a bare ``uvicorn app.main:app`` does not do: cut a reader that takes nothing, answer 414, keep
listening while it drains, exit with 0.
"""

import asyncio
import fcntl
import json
import logging
import secrets
import socket
import struct
import termios
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from http import HTTPStatus
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from sse_starlette.sse import AppStatus
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.api.deps import Gateway
from app.listening import listen, raise_file_limit
from app.settings import Settings

logger = logging.getLogger(__name__)

# A reader that takes no bytes for this long is cut: contract section 5.
FROZEN_S = 30.0
LOOK_TICKS = 25  # of 0.1 s between two looks at all connections; a look takes 2 µs each
KEEP_ALIVE_S = 75  # as nginx: longer than a person's pause between two questions
CLOSE = (b"connection", b"close")
# At the end: for requests that come on connections that were accepted before. Seconds.
LAST_REQUESTS_S = 1.0
CLOSE_S = 3  # after the drain: how long connections may take to flush their last bytes
MAX_URL_BYTES = 65_535  # httptools can parse no longer one
MAX_HEADER_BYTES = 64 * 1024  # h11's precedent, which uvicorn's other parser keeps
_CODES = {414: "uri_too_long", 431: "headers_too_large"}
_REFUSALS = {
    414: "The address is too long: ask with POST.",
    431: "The header fields are too large.",
}


Announce = Callable[[int], None]


class Connection(HttpToolsProtocol):
    """Refuses what is too long to be a request; knows whether its peer still takes bytes."""

    # Slots beside the base's dictionary, which would grow by a kilobyte for four more names.
    __slots__ = ("_acked", "_header_bytes", "_refusal", "_stuck_since")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Bytes that the peer's kernel had taken at the last look; -1: nothing waits.
        self._acked = -1
        self._stuck_since = 0.0
        self._header_bytes = 0
        self._refusal = HTTPStatus.BAD_REQUEST

    def look(self, now: float) -> None:
        """Cut a peer that has taken nothing for ``FROZEN_S`` of what waits for it (Linux only).

        Not ``TCP_USER_TIMEOUT``, which cuts slow readers with small windows too, and not the size
        of our own buffer, which shrinks only once a third of the kernel's is free. Not
        ``transport.close()`` either, which waits for the very bytes that nobody takes.
        """
        sock = self.transport.get_extra_info("socket")
        with suppress(OSError):  # closed since
            if not self.transport.get_write_buffer_size() and not _unacked(sock):
                self._acked = -1
                return
            acked = _acked(sock)
            if acked != self._acked:
                self._acked, self._stuck_since = acked, now
            elif now - self._stuck_since >= FROZEN_S:
                logger.info("cut a reader that took nothing for %g s", FROZEN_S)
                self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._header_bytes = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._bound(len(self.url), MAX_URL_BYTES, HTTPStatus.REQUEST_URI_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        self._bound(
            self._header_bytes, MAX_HEADER_BYTES, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        )
        super().on_header(name, value)

    def send_400_response(self, msg: str) -> None:
        """uvicorn calls this for every request that the parser refuses."""
        status = self._refusal
        request_id = secrets.token_urlsafe(16)
        body = json.dumps(
            {
                "type": "about:blank",
                "title": status.phrase,
                "status": status,
                "detail": _REFUSALS.get(status, f"{msg} An address must be percent-encoded."),
                "code": _CODES.get(status, "invalid_request"),
                "request_id": request_id,
            }
        ).encode()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\n"
            f"content-type: application/problem+json\r\ncontent-length: {len(body)}\r\n"
            f"x-request-id: {request_id}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _bound(self, size: int, limit: int, status: HTTPStatus) -> None:
        if size > limit:
            self._refusal = status
            raise ValueError(status.phrase)  # the parser turns it into its own error


def _unacked(sock: socket.socket) -> int:
    """Bytes in the kernel that the peer has not taken: ``SIOCOUTQ`` of tcp(7)."""
    (count,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))
    return int(count)


def _acked(sock: socket.socket) -> int:
    """Bytes that the peer has acknowledged: ``tcpi_bytes_acked`` of Linux's ``struct tcp_info``."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128)
    (count,) = struct.unpack_from("Q", info, 120)
    return int(count)


class Server(uvicorn.Server):
    """SIGTERM or SIGINT: refuse new runs, serve the rest, then go, with exit code 0. A second one
    ends at once."""

    def __init__(self, config: uvicorn.Config, drain_s: float, announce: Announce) -> None:
        super().__init__(config)
        self._drain_s = drain_s
        self._announce = announce
        self._told_to_exit = False
        self._drained: asyncio.Task[None] | None = None  # kept, or it might be collected
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listener: socket.socket | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens only now, when signals are heard. Raises ``CannotListen``."""
        self._listener = listen(self.config.host, self.config.port)
        await super().startup(sockets=[*(sockets or ()), self._listener])
        self._announce(self._listener.getsockname()[1])

    async def on_tick(self, counter: int) -> bool:
        """Every 0.1 s."""
        if counter % LOOK_TICKS == 0 and hasattr(socket, "TCP_INFO"):
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.look(now)
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  # uvicorn's
        """Not uvicorn's, which notes the signal and raises it again at the end."""
        if self._loop is None or self._told_to_exit:
            self.end_now()
        else:
            self._told_to_exit = True
            self._loop.call_soon_threadsafe(self.told_to_end)

    def end_now(self) -> None:
        self.should_exit = self.force_exit = True

    def told_to_end(self) -> None:
        self.begin_drain(self.drain)

    def say_close(self) -> None:
        """From now on each answer is the last one on its connection (RFC 9112 section 9.6)."""
        self.config.encoded_headers.append(CLOSE)  # uvicorn takes it over each second
        self.server_state.default_headers = [*self.server_state.default_headers, CLOSE]

    def begin_drain(self, drain: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Once: what comes later is ignored."""
        if self._drained is None:
            self._drained = asyncio.ensure_future(drain())

    async def drain(self) -> None:
        if self.started:
            logger.info("draining for up to %g s; a second signal ends at once", self._drain_s)
            gateway: Gateway = self.lifespan.state["gateway"]
            self.say_close()
            await gateway.supervisor.drain(self._drain_s)
            await self._stop_listening()
            if self.server_state.connections:  # a request may be on its way in one that is kept
                await asyncio.sleep(LAST_REQUESTS_S)
        self.should_exit = True

    async def _stop_listening(self) -> None:
        """Closing the socket would reset what the kernel has accepted and we have not."""
        late: list[socket.socket] = []
        if self._listener is not None:
            with suppress(OSError):  # there are no more
                while True:
                    late.append(self._listener.accept()[0])
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        for sock in late:
            sock.setblocking(False)
            await loop.connect_accepted_socket(self.protocol, sock)

    def protocol(self) -> Connection:
        """For one more connection."""
        return Connection(self.config, self.server_state, self.lifespan.state)


def serve(app: FastAPI, settings: Settings, announce: Announce) -> None:
    """Returns when the server has ended. ``announce`` gets the port once it is open.

    Raises ``CannotListen``.
    """
    Server(prepare(app, settings), settings.drain_seconds, announce).run()


def prepare(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """What a server runs with; prepares the process for it."""
    raise_file_limit()
    # Ours is the drain; the library's cuts bodies.
    AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]  # it has no types
    options: dict[str, Any] = {"proxy_headers": False}
    if settings.trusted_proxies:
        options = {"proxy_headers": True, "forwarded_allow_ips": list(settings.trusted_proxies)}
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=Connection,
        ws="none",
        loop="uvloop",
        lifespan="on",
        log_config=None,
        access_log=False,  # it would write questions, which GET carries in its query
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=CLOSE_S,
        **options,
    )
