"""The runs of other workers, as this one reads them: one mirror of each, for all its readers here.

A mirror begins with its first reader and goes some seconds after its last. It hears the run's
channel, and looks at what Redis has: when it begins, after each break, when a number is missing,
and now and then when it hears nothing, so that nothing depends on messages alone. Looks at many
runs share a pipeline, and a long log is read page by page, in turn with the others.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from typing import NoReturn

from app.errors import StoreAway
from app.events.log import Reader
from app.events.mirror import Found, Keeper, Mirror
from app.events.redis_channel import Channel, Listener
from app.events.redis_keys import LEASE_S
from app.events.redis_link import Link
from app.events.runlog import LogReader, RunLog

LINGER_S = 5.0  # a mirror outlives its last reader: one reconnect of EventSource
AWAY_S = 30.0  # how long readers wait for Redis: contract, section 5
# A mirror that heard nothing since the last of these moments looks. With jitter, so that workers do
# not look all at once.
WATCH_S = 3.0
TICK_S = 0.5
# Pipelines under way at once, each on a connection of the pool, which others need too; and looks
# in one of them: with a page for each, at most 1 MiB or so from Redis.
LOOKERS = 4
TOGETHER = 16


class Mirrors:
    """``bytes``: of memory, all of them. Above ``memory_bytes`` those without readers go first;
    those with readers stay, each is bounded by its answer's limit.

    ``on_vanished`` gets the log, and the epoch, of a run that Redis lost and no writer wrote again,
    to end or drop it; nobody else writes to it from then on. Without one it is dropped.
    """

    def __init__(
        self,
        link: Link,
        channel: Channel,
        *,
        memory_bytes: int,
        linger_s: float = LINGER_S,
        lease_s: float = LEASE_S,
        away_s: float = AWAY_S,
        watch_s: float = WATCH_S,
    ) -> None:
        self._link = link
        self._channel = channel
        self._memory_bytes = memory_bytes
        self._linger_s = linger_s
        self._lease_s = lease_s
        self._away_s = away_s
        self._watch_s = watch_s
        self._mirrors: dict[str, Mirror] = {}
        self._idle: dict[str, float] = {}  # run id: when it goes, soonest first
        self._due: deque[Mirror] = deque()
        self._later: list[Mirror] = []  # at the next tick
        self._has_due = asyncio.Event()
        self._has_let_go = False
        self.bytes = 0
        self.on_vanished: Callable[[RunLog, int], None] | None = None
        link.on_return(self._want_all)

    def read(self, run_id: str, after: int) -> Reader:
        """A reader that begins behind number ``after``. It raises ``LogGone`` where there is no
        such run, or Redis is away for too long; while it is away there is silence."""
        mirror = self._mirrors.get(run_id)
        if self._has_let_go:
            mirror = Mirror(run_id, self, time.monotonic())
            mirror.log.drop()
        elif mirror is None:
            mirror = self._mirrors[run_id] = Mirror(run_id, self, time.monotonic())
            self.bytes += mirror.log.bytes
            self._channel.subscribe(self._link.keys.events(run_id), mirror)
        self._idle.pop(run_id, None)
        mirror.readers += 1
        return _MirrorReader(mirror, after, self._left)

    def let_go(self) -> None:
        """Their readers get what is here, and then ``LogGone``; who comes later, ``LogGone``."""
        self._has_let_go = True
        for mirror in list(self._mirrors.values()):
            self._drop(mirror)

    async def run(self) -> NoReturn:
        """Look and tidy up, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(LOOKERS):
                tasks.create_task(self._look())
            await self._tend()

    # -- what a mirror says -----------------------------------------------------------------

    def want(self, mirror: Mirror) -> None:
        if not mirror.is_due and not mirror.is_over:
            mirror.is_due = True
            if not mirror.is_asked:
                self._enqueue(mirror)

    def grew(self, mirror: Mirror, size: int) -> None:
        self.bytes += size
        if mirror.is_over:
            self._channel.unsubscribe(self._link.keys.events(mirror.run_id))
        if self.bytes > self._memory_bytes:
            self._make_room()

    # -- looks ------------------------------------------------------------------------------

    def _enqueue(self, mirror: Mirror) -> None:
        self._due.append(mirror)
        self._has_due.set()

    def _want_all(self) -> None:
        later, self._later = self._later, []
        for mirror in later:
            self._enqueue(mirror)
        for mirror in self._mirrors.values():
            self.want(mirror)

    async def _look(self) -> NoReturn:
        keys = self._link.keys
        while True:
            await self._has_due.wait()
            asked = [self._due.popleft() for _ in range(min(TOGETHER, len(self._due)))]
            if not self._due:
                self._has_due.clear()
            asked = [mirror for mirror in asked if not mirror.is_over]
            if not asked:
                continue
            commands = [command for mirror in asked for command in mirror.ask(keys)]
            try:
                replies = await self._link.calls(commands)
            except StoreAway:
                for mirror in asked:
                    mirror.unanswered()
                    self._put_off(mirror)
                continue
            for mirror, known, page in zip(asked, replies[::2], replies[1::2], strict=True):
                self._conclude(mirror, mirror.answer(known, page))
                await asyncio.sleep(0)  # a page is some milliseconds of work

    def _conclude(self, mirror: Mirror, found: Found) -> None:
        if mirror.is_over:
            return
        if found in (Found.WHOLE, Found.MORE):
            mirror.lacking_since = None
            if found is Found.MORE or mirror.is_due:
                mirror.is_due = True
                self._enqueue(mirror)
            return
        now = time.monotonic()
        if mirror.lacking_since is None:
            mirror.lacking_since = now
        lacking_s = min(now - mirror.lacking_since, self._link.connected_s())
        if found is Found.MISSING and not mirror.is_known and not self._link.unsettled():
            self._drop(mirror)
        elif found is Found.MISSING and mirror.is_known and lacking_s >= self._lease_s:
            self._vanish(mirror)
        elif found is Found.LACKING and lacking_s >= 2 * self._lease_s:
            self._drop(mirror)  # by then its writer is replaced, and that did not help
        else:
            self._put_off(mirror)

    def _put_off(self, mirror: Mirror) -> None:
        if not mirror.is_over:
            mirror.is_due = True
            self._later.append(mirror)

    # -- the end of a mirror ----------------------------------------------------------------

    async def _tend(self) -> NoReturn:
        watch_at = 0.0
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            for run_id in [run_id for run_id, at in self._idle.items() if at <= now]:
                self._drop(self._mirrors[run_id])
            if self._link.trouble is not None:
                self._lose_patience(now)
                continue
            later, self._later = self._later, []
            for mirror in later:
                self._enqueue(mirror)
            if now >= watch_at:
                watch_at = now + self._watch_s * random.uniform(0.8, 1.2)
                self._watch()

    def _watch(self) -> None:
        for mirror in self._mirrors.values():
            if mirror.readers and mirror.is_quiet:
                self.want(mirror)
            mirror.is_quiet = True

    def _lose_patience(self, now: float) -> None:
        for mirror in list(self._mirrors.values()):
            since = max(self._link.last_contact, mirror.began)
            if not mirror.is_over and now - since > self._away_s:
                self._drop(mirror)

    def _left(self, mirror: Mirror) -> None:
        mirror.readers -= 1
        if not mirror.readers and self._mirrors.get(mirror.run_id) is mirror:
            self._idle[mirror.run_id] = time.monotonic() + self._linger_s
            self._make_room()

    def _make_room(self) -> None:
        while self.bytes > self._memory_bytes and self._idle:
            self._drop(self._mirrors[next(iter(self._idle))])

    def _vanish(self, mirror: Mirror) -> None:
        if self.on_vanished is None:
            self._drop(mirror)
        else:
            self._forget(mirror)
            self.on_vanished(mirror.log, mirror.epoch)

    def _drop(self, mirror: Mirror) -> None:
        self._forget(mirror)
        mirror.log.drop()

    def _forget(self, mirror: Mirror) -> None:
        del self._mirrors[mirror.run_id]
        self._idle.pop(mirror.run_id, None)
        self.bytes -= mirror.log.bytes
        if not mirror.is_over:
            mirror.is_over = True
            self._channel.unsubscribe(self._link.keys.events(mirror.run_id))


class _MirrorReader(LogReader):
    __slots__ = ("_leave", "_mirror")

    def __init__(self, mirror: Mirror, after: int, leave: Callable[[Mirror], None]) -> None:
        super().__init__(mirror.log, after)
        self._mirror: Mirror | None = mirror
        self._leave = leave

    def close(self) -> None:
        super().close()
        mirror, self._mirror = self._mirror, None
        if mirror is not None:
            self._leave(mirror)


_: type[Listener] = Mirror  # the type checker proves the promises are kept
__: type[Keeper] = Mirrors
