"""Carries out one answer's operations on a transport.

No task: a chain of timers, one of them at a time, which costs a fraction of a task per stream and
cannot leak. The timetable is absolute, so an answer that was late catches up and never drifts.
Transports here have a high-water mark of 0, so ``pause_writing`` means that the kernel did not
take everything, and nothing goes on before it has.
"""

import asyncio
import socket
import struct
from collections.abc import Callable

from app.simulator.ops import Leave, Sleep, Write
from app.simulator.routes import Answer
from app.simulator.stats import Outcome, Stats
from app.simulator.steps import Close

_LINGER_0 = struct.pack("ii", 1, 0)  # close() then sends RST and drops what is unsent


class Player:
    def __init__(
        self,
        answer: Answer,
        transport: asyncio.Transport,
        stats: Stats,
        done: Callable[[], None],
    ) -> None:
        self._answer = answer
        self._ops = answer.ops
        self._transport = transport
        self._stats = stats
        self._done = done
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time()
        self._timer: asyncio.Handle | None = None
        self._paused = False
        self._if_left = Outcome.ABORTED

    def run(self) -> None:
        """Go on until something must be waited for, or to the end."""
        self._timer = None
        for op in self._ops:
            if isinstance(op, Write):
                self._write(op)
                if self._paused:
                    return
            elif isinstance(op, Sleep):
                self._sleep(op.seconds)
                return
            else:
                self._leave(op)
                return

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        """The kernel took all. Not at once: asyncio must not be aborted inside its callback."""
        self._paused = False
        if self._timer is None:
            self._timer = self._loop.call_soon(self.run)

    def lost(self, outcome: Outcome | None) -> None:
        """The connection is gone; ``outcome`` when we were the ones who closed it."""
        if self._timer is not None:
            self._timer.cancel()
        self._ops = iter(())
        self._end(outcome or self._if_left)

    def _write(self, op: Write) -> None:
        self._transport.write(op.data)
        if self._answer.call is not None:
            self._stats.sent(self._answer.call, size=len(op.data), tokens=op.tokens)

    def _sleep(self, seconds: float) -> None:
        self._due += seconds
        if seconds and self._due > self._loop.time():
            self._timer = self._loop.call_at(self._due, self.run)
        else:
            self._timer = self._loop.call_soon(self.run)

    def _leave(self, op: Leave) -> None:
        if op.close is Close.NEVER:
            self._if_left = op.outcome
            return
        self._end(op.outcome)
        if op.close is Close.KEEP:
            self._done()
            return
        if op.close is Close.RST:
            sock: socket.socket = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
            self._transport.abort()
            return
        self._transport.close()

    def _end(self, outcome: Outcome) -> None:
        if self._answer.call is not None:
            self._stats.end(self._answer.call, outcome)
