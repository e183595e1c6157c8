"""MCP servers, real ones of the Python SDK, one over stdio and one over HTTP, behind a gateway."""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live.asking import Answer, ask, get, is_alive, until
from tests.live.reading import chat, names, payload
from tests.live.servers import PLAIN, Gateway, SimulatorProcess, running_gateway
from tests.live.several import calling, has_ended, messages_of, refused, stopped, told
from tests.llm.mcp_servers.running import SCRIPT, Desk, HttpDesk

pytestmark = pytest.mark.anyio

LOST = "the connection to the tool's server was lost"
UP_S = 30.0  # for a server that was lost to be there again


class Served:
    """A gateway with three servers: ``desk`` over stdio, ``web`` and ``late`` over HTTP."""

    def __init__(self, gateway: Gateway, desks: dict[str, Desk], stack: ExitStack) -> None:
        self.gateway = gateway
        self.desks = desks
        self._stack = stack

    def start(self, server: str) -> None:
        """One over HTTP; the gateway itself starts those over stdio."""
        desk = self.desks[server]
        if isinstance(desk, HttpDesk):
            self._stack.enter_context(desk.running())

    def ready(self) -> dict[str, Any]:
        response = httpx.get(f"{self.gateway.url}/ready", **PLAIN)
        assert response.status_code == 200
        shown: dict[str, Any] = response.json()
        return shown

    def tools(self, server: str) -> list[str]:
        (model,) = httpx.get(f"{self.gateway.url}/models", **PLAIN).json()["items"]
        return [name for name in model["tools"] if name.startswith(f"{server}_")]

    async def has(self, server: str) -> None:
        part = f"tools_{server}"
        await until(lambda: self.ready()["parts"][part]["status"] == "ok", f"{server} is up", UP_S)
        assert f"{server}_add" in self.tools(server)


def stdio(desk: Desk) -> dict[str, Any]:
    return {"command": sys.executable, "args": [str(SCRIPT), str(desk.path)]}


