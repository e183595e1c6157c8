"""The first-token and the stall clock of one model turn: one timer, none for each token.

Not ``asyncio.wait_for`` around each chunk: on Python 3.11 it swallows a cancel that meets a
finished chunk (cpython#86296), and it makes a task for each.
"""

import asyncio
from types import TracebackType
from typing import Self

from app.errors import UpstreamError, UpstreamStalled, UpstreamTimeout

# A timer that fires this late (s) fired late because we were busy or stopped ourselves. That time
# does not count, and what the upstream sent meanwhile, in the socket, gets one more look.
LATE_S = 0.1
SECOND_LOOK_S = 0.5
# Usage and [DONE] follow the finish reason at once; a server that sends neither and keeps the
# connection must not keep the answer.
TRAILER_S = 2.0


class TurnClocks:
    """Context manager that cancels what runs inside it and raises ``UpstreamTimeout`` when no
    first token came in time, ``UpstreamStalled`` when nothing came for too long after it.

    Works like ``asyncio.timeout``: a cancel from outside passes through untouched.
    """

    def __init__(self, *, first_token_s: float, stall_s: float) -> None:
        self._first_token_s = first_token_s
        self._stall_s = stall_s
        self._first_token_seen = False
        self._expired = False
        self._timer: asyncio.TimerHandle | None = None
        self._excused = False  # once for each silence, or a busy loop would never judge

    @property
    def first_token_seen(self) -> bool:
        return self._first_token_seen

    def remaining(self) -> float:
        """Seconds until the clock that now runs is over."""
        return self._deadline() - self._loop.time()

    def arrived(self, *, token: bool) -> None:
        """A chunk came; ``token``: it carries text, reasoning or a tool call."""
        self._last = self._loop.time()
        self._excused = False
        if token and not self._first_token_seen:
            self._first_token_seen = True
            self._arm(self._deadline())

    def finished(self) -> None:
        """The answer is whole: only its trailer is still to come, if the upstream sends one."""
        self._first_token_seen = True
        self._stall_s = min(self._stall_s, TRAILER_S)
        self._arm(self._deadline())

    def begin(self) -> None:
        """Another turn: its first token is waited for."""
        self._first_token_seen = False
        self._excused = False
        self._start = self._last = self._loop.time()
        self._arm(self._deadline())

    def stalls_after(self, stall_s: float) -> None:
        """Another model is asked, which has a stall clock of its own."""
        self._stall_s = stall_s

    def pause(self) -> None:
        """Nothing is waited for until ``begin``."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("clocks run inside a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._loop = asyncio.get_running_loop()
        self._start = self._last = self._loop.time()
        self._arm(self._deadline())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._expired and self._task.uncancel() <= self._cancelling and kind is not None:
            raise self._verdict() from error

    def _deadline(self) -> float:
        if self._first_token_seen:
            return self._last + self._stall_s
        return self._start + self._first_token_s

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._look, at)

    def _look(self, due: float) -> None:
        now, deadline = self._loop.time(), self._deadline()
        if now < deadline:
            self._arm(deadline)
        elif now - due > LATE_S and not self._excused:
            self._excused = True
            self._start += now - due
            self._last += now - due
            self._arm(max(self._deadline(), now + SECOND_LOOK_S))
        else:
            self._timer = None
            self._expired = True
            self._task.cancel()

    def _verdict(self) -> UpstreamError:
        return UpstreamStalled() if self._first_token_seen else UpstreamTimeout()
