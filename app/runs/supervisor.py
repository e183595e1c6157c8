"""Runs belong to the application, not to a request: start, follow, cancel and drain them.

A run's task moves events from the queue to the log and is the only one that writes the ending:
exactly one, under every way out. All ways out stand in ``_drive`` and ``_finish``.
"""

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from app.errors import (
    Draining,
    GatewayError,
    IdempotencyConflict,
    Internal,
    NotFound,
    Overloaded,
    RunTimeout,
)
from app.events.log import EventLog
from app.events.model import Include, RunRecord, Snapshot, Status
from app.events.queue import EventQueue
from app.llm.model import ChatModel
from app.llm.turn import Prompt, Turn
from app.runs.run import Cancelled, Outcome, Run
from app.runs.transcript import Transcript

logger = logging.getLogger(__name__)

RETRY_MS = (1000, 3000)  # EventSource's pause before it comes back: contract section 4
CANCEL_WAIT_S = 10.0  # how long a cancel waits for the end of the upstream call: section 6
ENDINGS_WAIT_S = 5.0  # how long endings that were asked for may take to be written


@dataclass(frozen=True, slots=True)
class Request:
    """What a caller asks for. ``grace_s`` None: the run goes on without readers."""

    prompt: Prompt
    include: frozenset[Include]
    grace_s: float | None
    fingerprint: str
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Stopped:
    """Answer to a cancel. ``status`` is ``running`` when the upstream call did not end in time."""

    run_id: str
    status: Status
    stopped_after_ms: int


class Model(Protocol):
    def turn(self, prompt: Prompt, queue: EventQueue) -> Turn:
        """A turn that puts what the model says on ``queue``."""

    async def answer(self, turn: Turn) -> str:
        """Ask; the finish reason, once the answer is whole. Raises ``GatewayError``."""


_: type[Model] = ChatModel  # the type checker proves the promise is kept


@dataclass(frozen=True, slots=True)
class Limits:
    run_timeout_s: float
    max_runs: int
    max_readers: int
    max_answer_bytes: int
    heartbeat_s: float


