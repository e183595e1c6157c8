"""The server of a worker: it listens where its parent does, and asks before it ends."""

import asyncio
import socket
from contextlib import suppress

import uvicorn
from fastapi import FastAPI

from app.api.deps import Gateway
from app.listening import BACKLOG
from app.server import LAST_REQUESTS_S, Server, prepare
from app.settings import Settings
from app.worker import DRAIN, LEAVING, NOW, READY, RELIEVED

READY_S = 5.0  # a worker accepts from then on, whatever is away
LOOK_S = 0.02


class WorkerServer(Server):
    """Told to end by a signal, it tells its parent, and goes on until that says how to end."""

    def __init__(
        self,
        config: uvicorn.Config,
        drain_s: float,
        listener: socket.socket,
        channel: socket.socket,
    ) -> None:
        super().__init__(config, drain_s, lambda _: None)
        self._inherited = listener
        self._channel = channel

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accepts only once it can take work; connections wait in the kernel."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._channel, self._hear)
        await uvicorn.Server.startup(self, sockets or [])  # ours would open a port
        await self._until_ready()
        server = await loop.create_server(self.protocol, sock=self._inherited, backlog=BACKLOG)
        self.servers.append(server)
        self._say(READY)

    async def _until_ready(self) -> None:
        """As ``/ready`` says it, but ``READY_S`` at most."""
        parts: Gateway = self.lifespan.state["gateway"]
        with suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                while not (_is_ready(parts) or self.should_exit):  # noqa: ASYNC110  # nothing tells
                    await asyncio.sleep(LOOK_S)

    def told_to_end(self) -> None:
        self._say(LEAVING)

    def _say(self, word: bytes) -> None:
        with suppress(OSError):  # the parent is gone, and ``_hear`` hears that
            self._channel.send(word)

    def _hear(self) -> None:
        try:
            words = self._channel.recv(64)
        except OSError:
            words = b""
        if NOW in words:
            self.end_now()
        elif RELIEVED in words:
            self._turn_away()
            self.begin_drain(self._hand_over)
        elif DRAIN in words or not words:
            self._listener = self._inherited  # nobody else listens on it any more
            self.begin_drain(self.drain)
        if not words:
            asyncio.get_running_loop().remove_reader(self._channel)

    def _turn_away(self) -> None:
        """What is new is for our successor: connections, and the next request on each of ours."""
        for server in self.servers:
            server.close()
        self.say_close()

    async def _hand_over(self) -> None:
        await asyncio.sleep(LAST_REQUESTS_S)
        for connection in list(self.server_state.connections):
            connection.shutdown()  # at once where nothing is being answered
        await self.drain()


def _is_ready(parts: Gateway) -> bool:
    away = parts.store.trouble or parts.store_trouble()
    return parts.model.state != "loading" and away is None


def serve_as_worker(app: FastAPI, settings: Settings, descriptors: str) -> None:
    """Returns when the server has ended. ``descriptors``: the numbers of the listening socket and
    of the channel to the parent (app/worker.py)."""
    listener, channel = (socket.socket(fileno=int(number)) for number in descriptors.split(","))
    for each in (listener, channel):
        each.set_inheritable(False)  # not for the programs that we start
        each.setblocking(False)
    WorkerServer(prepare(app, settings), settings.drain_seconds, listener, channel).run()
