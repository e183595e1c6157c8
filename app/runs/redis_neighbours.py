"""The other workers, through Redis: who reads whose runs, and what they ask of each other.

A worker with readers of a run of another one keeps a claim, which lapses unless it is renewed, and
says so to that one at each change. What is said may get lost, so the claims are what counts: the
worker that makes the run looks at them when it hears of a change, when it may have missed one, and
every ``RENEW_S`` seconds as long as there is one.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, NoReturn

from app.errors import StoreAway
from app.events.redis_channel import Channel
from app.events.redis_keys import LEASE_S, RENEW_S
from app.events.redis_link import Link
from app.events.redis_wire import Command
from app.runs.neighbours import Household, Neighbours
from app.runs.redis_presence import BEAT_S, Presence
from app.runs.redis_talks import RedisTalks

logger = logging.getLogger(__name__)

AT_ONCE = 500  # runs in one pipeline: a few milliseconds for either side
LAST_WORDS_S = 1.0  # at exit, to give back what we claim
PAUSE_S = 1.0  # after a bug
# Without Redis nobody knows who reads elsewhere: whoever moved there cannot say so, and no more can
# a worker that is cut off alone. A look is tried again for so long, as long as readers there would
# wait for Redis.
PATIENCE_S = 30.0
LOOK_AGAIN_S = 0.5
_CLAIM_MS = round(3 * LEASE_S * 1000)  # a claim is renewed, or looked at once more
DOUBT_S = RENEW_S + 3.0  # by then others have claimed what they read, also what was lost meanwhile


class RedisNeighbours:
    """``worker``: our id. ``keep_s``: longer than any run lives."""

    def __init__(self, link: Link, channel: Channel, worker: str, keep_s: float) -> None:
        self._link = link
        self._channel = channel
        self._worker = worker
        self._work = asyncio.Event()
        self._presence = Presence(link, worker)
        self.talks = RedisTalks(link, keep_s, self._work.set)
        self._household: Household | None = None
        self._readers = Counter[str]()  # here, of runs that we do not make
        self._changed = set[str]()  # those among them of which nobody knows yet
        self._claimed = set[str]()
        self._unseen = set[str]()  # runs of ours that are to be looked at
        self._patience: dict[str, float] = {}  # until when a look is tried again
        self._held = set[str]()  # those that were read elsewhere when we looked
        self._renewal = 0.0  # when the next one is due
        self._beat = 0.0  # and when we say again that we are there
        link.on_return(self._returned)

    # -- Neighbours -------------------------------------------------------------------------

    def listen(self, household: Household) -> None:
        self._household = household
        self._channel.subscribe(self._link.keys.worker(self._worker), self)

    async def stop(self, run_id: str) -> bool:
        worker = await self._link.call("HGET", self._link.keys.run(run_id), "writer")
        if worker is None:
            return self._link.unsettled()
        if worker.decode() == self._worker:
            return False
        await self._link.call("PUBLISH", self._link.keys.worker(worker.decode()), f"stop {run_id}")
        return True

    def reads(self, run_id: str, yes: bool) -> None:
        before = self._readers[run_id]
        self._readers[run_id] += 1 if yes else -1
        if not self._readers[run_id]:
            del self._readers[run_id]
        if not before or run_id not in self._readers:
            self._changed.add(run_id)
            self._work.set()

    async def announce(self, run_id: str) -> None:
        self._readers[run_id] += 1
        try:
            with suppress(StoreAway):
                await self._tell_of([run_id])
        finally:
            self._readers[run_id] -= 1
            if not self._readers[run_id]:
                del self._readers[run_id]

    def look(self, run_id: str) -> bool:
        self._patience.setdefault(run_id, time.monotonic() + PATIENCE_S)
        self._unseen.add(run_id)
        self._work.set()
        return True

    # -- the listener of our channel --------------------------------------------------------

    def subscribed(self) -> None:
        if self._household is not None:
            self._unseen.update(self._household.running())
            self._work.set()

    def heard(self, message: bytes) -> None:
        what, _, run_id = message.decode(errors="replace").partition(" ")
        if what == "stop" and self._household is not None:
            self._household.asked_to_stop(run_id)
        elif what == "readers":
            self._unseen.add(run_id)
            self._work.set()

    def deaf(self) -> None:
        pass

    # -- life -------------------------------------------------------------------------------

    async def run(self) -> NoReturn:
        """For ever: tell others of our readers, and look for theirs."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._wake_at()):
                    await self._work.wait()
            self._work.clear()
            try:
                await self._exchange()
            except Exception:
                logger.exception("talking to other workers met a bug")
                await asyncio.sleep(PAUSE_S)

    async def aclose(self) -> None:
        """At exit, once ``run`` has ended: nobody reads here any more."""
        self._changed |= self._claimed
        self._readers.clear()
        with suppress(StoreAway, TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self._tell()
                await self.talks.flush()
                await self._link.calls([self._presence.leave()])

    def _returned(self) -> None:
        """Redis may have forgotten us."""
        self._changed.update(self._readers)
        self.talks.forgotten()
        self._work.set()

    async def _exchange(self) -> None:
        """What was not told because Redis is away is told when it is back."""
        clock = asyncio.get_running_loop().time
        is_due = clock() >= self._renewal
        self._unseen |= self._patience.keys()
        if is_due:
            self._renewal = clock() + RENEW_S
            self._unseen |= self._held
            self._changed |= self._readers.keys() - self._claimed
        await self._look()
        with suppress(StoreAway):
            if clock() >= self._beat:
                self._beat = clock() + BEAT_S
                await self._link.calls([self._presence.beat()])
            await self._tell()
            if is_due:
                await self._renew()
            await self.talks.flush()

    async def _look(self) -> None:
        while self._unseen:
            run_ids = [self._unseen.pop() for _ in range(min(len(self._unseen), AT_ONCE))]
            keys = map(self._link.keys.readers, run_ids)
            found: list[bool | None] = [None] * len(run_ids)
            is_in_doubt = True
            with suppress(StoreAway):
                silent, now, *answers = await self._link.calls(
                    [
                        self._presence.silent(),
                        ("TIME",),
                        *(("ZRANGE", key, 0, 0, "REV", "WITHSCORES") for key in keys),
                    ]
                )
                is_in_doubt = self._is_in_doubt() or bool(silent)
                found = [
                    self._are_there(run_id, answer, _ms(now))
                    for run_id, answer in zip(run_ids, answers, strict=True)
                ]
            for run_id, are_there in zip(run_ids, found, strict=True):
                if are_there:
                    self._held.add(run_id)
                elif are_there is False:
                    self._held.discard(run_id)
                until = self._patience.get(run_id, 0.0)
                is_known = bool(are_there) or not is_in_doubt
                if is_known or time.monotonic() > until:
                    self._patience.pop(run_id, None)
                    if self._household is not None:
                        self._household.read_elsewhere(run_id, are_there)

    def _is_in_doubt(self) -> bool:
        """Redis is away, or its other users have not told it again yet what it forgot."""
        return self._link.back_s() < DOUBT_S

    def _wake_at(self) -> float:
        soon = asyncio.get_running_loop().time() + LOOK_AGAIN_S
        due = min(self._renewal, self._beat)
        return min(soon, due) if self._patience else due

    def _are_there(self, run_id: str, top: Any, now_ms: int) -> bool | None:
        """``top``: worker and time (ms) of the claim that lasts longest. One that has lapsed, or is
        gone, counts as given back only once its worker had time to write it again."""
        if not isinstance(top, list) or not (top or run_id in self._held):
            return None
        until_ms = int(float(top[1])) if top else 1
        if until_ms > now_ms:
            return True
        return False if not until_ms or self._link.connected_s() >= LEASE_S else None

    async def _tell(self) -> None:
        """Claim what is read here, give back what is not. Raises ``StoreAway``."""
        while self._changed:
            run_ids = [self._changed.pop() for _ in range(min(len(self._changed), AT_ONCE))]
            try:
                await self._tell_of(run_ids)
            except StoreAway:
                self._changed.update(run_ids)
                raise

    async def _tell_of(self, run_ids: Sequence[str]) -> None:
        keys = self._link.keys
        asked: list[Command] = [("TIME",)]
        for run_id in run_ids:
            asked.append(("HGET", keys.run(run_id), "writer"))
            asked.append(("HEXISTS", keys.run(run_id), "ending"))
        now, *answers = await self._link.calls(asked)
        commands: list[Command] = []
        for run_id, writer, has_ended in zip(run_ids, answers[::2], answers[1::2], strict=True):
            if writer is None or has_ended or writer.decode() == self._worker:
                self._claimed.discard(run_id)  # as long as it is read we come back to it
                continue
            commands += self._claim(run_id, _ms(now))
            commands.append(("PUBLISH", keys.worker(writer.decode()), f"readers {run_id}"))
        if commands:
            await self._link.calls(commands)

    async def _renew(self) -> None:
        """Raises ``StoreAway``."""
        claimed = list(self._claimed)
        for at in range(0, len(claimed), AT_ONCE):
            now = _ms(await self._link.call("TIME"))
            part = (self._claim(run_id, now) for run_id in claimed[at : at + AT_ONCE])
            await self._link.calls(list(chain.from_iterable(part)))

    def _claim(self, run_id: str, now_ms: int) -> list[Command]:
        """Or give it back: 0 says that somebody was there."""
        key, until_ms = self._link.keys.readers(run_id), 0
        if run_id in self._readers:
            until_ms = now_ms + round(LEASE_S * 1000)
            self._claimed.add(run_id)
        else:
            self._claimed.discard(run_id)
        return [("ZADD", key, until_ms, self._worker), ("PEXPIRE", key, _CLAIM_MS)]


def _ms(time: Any) -> int:
    """Of what ``TIME`` answers: seconds and microseconds."""
    return int(time[0]) * 1000 + int(time[1]) // 1000


_: type[Neighbours] = RedisNeighbours  # the type checker proves the promise is kept