class Supervisor:
    """``tasks`` is the application's task group; every run lives in it."""

    def __init__(
        self, log: EventLog, model: Model, tasks: asyncio.TaskGroup, limits: Limits
    ) -> None:
        self._log = log
        self._model = model
        self._tasks = tasks
        self._limits = limits
        self._runs: dict[str, Run] = {}
        self._readers = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False

    async def start(self, request: Request, owner: str, request_id: str) -> RunRecord:
        """Start a run, or join the one that the idempotency key belongs to.

        Raises ``IdempotencyConflict``, ``Draining``, ``Overloaded``.
        """
        if request.idempotency_key is not None:
            holder = await self._log.holder(owner, request.idempotency_key)
            if holder is not None:
                return _same(holder, request)
        if self.draining:
            raise Draining
        if len(self._runs) >= self._limits.max_runs:
            raise Overloaded
        record = RunRecord(
            run_id=secrets.token_urlsafe(16),
            owner=owner,
            model=request.prompt.model,
            conversation_id=None,
            created_at=time.time(),
            request_id=request_id,
            include=request.include,
            grace_s=request.grace_s,
            idempotency_key=request.idempotency_key,
            fingerprint=request.fingerprint,
        )
        run = self._runs[record.run_id] = Run(record)
        self._idle.clear()
        try:
            holder = await self._log.open(record)
        except BaseException:
            self._forget(run)
            raise
        if holder is not record:
            self._forget(run)
            return _same(holder, request)
        task = self._tasks.create_task(
            self._drive(run, request.prompt), name=f"run {record.run_id}"
        )
        task.add_done_callback(lambda _: self._forget(run))  # also if it never began
        return record

    async def find(self, run_id: str, owner: str) -> Snapshot:
        """Raises ``NotFound``, also for a run of somebody else."""
        snapshot = await self._log.find(run_id)
        if snapshot is None or snapshot.record.owner != owner:
            raise NotFound
        return snapshot

    def expect_reader(self) -> None:
        """Raises ``Overloaded`` when there is no room for one more."""
        if self._readers >= self._limits.max_readers:
            raise Overloaded

    @contextmanager
    def reading(self, run_id: str) -> Iterator[None]:
        """Count a reader while it reads, also of a run that has ended."""
        run = self._runs.get(run_id)
        self._readers += 1
        if run is not None:
            run.joined()
        try:
            yield
        finally:
            self._readers -= 1
            if run is not None:
                run.left()

    async def cancel(self, run_id: str, owner: str) -> Stopped:
        """Stop a run and wait until its upstream call has ended. Raises ``NotFound``."""
        snapshot = await self.find(run_id, owner)
        run = self._runs.get(run_id)
        if run is None:
            return Stopped(run_id, snapshot.status, 0)
        began = time.monotonic()
        run.stop(Cancelled.BY_REQUEST)
        try:
            async with asyncio.timeout(CANCEL_WAIT_S):
                await asyncio.shield(run.ended)
        except TimeoutError:
            return Stopped(run_id, "running", int(CANCEL_WAIT_S * 1000))
        ended = await self._log.find(run_id)
        status = ended.status if ended else "cancelled"
        return Stopped(run_id, status, round((time.monotonic() - began) * 1000))

    async def drain(self, seconds: float) -> None:
        """Refuse new runs, let the running ones finish for ``seconds``, then end them."""
        self.draining = True
        if await self._idle_within(seconds):
            return
        for run in list(self._runs.values()):
            run.stop(Draining())
        if not await self._idle_within(ENDINGS_WAIT_S):
            logger.error("%d runs did not end when told to", len(self._runs))

    async def _idle_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def _drive(self, run: Run, prompt: Prompt) -> None:
        """All the ways out of a run: whatever happens, one ending is written and nothing lives."""
        queue = EventQueue()
        turn = self._model.turn(prompt, queue)
        transcript = Transcript(self._log, run.record, self._limits.max_answer_bytes)
        call = self._tasks.create_task(self._call(run, turn), name="upstream call")
        call.add_done_callback(lambda _: queue.close())  # also if it never began
        run.calls(call)
        loop = asyncio.get_running_loop()
        deadline = loop.call_later(self._limits.run_timeout_s, run.stop, RunTimeout())
        outcome: Outcome | None = None
        try:
            await self._follow(transcript, queue)
        except GatewayError as error:
            outcome = error
        except asyncio.CancelledError:
            outcome = Draining()  # the application goes down without having drained
        except Exception:
            logger.exception("run %s met a bug", run.record.run_id)
            outcome = Internal()
        deadline.cancel()
        await _undisturbed(self._finish(run, call, transcript, turn, outcome))

    async def _finish(
        self,
        run: Run,
        call: asyncio.Task[Outcome],
        transcript: Transcript,
        turn: Turn,
        outcome: Outcome | None,
    ) -> None:
        try:
            if not call.done():
                run.stop(Internal())
                await asyncio.wait({call}, timeout=ENDINGS_WAIT_S)
            async with asyncio.timeout(ENDINGS_WAIT_S):
                await transcript.end(outcome or _outcome(run, call), turn.usage())
        except Exception:
            logger.exception("run %s has no ending", run.record.run_id)

    async def _follow(self, transcript: Transcript, queue: EventQueue) -> None:
        """Move events from the queue to the log until the upstream call has ended."""
        retry_ms = random.randint(*RETRY_MS)
        await transcript.begin(
            heartbeat_ms=round(self._limits.heartbeat_s * 1000), retry_ms=retry_ms
        )
        queue.hand_over = transcript.say_now
        while events := await queue.take():
            await transcript.extend(events)

    async def _call(self, run: Run, turn: Turn) -> Outcome:
        """Ask the model; answers the finish reason, or why there is none."""
        try:
            return await self._model.answer(turn)
        except GatewayError as error:
            logger.warning(
                "run %s, request %s: %s (%s)",
                run.record.run_id,
                run.record.request_id,
                error.code,
                error.__cause__ or "no cause told",
            )
            return error
        except Exception:
            logger.exception("run %s met a bug while it asked the model", run.record.run_id)
            return Internal()

    def _forget(self, run: Run) -> None:
        run.end()
        del self._runs[run.record.run_id]
        if not self._runs:
            self._idle.set()


def _outcome(run: Run, call: asyncio.Task[Outcome]) -> Outcome:
    """An answer that is whole stays so; else why we stopped goes before what broke by it."""
    told = Draining() if call.cancelled() else call.result()
    return told if isinstance(told, str) else run.stop_reason or told


async def _undisturbed(last_words: Coroutine[Any, Any, None]) -> None:
    """Await to the end, however often the task is cancelled meanwhile."""
    task = asyncio.ensure_future(last_words)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(task)


def _same(holder: RunRecord, request: Request) -> RunRecord:
    if holder.fingerprint != request.fingerprint:
        raise IdempotencyConflict
    return holder
