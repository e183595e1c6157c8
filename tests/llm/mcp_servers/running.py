"""The gateway's side in tests: MCP servers kept in a toolbox, and a desk to look at."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from app.llm.foreign import abandon
from app.llm.mcp import McpServers
from app.llm.mcp_file import HttpServer, Server, StdioServer
from app.llm.toolbox import Outcome, Toolbox

BOUND_S = 30.0
LOST = Outcome("the connection to the tool's server was lost", is_error=True)
SCRIPT = Path(__file__).with_name("desk.py")
CHANGING = SCRIPT.with_name("changing.py")


async def until(is_so: Callable[[], bool], what: str) -> None:
    """A poll of another process, bounded."""
    for _ in range(int(BOUND_S / 0.01)):
        if is_so():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"still not so: {what}")


class Desk:
    """What ``desk.py`` noted, or another server."""

    def __init__(self, folder: Path, script: Path = SCRIPT) -> None:
        self._script = script
        self.path = folder / "notes"
        self.path.touch()

    def notes(self) -> list[str]:
        return self.path.read_text().splitlines()

    async def noted(self, line: str, times: int = 1) -> None:
        await until(lambda: self.notes().count(line) >= times, f"{line} in {self.notes()}")

    @property
    def pids(self) -> list[int]:
        return [int(line.split()[1]) for line in self.notes() if line.startswith("pid ")]

    def kill(self) -> None:
        """The process that was started last."""
        os.kill(self.pids[-1], signal.SIGKILL)

    @property
    def lives(self) -> bool:
        """Whether a process of it is there; one that only waits to be reaped is not."""
        for pid in self.pids:
            try:
                if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                    return True
            except FileNotFoundError:
                continue
        return False

    def process(self, **env: str) -> StdioServer:
        return StdioServer(sys.executable, (str(self._script), str(self.path)), env, None)


class HttpDesk(Desk):
    def __init__(self, folder: Path, script: Path = SCRIPT) -> None:
        super().__init__(folder, script)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.server = HttpServer(f"http://127.0.0.1:{self._port}/mcp", {})

    @contextmanager
    def running(self) -> Iterator[None]:
        command = [sys.executable, str(self._script), str(self.path), str(self._port)]
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            try:
                self._wait(process)
                yield
            finally:
                process.kill()

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + BOUND_S
        while process.poll() is None and time.monotonic() < deadline:
            with socket.socket() as knock:
                if knock.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            time.sleep(0.02)  # a poll of another process, bounded above
        raise AssertionError("the desk does not open")


class Kept:
    """``servers`` as ``McpServers`` keeps them."""

    def __init__(self, **servers: Server) -> None:
        self.toolbox = Toolbox()
        self.servers = McpServers(servers, self.toolbox)

    async def call(self, name: str, arguments: str = "") -> Outcome:
        async with asyncio.timeout(BOUND_S):
            return await self.toolbox.call(name, arguments, "call_1")

    async def becomes(self, name: str, status: str | None) -> None:
        await until(
            lambda: self.servers.status[name] == status, f"{name}: {self.servers.status[name]}"
        )


@asynccontextmanager
async def kept(**servers: Server) -> AsyncIterator[Kept]:
    it = Kept(**servers)
    task = asyncio.create_task(it.servers.run())
    try:
        yield it
    finally:
        task.cancel()
        _, left = await asyncio.wait({task}, timeout=BOUND_S)
        assert not left, "McpServers does not end"
        await abandon()
