"""The logs that a process holds in memory: bounded room, and an end of their time.

The oldest finished logs go first, then there is no room for new runs. Running runs are never cut
short for room; each is bounded by its answer's limit.
"""

import asyncio
from collections.abc import Callable, Sequence

from app.errors import Overloaded
from app.events.model import Done, Entry, RunRecord
from app.events.runlog import LOG_BYTES, RunLog


class RunLogs:
    """``dropped`` is told of each log that goes. Not safe for threads: one event loop has it."""

    def __init__(
        self, *, memory_bytes: int, retention_s: float, dropped: Callable[[RunLog], None]
    ) -> None:
        self._memory_bytes = memory_bytes
        self._retention_s = retention_s
        self._dropped = dropped
        self._logs: dict[str, RunLog] = {}
        self._finished: dict[str, float] = {}  # run id: loop time of its expiry, oldest first
        self._expiry: asyncio.TimerHandle | None = None
        self.bytes = 0

    def get(self, run_id: str) -> RunLog | None:
        return self._logs.get(run_id)

    def open(self, record: RunRecord) -> RunLog:
        """Raises ``Overloaded``."""
        while self.bytes + LOG_BYTES > self._memory_bytes and self._finished:
            self.drop(next(iter(self._finished)))
        if self.bytes + LOG_BYTES > self._memory_bytes:
            raise Overloaded
        log = self._logs[record.run_id] = RunLog(record)
        self.bytes += log.bytes
        return log

    def extend(self, log: RunLog, entries: Sequence[Entry]) -> None:
        """As ``RunLog.extend``. Behind ``Done`` its time begins to run."""
        self.bytes += log.extend(entries)
        while self.bytes > self._memory_bytes and self._finished:
            self.drop(next(iter(self._finished)))
        if type(entries[-1].event) is Done:
            loop = asyncio.get_running_loop()
            self._finished[log.record.run_id] = loop.time() + self._retention_s
            if self._expiry is None:
                self._expire()

    def drop(self, run_id: str) -> None:
        self._finished.pop(run_id, None)
        log = self._logs.pop(run_id)
        self.bytes -= log.bytes
        self._dropped(log)
        log.drop()

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        self._expiry = None
        while self._finished:
            run_id, at = next(iter(self._finished.items()))
            if at > loop.time():
                self._expiry = loop.call_at(at, self._expire)
                return
            self.drop(run_id)
