"""Windows in which requests are counted, for the ``limits`` library. Takes 0.1 s to import.

Sliding window counters: the count of the window before fades out over the present one. Two numbers
for each caller, where the exact moving window keeps the time of every request.

The strategy and the Lua scripts are the library's, the storages are ours. Its one in memory starts
a task for each request that looks at all callers (80 µs with one, 2 ms with 10,000; ours 15). Its
one in Redis asks twice, through redis-py: 190 µs of our time for each request.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from limits.aio.storage import SlidingWindowCounterSupport, Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

SWEEP_S = 60.0  # between two looks for windows that are over


class Windows(Storage, SlidingWindowCounterSupport):
    """What the library wants of every storage is for windows that do not slide. We have none."""

    @property
    def base_exceptions(self) -> type[Exception]:
        return NotImplementedError

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        raise NotImplementedError

    async def get(self, key: str) -> int:
        raise NotImplementedError

    async def get_expiry(self, key: str) -> float:
        raise NotImplementedError

    async def check(self) -> bool:
        return True

    async def reset(self) -> int | None:
        raise NotImplementedError

    async def clear(self, key: str) -> None:
        raise NotImplementedError


def limiting(windows: Windows) -> SlidingWindowCounterRateLimiter:
    return SlidingWindowCounterRateLimiter(windows)


@dataclass(slots=True)
class _Window:
    """``number``: which one since the clock began, of so many seconds (``length_s``) each."""

    length_s: int
    number: int = 0
    count: int = 0
    before: int = 0  # the count of the window before


class MemoryWindows(Windows):
    """Of this worker alone. ``clock``: seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._windows: dict[str, _Window] = {}
        self._sweep_at = clock() + SWEEP_S

    def __len__(self) -> int:
        return len(self._windows)

    async def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        window, left_s = self._present(key, expiry)
        if math.floor(window.before * left_s / expiry + window.count) + amount > limit:
            return False
        window.count += amount
        return True

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        window, left_s = self._present(key, expiry)
        return window.before, left_s, window.count, left_s + expiry

    async def clear_sliding_window(self, key: str, expiry: int) -> None:  # noqa: ARG002  # library's
        self._windows.pop(key, None)

    def _present(self, key: str, length_s: int) -> tuple[_Window, float]:
        """And for how long it goes on."""
        now = self._clock()
        if now >= self._sweep_at:
            self._sweep(now)
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window(length_s)
        number, passed_s = divmod(now, length_s)
        if window.number != number:
            window.before = window.count if window.number == number - 1 else 0
            window.number, window.count = int(number), 0
        return window, length_s - passed_s

    def _sweep(self, now: float) -> None:
        self._sweep_at = now + SWEEP_S
        self._windows = {
            key: window
            for key, window in self._windows.items()
            if now // window.length_s - window.number < 2
        }
