"""The event log of one process: lists in memory, bounded by ``memory_bytes``."""

from collections.abc import Sequence

from app.events.log import EventLog, ImmediateLog, LogGone, Reader
from app.events.model import Done, Event, RunRecord, Snapshot
from app.events.run_logs import RunLogs
from app.events.runlog import LogReader, RunLog


class MemoryEventLog:
    """For one process. Not safe for threads: everything happens in one event loop."""

    def __init__(self, *, memory_bytes: int, retention_s: float) -> None:
        self._logs = RunLogs(
            memory_bytes=memory_bytes, retention_s=retention_s, dropped=self._free_key
        )
        self._keys: dict[tuple[str, str], RunLog] = {}

    @property
    def bytes(self) -> int:
        return self._logs.bytes

    async def holder(self, owner: str, idempotency_key: str) -> RunRecord | None:
        log = self._keys.get((owner, idempotency_key))
        return log.record if log else None

    async def open(self, record: RunRecord) -> RunRecord:
        key = _key(record)
        if key is not None and (held := self._keys.get(key)):
            return held.record
        log = self._logs.open(record)
        if key is not None:
            self._keys[key] = log
        return record

    async def append(self, run_id: str, events: Sequence[Event]) -> None:
        self.append_now(run_id, events)

    def append_now(self, run_id: str, events: Sequence[Event]) -> None:
        log = self._logs.get(run_id)
        if log is None:
            raise LogGone
        last = events[-1]
        self._logs.extend(log, log.number(events))
        if type(last) is Done and last.frees_key:
            self._free_key(log)

    async def find(self, run_id: str, reaching: int = 0) -> Snapshot | None:  # noqa: ARG002  it lags behind nobody
        log = self._logs.get(run_id)
        return log.snapshot() if log else None

    def read(self, run_id: str, after: int) -> Reader:
        log = self._logs.get(run_id)
        if log is None:
            raise LogGone
        return LogReader(log, after)

    def _free_key(self, log: RunLog) -> None:
        key = _key(log.record)
        if key is not None and self._keys.get(key) is log:
            del self._keys[key]


def _key(record: RunRecord) -> tuple[str, str] | None:
    return None if record.idempotency_key is None else (record.owner, record.idempotency_key)


_: type[EventLog] = MemoryEventLog  # the type checker proves the promises are kept
__: type[ImmediateLog] = MemoryEventLog
