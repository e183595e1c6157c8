"""The event log of one process: lists in memory.

What is kept is bounded by ``log_memory_bytes``: the oldest finished logs go first, then new runs
are refused. Running runs are never cut short for room; each is bounded by its answer's limit.
"""

import asyncio
import sys
from collections.abc import Sequence

from msgspec import structs

from app.errors import Overloaded
from app.events.log import BATCH_BYTES, EventLog, ImmediateLog, LogGone, Reader
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
_TEXTS = (Token, Reasoning, Draft, Retract, Final)


class _RunLog:
    __slots__ = ("bytes", "entries", "error", "gone", "record", "waiters")

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.entries: list[Entry] = []
        self.error: Error | None = None
        self.bytes = LOG_BYTES
        self.gone = False
        self.waiters = Waiters()

    @property
    def done(self) -> Done | None:
        last = self.entries[-1].event if self.entries else None
        return last if isinstance(last, Done) else None


class MemoryReader:
    """Waits on a future of its own that the next append resolves.

    The silence timer is armed once and looks at its deadline when it fires, so that a token costs
    no timer.
    """

    __slots__ = ("_after", "_deadline", "_future", "_log", "_loop", "_timer")

    def __init__(self, log: _RunLog, after: int) -> None:
        self._log = log
        self._after = after
        # Kept, because get_running_loop() asks the kernel for our process id each time (3.11).
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0

    async def read(self, silence_s: float) -> Sequence[Entry]:
        entries = self._log.entries
        if self._after >= len(entries) and not self._log.gone:
            await self._wait(silence_s)
        first = last = self._after
        if self._log.gone and first >= len(entries):
            raise LogGone
        size = 0
        while last < len(entries) and size < BATCH_BYTES:
            size += len(entries[last].frame)
            last += 1
        if size >= BATCH_BYTES:
            await asyncio.sleep(0)  # a long replay lets the others have their turn
        self._after = last
        if last > first and type(entries[last - 1].event) is Done:
            self._disarm()
        return entries[first:last]

    async def _wait(self, silence_s: float) -> None:
        self._deadline = self._loop.time() + silence_s
        if self._timer is None or self._timer.when() > self._deadline:
            self._arm()
        log = self._log
        while self._after >= len(log.entries) and not log.gone:  # woken for what was read already
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


class MemoryEventLog:
    """For one process. Not safe for threads: everything happens in one event loop."""

    def __init__(self, *, memory_bytes: int, retention_s: float) -> None:
        self._memory_bytes = memory_bytes
        self._retention_s = retention_s
        self._logs: dict[str, _RunLog] = {}
        self._finished: dict[str, float] = {}  # run id: loop time of its expiry, oldest first
        self._keys: dict[tuple[str, str], _RunLog] = {}
        self._expiry: asyncio.TimerHandle | None = None
        self.bytes = 0

    async def holder(self, owner: str, idempotency_key: str) -> RunRecord | None:
        log = self._keys.get((owner, idempotency_key))
        return log.record if log else None

    async def open(self, record: RunRecord) -> RunRecord:
        if record.idempotency_key is not None:
            key = (record.owner, record.idempotency_key)
            if held := self._keys.get(key):
                return held.record
        self._make_room()
        log = self._logs[record.run_id] = _RunLog(record)
        self.bytes += log.bytes
        if record.idempotency_key is not None:
            self._keys[key] = log
        return record

    async def append(self, run_id: str, events: Sequence[Event]) -> None:
        self.append_now(run_id, events)

    def append_now(self, run_id: str, events: Sequence[Event]) -> None:
        log = self._logs[run_id]
        entries: list[Entry] = []
        size = 0
        for seq, event in enumerate(events, len(log.entries) + 1):
            frame = encode(run_id, seq, event)
            entries.append(Entry(seq, event, frame))
            size += len(frame) + ENTRY_BYTES
            if isinstance(event, _TEXTS):
                size += sys.getsizeof(event.text)
            elif isinstance(event, ToolCall | ToolResult):
                size += sum(map(sys.getsizeof, structs.astuple(event)))
        log.entries += entries
        log.bytes += size
        self.bytes += size
        while self.bytes > self._memory_bytes and self._finished:
            self._drop(next(iter(self._finished)))
        for event in events:
            if type(event) is not Token:  # which nearly every one is
                self._note_ending(log, event)
        log.waiters.wake()

    async def find(self, run_id: str) -> Snapshot | None:
        log = self._logs.get(run_id)
        return Snapshot(log.record, len(log.entries), log.error, log.done) if log else None

    def read(self, run_id: str, after: int) -> Reader:
        log = self._logs.get(run_id)
        if log is None:
            raise LogGone
        return MemoryReader(log, after)

    def _note_ending(self, log: _RunLog, event: Event) -> None:
        if isinstance(event, Error):
            log.error = event
        elif isinstance(event, Done):
            if event.frees_key:
                self._free_key(log)
            loop = asyncio.get_running_loop()
            self._finished[log.record.run_id] = loop.time() + self._retention_s
            if self._expiry is None:
                self._expire()

    def _free_key(self, log: _RunLog) -> None:
        if log.record.idempotency_key is not None:
            key = (log.record.owner, log.record.idempotency_key)
            if self._keys.get(key) is log:
                del self._keys[key]

    def _make_room(self) -> None:
        while self.bytes + LOG_BYTES > self._memory_bytes and self._finished:
            self._drop(next(iter(self._finished)))
        if self.bytes + LOG_BYTES > self._memory_bytes:
            raise Overloaded

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        self._expiry = None
        while self._finished:
            run_id, at = next(iter(self._finished.items()))
            if at > loop.time():
                self._expiry = loop.call_at(at, self._expire)
                return
            self._drop(run_id)

    def _drop(self, run_id: str) -> None:
        del self._finished[run_id]
        log = self._logs.pop(run_id)
        self.bytes -= log.bytes
        self._free_key(log)
        log.gone = True  # a reader that is under way still gets the rest: it is cut if it freezes
        log.waiters.wake()


_: type[EventLog] = MemoryEventLog  # the type checker proves the promises are kept
__: type[ImmediateLog] = MemoryEventLog
