"""One run of this worker on its way to Redis: what is to be said of it, as commands. Pure.

The run's log lies in memory, so nothing is queued: what is to be sent is what stands behind the
last number that Redis has.
"""

import asyncio
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from app.events.model import Done, Entry, RunRecord
from app.events.packed import pack, pack_record
from app.events.redis_keys import LEASE_S, Keys
from app.events.redis_scripts import APPEND, CLAIM, KEEP, LEASE, OPEN
from app.events.redis_wire import Command
from app.events.runlog import RunLog

BATCH_EVENTS = 64  # in one entry of the stream
BATCH_BYTES = 256 * 1024  # of frames; an event that takes more has an entry of its own
LEASE_MS = round(LEASE_S * 1000)


class Shipment:
    """``acked``: the last number that Redis has. ``contact``: loop time at which Redis last said
    that the run is ours. ``asked``: what other workers ask with. ``has_lease``: it needs no new
    one. ``ending``: readers do not see it before Redis has it, or ``is_told``. ``refusals``: how
    often Redis refused this run alone."""

    __slots__ = (
        "acked",
        "asked",
        "contact",
        "ended",
        "ending",
        "epoch",
        "has_lease",
        "is_told",
        "log",
        "refusals",
    )

    def __init__(self, log: RunLog, now: float) -> None:
        self.log = log
        self.epoch = 1
        self.acked = 0
        self.contact = now
        self.has_lease = True
        self.asked: list[str] = []
        self.ending: list[Entry] = []
        self.is_told = False
        self.refusals = 0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def run_id(self) -> str:
        return self.log.record.run_id

    @property
    def frees_key(self) -> bool:
        """Another run may have its idempotency key by now."""
        done = self.ending[-1].event if self.ending else None
        return isinstance(done, Done) and done.frees_key

    @property
    def has_ended(self) -> bool:
        """Redis has all of it."""
        return bool(self.ending) and self.acked >= self.ending[-1].seq

    def waiting(self) -> list[Entry]:
        """What Redis does not have, less the ending."""
        entries = self.log.entries
        return entries[self.acked : len(entries) - len(self.ending) if self.is_told else None]


@dataclass(frozen=True, slots=True)
class Speech:
    """Makes the commands. ``alive_ms``, ``retention_ms``: how long a run's keys live while it runs
    and once it has ended."""

    keys: Keys
    worker: str
    alive_ms: int
    retention_ms: int

    @classmethod
    def of(cls, keys: Keys, worker: str, retention_s: float, run_timeout_s: float) -> Self:
        """No run outlives its timeout for long, so none expires while it runs."""
        alive_s = run_timeout_s + retention_s + 3 * LEASE_S
        return cls(keys, worker, round(alive_s * 1000), round(retention_s * 1000))

    def opening(self, shipment: Shipment) -> list[Command]:
        """The lease first: a run without one would never be missed."""
        record = shipment.log.record
        commands = [
            self.lease(record.run_id),
            OPEN.command(
                [self.keys.run(record.run_id)],
                pack_record(record),
                shipment.epoch,
                self.worker,
                self.alive_ms,
            ),
        ]
        again = shipment.epoch > 1 and not shipment.frees_key  # Redis has lost the key, too
        if record.idempotency_key is not None and again:
            key = self.keys.idempotency(record.owner, record.idempotency_key)
            commands.append(CLAIM.command([key], record.run_id, self.alive_ms, ""))
        return commands

    def undoing(self, record: RunRecord) -> list[Command]:
        """Of a run that has not come to be."""
        commands: list[Command] = [
            ("DEL", self.keys.run(record.run_id)),
            ("ZREM", self.keys.leases, record.run_id),
        ]
        if record.idempotency_key is not None:
            key = self.keys.idempotency(record.owner, record.idempotency_key)
            commands.append(KEEP.command([key], record.run_id, 0))
        return commands

    def lease(self, run_id: str) -> Command:
        return LEASE.command([self.keys.leases], 1, LEASE_MS, run_id)

    def news(self, shipment: Shipment, room: float = math.inf) -> Iterator[tuple[Command, int]]:
        """What is to be said of a run now, at least one append; with the bytes of each batch, -1
        for what is no append. ``room``: bytes of batches, about."""
        waiting = shipment.waiting()
        at = 0
        while at < len(waiting):
            if room <= 0:
                return
            batch = _batch(waiting, at)
            at += len(batch)
            command, size = self._append(shipment, batch)
            room -= size
            yield command, size
        if shipment.ending:
            yield from self._end(shipment)
            return
        if not waiting or shipment.asked:
            yield self._look(shipment, waiting[-1].seq if waiting else shipment.acked)
        if not shipment.has_lease:
            shipment.has_lease = True
            yield self.lease(shipment.run_id), -1

    def _end(self, shipment: Shipment) -> Iterator[tuple[Command, int]]:
        """The key first: who is told the ending may ask again with it at once."""
        record = shipment.log.record
        if record.idempotency_key is not None:
            key = self.keys.idempotency(record.owner, record.idempotency_key)
            live_ms = 0 if shipment.frees_key else self.retention_ms
            yield KEEP.command([key], record.run_id, live_ms), -1
        yield self._append(shipment, shipment.ending)
        yield ("ZREM", self.keys.leases, record.run_id), -1

    def _append(self, shipment: Shipment, batch: Sequence[Entry]) -> tuple[Command, int]:
        first = batch[0].seq
        blob = pack(shipment.epoch, first, [entry.event for entry in batch])
        is_ending = batch is shipment.ending
        live_ms: int | str = self.alive_ms if first == 1 else ""
        live_ms = self.retention_ms if is_ending else live_ms
        command = self._said(shipment, first, batch[-1].seq, blob, live_ms, int(is_ending), "")
        return command, len(blob)

    def _look(self, shipment: Shipment, last: int) -> tuple[Command, int]:
        """An append of nothing behind number ``last``: whether the run is still ours."""
        asked, shipment.asked = " ".join(shipment.asked), []
        return self._said(shipment, last + 1, last, b"", "", 0, asked), 0

    def _said(self, shipment: Shipment, *what: str | bytes | int) -> Command:
        run_id = shipment.run_id
        of_the_run = [self.keys.run(run_id), self.keys.log(run_id)]
        return APPEND.command(of_the_run, self.keys.events(run_id), shipment.epoch, *what)


def _batch(entries: Sequence[Entry], at: int) -> Sequence[Entry]:
    """The next ones that make one entry of the stream."""
    last, size = at, 0
    while last < len(entries) and last - at < BATCH_EVENTS and size < BATCH_BYTES:
        size += len(entries[last].frame)
        last += 1
    return entries[at:last]
