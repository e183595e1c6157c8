"""Waking the readers of one run: at once where they are few, in waves where they are many.

A write to a socket costs 10 µs or more of system time, so a thousand readers of one run would take
the whole loop for 15 ms at each token. They are woken some at a time, so that others get their
turn, and after a pause in which tokens gather, so that one run takes a bounded share of a core.
"""

import asyncio
from collections.abc import Iterable

FEW = 50  # so many at a time: less than a millisecond
# From one wave to the next. A thousand readers get what has gathered ten times a second.
PAUSE_PER_READER_S = 100e-6
MAX_PAUSE_S = 0.1


class Waiters:
    """Futures of those that wait. Each resolves once; ``wake`` may come at any time."""

    __slots__ = ("_again", "_futures", "_last", "_loop", "_wave")

    def __init__(self) -> None:
        # Kept, because get_running_loop() asks the kernel for our process id each time (3.11).
        self._loop = asyncio.get_running_loop()
        self._futures: set[asyncio.Future[None]] = set()
        self._wave: asyncio.Handle | None = None
        self._again = False
        self._last = 0.0

    def add(self) -> asyncio.Future[None]:
        future = self._loop.create_future()
        self._futures.add(future)
        return future

    def discard(self, future: asyncio.Future[None]) -> None:
        self._futures.discard(future)

    def wake(self) -> None:
        """Resolve the future of everybody who waits, or waits by then."""
        if self._wave is not None:
            self._again = True
        elif len(self._futures) <= FEW:
            _resolve(self._futures)
            self._futures.clear()
        else:
            pause_s = min(MAX_PAUSE_S, PAUSE_PER_READER_S * len(self._futures))
            self._wave = self._loop.call_at(self._last + pause_s, self._begin)

    def _begin(self) -> None:
        self._last = self._loop.time()
        self._again = False
        waiting, self._futures = list(self._futures), set()
        self._continue(waiting)

    def _continue(self, waiting: list[asyncio.Future[None]]) -> None:
        _resolve(waiting[:FEW])
        if len(waiting) > FEW:
            self._wave = self._loop.call_soon(self._continue, waiting[FEW:])
        else:
            self._wave = None
            if self._again:
                self.wake()


def _resolve(futures: Iterable[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
