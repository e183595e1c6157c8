"""The server: listens, and owns all connections until it is stopped."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from app.simulator.kept import Kept
from app.simulator.protocol import Connection
from app.simulator.routes import Routes
from app.simulator.stats import Stats, View

BACKLOG = 4096  # connections waiting to be accepted: a benchmark opens 1,000 at once
STOP_TIMEOUT_S = 5.0  # for aborted connections to be gone; they need one turn of the loop


class Simulator:
    """A model server inside the running loop. Also an async context manager.

    >>> async with Simulator() as simulator:
    ...     client = AsyncOpenAI(base_url=simulator.url, api_key="any")
    """

    def __init__(self) -> None:
        self.stats = Stats()
        self._kept = Kept()
        self._routes = Routes(self.stats, self._kept)
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._url = ""

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 takes a free one. Raises ``OSError`` when the address is taken."""
        if self._server is not None:
            raise RuntimeError("the simulator is already running")
        self._server = await asyncio.get_running_loop().create_server(
            self._connect, host, port, backlog=BACKLOG
        )
        bound = self._server.sockets[0].getsockname()
        shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        self._url = f"http://{shown}:{bound[1]}/v1"

    @property
    def url(self) -> str:
        """The base URL as an OpenAI client takes it, ending in ``/v1``."""
        if not self._url:
            raise RuntimeError("the simulator has not been started")
        return self._url

    @property
    def origin(self) -> str:
        """The same without ``/v1``, where ``/stats`` lives."""
        return self.url.removesuffix("/v1")

    async def until(self, condition: Callable[[View], bool], *, timeout_s: float = 5.0) -> View:
        """Wait for a state of the statistics; see ``Stats.until``."""
        return await self.stats.until(condition, timeout_s=timeout_s)

    def requests(self, contains: str = "") -> list[dict[str, Any]]:
        """Bodies of the newest requests; see ``Kept.find``. ``GET /requests?contains=`` has them
        for other processes."""
        return self._kept.find(contains)

    async def stop(self) -> None:
        """Close everything at once; running calls end as failed. Stopping twice is no error."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        for connection in tuple(self._connections):
            connection.stop()
        await self.stats.until(lambda view: view.connections == 0, timeout_s=STOP_TIMEOUT_S)
        await server.wait_closed()

    def _connect(self) -> Connection:
        connection = Connection(self._routes, self.stats, self._connections)
        if self._server is None:  # accepted by the kernel before, by the loop after the stop
            connection.stop()
        return connection

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()
