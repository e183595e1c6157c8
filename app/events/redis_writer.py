"""Ships what this worker's runs write to Redis: in batches, in order, once.

Every answer to an append tells the last number that Redis has, whatever became of the append: one
whose answer was lost, one of which Redis knows nothing any more since it was restarted. So after
any trouble the rest is sent from there on.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from app.errors import StoreAway
from app.events.log import Fenced
from app.events.model import Entry
from app.events.packed import unpack
from app.events.redis_keys import LEASE_S, RENEW_S
from app.events.redis_link import Link
from app.events.redis_patience import Patience
from app.events.redis_scripts import LEASE
from app.events.redis_shipment import LEASE_MS, Shipment, Speech
from app.events.redis_wire import Command
from app.events.run_logs import RunLogs
from app.events.runlog import RunLog

logger = logging.getLogger(__name__)

# From one shipment to the next: readers on other workers see a token so much later at most, and
# Redis gets so many commands fewer.
LINGER_S = 0.02
# Of one pipeline: after a minute without Redis there is much to send.
PIPELINE_COMMANDS = 1000
PIPELINE_BYTES = 1024 * 1024
LEASES = 500  # renewed by one command: it keeps Redis from others for half a millisecond
PAUSE_S = 1.0  # after Redis refused what it should not have
REFUSALS = 5  # of one run, after which it is not tried again once its ending was told
HASTY_S = 2.0  # at shutdown an ending waits no longer


class Shipper:
    """``on_fenced`` is told of a run of ours that another worker has ended; nothing more of it is
    written."""

    def __init__(self, link: Link, logs: RunLogs, speech: Speech) -> None:
        self._link = link
        self._logs = logs
        self._speech = speech
        self._shipments: dict[str, Shipment] = {}
        self._changed: dict[str, Shipment] = {}
        self._ended: dict[str, Shipment] = {}  # as long as their logs are in memory
        self._debris: list[Command] = []
        self._work = asyncio.Event()
        self._clock = asyncio.get_running_loop().time
        self._patience = Patience()
        self.on_fenced: Callable[[str], None] = lambda run_id: None  # noqa: ARG005  # nobody asks
        link.on_return(self._look_at_all)

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._shipments

    async def open(self, log: RunLog) -> None:
        """Raises ``StoreAway``."""
        shipment = Shipment(log, self._clock())
        for answer in await self._link.calls(self._speech.opening(shipment)):
            if isinstance(answer, Exception):
                logger.error("Redis refuses to open a run: %s", answer)
                raise StoreAway
        self._shipments[log.record.run_id] = shipment

    async def withdraw(self, log: RunLog) -> None:
        """The run shall not be. Raises ``StoreAway``."""
        del self._shipments[log.record.run_id]
        await self._link.calls(self._speech.undoing(log.record))

    def undo(self, log: RunLog) -> None:
        """As ``withdraw``, as soon as it is possible, whatever Redis knows of the run."""
        self._shipments.pop(log.record.run_id, None)
        self._debris += self._speech.undoing(log.record)
        self._work.set()

    def changed(self, run_id: str) -> None:
        """There is more to ship."""
        if (shipment := self._shipments.get(run_id)) is not None:
            self._changed[run_id] = shipment
            self._work.set()

    def answer(self, run_id: str, asked: str) -> None:
        """Another worker asks how far a run is: once Redis has all, ``asked`` is noted there."""
        if (shipment := self._shipments.get(run_id)) is not None:
            shipment.asked.append(asked)
            self.changed(run_id)

    async def end(self, run_id: str, ending: list[Entry]) -> None:
        """Ship the ending and let readers see it once it is there; for those here at the latest
        one lease after Redis was last heard of. Raises ``Fenced``."""
        shipment = self._shipments.get(run_id)
        if shipment is None:
            raise Fenced
        shipment.ending = ending
        self.changed(run_id)
        if not await self._patience.wait(shipment.ended, shipment.contact):
            logger.warning("run %s ends without Redis, for its readers here only", run_id)
            shipment.is_told = True
            self._logs.extend(shipment.log, ending)

    def hasten(self) -> None:
        """We are about to go: endings wait for Redis no longer than ``HASTY_S`` from now on."""
        self._patience.at_most(HASTY_S)

    def forget(self, log: RunLog) -> None:
        """The log is dropped from memory; what Redis does not have of it is lost."""
        run_id = log.record.run_id
        self._changed.pop(run_id, None)
        self._ended.pop(run_id, None)
        if self._shipments.pop(run_id, None) is not None:
            logger.error("run %s was dropped before Redis had its end", run_id)

    async def run(self) -> NoReturn:
        """For ever: ship what changes."""
        due = 0.0
        try:
            while True:
                await self._work.wait()
                await asyncio.sleep(due - self._clock())
                due = self._clock() + LINGER_S
                await self._try_to_ship()
        finally:
            self._patience.at_most(0)

    async def renew(self) -> NoReturn:
        """For ever: renew our leases."""
        while True:
            try:
                await self.renew_now(list(self._shipments))
                await asyncio.sleep(RENEW_S)
            except StoreAway:
                await self._link.reachable()
                await asyncio.sleep(PAUSE_S)
            except Exception:
                logger.exception("renewing leases met a bug")
                await asyncio.sleep(PAUSE_S)

    async def renew_now(self, run_ids: Sequence[str]) -> None:
        """Raises ``StoreAway``."""
        leases = self._link.keys.leases
        for at in range(0, len(run_ids), LEASES):
            part = run_ids[at : at + LEASES]
            answer = await self._link.script(LEASE, [leases], 0, LEASE_MS, *part)
            missing = {run_id.decode() for run_id in answer}
            for run_id in part:
                if (shipment := self._shipments.get(run_id)) is None:
                    continue
                if run_id in missing:  # forgotten, or ended by another worker: the append tells
                    shipment.has_lease = False
                    self.changed(run_id)
                else:
                    shipment.contact = self._clock()

    async def drain(self, seconds: float) -> None:
        """At exit, once ``run`` has ended: ship what is left, then log what is lost."""
        try:
            async with asyncio.timeout(seconds):
                while self._changed or self._debris:
                    await self._ship()
        except (TimeoutError, StoreAway):
            logger.error("%d runs were not shipped to Redis", len(self._changed))  # noqa: TRY400  # no bug

    # ---------------------------------------------------------------------------------------

    def _look_at_all(self) -> None:
        """Redis can be reached again: what became of our runs there?"""
        for shipment in self._shipments.values():
            shipment.has_lease = False
        self._changed |= self._shipments
        if self._link.unsettled():  # it may have forgotten how they ended
            self._changed |= self._ended
        self._work.set()

    async def _try_to_ship(self) -> None:
        try:
            await self._ship()
        except StoreAway:
            await self._link.reachable()
        except Exception:
            logger.exception("shipping events to Redis met a bug")
            await asyncio.sleep(PAUSE_S)

    async def _ship(self) -> None:
        """One pipeline. Raises ``StoreAway``: what was not answered is sent again."""
        debris = len(self._debris)
        commands = self._debris[:]
        sent: list[Shipment | None] = [None] * debris  # whose append each command is
        room = PIPELINE_BYTES
        for shipment in self._changed.values():
            if room <= 0 or len(commands) >= PIPELINE_COMMANDS:
                break
            for command, size in self._speech.news(shipment, room):
                commands.append(command)
                sent.append(None if size < 0 else shipment)
                room -= size
        try:
            answers = await self._link.write(commands) if commands else []
        except BaseException:
            for one in sent:
                if one is not None:
                    one.has_lease = False  # nobody knows
            raise
        del self._debris[:debris]
        stuck = set[str]()
        for one, answer in zip(sent, answers, strict=True):
            if one is None or one.run_id in stuck:
                continue  # what stands behind an append that was not stored says no more
            if isinstance(answer, Exception):
                self._set_aside(one, answer)
                stuck.add(one.run_id)
            elif not await self._stored(one, answer):
                stuck.add(one.run_id)
        for one in sent:
            if one is not None and one.run_id in self._changed:
                self._settle(one)
        if not self._changed and not self._debris:
            self._work.clear()

    async def _stored(self, shipment: Shipment, answer: Any) -> bool:
        """Draw the conclusions. Raises ``StoreAway``."""
        how: bytes = answer[0]
        if how == b"fenced" or (how == b"gone" and not self._is_surely_lost(shipment)):
            await self._fence(shipment)
        elif how == b"gone":
            logger.debug("run %s is gone from Redis: it is written again", shipment.run_id)
            shipment.epoch += 1
            shipment.acked = 0
            await self._link.calls(self._speech.opening(shipment))
        else:
            shipment.acked = int(answer[1])
            shipment.contact = self._clock()
        return how == b"stored"

    def _set_aside(self, shipment: Shipment, why: Exception) -> None:
        """Redis refuses this run alone: somebody has meddled with its keys. The others go on."""
        run_id = shipment.run_id
        self._changed.pop(run_id, None)
        if shipment.refusals == 0:
            logger.error("Redis refuses run %s: %s", run_id, why)
        shipment.refusals += 1
        if shipment.is_told and shipment.refusals >= REFUSALS:
            self._shipments.pop(run_id, None)
            self._ended.pop(run_id, None)
            logger.error("run %s is not shipped to Redis any more", run_id)
        else:
            asyncio.get_running_loop().call_later(PAUSE_S, self.changed, run_id)

    def _settle(self, shipment: Shipment) -> None:
        """Redis has told what it has of a run."""
        run_id = shipment.run_id
        self._changed.pop(run_id, None)
        if shipment.has_ended:
            self._shipments.pop(run_id, None)
            if not shipment.is_told:
                shipment.is_told = True
                self._logs.extend(shipment.log, shipment.ending)
            if not shipment.ended.done():
                shipment.ended.set_result(None)
            if not shipment.log.gone:
                self._ended[run_id] = shipment
        elif shipment.waiting() or shipment.ending or shipment.asked or not shipment.has_lease:
            self._changed[run_id] = shipment  # behind the others

    def _is_surely_lost(self, shipment: Shipment) -> bool:
        """By Redis: nobody can have ended the run, and that ending have expired by now."""
        retention_s = self._speech.retention_ms / 1000
        return self._clock() - shipment.contact < LEASE_S + retention_s

    async def _fence(self, shipment: Shipment) -> None:
        """Another worker has ended the run: our readers get that ending, unless they have one.
        Raises ``StoreAway``."""
        run_id, keys = shipment.run_id, self._link.keys
        ending = await self._link.call("HGET", keys.run(run_id), "ending")
        await self._link.call("ZREM", keys.leases, run_id)  # we may just have made one
        self._changed.pop(run_id, None)
        self._ended.pop(run_id, None)
        is_running = self._shipments.pop(run_id, None) is not None
        logger.warning("run %s was ended by another worker, which thought us dead", run_id)
        if shipment.log.gone:
            pass
        elif ending is None or shipment.is_told:
            self._logs.drop(run_id)  # whoever asks from now on is told what stands in Redis
        else:
            batch = unpack(ending)
            self._logs.extend(shipment.log, shipment.log.number(batch.events, batch.first))
        if not shipment.ended.done():
            shipment.ended.set_exception(Fenced())
            shipment.ended.exception()  # nobody may be waiting for it
        if is_running:
            self.on_fenced(run_id)
