"""Windows in which requests are counted, in Redis: one exchange for each request. Slow to import
(0.2 s)."""

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any

from limits.aio.storage.redis.bridge import RedisBridge

from app.access.windows import Windows
from app.events.redis_wire import Address, Command, ErrorReply, Wire

CONNECTIONS = 8  # at once
_SCRIPTS = (RedisBridge.SCRIPT_ACQUIRE_SLIDING_WINDOW, RedisBridge.SCRIPT_SLIDING_WINDOW)
_ACQUIRE, _LOOK = (hashlib.sha1(text, usedforsecurity=False).hexdigest() for text in _SCRIPTS)


class RedisWindows(Windows):
    """``prefix``: of names. Every wait is the user's to bound; what fails with Redis is raised."""

    def __init__(self, url: str, prefix: str) -> None:
        """Connects to nothing yet. Raises ``ValueError``."""
        super().__init__()
        self._address = Address(url)
        self._prefix = prefix
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._idle: list[Wire] = []
        self._seen: dict[str, Any] = {}  # what the strategy is going to ask for next

    async def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        """And looks, on the same way: the strategy does so as soon as this has returned."""
        names = self._names(key)
        taken, seen = await self._ask(
            [
                ("EVALSHA", _ACQUIRE, 2, *names, limit, expiry, amount),
                ("EVALSHA", _LOOK, 2, *names, expiry),
            ]
        )
        self._seen[key] = seen
        return bool(taken)

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        if key in self._seen:
            seen = self._seen.pop(key)
        else:
            (seen,) = await self._ask([("EVALSHA", _LOOK, 2, *self._names(key), expiry)])
        before, before_ms, count, count_ms = (int(number or 0) for number in seen)
        return before, max(0, before_ms) / 1000, count, max(0, count_ms) / 1000

    async def clear_sliding_window(self, key: str, expiry: int) -> None:  # noqa: ARG002  # library's
        await self._ask([("DEL", *self._names(key))])

    async def aclose(self) -> None:
        while self._idle:
            self._idle.pop().close()
        await asyncio.sleep(0)  # transports close in the loop's next pass

    def _names(self, key: str) -> tuple[str, str]:
        """As the library has them: the window before, the present one."""
        return f"{self._prefix}:{{{key}}}/-1", f"{self._prefix}:{{{key}}}"

    async def _ask(self, commands: Sequence[Command]) -> list[Any]:
        async with self._slots:
            wire = self._idle.pop() if self._idle else Wire(self._address)
            is_whole = False
            try:
                if not wire.is_open:
                    await wire.open()
                    await wire.exchange([("SCRIPT", "LOAD", text) for text in _SCRIPTS])
                answers = await wire.exchange(commands)
                for answer in answers:
                    if isinstance(answer, ErrorReply):
                        raise answer
                is_whole = True
            finally:
                if is_whole:
                    self._idle.append(wire)
                else:  # cancelled too: answers may still be coming
                    wire.close()
        return answers
