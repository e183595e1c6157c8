"""The MCP servers: one task for each keeps its connection, and its tools in the toolbox.

A tool is named ``<server>_<tool>``, always, so that its name does not depend on which other servers
are there. While its server is down it is not offered, and a call of it is answered with an error.
When a server says that its tools changed, they are listed again.

This module is light: MCP's and LangChain's libraries come with the first connection.
"""

import asyncio
import logging
import random
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from app.llm.mcp_file import Server
from app.llm.toolbox import Toolbox

START_S = 30.0  # for a server to tell its tools; `npx` and `uvx` may first download it
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0  # between two tries
RELIST_S = 0.5  # between two lists of a server whose tools change
STEADY_S = 60.0  # a connection that held so long is soon tried again when it is lost

logger = logging.getLogger(__name__)


class McpServers:
    """``run`` has to run for them to be there."""

    def __init__(self, servers: Mapping[str, Server], toolbox: Toolbox) -> None:
        self._servers = servers
        self._toolbox = toolbox
        for name in servers:  # tools are offered in the file's order, whoever comes up first
            toolbox.put(name, ())
        self._status: dict[str, str | None] = dict.fromkeys(servers, "it is being started")

    @property
    def status(self) -> Mapping[str, str | None]:
        """By server: None where all is well, else what is wrong, in our words."""
        return MappingProxyType(self._status)

    async def run(self) -> None:
        """Until it is cancelled: then the processes are ended, in 4 s at most, and connections
        closed."""
        sessions = await asyncio.to_thread(import_module, "app.llm.mcp_session")
        async with asyncio.TaskGroup() as tasks:
            for name, server in self._servers.items():
                tasks.create_task(self._keep(sessions, name, server), name=f"MCP server {name}")

    async def _keep(self, sessions: Any, name: str, server: Server) -> None:
        clock, task = asyncio.get_running_loop().time, asyncio.current_task()
        wait_s = FIRST_WAIT_S
        while True:
            began = clock()
            try:
                await self._serve(sessions, name, server)
                why = "the connection was lost"
            except Exception as error:  # it is somebody else's server
                if task is not None and task.cancelling():
                    raise asyncio.CancelledError from error  # it failed while it was ended
                why = _reason(error)
                logger.debug("MCP server %s", name, exc_info=True)
            if self._status[name] != why:
                logger.warning("MCP server %s: %s", name, why)
            self._status[name] = why
            wait_s = FIRST_WAIT_S if clock() - began > STEADY_S else min(2 * wait_s, LONGEST_WAIT_S)
            await asyncio.sleep(random.uniform(wait_s / 2, wait_s))

    async def _serve(self, sessions: Any, name: str, server: Server) -> None:
        """Until the connection is lost."""
        async with sessions.connected(name, server) as session:
            async with asyncio.timeout(START_S):
                await session.initialize()
                told = await sessions.list_tools(session, name)
            try:
                self._offer(name, told)
                self._status[name] = None
                async with asyncio.TaskGroup() as tasks:
                    following = tasks.create_task(self._follow(sessions, name, session))
                    await session.run()
                    following.cancel()
            finally:
                self._toolbox.put(name, ())

    async def _follow(self, sessions: Any, name: str, session: Any) -> None:
        """One list at a time, however often the server says that its tools changed."""
        while True:
            await session.tools_changed.wait()
            session.tools_changed.clear()
            try:
                async with asyncio.timeout(START_S):
                    self._offer(name, await sessions.list_tools(session, name))
            except sessions.McpError:  # or the connection was lost, which ends ``session.run``
                logger.warning("MCP server %s: it does not list its changed tools", name)
            await asyncio.sleep(RELIST_S)

    def _offer(self, name: str, told: Iterable[Any]) -> None:
        tools = [tool for tool in told if self._is_of(tool.name, name)]
        self._toolbox.put(name, tools)
        logger.info("MCP server %s: %d tools", name, len(tools))

    def _is_of(self, tool: str, server: str) -> bool:
        """Servers ``a`` and ``a_b`` could both have an ``a_b_c``: it is the latter's."""
        longest = max(
            (name for name in self._servers if tool.startswith(f"{name}_")), key=len, default=server
        )
        return longest == server


def _reason(error: BaseException) -> str:
    """In words that name no address, path or key."""
    for one in _leaves(error):
        status = getattr(getattr(one, "response", None), "status_code", None)
        if status is not None:
            return f"it answers HTTP {status}"
        if isinstance(one, TimeoutError):
            return "it does not answer in time"
        if type(one).__module__.startswith(("httpx", "httpcore")):
            return "its address cannot be reached"
        if isinstance(one, OSError) and not isinstance(one, ConnectionError):
            return "its command cannot be started"
    return "it ends, or does not speak MCP"


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error
