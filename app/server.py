"""uvicorn as the gateway runs it: its socket, its connections, its way down.

What a bare ``uvicorn app.main:app`` does not do: cut a slow sender and a reader that takes nothing,
bound connections and heads, keep listening while it drains, exit with 0.
"""

import asyncio
import ipaddress
import logging
import math
import resource
import socket
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from sse_starlette.sse import AppStatus

from app.api.deps import Gateway
from app.connection import Connection
from app.listening import listen, raise_file_limit
from app.settings import Settings

logger = logging.getLogger(__name__)

LOOK_TICKS = 25  # of 0.1 s between two looks at all connections; a look takes 2 µs each
# Beside the readers: connections with a question, kept for the next one, or idle.
SPARE_CONNECTIONS = 4_000
# Of the files that a process may have open: listeners, database, Redis, libraries. Each running
# answer takes one more, to its upstream.
OWN_FILES = 256
KEEP_ALIVE_S = 75  # as nginx: longer than a person's pause between two questions
CLOSE = (b"connection", b"close")
# At the end: for requests that come on connections that were accepted before. Seconds.
LAST_REQUESTS_S = 1.0
CLOSE_S = 3  # after the drain: how long connections may take to flush their last bytes

Announce = Callable[[int], None]


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
            connections = list(self.server_state.connections)
            if len(connections) >= (self.config.limit_concurrency or math.inf):
                logger.warning("%d connections: a further one is refused", len(connections))
            for connection in connections:
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
        """Whatever happens, the end follows."""
        try:
            await self._drain()
        except Exception:
            logger.exception("draining met a bug")
        self.should_exit = True

    async def _drain(self) -> None:
        if self.started:
            logger.info("draining for up to %g s; a second signal ends at once", self._drain_s)
            gateway: Gateway = self.lifespan.state["gateway"]
            self.say_close()
            await gateway.supervisor.drain(self._drain_s)
            await self._stop_listening()
            if self.server_state.connections:  # a request may be on its way in one that is kept
                await asyncio.sleep(LAST_REQUESTS_S)

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
        # uvicorn takes a network with bits behind its mask for a name, and trusts nobody.
        networks = [str(ipaddress.ip_network(at, strict=False)) for at in settings.trusted_proxies]
        options = {"proxy_headers": True, "forwarded_allow_ips": networks}
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
        limit_concurrency=max_connections(settings),
        **options,
    )


def max_connections(settings: Settings) -> int:
    """What the settings ask for, as far as the process may have files."""
    wanted = settings.max_readers + SPARE_CONNECTIONS
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return wanted
    return min(wanted, max(files // 2, files - settings.max_runs - OWN_FILES))
