"""The event log of all runs: what each wrote, kept until every reader has had its chance."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from app.events.model import Entry, Event, RunRecord, Snapshot

# One write of a reader: what lies ready, up to this many bytes of frames.
BATCH_BYTES = 64 * 1024


class LogGone(Exception):
    """The log was dropped under a reader: expired, or evicted to make room."""


class Fenced(Exception):
    """Another worker has written the ending, because this one was thought dead. It stands."""


class Reader(Protocol):
    """A cursor into one run's log. Holds nothing that the writer would wait for."""

    async def read(self, silence_s: float) -> Sequence[Entry]:
        """What follows the cursor, in order, once, about ``BATCH_BYTES`` at most; moves the cursor.

        Waits until there is something. Empty: nothing came for ``silence_s`` seconds. After the
        entry of ``Done`` nothing ever comes. Raises ``LogGone``.
        """

    def close(self) -> None:
        """Nobody reads on."""


class EventLog(Protocol):
    async def holder(self, owner: str, idempotency_key: str) -> RunRecord | None:
        """The run that this caller's key belongs to, as long as the key is not free."""

    async def open(self, record: RunRecord) -> RunRecord:
        """Begin a log and claim its idempotency key; answers ``record``.

        If the key has a holder by now, nothing is begun and the holder's record is the answer.
        The key lives as long as the log, or until a ``Done`` that frees it.
        Raises ``Overloaded`` when there is no room.
        """

    async def append(self, run_id: str, events: Sequence[Event]) -> None:
        """Store events under the next numbers, 1 first, without gaps. All or none. It takes a
        bounded time, whatever stands between us and where they are stored.

        Raises ``Fenced``."""

    async def find(self, run_id: str, reaching: int = 0) -> Snapshot | None:
        """The run as it stands; None if unknown or expired.

        ``reaching``: a number that its readers are said to have seen. A log that may lag behind
        them asks around for it, and says ``lags`` where it does not find it.
        """

    def read(self, run_id: str, after: int) -> Reader:
        """A reader that begins behind number ``after``. A reader never disturbs anybody else."""


@runtime_checkable
class ImmediateLog(Protocol):
    """An event log that need not wait: what is appended so is stored when the call returns."""

    def append_now(self, run_id: str, events: Sequence[Event]) -> None:
        """As ``EventLog.append``."""
