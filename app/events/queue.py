"""The way from the model's callbacks to the log: unbounded, many events for one wake-up.

Not ``asyncio.Queue``: that wakes its reader and costs an await for each item. Unbounded, because
the log's writer never waits for a reader, so nothing stays here for longer than a loop pass.

While its taker waits, ``hand_over`` may take an event at once: a log in memory stores it then and
there, and no task need wake up for it.
"""

import asyncio
from collections.abc import Callable

from app.events.model import Event


class EventQueue:
    def __init__(self) -> None:
        self._events: list[Event] = []
        # Kept, because get_running_loop() asks the kernel for our process id each time (3.11).
        self._loop = asyncio.get_running_loop()
        self._wake: asyncio.Future[None] | None = None
        self._closed = False
        # Whether it took the event; else the event waits for ``take``.
        self.hand_over: Callable[[Event], bool] | None = None

    def put(self, event: Event) -> None:
        is_idle = self._wake is not None and not self._wake.done()  # what came before is stored
        if self.hand_over is None or not is_idle or not self.hand_over(event):
            self._events.append(event)
            self._notify()

    def close(self) -> None:
        """No more events will come."""
        self._closed = True
        self._notify()

    async def take(self) -> list[Event]:
        """Everything that waits, at least one event; empty once closed and drained."""
        if not self._events and not self._closed:
            self._wake = self._loop.create_future()
            await self._wake
            self._wake = None
        events, self._events = self._events, []
        return events

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
