"""Runs whose worker is gone: found by their lease, ended by whoever takes them over.

A worker that was itself cut off from Redis, or asleep, cannot tell who else was: it looks only once
it has been connected, and awake, for one lease time.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from app.events.mirror import JUMP
from app.events.model import Event, RunRecord
from app.events.packed import pack, unpack, unpack_record
from app.events.redis_keys import LEASE_S
from app.events.redis_link import Link
from app.events.redis_scripts import LEASE, OVERDUE, TAKE_OVER
from app.events.redis_shipment import Shipment, Speech
from app.events.runlog import RunLog

logger = logging.getLogger(__name__)

AT_ONCE = 100  # runs that are looked after in one go
PAGE = 100  # entries of a stream read at once, each of a few hundred KB at most
ASLEEP_S = 10.0  # between two looks: no live process takes that long


@dataclass(frozen=True, slots=True)
class Lost:
    """A run without a worker, as far as it came. ``last``: its last number."""

    record: RunRecord
    epoch: int
    last: int
    events: Sequence[Event]


class LostRuns:
    def __init__(self, link: Link, speech: Speech) -> None:
        self._link = link
        self._speech = speech
        self._vanished: list[tuple[RunLog, int]] = []
        self._clock = asyncio.get_running_loop().time
        self._looked = self._awake = self._clock()

    def vanished(self, log: RunLog, epoch: int) -> None:
        """Redis was restarted empty, and the writer of this run has not written it again. What its
        readers here have seen of it is the best copy that is left."""
        self._vanished.append((log, epoch))

    async def overdue(self) -> Sequence[str]:
        """Some of the runs whose lease is over; none as long as we cannot judge. To be asked every
        few seconds. Raises ``StoreAway``."""
        now = self._clock()
        if now - self._looked > ASLEEP_S:
            self._awake = now
        self._looked = now
        while self._vanished:
            await self._restore(*self._vanished[0])
            self._vanished.pop(0)[0].drop()  # its readers come back, and find it in Redis
        if min(self._link.connected_s(), now - self._awake) < LEASE_S:
            return []
        found = await self._link.script(OVERDUE, [self._link.keys.leases], AT_ONCE)
        return [run_id.decode() for run_id in found]

    async def whole(self, run_id: str) -> Lost | None:
        """Everything that Redis has of it. None: it has ended or expired, and nobody need look
        after it any more. Raises ``StoreAway``."""
        keys = self._link.keys
        fields = ("record", "epoch", "base", "last", "ending")
        record, epoch, base, last, ending = await self._link.call(
            "HMGET", keys.run(run_id), *fields
        )
        if record is None or ending is not None:
            await self._link.call("ZREM", keys.leases, run_id)
            return None
        events: list[Event] = []
        start = f"{base.decode()}-1"
        while True:
            page = await self._link.call("XRANGE", keys.log(run_id), start, "+", "COUNT", PAGE)
            for _, (_, blob) in page:
                events += unpack(blob).events
            if len(page) < PAGE:
                break
            start = "(" + page[-1][0].decode()
        return Lost(unpack_record(record), int(epoch), int(last), events)

    async def take_over(self, lost: Lost, ending: Sequence[Event]) -> bool:
        """Write the ending in place of its worker, which is fenced from now on. False: it lives, or
        another worker was faster. Raises ``StoreAway``."""
        record, keys = lost.record, self._link.keys
        first = (lost.last // JUMP + 1) * JUMP
        epoch = lost.epoch + 1
        of_the_run = [keys.run(record.run_id), keys.log(record.run_id)]
        if record.idempotency_key is not None:
            of_the_run.append(keys.idempotency(record.owner, record.idempotency_key))
        done = await self._link.script(
            TAKE_OVER,
            of_the_run,
            keys.events(record.run_id),
            lost.epoch,
            lost.last,
            epoch,
            first + len(ending) - 1,
            pack(epoch, first, ending),
            self._speech.retention_ms,
            record.run_id,
        )
        if done:
            await self._link.call("ZREM", keys.leases, record.run_id)
        return bool(done)

    async def _restore(self, log: RunLog, epoch: int) -> None:
        """Write it under a new epoch, with a lease that is over, if nobody has. Another worker with
        readers may do the same at once: what it writes is the same."""
        shipment = Shipment(log, self._clock())
        shipment.epoch = epoch + 1
        commands = [
            *self._speech.opening(shipment),
            *(command for command, size in self._speech.news(shipment) if size >= 0),
            LEASE.command([self._link.keys.leases], 1, 0, log.record.run_id),
        ]
        for answer in await self._link.calls(commands):
            if isinstance(answer, Exception):
                logger.error("Redis refuses a run that it has lost: %s", answer)
