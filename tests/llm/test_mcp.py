"""MCP servers that are processes of ours, over stdio; real ones, of the Python SDK."""

import asyncio
import json
import logging
import sys
from pathlib import Path

import pytest

from app.llm.mcp import McpServers
from app.llm.mcp_file import StdioServer
from app.llm.toolbox import Toolbox
from tests.llm.mcp_servers.running import BOUND_S, LOST, SCRIPT, Desk, kept, until

pytestmark = pytest.mark.anyio


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


async def test_its_tools_are_called_under_its_name(desk: Desk) -> None:
    async with kept(desk=desk.process()) as it:
        await it.becomes("desk", None)
        assert await it.call("desk_add", '{"a": 2, "b": 3}') == ("5", False)
        (schema,) = it.toolbox.schemas(["desk_add"])
        assert schema["function"]["description"] == "The sum."
        assert schema["function"]["parameters"]["required"] == ["a", "b"]
        content, is_error = await it.call("desk_fail")
        assert "the desk is on fire" in content
        assert is_error
        content, is_error = await it.call("desk_add", '{"a": "x", "b": 3}')
        assert "should be a valid integer" in content
        assert is_error


async def test_arguments_may_have_any_name(desk: Desk) -> None:
    async with kept(desk=desk.process()) as it:
        await it.becomes("desk", None)
        arguments = json.dumps({"config": "a", "run_manager": "b"})
        assert await it.call("desk_echo", arguments) == ("ab", False)


async def test_tools_that_models_cannot_be_told_of_are_left_out(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    async with kept(desk=desk.process()) as it:
        await it.becomes("desk", None)
        names = ["desk_add", "desk_fail", "desk_echo", "desk_secret", "desk_sleep"]
        assert it.toolbox.names == names
    assert "the tool 'bad' is left out: its schema is invalid" in caplog.text
    assert "the tool 'dotted.name' is left out" in caplog.text


async def test_a_server_gets_its_own_variables_and_not_the_gateways(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    async with kept(desk=desk.process(LEVEL="high")) as it:
        await it.becomes("desk", None)
        assert await it.call("desk_secret", '{"name": "LEVEL"}') == ("high", False)
        assert await it.call("desk_secret", '{"name": "OPENAI_API_KEY"}') == ("not set", False)


async def test_what_it_says_on_stderr_goes_to_the_log_as_plain_lines(
    desk: Desk, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    async with kept(desk=desk.process()) as it:
        await it.becomes("desk", None)
    assert "MCP server desk: the desk opens [2J" in caplog.messages
    assert "desk opens" not in "".join(capfd.readouterr())


async def test_cancelling_a_call_cancels_it_at_the_server(desk: Desk) -> None:
    async with kept(desk=desk.process()) as it:
        await it.becomes("desk", None)
        call = asyncio.create_task(it.call("desk_sleep", '{"seconds": 60}'))
        await desk.noted("sleeps")
        call.cancel()
        async with asyncio.timeout(BOUND_S):
            await asyncio.wait({call})
        assert call.cancelled()
        await desk.noted("cancelled")
        assert await it.call("desk_add", '{"a": 2, "b": 3}') == ("5", False)


async def test_a_call_that_takes_too_long_is_cancelled_at_the_server(desk: Desk) -> None:
    async with kept(desk=desk.process()) as it:
        await it.becomes("desk", None)
        it.toolbox._timeout_s = 0.2
        content, _ = await it.call("desk_sleep", '{"seconds": 60}')
        assert content == "timed out after 0.2 s"
        await desk.noted("cancelled")


async def test_calls_run_side_by_side(desk: Desk) -> None:
    async with kept(desk=desk.process()) as it:
        await it.becomes("desk", None)
        long = asyncio.create_task(it.call("desk_sleep", '{"seconds": 60}'))
        await desk.noted("sleeps")
        assert await it.call("desk_add", '{"a": 2, "b": 3}') == ("5", False)
        long.cancel()


async def test_a_server_that_dies_in_a_call_gives_an_error_and_is_started_again(
    desk: Desk,
) -> None:
    async with kept(desk=desk.process()) as it:
        await it.becomes("desk", None)
        calls = [
            asyncio.create_task(it.call("desk_sleep", '{"seconds": 60}')),
            asyncio.create_task(it.call("desk_sleep", '{"seconds": 61}')),
        ]
        await desk.noted("sleeps", 2)
        desk.kill()
        assert await asyncio.gather(*calls) == [LOST, LOST]
        await it.becomes("desk", "the connection was lost")
        assert it.toolbox.names == []
        assert (await it.call("desk_add")) == ("the tool 'desk_add' is not available now", True)
        await it.becomes("desk", None)
        assert await it.call("desk_add", '{"a": 2, "b": 3}') == ("5", False)
        assert len(desk.pids) == 2


@pytest.mark.parametrize(
    ("server", "why"),
    [
        (StdioServer("no-such-command", (), {}, None), "its command cannot be started"),
        (StdioServer("true", (), {}, None), "it ends, or does not speak MCP"),
        (StdioServer("true", (), {}, "/no/such/folder"), "its command cannot be started"),
    ],
)
async def test_a_server_that_cannot_be_started_is_said_and_holds_up_nobody(
    desk: Desk, server: StdioServer, why: str
) -> None:
    async with kept(broken=server, desk=desk.process()) as it:
        assert set(it.servers.status.values()) == {"it is being started"}
        await it.becomes("broken", why)
        await it.becomes("desk", None)
        assert await it.call("desk_add", '{"a": 2, "b": 3}') == ("5", False)


async def test_the_last_words_of_a_server_are_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    server = StdioServer(sys.executable, ("-c", "raise SystemExit('no key')"), {}, None)
    async with kept(broken=server) as it:
        await it.becomes("broken", "it ends, or does not speak MCP")
    assert "MCP server broken: no key" in caplog.messages


async def test_a_name_that_two_servers_could_have_is_the_longer_ones() -> None:
    box = Toolbox()
    servers = McpServers(
        {name: StdioServer("true", (), {}, None) for name in ("a", "a_b", "b")}, box
    )
    assert servers._is_of("a_b_c", "a_b")
    assert not servers._is_of("a_b_c", "a")
    assert servers._is_of("a_c", "a")


async def test_its_processes_end_with_the_gateway(desk: Desk) -> None:
    async with kept(desk=desk.process()) as it:
        await it.becomes("desk", None)
        call = asyncio.create_task(it.call("desk_sleep", '{"seconds": 60}'))
        await desk.noted("sleeps")
    assert await call == LOST
    assert not desk.lives


GATEWAY = """
import asyncio, sys
from app.llm.mcp import McpServers
from app.llm.mcp_file import StdioServer
from app.llm.toolbox import Toolbox

async def main():
    toolbox = Toolbox()
    desk = StdioServer(sys.executable, tuple(sys.argv[1:]), {}, None)
    servers = McpServers({"desk": desk}, toolbox)
    run = asyncio.create_task(servers.run())
    while servers.status["desk"] is not None:
        await asyncio.sleep(0.01)
    await toolbox.call("desk_sleep", '{"seconds": 60}', "c")

asyncio.run(main())
"""


async def test_its_processes_end_with_a_gateway_that_was_killed(desk: Desk) -> None:
    gateway = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", GATEWAY, str(SCRIPT), str(desk.path)),
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        await desk.noted("sleeps")
    finally:
        gateway.kill()
        await gateway.wait()
    await until(lambda: not desk.lives, "the desk has left")
