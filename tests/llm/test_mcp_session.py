"""What a session sends, seen from the other end of its streams."""

import asyncio
from typing import Any

import anyio
import pytest
from langchain_core.tools import ToolException
from mcp.shared.message import SessionMessage
from mcp.types import ErrorData, JSONRPCError, JSONRPCMessage

from app.llm.mcp_session import Session

pytestmark = pytest.mark.anyio

BOUND_S = 10


class Peer:
    """A server that does what the test says."""

    def __init__(self) -> None:
        self.dropped: list[int] = []
        self._to, incoming = anyio.create_memory_object_stream[Any](8)
        outgoing, self._sent = anyio.create_memory_object_stream[SessionMessage](8)
        self.session = Session(incoming, outgoing, self.dropped.append)

    async def got(self) -> dict[str, Any]:
        message = await self._sent.receive()
        data: dict[str, Any] = message.message.model_dump(by_alias=True, exclude_none=True)
        return data

    async def refuses(self, number: int, message: str) -> None:
        error = JSONRPCError(jsonrpc="2.0", id=number, error=ErrorData(code=-1, message=message))
        await self._to.send(SessionMessage(JSONRPCMessage(error)))

    def leaves(self) -> None:
        self._to.close()

    def close(self) -> None:
        self._to.close()
        self._sent.close()


async def test_a_cancelled_call_is_dropped_and_the_server_told() -> None:
    peer = Peer()
    async with asyncio.timeout(BOUND_S), peer.session as session:
        running = asyncio.create_task(session.run())
        for number in (0, 1):
            call = asyncio.create_task(session.call_tool("x", {}))
            assert (await peer.got())["id"] == number
            call.cancel()
            told = await peer.got()
            assert told["method"] == "notifications/cancelled"
            assert told["params"]["requestId"] == number
            assert call.cancelled()
        assert peer.dropped == [0, 1]
        peer.leaves()
        await running
    peer.close()


async def test_calls_end_with_the_session_and_later_ones_at_once() -> None:
    peer = Peer()
    async with asyncio.timeout(BOUND_S), peer.session as session:
        running = asyncio.create_task(session.run())
        call = asyncio.create_task(session.call_tool("x", {}))
        await peer.got()
        session.lose()  # the streams are still there
        await running
        for lost in (call, session.call_tool("x", {})):
            with pytest.raises(ToolException, match="was lost"):
                await lost
    peer.close()


async def test_what_a_server_refuses_with_is_for_the_model() -> None:
    peer = Peer()
    async with asyncio.timeout(BOUND_S), peer.session as session:
        call = asyncio.create_task(session.call_tool("x", {}))
        await peer.refuses((await peer.got())["id"], "x takes a number")
        with pytest.raises(ToolException, match="x takes a number"):
            await call
    peer.close()


async def test_a_server_that_takes_no_messages_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.llm.mcp_session.SEND_S", 0.05)
    peer = Peer()
    async with asyncio.timeout(BOUND_S), peer.session as session:
        running = asyncio.create_task(session.run())
        calls = [asyncio.create_task(session.call_tool("x", {})) for _ in range(8)]
        await asyncio.wait(calls, timeout=0.01)  # now its buffer is full
        calls[0].cancel()
        with pytest.raises(TimeoutError):
            await running
        for call in calls[1:]:
            with pytest.raises(ToolException, match="was lost"):
                await call
    peer.close()
