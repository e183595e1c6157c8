"""The event log that workers share: Redis Streams.

The worker that makes a run keeps its log in memory, where its own readers read it, and ships it to
Redis; readers on other workers read a mirror that is filled from there. So a token costs its own
readers no round trip, and a stream goes on while Redis is away.

Numbers are explicit, in Redis too (``<epoch>-<number>``): an append that comes twice is refused
instead of doubled, and one of a worker that was thought dead is refused because whoever ended its
run has raised the epoch.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import NoReturn

from msgspec import structs

from app.errors import StoreAway
from app.events.log import EventLog, Fenced, ImmediateLog, Reader
from app.events.model import Done, Error, Event, RunRecord, Snapshot
from app.events.packed import unpack, unpack_record
from app.events.redis_channel import Channel
from app.events.redis_link import Link
from app.events.redis_lost import LostRuns
from app.events.redis_mirror import Mirrors
from app.events.redis_scripts import CLAIM
from app.events.redis_shipment import Speech
from app.events.redis_writer import Shipper
from app.events.run_logs import RunLogs
from app.events.runlog import LogReader, RunLog

# A reader may have seen more than Redis has when its worker broke. How long we ask the writer.
ASK_S = 2.0
ASK_AGAIN_S = 0.2
LOOK_S = 0.02  # between two looks for its answer


class RedisEventLog:
    """``worker``: the id of this process, new with each start."""

    def __init__(
        self,
        link: Link,
        channel: Channel,
        worker: str,
        *,
        memory_bytes: int,
        retention_s: float,
        run_timeout_s: float,
    ) -> None:
        self.link = link
        self.worker = worker
        self._channel = channel
        self._logs = RunLogs(
            memory_bytes=memory_bytes, retention_s=retention_s, dropped=self._dropped
        )
        self._speech = Speech.of(link.keys, worker, retention_s, run_timeout_s)
        self._shipper = Shipper(link, self._logs, self._speech)
        self._mirrors = Mirrors(link, channel, memory_bytes=memory_bytes)
        self.lost = LostRuns(link, self._speech)
        self._mirrors.on_vanished = self.lost.vanished

    # -- EventLog ---------------------------------------------------------------------------

    async def holder(self, owner: str, idempotency_key: str) -> RunRecord | None:
        """Raises ``StoreAway``."""
        run_id = await self.link.call("GET", self.link.keys.idempotency(owner, idempotency_key))
        return None if run_id is None else await self._record(run_id.decode())

    async def open(self, record: RunRecord) -> RunRecord:
        """Raises ``StoreAway`` too."""
        log = self._logs.open(record)
        try:
            await self._shipper.open(log)
            held = await self._claim(record)
            if held is not None:
                await self._shipper.withdraw(log)
        except BaseException:
            self._shipper.undo(log)
            self._logs.drop(record.run_id)
            raise
        if held is not None:
            self._logs.drop(record.run_id)
            return held
        return record

    async def append(self, run_id: str, events: Sequence[Event]) -> None:
        log = self._ours(run_id)
        if type(events[-1]) is Done:
            await self._shipper.end(run_id, log.number(events))
        else:
            self.append_now(run_id, events)

    def append_now(self, run_id: str, events: Sequence[Event]) -> None:
        log = self._ours(run_id)
        self._logs.extend(log, log.number(events))
        self._shipper.changed(run_id)

    async def find(self, run_id: str, reaching: int = 0) -> Snapshot | None:
        """Raises ``StoreAway``, also while a run may be missing only because Redis was restarted
        empty and its worker has not written it again yet."""
        if (log := self._logs.get(run_id)) is not None:
            return log.snapshot()
        snapshot = await self._look(run_id)
        if snapshot is None:
            if self.link.unsettled():
                raise StoreAway
            return None
        if reaching <= snapshot.last_seq or snapshot.done is not None:
            return snapshot
        return await self._ask(run_id, reaching)

    def read(self, run_id: str, after: int) -> Reader:
        """Raises no ``LogGone``: a run that is not ours may be anywhere."""
        if (log := self._logs.get(run_id)) is not None:
            return LogReader(log, after)
        return self._mirrors.read(run_id, after)

    # -- life -------------------------------------------------------------------------------

    @property
    def bytes(self) -> int:
        return self._logs.bytes + self._mirrors.bytes

    def when_fenced(self, callback: Callable[[str], None]) -> None:
        """``callback`` is told of runs of ours that another worker has ended."""
        self._shipper.on_fenced = callback

    def let_go(self) -> None:
        """Readers of other workers' runs shall go to another worker."""
        self._mirrors.let_go()

    def hasten(self) -> None:
        """We are about to go: endings do not wait long for Redis from now on."""
        self._shipper.hasten()

    async def run(self) -> NoReturn:
        """For ever: all that works behind the log."""
        self._channel.subscribe(self.link.keys.asked(self.worker), _Asked(self._shipper))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._shipper.run(), name="ship events to Redis")
            tasks.create_task(self._shipper.renew(), name="renew leases")
            tasks.create_task(self._mirrors.run(), name="mirror runs of other workers")
        raise AssertionError("they end only when cancelled")

    async def drain(self, seconds: float) -> None:
        """At exit, once ``run`` has ended: ship what is left."""
        await self._shipper.drain(seconds)

    # ---------------------------------------------------------------------------------------

    def _ours(self, run_id: str) -> RunLog:
        """Raises ``Fenced``."""
        log = self._logs.get(run_id)
        if log is None or run_id not in self._shipper:
            raise Fenced
        return log

    async def _claim(self, record: RunRecord) -> RunRecord | None:
        """Who holds the run's idempotency key already. Raises ``StoreAway``."""
        if record.idempotency_key is None:
            return None
        key = self.link.keys.idempotency(record.owner, record.idempotency_key)
        stale = ""
        while True:
            answer = await self.link.script(
                CLAIM, [key], record.run_id, self._speech.alive_ms, stale
            )
            holder = answer.decode()
            if holder == record.run_id:
                return None
            if held := await self._record(holder):
                return held
            stale = holder  # its log is gone

    async def _record(self, run_id: str) -> RunRecord | None:
        if (log := self._logs.get(run_id)) is not None:
            return log.record
        blob = await self.link.call("HGET", self.link.keys.run(run_id), "record")
        return None if blob is None else unpack_record(blob)

    async def _look(self, run_id: str) -> Snapshot | None:
        fields = ("record", "last", "ending")
        record, last, ending = await self.link.call("HMGET", self.link.keys.run(run_id), *fields)
        if record is None:
            return None
        error, done = None, None
        for event in unpack(ending).events if ending is not None else ():
            if isinstance(event, Error):
                error = event
            elif isinstance(event, Done):
                done = event
        return Snapshot(unpack_record(record), int(last), error, done)

    async def _writer_of(self, run_id: str) -> str | None:
        """The worker that makes, or made, a run. Raises ``StoreAway``."""
        worker: bytes | None = await self.link.call("HGET", self.link.keys.run(run_id), "writer")
        return None if worker is None else worker.decode()

    async def _ask(self, run_id: str, reaching: int) -> Snapshot | None:
        """A reader is ahead of Redis, if its cursor is good: its worker had told it more than it
        had shipped. A worker that lives ships the rest now; of one that died nobody can say."""
        asked = secrets.token_urlsafe(6)
        worker = await self._writer_of(run_id)
        clock = asyncio.get_running_loop().time
        until, again = clock() + ASK_S, 0.0
        while True:
            if worker is not None and clock() >= again:  # it may not hear, or note another's later
                channel = self.link.keys.asked(worker)
                await self.link.call("PUBLISH", channel, f"{run_id} {asked}")
                again = clock() + ASK_AGAIN_S
            await asyncio.sleep(LOOK_S)
            told = await self.link.call("HGET", self.link.keys.run(run_id), "asked")
            snapshot = await self._look(run_id)
            if snapshot is None or snapshot.done is not None or reaching <= snapshot.last_seq:
                return snapshot
            if told is not None and asked in told.decode().split():
                return snapshot  # all is there
            if clock() >= until:
                return structs.replace(snapshot, lags=True)

    def _dropped(self, log: RunLog) -> None:
        self._shipper.forget(log)


class _Asked:
    """Hears which of our runs another worker asks about."""

    def __init__(self, shipper: Shipper) -> None:
        self._shipper = shipper

    def subscribed(self) -> None:
        pass  # who asks asks no longer than some seconds

    def heard(self, message: bytes) -> None:
        run_id, _, asked = message.decode(errors="replace").partition(" ")
        self._shipper.answer(run_id, asked)

    def deaf(self) -> None:
        pass


_: type[EventLog] = RedisEventLog  # the type checker proves the promises are kept
__: type[ImmediateLog] = RedisEventLog
