"""Running runs and tokens of a caller over all workers, in Redis.

A slot is a lease. The worker that runs the run renews it; where that worker dies it is over after
``LEASE_S``. Nobody declares a lease over who has not itself been connected for as long: an outage
that let all leases lapse must not let a caller begin everything once more.

A worker that stood still for longer than that finds its leases gone, and perhaps other runs in
their place. It takes them again all the same, because its runs do run: the caller is over its limit
until enough of them have ended, and gets no new ones meanwhile.

What a worker counted for a caller on a day is one number of that worker's, written whole each time:
an answer that was lost neither doubles nor loses anything. Where Redis comes back empty each worker
writes its slots and numbers again; those of dead workers are gone.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

from app.access.model import Limits
from app.access.quotas import DAY_S, Quotas, day_of, standings, tokens_spent, too_many_runs
from app.access.redis_scripts import HOLD, LOOK, SAY, TAKE
from app.access.requests import Standing
from app.errors import StoreAway
from app.events.redis_keys import LEASE_S, RENEW_S
from app.events.redis_link import Link
from app.events.redis_wire import Command, ErrorReply

logger = logging.getLogger(__name__)

AT_ONCE = 500  # commands in one pipeline: a few milliseconds for either side
LAST_WORDS_S = 1.0  # at exit, to give back what we hold
PAUSE_S = 1.0  # after a bug
_KEEP_MS = 3_600_000  # longer than Redis is away: what nobody renews goes at last
_KEEP_TOKENS_MS = 2 * DAY_S * 1000


class RedisQuotas:
    """``worker``: our id, never used before. ``clock``: Unix seconds."""

    def __init__(
        self,
        link: Link,
        worker: str,
        *,
        lease_s: float = LEASE_S,
        renew_s: float = RENEW_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._link = link
        self._worker = worker
        self._lease_s = lease_s
        self._renew_s = renew_s
        self._clock = clock
        self._held: dict[str, set[str]] = {}  # run ids by owner
        self._returned: dict[str, set[str]] = {}  # the same of those that Redis should forget
        self._counted = set[str]()  # runs whose tokens are counted
        self._tokens: dict[tuple[str, int], int] = {}  # by owner and day
        self._unsaid = set[tuple[str, int]]()  # those among them that Redis does not know
        self._urgent = set[tuple[str, int]]()  # and should know soon, because a run has ended
        self._says = 0
        self._is_forgotten = False
        self._renewal = 0.0  # when the next one is due
        self._work = asyncio.Event()
        link.on_return(self._forgotten)

    async def begin(self, owner: str, run_id: str, limits: Limits) -> None:
        per_day, at_once = limits.tokens_per_day, limits.max_runs
        is_known = run_id in self._counted or run_id in self._held.get(owner, ())
        if is_known or (per_day is None and at_once is None):
            return
        if self._link.trouble is not None or self._link.unsettled():
            raise StoreAway  # in the second case other workers are about to write theirs again
        try:
            found = await self._take(owner, run_id, limits)
        except BaseException:  # it may have been taken, or may be yet
            self._give_back(owner, run_id)
            raise
        if found == b"tokens" and per_day is not None:
            raise tokens_spent(per_day, self._clock())
        if found == b"runs" and at_once is not None:
            raise too_many_runs(at_once)
        if at_once is not None:
            self._held.setdefault(owner, set()).add(run_id)
            _remove(self._returned, owner, run_id)
        if per_day is not None:
            self._counted.add(run_id)

    def count(self, owner: str, run_id: str, tokens: int) -> None:
        if run_id in self._counted:
            key = owner, day_of(self._clock())
            self._tokens[key] = self._tokens.get(key, 0) + tokens
            self._unsaid.add(key)

    def end(self, owner: str, run_id: str) -> None:
        if run_id in self._counted:
            self._counted.remove(run_id)
            self._urgent |= {(owner, day_of(self._clock()))} & self._unsaid
            self._work.set()
        if run_id in self._held.get(owner, ()):
            self._give_back(owner, run_id)

    async def standing(self, owner: str, limits: Limits) -> Sequence[Standing]:
        """Nothing while Redis is away."""
        if limits.max_runs is None and limits.tokens_per_day is None:
            return []
        try:
            running, tokens = await self._look(owner)
        except StoreAway:
            return []
        return standings(limits, running, tokens, self._clock())

    async def running(self, owner: str) -> int:
        return (await self._look(owner))[0]

    # -- life -------------------------------------------------------------------------------

    async def run(self) -> NoReturn:
        """For ever: renew what we hold, give back what we do not. What Redis was not told because
        it is away it is told when it is back."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._renewal):
                    await self._work.wait()
            self._work.clear()
            try:
                await self._exchange()
            except StoreAway:
                pass
            except Exception:
                logger.exception("keeping callers' slots met a bug")
                await asyncio.sleep(PAUSE_S)

    async def aclose(self) -> None:
        """At exit, once ``run`` has ended: nothing runs here any more."""
        for owner, run_ids in list(self._held.items()):
            for run_id in list(run_ids):
                self._give_back(owner, run_id)
        self._renewal = 0.0
        with suppress(StoreAway, TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self._exchange()

    def _forgotten(self) -> None:
        """Redis can be reached again, and may have lost everything."""
        self._is_forgotten = True
        self._renewal = 0.0
        self._work.set()

    async def _take(self, owner: str, run_id: str, limits: Limits) -> object:
        """Raises ``StoreAway``."""
        keys, today = self._link.keys, day_of(self._clock())
        take = TAKE.command(
            [keys.slots(owner), keys.tokens(owner, today)],
            self._worker,
            self._tokens.get((owner, today), 0),
            run_id,
            -1 if limits.max_runs is None else limits.max_runs,
            -1 if limits.tokens_per_day is None else limits.tokens_per_day,
            round(self._lease_s * 1000),
            _KEEP_MS,
            int(self._link.connected_s() >= self._lease_s),
        )
        # What has ended here just now must not stand in its way. That it is asked for once more
        # stays: a renewal that is on its way may yet come behind it.
        returned = [self._forget(owner)] if owner in self._returned else []
        answer = (await self._link.calls([*returned, take]))[-1]
        if isinstance(answer, ErrorReply):
            logger.error("Redis refused a command: %s", answer)
            raise StoreAway from answer
        return answer

    async def _look(self, owner: str) -> tuple[int, int]:
        """Slots, and tokens of today. Raises ``StoreAway``."""
        keys, today = self._link.keys, day_of(self._clock())
        own = self._tokens.get((owner, today), 0)
        names = [keys.slots(owner), keys.tokens(owner, today)]
        running, tokens = await self._link.script(LOOK, names, self._worker, own)
        return running, tokens

    def _give_back(self, owner: str, run_id: str) -> None:
        _remove(self._held, owner, run_id)
        self._returned.setdefault(owner, set()).add(run_id)
        self._work.set()

    async def _exchange(self) -> None:
        """One at a time: so what is given back is never renewed behind it. Raises ``StoreAway``."""
        clock = asyncio.get_running_loop().time
        is_due = clock() >= self._renewal
        if self._is_forgotten:
            self._unsaid |= self._tokens.keys()
            self._is_forgotten = False
        returned = {owner: set(run_ids) for owner, run_ids in self._returned.items()}
        commands = [self._forget(owner) for owner in returned]
        if is_due:
            self._renewal = clock() + self._renew_s
            self._drop_old_days()
            commands += [self._hold(owner) for owner in self._held]
        said = {key: self._tokens[key] for key in (self._unsaid if is_due else self._urgent)}
        commands += [self._say(owner, day) for owner, day in said]
        for at in range(0, len(commands), AT_ONCE):
            for answer in await self._link.calls(commands[at : at + AT_ONCE]):
                if isinstance(answer, ErrorReply):
                    logger.error("Redis refused a command: %s", answer)
        for owner, run_ids in returned.items():
            for run_id in run_ids:
                _remove(self._returned, owner, run_id)
        for key, tokens in said.items():
            if self._tokens[key] == tokens and not self._is_forgotten:
                self._unsaid.discard(key)
                self._urgent.discard(key)

    def _drop_old_days(self) -> None:
        today = day_of(self._clock())
        for key in [key for key in self._tokens if key[1] < today and key not in self._unsaid]:
            del self._tokens[key]

    def _forget(self, owner: str) -> Command:
        return ("ZREM", self._link.keys.slots(owner), *self._returned[owner])

    def _hold(self, owner: str) -> Command:
        lease_ms = round(self._lease_s * 1000)
        return HOLD.command([self._link.keys.slots(owner)], lease_ms, _KEEP_MS, *self._held[owner])

    def _say(self, owner: str, day: int) -> Command:
        self._says += 1
        tokens = self._tokens[owner, day]
        key = self._link.keys.tokens(owner, day)
        return SAY.command([key], self._worker, self._says, tokens, _KEEP_TOKENS_MS)


def _remove(runs: dict[str, set[str]], owner: str, run_id: str) -> None:
    """If it is there."""
    run_ids = runs.get(owner, set())
    run_ids.discard(run_id)
    if not run_ids:
        runs.pop(owner, None)


_: type[Quotas] = RedisQuotas  # the type checker proves the promise is kept
