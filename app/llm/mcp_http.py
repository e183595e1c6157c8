"""The HTTP client below the MCP SDK's streamable HTTP: it knows which request is which call.

The SDK (1.x) leaves the request of a cancelled call open, and waits for ever for the answer of a
call whose connection broke. Here a call can be dropped, which closes its connection, and a broken
connection is told to whoever owns the session.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import lru_cache
from typing import Any, TypeVar

import anyio
import httpx
import msgspec

CONNECT_S = 10.0
GOODBYE_S = 1.0  # for the session's DELETE, which is a courtesy
SSE = "text/event-stream"
SESSION = "mcp-session-id"

T = TypeVar("T")


class _Post(msgspec.Struct):
    method: str = ""
    id: int | str | None = None


@lru_cache(1)
def tls_context() -> ssl.SSLContext:
    """To be made in a thread, and once: it reads all certificates of the machine."""
    return httpx.create_ssl_context()


class McpHttpClient(httpx.AsyncClient):
    """``lost`` is called when the connection, or the session at the server, is gone."""

    def __init__(self, headers: dict[str, str], tls: ssl.SSLContext) -> None:
        super().__init__(
            verify=tls,
            headers={**headers, "accept-encoding": "identity"},
            # Reading waits: a call has its own clock, and a stream of notifications may be silent.
            timeout=httpx.Timeout(CONNECT_S, read=None),
            limits=httpx.Limits(max_connections=None),
        )
        self.lost: Callable[[], None] = lambda: None
        self._calls: dict[int, _Exchange] = {}

    def drop(self, number: int) -> None:
        """Close the connection of the request with this JSON-RPC id, if it is still open."""
        if call := self._calls.get(number):
            call.drop()

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        if request.method == "DELETE":
            async with asyncio.timeout(GOODBYE_S):
                return await super().send(request, **options)
        number = _number(request)
        if number is None:
            return await self._asked(request, options, _Exchange(None, self._lost))
        call = self._calls[number] = _Exchange(number, self._lost)
        call.at_end = lambda: self._calls.pop(number, None)
        try:
            response = await call.unless_dropped(lambda: self._asked(request, options, call), None)
        except BaseException:
            call.at_end()
            raise
        if response is None:
            call.at_end()
            headers = {"content-type": "application/json"}
            response = httpx.Response(200, content=call.answer, headers=headers, request=request)
        return response

    async def _asked(
        self, request: httpx.Request, options: dict[str, Any], exchange: "_Exchange"
    ) -> httpx.Response:
        try:
            response = await super().send(request, **options)
        except httpx.TransportError:
            self._lost()
            raise
        if response.status_code == 404 and SESSION in request.headers:
            self._lost()  # it was started anew and does not know us
        exchange.response = response
        exchange.inner = response.stream
        response.stream = exchange
        return response

    def _lost(self) -> None:
        self.lost()


class _Exchange(httpx.AsyncByteStream):
    """One request, and the body of its answer. ``number``: None for what is no call."""

    response: httpx.Response
    inner: Any

    def __init__(self, number: int | None, lost: Callable[[], None]) -> None:
        self.at_end: Callable[[], object] = lambda: None
        self._number = number
        self._lost = lost
        self._dropped = False
        self._scope: anyio.CancelScope | None = None

    @property
    def answer(self) -> bytes:
        """What stands in for the server's, so that the SDK does not ask for it again."""
        error = {"code": 0, "message": "cancelled"}
        return msgspec.json.encode({"jsonrpc": "2.0", "id": self._number, "error": error})

    def drop(self) -> None:
        self._dropped = True
        if self._scope is not None:
            self._scope.cancel()

    async def unless_dropped(self, wait: Callable[[], Awaitable[T]], otherwise: T) -> T:
        with anyio.CancelScope() as self._scope:
            if not self._dropped:
                return await wait()
        return otherwise

    async def __aiter__(self) -> AsyncIterator[bytes]:
        is_stream = self.response.headers.get("content-type", "").startswith(SSE)
        can_resume = False
        chunks = aiter(self.inner)
        try:
            while chunk := await self.unless_dropped(lambda: anext(chunks, b""), b""):
                can_resume = can_resume or b"id:" in chunk
                yield chunk
        except httpx.TransportError:
            self._lost()
            raise
        if self._dropped:
            yield b"\n\ndata: " + self.answer + b"\n\n" if is_stream else self.answer
        elif self._number is not None and is_stream and not can_resume:
            self._lost()  # who has the answer reads no further, so this one never came

    async def aclose(self) -> None:
        self.at_end()
        await self.inner.aclose()


def _number(request: httpx.Request) -> int | None:
    """Of a tool call; its JSON-RPC id, which the SDK counts."""
    try:
        post = msgspec.json.decode(request.content, type=_Post)
    except msgspec.MsgspecError:
        return None
    return post.id if post.method == "tools/call" and isinstance(post.id, int) else None