@contextmanager
def served(
    cwd: Path, upstream: str, drain_s: float = 0, **servers: dict[str, Any]
) -> Iterator[Gateway]:
    (cwd / "mcp.json").write_text(json.dumps({"mcpServers": servers}))
    with running_gateway(cwd, upstream, mcp_file="mcp.json", drain_seconds=drain_s) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def it(simulator: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folders = {name: tmp_path_factory.mktemp(name) for name in ("desk", "web", "late", "cwd")}
    desk, web, late = Desk(folders["desk"]), HttpDesk(folders["web"]), HttpDesk(folders["late"])
    servers: dict[str, Any] = {
        "desk": stdio(desk),
        "web": {"type": "http", "url": web.server.url},
        "late": {"url": late.server.url},
    }
    desks = {"desk": desk, "web": web, "late": late}
    with ExitStack() as stack, served(folders["cwd"], simulator.url, **servers) as gateway:
        served_ = Served(gateway, desks, stack)
        served_.start("web")
        yield served_


async def test_a_server_that_is_down_at_start_is_said_and_its_tools_come_with_it(
    it: Served,
) -> None:
    """The first test, while the gateway still looks for it often."""
    await it.has("desk")
    await it.has("web")
    told_off = "its address cannot be reached"
    await until(lambda: it.ready()["parts"]["tools_late"]["detail"] == told_off, "late is missed")
    assert it.ready()["status"] == "degraded"
    assert it.ready()["parts"]["tools_late"]["status"] == "unavailable"
    assert it.tools("late") == []
    await is_alive(it.gateway)

    it.start("late")
    await it.has("late")
    assert it.ready()["status"] == "ok"
    answer = await ask(it.gateway, calling(("late_add", {"a": 2, "b": 3})))
    assert answer.one("final")["text"] == "The tool says: 5"


async def test_two_servers_are_used_in_one_answer(it: Served) -> None:
    await it.has("desk")
    await it.has("web")
    calls = ("desk_add", {"a": 2, "b": 3}), ("web_add", {"a": 4, "b": 5})
    together = await ask(it.gateway, calling(*calls), include=["tools"])
    in_turn = await ask(it.gateway, calling(*calls, order="inturn", rounds=2), include=["tools"])

    assert together.one("final")["text"] == "The tool says: 5; 9"
    assert in_turn.one("final")["text"] == "The tool says: 9"
    for answer in (together, in_turn):
        results = {each["name"]: each["content"] for each in told(answer, "tool_result")}
        assert results == {"desk_add": "5", "web_add": "9"}


async def test_tools_that_models_cannot_be_told_of_are_left_out_alone(it: Served) -> None:
    await it.has("desk")
    await it.has("web")
    kinds = ["add", "fail", "echo", "secret", "sleep"]
    assert it.tools("desk") == [f"desk_{kind}" for kind in kinds]
    assert it.tools("web") == [f"web_{kind}" for kind in kinds]
    assert "the tool 'bad' is left out: its schema is invalid" in it.gateway.output


@pytest.mark.parametrize("server", ["desk", "web"])
async def test_a_server_that_dies_in_a_call_gives_an_error_and_the_run_finishes(
    it: Served, server: str
) -> None:
    await it.has("desk")
    await it.has("web")
    other = "web" if server == "desk" else "desk"
    prompt = calling((f"{server}_sleep", {"seconds": 60}), (f"{other}_add", {"a": 1, "b": 1}))
    desk = it.desks[server]
    slept = desk.notes().count("sleeps")
    async with chat(it.gateway.url, prompt, include=["tools"]) as stream:
        await stream.head()
        await desk.noted("sleeps", slept + 1)
        desk.kill()
        answer = Answer(await stream.head(), await stream.body())

    results = {each["name"]: each for each in told(answer, "tool_result")}
    assert results[f"{server}_sleep"]["is_error"]
    assert results[f"{server}_sleep"]["content"] == LOST
    assert results[f"{other}_add"]["content"] == "2"
    assert answer.one("final")["text"] == f"The tool says: {LOST}; 2"
    assert answer.one("done")["status"] == "completed"
    if server == "web":  # the gateway starts the other one anew at once
        lost = it.ready()["parts"]["tools_web"]["status"]
        assert (lost, it.tools("web")) == ("unavailable", [])
    it.start(server)
    await it.has(server)
    again = await ask(it.gateway, calling((f"{server}_add", {"a": 2, "b": 3})))
    assert again.one("final")["text"] == "The tool says: 5"


@pytest.mark.parametrize("server", ["desk", "web"])
async def test_a_cancel_ends_the_call_at_the_server(it: Served, server: str) -> None:
    await it.has(server)
    desk = it.desks[server]
    slept, ended = desk.notes().count("sleeps"), desk.notes().count("cancelled")
    async with chat(it.gateway.url, calling((f"{server}_sleep", {"seconds": 60}))) as stream:
        start = payload((await stream.events(1))[0])
        await desk.noted("sleeps", slept + 1)
        await stopped(it.gateway, start["run_id"])
        await desk.noted("cancelled", ended + 1)
        assert names(await stream.rest()) == ["done"]
    _, kept = messages_of(it.gateway, start["conversation_id"])
    assert (kept["status"], kept["tool_calls"][0]["name"]) == ("cancelled", f"{server}_sleep")
    after = await ask(it.gateway, calling((f"{server}_add", {"a": 2, "b": 3})))
    assert after.one("final")["text"] == "The tool says: 5"


@pytest.mark.parametrize("server", ["desk", "web"])
async def test_leaving_without_grace_ends_the_call_at_the_server(it: Served, server: str) -> None:
    await it.has(server)
    desk = it.desks[server]
    slept, ended = desk.notes().count("sleeps"), desk.notes().count("cancelled")
    prompt = calling((f"{server}_sleep", {"seconds": 60}))
    async with chat(it.gateway.url, prompt, grace_seconds=0) as stream:
        run_id = await stream.run_id()
        await desk.noted("sleeps", slept + 1)
        stream.reset()
    await desk.noted("cancelled", ended + 1)
    assert (await has_ended(it.gateway, run_id))["status"] == "cancelled"


@pytest.mark.parametrize(
    ("how", "drain_s", "code"),
    [
        ([signal.SIGTERM], 0, 0),
        ([signal.SIGTERM, signal.SIGINT], 60, None),
        ([signal.SIGKILL], 0, -9),
    ],
    ids=["told", "told twice", "killed"],
)
async def test_no_process_is_left_behind_the_gateway(
    simulator: SimulatorProcess,
    tmp_path: Path,
    how: list[signal.Signals],
    drain_s: float,
    code: int | None,
) -> None:
    desk = Desk(tmp_path)
    with served(tmp_path, simulator.url, drain_s, desk=stdio(desk)) as gateway:
        await Served(gateway, {}, ExitStack()).has("desk")
        async with chat(gateway.url, calling(("desk_sleep", {"seconds": 60}))) as stream:
            await stream.head()
            await desk.noted("sleeps")
            assert desk.lives
            gateway.signal(how[0])
            if how[1:]:
                gateway.find("(draining) for up to")
                gateway.signal(how[1])
            assert gateway.wait() == code or code is None
    await until(lambda: not desk.lives, "the server's process is gone")


BAD_FILES = {
    "no JSON": ('{"mcpServers": {\n"a": }}', "line 2"),
    "neither command nor url": ('{"mcpServers": {"a": {}}}', "server 'a': it takes either"),
    "a variable that is not set": (
        '{"mcpServers": {"a": {"url": "http://127.0.0.1/${NO_SUCH_THING}"}}}',
        "NO_SUCH_THING is not set",
    ),
}


@pytest.mark.parametrize(("text", "says"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_broken_mcp_file_stops_the_start(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "mcp.json").write_text(text)

    line = refused(tmp_path, mcp_file="mcp.json")

    assert line.startswith("gateway: GATEWAY_MCP_FILE: ")
    assert says in line


async def test_what_is_wrong_with_a_server_names_no_address(it: Served) -> None:
    ready = await get(it.gateway, "/ready")
    for desk in it.desks.values():
        assert str(desk.path) not in ready.text
        if isinstance(desk, HttpDesk):
            assert desk.server.url not in ready.text
