"""Running runs of a caller, and its tokens of a UTC day.

A run that was begun goes on when the day's tokens are spent: the next one is refused. Callers
without a limit cost nothing, and nothing is kept of them.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from app.access.model import Limits
from app.access.requests import Policy, Standing
from app.errors import RateLimited

DAY_S = 86_400
RUN_S = 2  # after so long a refused run is worth a new try: some run may have ended


class Quotas(Protocol):
    async def begin(self, owner: str, run_id: str, limits: Limits) -> None:
        """Takes a slot, once for each run, which keeps it until ``end``.

        Raises ``RateLimited``, and ``StoreAway``; then nothing is taken.
        """

    def count(self, owner: str, run_id: str, tokens: int) -> None:
        """So many more, between ``begin`` and ``end``. They are of the day on which this is called.
        Fewer than 0 where more had been estimated before."""

    def end(self, owner: str, run_id: str) -> None:
        """Gives the slot back, once ``begin`` has returned. As often as one likes; never raises."""

    async def standing(self, owner: str, limits: Limits) -> Sequence[Standing]:
        """What is left of each limit, as far as it can be known just now."""

    async def running(self, owner: str) -> int:
        """Slots that are taken. Raises ``StoreAway``."""


class MemoryQuotas:
    """Of this process alone. ``clock``: Unix seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._slots: dict[str, set[str]] = {}  # run ids by owner
        self._counted = set[str]()  # runs whose tokens are counted
        self._tokens = Counter[str]()  # today's
        self._day = 0

    async def begin(self, owner: str, run_id: str, limits: Limits) -> None:
        per_day, at_once = limits.tokens_per_day, limits.max_runs
        if run_id in self._counted or run_id in self._slots.get(owner, ()):
            return
        if per_day is not None and self._today()[owner] >= per_day:
            raise tokens_spent(per_day, self._clock())
        if at_once is not None:
            slots = self._slots.setdefault(owner, set())
            if len(slots) >= at_once:
                raise too_many_runs(at_once)
            slots.add(run_id)
        if per_day is not None:
            self._counted.add(run_id)

    def count(self, owner: str, run_id: str, tokens: int) -> None:
        if run_id in self._counted:
            self._today()[owner] += tokens

    def end(self, owner: str, run_id: str) -> None:
        self._counted.discard(run_id)
        slots = self._slots.get(owner, set())
        slots.discard(run_id)
        if not slots:
            self._slots.pop(owner, None)

    async def standing(self, owner: str, limits: Limits) -> Sequence[Standing]:
        return standings(limits, await self.running(owner), self._today()[owner], self._clock())

    async def running(self, owner: str) -> int:
        return len(self._slots.get(owner, ()))

    def _today(self) -> Counter[str]:
        day = day_of(self._clock())
        if day != self._day:
            self._day = day
            self._tokens.clear()
        return self._tokens


def day_of(now: float) -> int:
    """In days since 1970, UTC."""
    return int(now // DAY_S)


def too_many_runs(at_once: int) -> RateLimited:
    return RateLimited(f"{at_once} {'run' if at_once == 1 else 'runs'} at once", RUN_S)


def tokens_spent(per_day: int, now: float) -> RateLimited:
    return RateLimited(f"{per_day} tokens per day", _midnight_s(now))


def standings(limits: Limits, running: int, tokens: int, now: float) -> Sequence[Standing]:
    """``now``: Unix seconds. ``tokens``: of today."""
    found: list[Standing] = []
    if limits.max_runs is not None:
        policy = Policy("runs", limits.max_runs, None)
        found.append(Standing(policy, max(0, limits.max_runs - running), None))
    if limits.tokens_per_day is not None:
        policy = Policy("tokens", limits.tokens_per_day, DAY_S)
        left = min(max(0, limits.tokens_per_day - tokens), limits.tokens_per_day)
        found.append(Standing(policy, left, _midnight_s(now)))
    return found


def _midnight_s(now: float) -> int:
    """Until then, 1 at least."""
    return math.ceil(DAY_S - now % DAY_S)


_: type[Quotas] = MemoryQuotas  # the type checker proves the promise is kept
