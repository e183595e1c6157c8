"""One run of another worker, put together from what Redis tells: live messages, which may be lost,
doubled or late, and looks at what is stored. No I/O: questions and answers are values.

1. Nothing is waited for in order: a message that follows what we have is taken, what we have is
   left out, and anything else leads to a look.
2. A message that comes while a look is under way is held until the answer is there. One that came
   before the question needs no holding: the answer has it, it was stored before it was published.
"""

import logging
from collections.abc import Sequence
from enum import Enum
from typing import Any, Protocol

from app.events.model import Done, RunRecord
from app.events.packed import Batch, unpack, unpack_record
from app.events.redis_keys import Keys
from app.events.redis_wire import Command, ErrorReply
from app.events.runlog import RunLog

logger = logging.getLogger(__name__)

JUMP = 1_000_000  # the ending of a take-over begins at the next multiple of it
# What one page should add to the log, in bytes of memory: 500 tokens, 1 ms of work. Redis counts
# entries, and an entry holds 1 to 64 events, so the size of each page is taken from the one before.
PAGE_BYTES = 128 * 1024
FIRST_PAGE = 16  # entries
LARGEST_PAGE = 128


class Found(Enum):
    WHOLE = "all that was stored when we asked"
    MORE = "there is more: ask again at once"
    LACKING = "something that was stored cannot be had: ask again later"
    MISSING = "no such run"


class Gap(Exception):
    """What comes before it is missing."""


class Keeper(Protocol):
    """Who has a mirror and asks Redis for it."""

    def want(self, mirror: "Mirror") -> None:
        """Something may be missing: look."""

    def grew(self, mirror: "Mirror", size: int) -> None:
        """By so many bytes of memory. ``mirror.is_over``: that was its ending."""


class Mirror:
    """A ``Listener`` of the run's channel. ``log`` has the real record once ``is_known``.

    ``is_over``: it has its ending, or was given up. ``is_quiet``: nothing was heard since the
    keeper set it. ``is_due``: a look is owed.
    """

    __slots__ = (
        "_asked_at",
        "_count",
        "_held",
        "_keeper",
        "base",
        "began",
        "epoch",
        "is_due",
        "is_known",
        "is_over",
        "is_quiet",
        "lacking_since",
        "log",
        "readers",
    )

    def __init__(self, run_id: str, keeper: Keeper, now: float) -> None:
        self.log = RunLog(_unknown(run_id))
        self.epoch = self.base = self.readers = 0
        self.began = now
        self.lacking_since: float | None = None
        self.is_known = self.is_over = self.is_due = False
        self.is_quiet = True
        self._keeper = keeper
        self._count = FIRST_PAGE
        self._asked_at = 0
        self._held: list[Batch] | None = None

    @property
    def run_id(self) -> str:
        return self.log.record.run_id

    @property
    def is_asked(self) -> bool:
        """A look is under way."""
        return self._held is not None

    # -- live -------------------------------------------------------------------------------

    def subscribed(self) -> None:
        self._keeper.want(self)

    def deaf(self) -> None:
        """``subscribed`` comes again, and brings a look."""

    def heard(self, message: bytes) -> None:
        self.is_quiet = False
        if self.is_over:
            return
        try:
            batch = unpack(message)
        except ValueError:
            self._keeper.want(self)
            return
        if batch.epoch < self.epoch:
            return  # from a writer that has been replaced
        try:
            self._take(batch)
        except Gap:
            if self._held is None:
                self._keeper.want(self)
            else:
                self._held.append(batch)

    # -- stored -----------------------------------------------------------------------------

    def ask(self, keys: Keys) -> tuple[Command, Command]:
        """Begin a look: two commands, the first one's to be carried out first."""
        self.is_due = False
        self._held = []
        self._asked_at = self.log.last_seq
        record = () if self.is_known else ("record",)
        first = f"{self.base}-{self.log.last_seq + 1}"
        return (
            ("HMGET", keys.run(self.run_id), "epoch", "base", "last", *record),
            ("XRANGE", keys.log(self.run_id), first, "+", "COUNT", self._count),
        )

    def unanswered(self) -> None:
        """The question or its answer was lost."""
        self._held = None

    def answer(self, known: Any, page: Any) -> Found:
        """Take the replies to ``ask``, which may be error replies."""
        held, self._held = self._held or [], None
        try:
            return self._read(known, page, held)
        except Exception as error:  # noqa: BLE001  # whatever it is, other runs are to be read
            if self.lacking_since is None:
                logger.warning("the log of a run in Redis cannot be read: %r", error)
            return Found.LACKING

    def _read(self, known: Any, page: Any, held: Sequence[Batch]) -> Found:
        for reply in (known, page):
            if isinstance(reply, ErrorReply):
                raise reply
        epoch, base, last, *record = known
        if epoch is None:
            return Found.MISSING
        self.epoch, self.base = max(self.epoch, int(epoch)), int(base)
        if record:
            self.log.record = unpack_record(record[0])
            self.is_known = True
        size = 0
        for _, (_, packed) in page:
            size += self._take(unpack(packed), may_jump=True)
        if len(page) >= self._count:
            self._count = _next_count(len(page), size)
            return Found.MORE
        try:
            for batch in held:
                self._take(batch)
        except Gap:
            return Found.MORE
        # Behind what we had: Redis lost something, which its writer is about to write again.
        return Found.WHOLE if self._asked_at <= int(last) <= self.log.last_seq else Found.LACKING

    def _take(self, batch: Batch, *, may_jump: bool = False) -> int:
        """Store what goes beyond ours; the bytes that it takes. Raises ``Gap``.

        ``may_jump``: all that stands in Redis before it was taken.
        """
        log, first, events = self.log, batch.first, batch.events
        follows = log.last_seq + 1
        if batch.last < follows or self.is_over:
            return 0
        if first < follows:
            first, events = follows, events[follows - first :]
        elif first > follows and not (may_jump and first % JUMP == 0):
            raise Gap(f"{follows} is missing")
        if batch.epoch > self.epoch:
            self.epoch = batch.epoch
        size = log.extend(log.number(events, first))
        self.is_over = type(events[-1]) is Done
        self._keeper.grew(self, size)
        return size


def _next_count(entries: int, size: int) -> int:
    """How many entries make a page, after a page of so many took ``size`` bytes."""
    return min(LARGEST_PAGE, max(1, entries * PAGE_BYTES // max(size, 1)))


def _unknown(run_id: str) -> RunRecord:
    """Of a run before Redis was asked."""
    return RunRecord(run_id, "", "", "", 0.0, "", frozenset(), None, None, "", "")
