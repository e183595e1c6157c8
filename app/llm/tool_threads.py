"""Threads for tools that are no coroutines: they block, and nothing can stop them.

Not an executor: the interpreter waits for an executor's threads when it exits, and one tool that
hangs would take a place of the loop's own executor for ever.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from threading import Thread
from typing import TypeVar

THREADS = 64  # at once, those that nobody waits for any more included; more wait their turn

T = TypeVar("T")


class ToolThreads:
    def __init__(self) -> None:
        self._free = asyncio.Semaphore(THREADS)

    async def run(self, function: Callable[[], T]) -> T:
        """What ``function`` returns or raises. A cancel leaves its thread behind, to end when it
        ends; the process's exit does not wait for it."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[tuple[T | None, BaseException | None]] = loop.create_future()

        def finish(result: T | None, error: BaseException | None) -> None:
            self._free.release()
            if not done.done():
                done.set_result((result, error))

        def work() -> None:
            result, error = None, None
            try:
                result = function()
            except BaseException as caught:  # noqa: BLE001  # raised again by who waits for it
                error = caught
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(finish, result, error)

        try:
            Thread(target=copy_context().run, args=(work,), name="tool", daemon=True).start()
        except RuntimeError:  # the machine gives no more threads
            self._free.release()
            raise
        result, error = await done
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # T, where there is no error
