"""One run's entries in the memory of this process, and its readers, each only a cursor."""

import asyncio
import sys
from bisect import bisect_right
from collections.abc import Sequence

from msgspec import structs

from app.events.log import BATCH_BYTES, LogGone, Reader
from app.events.model import (
    Done,
    Draft,
    Entry,
    Error,
    Event,
    Final,
    Reasoning,
    Retract,
    RunRecord,
    Snapshot,
    Token,
    ToolCall,
    ToolResult,
)
from app.events.waiting import Waiters
from app.wire.native import encode

# With its frame and its text, what one entry takes on CPython 3.11: objects' headers and a list
# slot, measured.
ENTRY_BYTES = 136
# And of one log: record, lists, dictionary slots.
LOG_BYTES = 2048
_TEXTS = (Reasoning, Draft, Retract, Final)


class RunLog:
    """``gone``: dropped; who reads it gets the rest, and then ``LogGone``. ``bytes``: of memory."""

    __slots__ = (
        "_jump",
        "bytes",
        "done",
        "entries",
        "error",
        "gone",
        "last_seq",
        "record",
        "waiters",
    )

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.entries: list[Entry] = []
        self.last_seq = 0
        self.error: Error | None = None
        self.done: Done | None = None
        self.bytes = LOG_BYTES
        self.gone = False
        self.waiters = Waiters()
        self._jump: int | None = None

    def snapshot(self) -> Snapshot:
        return Snapshot(self.record, self.last_seq, self.error, self.done)

    def number(self, events: Sequence[Event], first: int | None = None) -> list[Entry]:
        """Entries under the next numbers, or from ``first`` on. Nothing is stored."""
        run_id = self.record.run_id
        first = self.last_seq + 1 if first is None else first
        return [
            Entry(seq, event, encode(run_id, seq, event)) for seq, event in enumerate(events, first)
        ]

    def extend(self, entries: Sequence[Entry]) -> int:
        """Store them, wake who waits; the bytes that it takes.

        Numbers follow each other; only those of the ending that another worker wrote may jump.
        """
        if not entries:
            return 0
        size = 0
        for entry in entries:
            event = entry.event
            size += len(entry.frame) + ENTRY_BYTES
            if type(event) is Token:  # which nearly every one is
                size += sys.getsizeof(event.text)
            else:
                size += self._note(event)
        if entries[0].seq != self.last_seq + 1:
            self._jump = len(self.entries)
        self.entries += entries
        self.last_seq = entries[-1].seq
        self.bytes += size
        self.waiters.wake()
        return size

    def _note(self, event: Event) -> int:
        """What there is to know of an event; the bytes of its texts."""
        if isinstance(event, Error):
            self.error = event
        elif isinstance(event, Done):
            self.done = event
        elif isinstance(event, _TEXTS):
            return sys.getsizeof(event.text)
        elif isinstance(event, ToolCall | ToolResult):
            return sum(map(sys.getsizeof, structs.astuple(event)))
        return 0

    def drop(self) -> None:
        self.gone = True  # a reader that is under way still gets the rest: it is cut if it freezes
        self.waiters.wake()

    def index(self, after: int) -> int:
        """Where the entry behind number ``after`` stands, or will stand."""
        if self._jump is None or after <= self._jump:
            return after
        return bisect_right(self.entries, after, key=lambda entry: entry.seq)


class LogReader:
    """Waits on a future of its own that the next append resolves.

    The silence timer is armed once and looks at its deadline when it fires, so that a token costs
    no timer.
    """

    __slots__ = ("_after", "_deadline", "_future", "_log", "_loop", "_timer")

    def __init__(self, log: RunLog, after: int) -> None:
        self._log = log
        self._after = after
        # Kept, because get_running_loop() asks the kernel for our process id each time (3.11).
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0

    async def read(self, silence_s: float) -> Sequence[Entry]:
        log, entries = self._log, self._log.entries
        if self._after >= log.last_seq and not self._is_over():
            await self._wait(silence_s)
        first = last = log.index(self._after)
        if first >= len(entries) and self._is_over():
            raise LogGone
        size = 0
        while last < len(entries) and size < BATCH_BYTES:
            size += len(entries[last].frame)
            last += 1
        if size >= BATCH_BYTES:
            await asyncio.sleep(0)  # a long replay lets the others have their turn
        if last > first:
            self._after = entries[last - 1].seq
            if type(entries[last - 1].event) is Done:
                self._disarm()
        return entries[first:last]

    async def _wait(self, silence_s: float) -> None:
        self._deadline = self._loop.time() + silence_s
        if self._timer is None or self._timer.when() > self._deadline:
            self._arm()
        log = self._log
        # May be woken for what was read already.
        while self._after >= log.last_seq and not self._is_over():
            future = self._future = log.waiters.add()
            try:
                await future
            except asyncio.CancelledError:
                self._disarm()
                raise
            finally:
                self._future = None
                log.waiters.discard(future)
            if self._loop.time() >= self._deadline:
                return
            if self._timer is None:  # it fired while we were about to be woken
                self._arm()

    def _is_over(self) -> bool:
        """Nothing will ever come: the log is gone, or ended before it reached the cursor."""
        log = self._log
        return log.gone or (self._after > log.last_seq and log.done is not None)

    def close(self) -> None:
        self._disarm()

    def _arm(self) -> None:
        self._disarm()
        self._timer = self._loop.call_at(self._deadline, self._silent)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _silent(self) -> None:
        self._timer = None
        if self._future is None or self._future.done():
            return  # nobody waits: the next wait arms it again
        if self._loop.time() < self._deadline:
            self._arm()
        else:
            self._future.set_result(None)


_: type[Reader] = LogReader  # the type checker proves the promise is kept
