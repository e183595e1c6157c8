"""Runs what others wrote, tools and runnables: whatever that raises, or does when it is cancelled,
it ends neither a task of ours nor the process.

1. asyncio lets ``SystemExit`` and ``KeyboardInterrupt`` of any task out of the loop, awaited or
   not. So tasks that begin inside of foreign code, LangChain makes one for each tool, are guarded
   where all tasks begin: in the loop's task factory.
2. What swallows its cancel is left behind, and at exit nobody waits for it.
"""

import asyncio
import logging
from collections.abc import Coroutine, Generator
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar
from weakref import WeakSet

logger = logging.getLogger(__name__)

# How long what is cancelled may take to clean up. Who waits for the end of a run waits for this.
CLEANUP_S = 0.2
_IS_FOREIGN: ContextVar[bool] = ContextVar("_IS_FOREIGN", default=False)
_tasks: WeakSet[asyncio.Task[Any]] = WeakSet()
T = TypeVar("T")


class ForeignExit(Exception):
    """It raised what would end a task or the process, or cancelled itself."""


async def contained(work: Coroutine[Any, Any, T], name: str) -> T:
    """What ``work`` returns; raises what it raises, but ``ForeignExit`` for what is no
    ``Exception``. A cancel cancels it, and waits for ``CLEANUP_S`` at most."""
    loop = asyncio.get_running_loop()
    if loop.get_task_factory() is not _factory:
        loop.set_task_factory(_factory)
    context = copy_context()
    context.run(_IS_FOREIGN.set, True)
    task = context.run(loop.create_task, work, name=name, context=context)
    try:
        await asyncio.wait({task})
    finally:
        await _stop({task})
    if task.cancelled():
        raise ForeignExit("it cancelled itself")
    error = task.exception()
    if error is not None and not isinstance(error, Exception):
        raise ForeignExit(type(error).__name__) from error
    return task.result()


async def abandon() -> None:
    """At exit: cancel what is left, and leave alone what does not end."""
    loop = asyncio.get_running_loop()
    left = {task for task in _tasks if not task.done() and task.get_loop() is loop}
    await _stop(left)
    for task in left:
        if not task.done():  # ``asyncio.Runner`` would wait for it
            asyncio.tasks._unregister_task(task)  # documented under "Extending"
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is told already


def _factory(
    loop: asyncio.AbstractEventLoop,
    work: Coroutine[Any, Any, T] | Generator[Any, None, T],
    **options: Any,
) -> asyncio.Task[T]:
    if not _IS_FOREIGN.get():
        return asyncio.Task(work, loop=loop, **options)
    task = asyncio.Task(_guarded(work), loop=loop, **options)
    _tasks.add(task)
    task.add_done_callback(lambda _: work.close())  # if it was cancelled before it began
    return task


async def _guarded(work: Any) -> Any:
    try:
        return await work
    except (SystemExit, KeyboardInterrupt) as error:
        raise ForeignExit(type(error).__name__) from error


async def _stop(tasks: set[asyncio.Task[Any]]) -> None:
    running = {task for task in tasks if not task.done()}
    for task in running:
        task.cancel()
        task.add_done_callback(_heard)
    if running:
        _, left = await asyncio.wait(running, timeout=CLEANUP_S)
        for task in left:
            logger.warning("%s goes on, though it was cancelled", task.get_name())


def _heard(task: asyncio.Task[Any]) -> None:
    """Or asyncio would complain that nobody asked how it ended."""
    if not task.cancelled():
        task.exception()
