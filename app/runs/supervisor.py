"""Runs belong to the application, not to a request: start, follow, cancel and drain them."""

import asyncio
import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from app.access.quotas import MemoryQuotas, Quotas
from app.errors import (
    ConversationBusy,
    Draining,
    IdempotencyConflict,
    NotFound,
    Overloaded,
    RateLimited,
)
from app.events.model import RunRecord, Snapshot, Status
from app.runs.account import Account
from app.runs.drive import ENDINGS_WAIT_S, Driver
from app.runs.elsewhere import Elsewhere
from app.runs.neighbours import Alone, Neighbours
from app.runs.request import Request
from app.runs.run import Cancelled, Run

logger = logging.getLogger(__name__)

CANCEL_WAIT_S = 10.0  # how long a cancel waits for the end of the upstream call: section 6


@dataclass(frozen=True, slots=True)
class Stopped:
    """Answer to a cancel. ``status`` is ``running`` when the upstream call did not end in time."""

    run_id: str
    status: Status
    stopped_after_ms: int


class Supervisor:
    def __init__(
        self,
        driver: Driver,
        *,
        max_runs: int,
        max_readers: int,
        neighbours: Neighbours | None = None,
        quotas: Quotas | None = None,
    ) -> None:
        neighbours = neighbours or Alone()
        self._quotas = quotas or MemoryQuotas()
        self._driver = driver
        self._log = driver.log
        self._exchanges = driver.exchanges
        self._max_runs = max_runs
        self._max_readers = max_readers
        self._runs: dict[str, Run] = {}
        self._talking: dict[tuple[str, str], Run] = {}  # by owner and conversation
        self._opening: dict[tuple[str, str | None], Run] = {}  # by owner and idempotency key
        self._look = neighbours.look
        self._elsewhere = Elsewhere(driver.log, neighbours, self._runs)
        self._readers = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False
        self.has_let_go = False  # readers of other workers' runs shall go to another worker

    async def start(self, request: Request, owner: str, request_id: str) -> RunRecord:
        """Start a run, or join the one that the idempotency key belongs to.

        Raises ``IdempotencyConflict``, ``ConversationBusy``, ``NotFound``, ``RateLimited``,
        ``Draining``, ``Overloaded``, ``StoreAway``.
        """
        is_checked = request.if_busy != "interrupt" or request.conversation_id is None
        while True:
            if (key := request.idempotency_key) is not None:
                holder = await self._log.holder(owner, key)
                if holder is not None:
                    return _same(holder, request)
                if (twin := self._opening.get((owner, key))) is not None:
                    await twin.opened.wait()  # it is there to be joined now, or never will be
                    continue
            if self.draining:
                raise Draining
            if len(self._runs) >= self._max_runs:
                raise Overloaded("The gateway makes as many answers as it may at once.")
            self._exchanges.refuse(request)
            if not is_checked:
                await self._check(request, owner)
                is_checked = True
                continue
            talking = self._talking.get((owner, request.conversation_id or ""))
            if talking is None:
                break
            await _make_way(talking, request)
        run = self._enter(request, owner, request_id)
        try:
            holder = await self._elsewhere.claim(run, request, CANCEL_WAIT_S)
            if holder is run.record:
                exchange = await self._exchanges.prepare(request, run.record)
                await run.account.open()
                holder = await self._log.open(run.record)
        except BaseException:
            self._forget(run)
            raise
        finally:
            self._opening.pop((owner, request.idempotency_key), None)
        if holder is not run.record:
            self._forget(run)
            return _same(holder, request)
        run.opened.set()
        task = self._driver.tasks.create_task(
            self._driver.drive(run, exchange), name=f"run {run.record.run_id}"
        )
        task.add_done_callback(lambda _: self._forget(run))  # also if it never began
        return run.record

    async def _check(self, request: Request, owner: str) -> None:
        """Nothing is to be interrupted for a run that cannot begin. Raises as ``start``."""
        if request.parent_message_id is not None:  # else what talks there is enough to go on with
            await self._exchanges.history(request, owner)
        await self._elsewhere.talker(owner, request.conversation_id or "")
        for standing in await self._quotas.standing(owner, request.limits):
            if standing.policy.name == "tokens" and standing.remaining == 0:
                raise RateLimited(f"{standing.policy.quota} tokens per day", standing.resets_s or 1)

    def _enter(self, request: Request, owner: str, request_id: str) -> Run:
        record = RunRecord(
            run_id=secrets.token_urlsafe(16),
            owner=owner,
            model=request.entry.name,
            conversation_id=request.conversation_id or secrets.token_urlsafe(16),
            created_at=time.time(),
            request_id=request_id,
            include=request.include,
            grace_s=request.grace_s,
            idempotency_key=request.idempotency_key,
            fingerprint=request.fingerprint,
            answer_id=secrets.token_urlsafe(16),
        )
        account = Account(self._quotas, record, request.limits)
        run = self._runs[record.run_id] = Run(record, self._look, account)
        self._talking[owner, record.conversation_id] = run
        if record.idempotency_key is not None:
            self._opening[owner, record.idempotency_key] = run
        self._idle.clear()
        return run

    async def find(self, run_id: str, owner: str, reaching: int = 0) -> Snapshot:
        """As ``EventLog.find``. Raises ``NotFound``, also for a run of somebody else;
        ``StoreAway``."""
        snapshot = await self._log.find(run_id, reaching)
        if snapshot is None or snapshot.record.owner != owner:
            raise NotFound
        return snapshot

    def expect_reader(self) -> None:
        """Raises ``Overloaded`` when there is no room for one more."""
        if self._readers >= self._max_readers:
            raise Overloaded("The gateway has as many readers as it may have at once.")

    async def announce(self, run_id: str) -> None:
        """A reader is about to begin: before it is told so, whoever counts readers can know."""
        await self._elsewhere.announce(run_id)

    @contextmanager
    def reading(self, run_id: str) -> Iterator[None]:
        """Count a reader while it reads, also of a run that has ended."""
        run = self._runs.get(run_id)
        self._readers += 1
        if run is not None:
            run.joined()
        else:
            self._elsewhere.reads(run_id, yes=True)
        try:
            yield
        finally:
            self._readers -= 1
            if run is not None:
                run.left()
            else:
                self._elsewhere.reads(run_id, yes=False)

    async def cancel(self, run_id: str, owner: str) -> Stopped:
        """Stop a run and wait until its upstream call has ended. Raises ``NotFound``,
        ``StoreAway``."""
        snapshot = await self.find(run_id, owner)
        run = self._runs.get(run_id)
        if run is None and snapshot.done is not None:
            return Stopped(run_id, snapshot.status, 0)
        began = time.monotonic()
        status: Status = "running"
        if run is None:
            status = await self._elsewhere.stop(snapshot, CANCEL_WAIT_S)
        else:
            run.stop(Cancelled.BY_REQUEST)
            if await run.has_ended(CANCEL_WAIT_S):
                ended = await self._log.find(run_id)
                status = ended.status if ended else "cancelled"
        return Stopped(run_id, status, round((time.monotonic() - began) * 1000))

    async def silence(self, conversation_id: str, owner: str) -> None:
        """Cancel what runs in a conversation. Raises ``ConversationBusy`` if it does not end,
        ``StoreAway``."""
        talking = self._talking.get((owner, conversation_id))
        if talking is None:
            await self._elsewhere.silence(conversation_id, owner, CANCEL_WAIT_S)
        else:
            talking.stop(Cancelled.BY_REQUEST)
            if not await talking.has_ended(CANCEL_WAIT_S):
                raise ConversationBusy

    async def drain(self, seconds: float) -> None:
        """Refuse new runs, let the running ones finish for ``seconds``, then end them."""
        self.draining = True
        if not await self._idle_within(seconds):
            self._elsewhere.hasten()
            for run in list(self._runs.values()):
                run.stop(Draining())
            if not await self._idle_within(ENDINGS_WAIT_S):
                logger.error("%d runs did not end when told to", len(self._runs))
        self.has_let_go = True
        self._elsewhere.let_go()

    async def _idle_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def _forget(self, run: Run) -> None:
        run.account.close()
        run.end()
        self._elsewhere.leave(run.record)
        del self._runs[run.record.run_id]
        del self._talking[run.record.owner, run.record.conversation_id]
        if not self._runs:
            self._idle.set()


async def _make_way(talking: Run, request: Request) -> None:
    """``talking`` runs in the conversation of ``request``: one that is about to end is waited for.
    Raises ``ConversationBusy``."""
    if request.if_busy == "interrupt":
        talking.stop(Cancelled.BY_REQUEST)
    elif not talking.is_ending and talking.stop_reason is None:
        raise ConversationBusy
    if not await talking.has_ended(CANCEL_WAIT_S):
        raise ConversationBusy


def _same(holder: RunRecord, request: Request) -> RunRecord:
    if holder.fingerprint != request.fingerprint:
        raise IdempotencyConflict
    return holder
