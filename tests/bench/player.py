"""One mock answer on its way to one socket.

1. Each frame is a ``write`` of its own, past the transport, which would join those of one turn of
   the loop: a real model's tokens come one by one.
2. Answers without an interval take turns, one token each, so that they interleave as real ones do.
3. A paced answer keeps an absolute timetable: a late token does not move the ones after it.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable

from tests.bench.shapes import DONE, Shape

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)


class Turns:
    """The answers that go as fast as their sockets take them."""

    def __init__(self) -> None:
        self._waiting: deque[Player] = deque()
        self._running = False

    def add(self, player: "Player") -> None:
        self._waiting.append(player)
        if not self._running:
            self._running = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        turn, self._waiting = self._waiting, deque()
        self._waiting.extend(player for player in turn if player.step())
        self._running = bool(self._waiting)
        if self._running:
            asyncio.get_running_loop().call_soon(self._turn)


class Player:
    """``ended`` is called once all is written; after ``lost`` nothing is."""

    def __init__(
        self,
        transport: asyncio.Transport,
        shape: Shape,
        turns: Turns,
        ended: Callable[[], None],
        *,
        usage: bool,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._fd: int = transport.get_extra_info("socket").fileno()
        self._shape = shape
        self._turns = turns
        self._ended = ended
        self._usage = usage
        self._next = 0  # of the shape's frames
        self._began: float | None = None  # the loop's time of the first token
        self._timer: asyncio.TimerHandle | None = None
        self._blocked = False  # the socket takes no more for now
        self._over = False

    def play(self) -> None:
        self._after(self._shape.head_s, self._start)

    def lost(self) -> None:
        self._over = True
        if self._timer:
            self._timer.cancel()

    def pause(self) -> None:
        self._blocked = True

    def resume(self) -> None:
        if self._blocked:
            self._blocked = False
            if self._began is not None:
                self._go_on()

    def step(self) -> bool:
        """Send the next frame. True while there are more and the socket takes them."""
        if self._over or self._blocked:
            return False
        frames = self._shape.frames
        self._write(frames[self._next])
        self._next += 1
        if self._next < len(frames):
            return not self._blocked
        if self._usage:
            self._write(self._shape.usage)
        self._write(DONE)
        if not self._over:
            self._over = True
            self._ended()
        return False

    def _after(self, seconds: float, then: Callable[[], None]) -> None:
        if seconds:
            self._timer = self._loop.call_later(seconds, then)
        else:
            then()

    def _start(self) -> None:
        self._write(HEAD)
        self._after(self._shape.first_s, self._first)

    def _first(self) -> None:
        self._began = self._loop.time()
        self.step()  # the role, which comes right before the first token
        self._go_on()

    def _go_on(self) -> None:
        if self._shape.interval_s:
            self._tick()
        else:
            self._turns.add(self)

    def _tick(self) -> None:
        if self.step() and self._began is not None:
            due = self._began + (self._next - 1) * self._shape.interval_s
            self._timer = self._loop.call_at(due, self._tick)

    def _write(self, data: bytes) -> None:
        """What the socket does not take at once waits in the transport, with what follows it."""
        if not self._blocked:
            try:
                sent = os.write(self._fd, data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._over = True
                self._transport.abort()
                return
            if sent == len(data):
                return
            data = data[sent:]
        self._transport.write(data)
        self._blocked = self._transport.get_write_buffer_size() > 0
