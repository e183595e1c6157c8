"""MCP servers at an address, over streamable HTTP; real ones, of the Python SDK."""

import asyncio
from pathlib import Path

import pytest

from app.llm.mcp_file import HttpServer
from tests.llm.mcp_servers.running import BOUND_S, LOST, Desk, HttpDesk, kept

pytestmark = pytest.mark.anyio

UNREACHABLE = "its address cannot be reached"


@pytest.fixture
def desk(tmp_path: Path) -> HttpDesk:
    return HttpDesk(tmp_path)


async def test_its_tools_are_called_beside_those_of_a_process(
    desk: HttpDesk, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    async with kept(web=desk.server, desk=Desk(tmp_path / "other").process()) as it:
        await it.becomes("desk", None)
        with desk.running():
            await it.becomes("web", None)
            assert await it.call("web_add", '{"a": 2, "b": 3}') == ("5", False)
            assert await it.call("desk_add", '{"a": 3, "b": 3}') == ("6", False)
            assert it.toolbox.names[0].startswith("web_")  # the file's order, as models see them
            content, is_error = await it.call("web_fail")
            assert "the desk is on fire" in content
            assert is_error


async def test_cancelling_a_call_cancels_it_at_the_server(desk: HttpDesk) -> None:
    with desk.running():
        async with kept(web=desk.server) as it:
            await it.becomes("web", None)
            call = asyncio.create_task(it.call("web_sleep", '{"seconds": 60}'))
            await desk.noted("sleeps")
            call.cancel()
            async with asyncio.timeout(BOUND_S):
                await asyncio.wait({call})
            assert call.cancelled()
            await desk.noted("cancelled")
            assert await it.call("web_add", '{"a": 2, "b": 3}') == ("5", False)


async def test_a_server_that_dies_in_a_call_gives_an_error_and_is_found_again(
    desk: HttpDesk,
) -> None:
    async with kept(web=desk.server) as it:
        with desk.running():
            await it.becomes("web", None)
            call = asyncio.create_task(it.call("web_sleep", '{"seconds": 60}'))
            await desk.noted("sleeps")
            desk.kill()
            assert await call == LOST
        await it.becomes("web", UNREACHABLE)
        assert it.toolbox.names == []
        with desk.running():
            await it.becomes("web", None)
            assert await it.call("web_add", '{"a": 2, "b": 3}') == ("5", False)


async def test_a_server_that_dies_while_nobody_calls_is_noticed(desk: HttpDesk) -> None:
    with desk.running():
        async with kept(web=desk.server) as it:
            await it.becomes("web", None)
            desk.kill()
            await it.becomes("web", UNREACHABLE)
            assert it.toolbox.names == []


async def test_a_server_that_is_down_at_start_is_said_and_found_later(desk: HttpDesk) -> None:
    async with kept(web=desk.server) as it:
        await it.becomes("web", UNREACHABLE)
        with desk.running():
            await it.becomes("web", None)
            assert await it.call("web_add", '{"a": 2, "b": 3}') == ("5", False)


async def test_an_address_that_is_no_mcp_server_is_said(desk: HttpDesk) -> None:
    with desk.running():
        elsewhere = HttpServer(desk.server.url.replace("/mcp", "/elsewhere"), {})
        async with kept(web=elsewhere) as it:
            await it.becomes("web", "it ends, or does not speak MCP")
