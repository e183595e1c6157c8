"""One connection to one MCP server: the process or the address, the session over it, its tools."""

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import jsonschema  # type: ignore[import-untyped]  # it has no types, and one call is all we need
from langchain_core.tools import BaseTool, StructuredTool, ToolException
from langchain_mcp_adapters.tools import convert_mcp_tool_to_langchain_tool
from mcp import ClientSession, McpError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import (
    CONNECTION_CLOSED,
    CallToolResult,
    CancelledNotification,
    CancelledNotificationParams,
    ClientNotification,
    PaginatedRequestParams,
    ServerNotification,
    TextContent,
    Tool,
    ToolListChangedNotification,
)

from app.llm.mcp_file import Server, StdioServer
from app.llm.mcp_http import McpHttpClient, tls_context
from app.llm.tool_loading import check_tool

SEND_S = 5.0  # for a server to take a notification; one that does not is stuck
LINE_BYTES = 2_000  # of a server's stderr; longer ones are logged in pieces
LAST_WORDS_S = 0.5  # for what a process that ended still had to say
PAGES = 100  # of a list of tools

logger = logging.getLogger(__name__)


class Session(ClientSession):
    """Calls end when the session ends, and one that is cancelled ends at the server too.

    The SDK (1.x) does neither: it would wait for the answer of a dead server, and a server would
    work on for nobody. ``tools_changed`` is set when the server says so.
    """

    def __init__(self, read: Any, write: Any, drop: Callable[[int], None]) -> None:
        super().__init__(read, write)
        self.tools_changed = asyncio.Event()
        self._drop = drop
        self._cancelled: asyncio.Queue[int | None] = asyncio.Queue()  # None: the connection is lost
        self._scopes: set[anyio.CancelScope] = set()
        self._over = False

    def lose(self) -> None:
        """The connection is gone."""
        self._cancelled.put_nowait(None)

    async def run(self) -> None:
        """Until the connection is lost. Tells the server which calls nobody waits for any more:
        here, and not where they were cancelled, so that no cancel waits for a server."""
        try:
            while (number := await self._cancelled.get()) is not None:
                self._drop(number)
                params = CancelledNotificationParams(requestId=number, reason="nobody waits for it")
                notification = CancelledNotification(params=params)
                async with asyncio.timeout(SEND_S):
                    await self.send_notification(ClientNotification(notification))
        finally:
            self._over = True
            for scope in self._scopes:
                scope.cancel()

    async def call_tool(self, *args: Any, **kwargs: Any) -> CallToolResult:
        """Raises ``ToolException`` with what to tell the model."""
        number = self._request_id  # that this call is about to get
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                if not self._over:
                    return _with_text(await super().call_tool(*args, **kwargs))
            except asyncio.CancelledError:
                self._cancelled.put_nowait(number)
                raise
            except McpError as error:
                if error.error.code != CONNECTION_CLOSED:
                    raise ToolException(error.error.message) from None
            finally:
                self._scopes.discard(scope)
        raise ToolException("the connection to the tool's server was lost")

    async def _received_notification(self, notification: ServerNotification) -> None:
        if isinstance(notification.root, ToolListChangedNotification):
            self.tools_changed.set()
        await super()._received_notification(notification)

    async def _receive_loop(self) -> None:
        try:
            await super()._receive_loop()
        finally:
            self.lose()


class McpTool(StructuredTool):
    """As the adapter makes it, but ``StructuredTool`` keeps an argument named ``config`` or
    ``run_manager`` for itself."""

    async def _arun(self, /, **arguments: Any) -> Any:  # type: ignore[override]  # see above
        if self.coroutine is None:
            raise NotImplementedError
        return await self.coroutine(**arguments)


@asynccontextmanager
async def connected(name: str, server: Server) -> AsyncIterator[Session]:
    """A session that is not initialized yet. Raises whatever the SDK raises, in groups."""
    if isinstance(server, StdioServer):
        parameters = StdioServerParameters(
            command=server.command, args=list(server.args), env=server.env, cwd=server.cwd
        )
        async with (
            _logged_stderr(name) as stderr,
            stdio_client(parameters, stderr) as (read, write),
            Session(read, write, lambda _: None) as session,
        ):
            yield session
    else:
        tls = await asyncio.to_thread(tls_context)
        async with (
            McpHttpClient(server.headers, tls) as client,
            streamable_http_client(server.url, http_client=client) as (read, write, _),
            Session(read, write, client.drop) as session,
        ):
            client.lost = session.lose
            yield session


async def list_tools(session: Session, server: str) -> list[BaseTool]:
    """All that can be offered, as ``<server>_<tool>``; the log names the others."""
    tools: list[BaseTool] = []
    cursor: str | None = None
    for _ in range(PAGES):
        page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor))
        for told in page.tools:
            try:
                tools.append(_tool(session, told, server))
            except ValueError as error:
                logger.warning(
                    "MCP server %s: the tool %r is left out: %s", server, told.name, error
                )
        cursor = page.nextCursor
        if not cursor:
            break
    return tools


def _with_text(result: CallToolResult) -> CallToolResult:
    """Structured content as JSON too, where no text says the same: models only get text."""
    has_text = any(isinstance(part, TextContent) and part.text for part in result.content)
    if result.structuredContent is not None and not has_text:
        text = json.dumps(result.structuredContent, ensure_ascii=False)
        result.content.append(TextContent(type="text", text=text))
    return result


def _tool(session: Session, told: Tool, server: str) -> BaseTool:
    """Raises ``ValueError`` where models could not be told of it."""
    try:
        jsonschema.validators.validator_for(told.inputSchema).check_schema(told.inputSchema)
    except jsonschema.SchemaError as error:
        raise ValueError(f"its schema is invalid: {error.message[:200]}") from None
    made = convert_mcp_tool_to_langchain_tool(
        session, told, server_name=server, tool_name_prefix=True
    )
    if not isinstance(made, StructuredTool):
        raise TypeError(f"the adapter makes {type(made).__name__}")
    tool = McpTool(
        name=made.name,
        description=made.description,
        args_schema=made.args_schema,
        coroutine=made.coroutine,
        response_format=made.response_format,
        handle_tool_error=made.handle_tool_error,
    )
    check_tool(tool)
    return tool


@asynccontextmanager
async def _logged_stderr(name: str) -> AsyncIterator[Any]:
    """A file whose lines go to our log."""
    reading, writing = os.pipe()
    lines = _Lines(name)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: lines, os.fdopen(reading, "rb")
    )
    try:
        with os.fdopen(writing, "w") as stderr:
            yield stderr
        await asyncio.wait({lines.ended}, timeout=LAST_WORDS_S)
    finally:
        transport.close()


class _Lines(asyncio.Protocol):
    def __init__(self, name: str) -> None:
        self.ended = asyncio.get_running_loop().create_future()
        self._name = name
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._log(line)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's name
        self._log(self._rest)
        if not self.ended.done():
            self.ended.set_result(None)

    def _log(self, line: bytes) -> None:
        """Without control characters, which could forge lines or move the terminal's cursor."""
        text = "".join(c if c.isprintable() else " " for c in line.decode(errors="replace")).strip()
        for start in range(0, len(text), LINE_BYTES):
            logger.info("MCP server %s: %s", self._name, text[start : start + LINE_BYTES])
