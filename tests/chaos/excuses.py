"""What a fault excuses, and for how long. Pure.

Where a log can be lost for good: Redis comes back empty, and nobody is there to write the run
again. Either its worker died within one lease before or after, so that nobody had taken the run
over yet; or the run had ended, and its log outlives that in Redis only, but for its own worker.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from app.events.redis_keys import LEASE_S
from tests.chaos.faults import DATABASE, EMPTY, HALT, KILL, REDIS, TERMINATE, Fault
from tests.chaos.load import Asked

TAKEN_OVER_S = LEASE_S + 5.0  # from a worker's death to the ending of its runs
AT_ONCE_S = 2.0  # a death is seen, on a busy machine
WAKES_S = 5.0  # a worker that was stopped finds out what happened
WRITTEN_S = 15.0  # all that waited for PostgreSQL is stored: pauses of 5 s at most

Call = dict[str, Any]


class Excuses:
    def __init__(self, faults: Sequence[Fault]) -> None:
        self._faults = faults

    def gone(self, asked: Asked, call: Call | None) -> bool:
        """Its log may be lost at that time (``gone_at``, else now)."""
        until = asked.gone_at or time.time()
        for emptied in self._during(asked.began_at, until, EMPTY):
            ended_at = until if call is None else call["ended_at"] or until
            if call is None or ended_at <= emptied.ended + AT_ONCE_S:
                return True  # its worker had said all, or was dead
            if any(self._during(emptied.began, emptied.ended + TAKEN_OVER_S, HALT)):
                return True
            if ended_at <= emptied.ended + TAKEN_OVER_S and self._is_death(ended_at):
                return True
        return False

    def emptied(self, since: float) -> bool:
        """Redis was, since then."""
        return any(self._during(since, time.time(), EMPTY))

    def unwritten(self, began: float, over: float) -> bool:
        """What was to be stored then may have died with its worker, as PostgreSQL was away."""
        return any(
            any(self._during(away.began, away.ended + WRITTEN_S, KILL, HALT, TERMINATE))
            for away in self._during(began - AT_ONCE_S, over + AT_ONCE_S, DATABASE)
        )

    def twice(self, began: float, over: float) -> bool:
        """Who asked that often may have got another run: the first one was lost."""
        since = began - TAKEN_OVER_S
        return any(self._during(since, over + TAKEN_OVER_S, KILL, HALT, TERMINATE, EMPTY))

    def drained(self, asked: Asked) -> bool:
        return any(self._during(asked.began_at, asked.over_at, TERMINATE))

    def died(self, asked: Asked, call: Call | None) -> bool:
        """The run's worker did, or was stopped for longer than its lease."""
        if not any(self._deaths(asked.began_at, asked.over_at)):
            return False
        if call is None or call["outcome"] != "aborted":
            return True
        at = call["ended_at"]
        return any(
            death.began - AT_ONCE_S <= at <= self._knows_at(death) + WAKES_S
            for death in self._deaths(asked.began_at, asked.over_at)
        )

    def killed(self, at: float) -> bool:
        """What was cut at that time was cut by a SIGKILL."""
        return any(-AT_ONCE_S <= at - kill.began <= AT_ONCE_S for kill in self._of(KILL))

    def judged_from(self, died_at: float, done_at: float) -> float:
        """From when on a whole lease passed in which everybody had Redis."""
        return max(
            [died_at, *(each.ended for each in self._during(died_at - LEASE_S, done_at, *REDIS))]
        )

    def unshared(self, done_at: float) -> bool:
        """Redis may have lacked a good part of what readers had."""
        return any(self._during(done_at - 3 * LEASE_S, done_at, *REDIS))

    def _is_death(self, at: float) -> bool:
        """A worker went just then."""
        return any(self._during(at - AT_ONCE_S, at + AT_ONCE_S, KILL, TERMINATE))

    def _deaths(self, began: float, over: float) -> Iterator[Fault]:
        for fault in self._during(began, over, KILL, TERMINATE, HALT):
            if fault.kind != HALT or fault.ended - fault.began >= LEASE_S:
                yield fault

    def _knows_at(self, death: Fault) -> float:
        """When the worker was told, if it is still there: by Redis."""
        if death.kind == KILL:
            return death.began
        away = self._during(death.ended, death.ended + WAKES_S, *REDIS)
        return max([death.ended, *(each.ended for each in away)])

    def _of(self, *kinds: str) -> Iterator[Fault]:
        return (fault for fault in self._faults if fault.kind in kinds)

    def _during(self, began: float, over: float, *kinds: str) -> Iterator[Fault]:
        """Those that overlap that time."""
        return (each for each in self._of(*kinds) if each.began <= over and each.ended >= began)
