"""Cancelling a run cancels the tools that it runs. Contract section 6."""

import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.simulator.texts import PREAMBLE
from tests.live.asking import ask, is_alive, marker, until
from tests.live.leaving import LEAVE
from tests.live.reading import Stream, chat, names, payload
from tests.live.servers import Gateway, SimulatorProcess, running_gateway
from tests.live.several import calling, has_ended, lives, messages_of, stopped

pytestmark = pytest.mark.anyio

TOOLS = ("linger", "spawn", "block", "stay")


class Armed:
    """A gateway, and what its tools noted."""

    def __init__(self, gateway: Gateway, cwd: Path) -> None:
        self.gateway = gateway
        self._notes = cwd / "notes"

    def notes(self, name: str) -> list[str]:
        lines = self._notes.read_text().splitlines() if self._notes.exists() else []
        return [line.removeprefix(f"{name} ") for line in lines if line.startswith(f"{name} ")]


@pytest.fixture(scope="module")
def armed(simulator: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Armed]:
    cwd = tmp_path_factory.mktemp("armed")
    shutil.copy(Path(__file__).with_name("mytools.py"), cwd)
    tools = ",".join(f"mytools:{name}" for name in TOOLS)
    with running_gateway(cwd, simulator.url, tools=tools) as gateway:
        yield Armed(gateway, cwd)


@asynccontextmanager
async def in_tool(
    armed: Armed, tool: str, arguments: dict[str, Any], **fields: Any
) -> AsyncIterator[tuple[Stream, dict[str, Any]]]:
    """A run in the middle of its tool call, and what its start said."""
    prompt = calling((tool, arguments), preamble=1)
    async with chat(armed.gateway.url, prompt, include=["tools"], **fields) as stream:
        start, *_ = await stream.until("tool_call")
        yield stream, payload(start)


def is_kept_as_cancelled(armed: Armed, start: dict[str, Any], tool: str) -> bool:
    _, kept = messages_of(armed.gateway, start["conversation_id"])
    (call,) = kept["tool_calls"]
    assert (kept["status"], kept["text"], call["name"]) == ("cancelled", "", tool)
    assert kept["tool_results"] == []
    return True


async def test_a_cancel_ends_the_tool_and_keeps_what_was_said(armed: Armed) -> None:
    name = marker()
    async with in_tool(armed, "linger", {"name": name}) as (stream, start):
        await until(lambda: armed.notes(name) == ["began"], "the tool's begin")
        await stopped(armed.gateway, start["run_id"])
        assert armed.notes(name) == ["began", "cancelled"]
        assert names(await stream.rest()) == ["done"]
    assert is_kept_as_cancelled(armed, start, "linger")


async def test_a_cancel_ends_the_process_of_a_tool(armed: Armed) -> None:
    name = marker()
    async with in_tool(armed, "spawn", {"name": name}) as (_, start):
        await until(lambda: armed.notes(name), "the process")
        pid = int(armed.notes(name)[0].removeprefix("pid "))
        assert lives(pid)
        await stopped(armed.gateway, start["run_id"])
        assert not lives(pid)
    assert is_kept_as_cancelled(armed, start, "spawn")


async def test_a_cancel_does_not_wait_for_a_tool_that_cannot_be_stopped(armed: Armed) -> None:
    async with in_tool(armed, "block", {"seconds": 60}) as (_, start):
        await stopped(armed.gateway, start["run_id"])
    assert is_kept_as_cancelled(armed, start, "block")
    await is_alive(armed.gateway)


@pytest.mark.parametrize("leave", LEAVE.values(), ids=LEAVE)
async def test_leaving_without_grace_ends_the_tool_too(
    armed: Armed, leave: Callable[[Stream], None]
) -> None:
    name = marker()
    async with in_tool(armed, "linger", {"name": name}, grace_seconds=0) as (stream, start):
        await until(lambda: armed.notes(name) == ["began"], "the tool's begin")
        leave(stream)
        await until(lambda: armed.notes(name) == ["began", "cancelled"], "the tool's end")
        assert (await has_ended(armed.gateway, start["run_id"]))["status"] == "cancelled"
    assert is_kept_as_cancelled(armed, start, "linger")


async def test_another_answer_in_the_conversation_interrupts_the_tool(
    armed: Armed, simulator: SimulatorProcess
) -> None:
    name = marker()
    async with in_tool(armed, "linger", {"name": name}) as (stream, start):
        await until(lambda: armed.notes(name) == ["began"], "the tool's begin")
        answer = await ask(
            armed.gateway,
            "sim:history",
            conversation_id=start["conversation_id"],
            if_busy="interrupt",
        )
        assert armed.notes(name) == ["began", "cancelled"]
        assert names(await stream.rest()) == ["done"]
    heard = answer.one("final")["text"]
    assert "linger" in heard  # a call without a result has one made up, or the model refuses it
    assert '"role":"tool"' in heard
    assert PREAMBLE[:10] in heard


async def test_a_gateway_that_is_told_to_stop_does_not_wait_for_a_tool(
    simulator: SimulatorProcess, tmp_path: Path
) -> None:
    shutil.copy(Path(__file__).with_name("mytools.py"), tmp_path)
    tools = ",".join(f"mytools:{name}" for name in TOOLS)
    with running_gateway(tmp_path, simulator.url, tools=tools, drain_seconds=0) as gateway:
        armed = Armed(gateway, tmp_path)
        async with (
            in_tool(armed, "block", {"seconds": 60}) as (blocking, _),
            in_tool(armed, "spawn", {"name": "a"}) as (spawning, _),
            in_tool(armed, "stay", {"name": "b"}) as (staying, _),
        ):
            await until(lambda: armed.notes("a") and armed.notes("b"), "the tools")
            gateway.signal(signal.SIGTERM)
            for stream in (blocking, spawning, staying):
                error, done = await stream.rest()
                assert payload(error)["code"] == "draining"
                assert payload(done)["status"] == "failed"
        assert gateway.wait(10) == 0
        pid = int(armed.notes("a")[0].removeprefix("pid "))
        assert not lives(pid)
