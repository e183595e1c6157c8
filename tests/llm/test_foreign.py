"""What others wrote may raise anything, in any task: no task of ours and no loop ends by it."""

import argparse
import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import ToolException, tool

from app.errors import Internal
from app.llm.foreign import ForeignExit, abandon, contained
from app.llm.toolbox import Outcome, Toolbox
from tests.llm.agents import Ran

pytestmark = pytest.mark.anyio

BOUND_S = 20
FAILED = Outcome("the tool failed", is_error=True)


class Panic(BaseException):
    """As Rust's panics arrive in Python."""


class Unspeakable(ToolException):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def raising(error: type[BaseException]) -> Callable[[], Any]:
    def raises() -> None:
        raise error

    return raises


DEEDS: dict[str, Callable[[], Any]] = {
    "panic": raising(Panic),
    "exit": lambda: sys.exit(3),
    "argparse": lambda: argparse.ArgumentParser().parse_args(["--nope"]),
    "interrupt": raising(KeyboardInterrupt),
    "generator exit": raising(GeneratorExit),
    "group": lambda: (_ for _ in ()).throw(BaseExceptionGroup("all", [Panic()])),
    "unspeakable": raising(Unspeakable),
}
deeds = pytest.mark.parametrize("deed", DEEDS.values(), ids=DEEDS)


@deeds
@pytest.mark.parametrize("blocking", [False, True])
async def test_whatever_a_tool_raises_is_an_error_result(
    deed: Callable[[], Any], blocking: bool
) -> None:
    @tool("it")
    async def coroutine() -> str:
        """It."""
        await asyncio.sleep(0)
        return str(deed())

    @tool("it")
    def function() -> str:
        """It."""
        return str(deed())

    async with asyncio.timeout(BOUND_S):
        toolbox = Toolbox([function if blocking else coroutine])
        assert await toolbox.call("it", "", "c") == FAILED


@deeds
async def test_whatever_a_runnable_raises_fails_its_run_alone(deed: Callable[[], Any]) -> None:
    async def node(_: Any) -> AIMessage:
        await asyncio.sleep(0)
        return AIMessage(str(deed()))

    async with asyncio.timeout(BOUND_S):
        await Ran(RunnableLambda(node)).fails_with(Internal)


async def test_a_task_that_foreign_code_began_and_forgot_ends_nothing() -> None:
    async def quits() -> None:
        sys.exit(3)

    async def forgets() -> str:
        task = asyncio.create_task(quits())
        await asyncio.wait({task})
        return type(task.exception()).__name__

    assert await contained(forgets(), "work") == ForeignExit.__name__


async def test_tasks_of_our_own_are_as_they_were() -> None:
    async def quick() -> str:
        return "done"

    assert await contained(quick(), "work") == "done"
    task = asyncio.create_task(quick(), name="ours")
    assert await task == "done"
    assert task.get_coro().__qualname__.endswith("quick")  # type: ignore[union-attr]  # a coroutine


async def test_a_runnable_that_swallows_its_cancel_is_left_behind() -> None:
    begun, free = asyncio.Event(), asyncio.Event()

    async def stubborn(_: Any) -> str:
        begun.set()
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                continue
        return "too late"

    before = asyncio.all_tasks()
    async with asyncio.timeout(BOUND_S):
        asked = asyncio.create_task(Ran(RunnableLambda(stubborn)).answer())
        await begun.wait()
        asked.cancel()
        await asyncio.wait({asked})
        assert asked.cancelled()
        left = asyncio.all_tasks() - before
        assert left
        await abandon()
        assert not left & asyncio.all_tasks()
        free.set()
        await asyncio.wait(left)
