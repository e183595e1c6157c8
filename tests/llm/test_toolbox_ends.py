"""Tools that take too long, that are cancelled, that block or do not let go."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from langchain_core.tools import BaseTool, StructuredTool, tool

from app.llm.foreign import abandon
from app.llm.toolbox import Toolbox

pytestmark = pytest.mark.anyio

BOUND_S = 10


def made(function: Callable[..., Awaitable[Any]]) -> BaseTool:
    return StructuredTool.from_function(coroutine=function, name="it", description="It.")


async def hangs() -> str:
    await asyncio.get_running_loop().create_future()
    return ""


async def test_a_tool_that_takes_too_long_is_cancelled() -> None:
    ended = asyncio.Event()

    async def wait() -> str:
        try:
            return await hangs()
        finally:
            ended.set()

    async with asyncio.timeout(BOUND_S):
        said = await Toolbox([made(wait)], timeout_s=0.02).call("it", "", "c")
    assert said == ("timed out after 0.02 s", True)
    assert ended.is_set()


async def cancelled(toolbox: Toolbox, has_begun: Awaitable[Any]) -> float:
    """Call ``it``, cancel that, and answer how long it took to end."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(BOUND_S):
        task = asyncio.create_task(toolbox.call("it", "", "c"))
        await has_begun
        began = loop.time()
        task.cancel()
        await asyncio.wait({task})
    assert task.cancelled()
    return loop.time() - began


async def test_cancelling_a_call_cancels_the_tool() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait() -> str:
        begun.set()
        try:
            return await hangs()
        finally:
            await asyncio.sleep(0)  # to clean up takes a moment
            ended.set()

    await cancelled(Toolbox([made(wait)]), begun.wait())
    assert ended.is_set()


async def test_a_tool_that_swallows_its_cancel_is_left_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun, free = asyncio.Event(), asyncio.Event()

    async def stubborn() -> str:
        begun.set()
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                continue
        return ""

    toolbox = Toolbox([made(stubborn)])
    assert await cancelled(toolbox, begun.wait()) < BOUND_S / 2
    assert "tool it goes on" in caplog.text
    before = {task for task in asyncio.all_tasks() if "tool it" in task.get_name()}
    assert before
    await abandon()
    assert not before & asyncio.all_tasks(), "the process's exit would wait for it"
    free.set()
    await asyncio.wait(before, timeout=BOUND_S)


async def test_a_tool_that_raises_when_it_is_cancelled_was_cancelled() -> None:
    begun = asyncio.Event()

    async def raises() -> str:
        begun.set()
        try:
            return await hangs()
        finally:
            raise RuntimeError("in the middle of it")

    await cancelled(Toolbox([made(raises)]), begun.wait())


class Blocking:
    """A tool that blocks its thread until ``free`` is set."""

    def __init__(self) -> None:
        self.begun, self.free = asyncio.Event(), threading.Event()
        self.threads: list[threading.Thread] = []
        loop = asyncio.get_running_loop()

        def it() -> str:
            """It."""
            self.threads.append(threading.current_thread())
            loop.call_soon_threadsafe(self.begun.set)
            self.free.wait(BOUND_S)
            return "done"

        self.tool = tool(it)


async def test_a_tool_without_await_runs_beside_the_loop() -> None:
    blocking = Blocking()
    async with asyncio.timeout(BOUND_S):
        task = asyncio.create_task(Toolbox([blocking.tool]).call("it", "", "c"))
        await blocking.begun.wait()
        blocking.free.set()
        assert await task == ("done", False)
    assert blocking.threads != [threading.main_thread()]


async def test_nobody_waits_for_a_blocked_thread() -> None:
    blocking = Blocking()
    await cancelled(Toolbox([blocking.tool]), blocking.begun.wait())
    assert blocking.threads[0].is_alive()
    blocking.free.set()


async def test_blocked_threads_do_not_take_the_loops_own() -> None:
    blocking = Blocking()
    toolbox = Toolbox([blocking.tool], timeout_s=0.1)
    async with asyncio.timeout(BOUND_S):
        calls = [toolbox.call("it", "", "c") for _ in range(100)]
        assert set(await asyncio.gather(*calls)) == {("timed out after 0.1 s", True)}
        assert await asyncio.to_thread(lambda: "free") == "free"
        assert len(blocking.threads) <= 64
        blocking.free.set()
        for thread in blocking.threads:
            await asyncio.to_thread(thread.join, BOUND_S)
        assert await Toolbox([blocking.tool]).call("it", "", "c") == ("done", False)
        assert await toolbox.call("it", "", "c") == ("done", False)


def test_a_blocked_thread_does_not_keep_the_process() -> None:
    program = """
import asyncio, time
from langchain_core.tools import tool
from app.llm.toolbox import Toolbox
@tool
def it() -> str:
    "It."
    time.sleep(60)
asyncio.run(Toolbox([it], timeout_s=0.05).call("it", "", "c"))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


async def test_a_blocking_tool_that_exits_fails() -> None:
    @tool
    def it() -> str:
        """It."""
        sys.exit(3)

    assert await Toolbox([it]).call("it", "", "c") == ("the tool failed", True)
