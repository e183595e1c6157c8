"""One run from its start event to its ending: exactly one, under every way out.

A run's task moves events from the queue to the log and is the only one that writes the ending. All
ways out stand in ``drive`` and ``_finish``. Where another worker has written it, because this one
was thought dead, that ending stands and nothing more is written or stored.
"""

import asyncio
import logging
import random
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from app.errors import Draining, GatewayError, Internal, RunTimeout
from app.events.log import EventLog, Fenced
from app.events.queue import EventQueue
from app.llm.model import ChatModel
from app.llm.reply import Reply
from app.llm.turn import Prompt
from app.runs.exchange import Exchange, Exchanges
from app.runs.run import Cancelled, Lost, Outcome, Run
from app.runs.transcript import Transcript

logger = logging.getLogger(__name__)

RETRY_MS = (1000, 3000)  # EventSource's pause before it comes back: contract section 4
ENDINGS_WAIT_S = 5.0  # how long runs that were told to end may take


class Model(Protocol):
    def reply(self, prompt: Prompt, queue: EventQueue) -> Reply:
        """A reply that puts what the model says on ``queue``."""

    async def answer(self, reply: Reply) -> str:
        """Ask; the finish reason, once the answer is whole. Raises ``GatewayError``."""


_: type[Model] = ChatModel  # the type checker proves the promise is kept


@dataclass(frozen=True, slots=True)
class Driver:
    """What all runs share. ``tasks`` is the application's task group; every run lives in it."""

    log: EventLog
    model: Model
    exchanges: Exchanges
    tasks: asyncio.TaskGroup
    run_timeout_s: float
    max_answer_bytes: int
    heartbeat_s: float

    async def drive(self, run: Run, exchange: Exchange) -> None:
        """Whatever happens, one ending is written and nothing lives on."""
        queue = EventQueue()
        reply = self.model.reply(exchange.prompt, queue)
        transcript = Transcript(self.log, run.record, self.max_answer_bytes)
        call = self.tasks.create_task(self._call(run, exchange, reply), name="upstream call")
        call.add_done_callback(lambda _: queue.close())  # also if it never began
        run.calls(call)
        run.account.asks(reply)
        loop = asyncio.get_running_loop()
        deadline = loop.call_later(self.run_timeout_s, run.stop, RunTimeout())
        outcome: Outcome | None = None
        try:
            await self._follow(transcript, queue)
        except GatewayError as error:
            outcome = error
        except Fenced:
            run.stop(Lost.FENCED)
        except asyncio.CancelledError:
            outcome = Draining()  # the application goes down without having drained
        except Exception:
            logger.exception("run %s met a bug", run.record.run_id)
            outcome = Internal()
        deadline.cancel()
        await _undisturbed(self._finish(run, call, transcript, exchange, reply, outcome))

    async def _finish(
        self,
        run: Run,
        call: asyncio.Task[Outcome],
        transcript: Transcript,
        exchange: Exchange,
        reply: Reply,
        outcome: Outcome | None,
    ) -> None:
        try:
            if not call.done():
                run.stop(Internal())
                await asyncio.wait({call}, timeout=ENDINGS_WAIT_S)
            run.account.close()  # who reads the ending and asks again is to find room
            if isinstance(run.stop_reason, Lost):
                return _say_lost(run)
            ending = transcript.ending(outcome or _outcome(call, run.stop_reason), reply)
            run.is_ending = True
            try:
                await self.exchanges.keep_answer(exchange, transcript.answer, ending)
            except Exception:  # readers get their ending all the same
                logger.exception("the answer of run %s is not stored", run.record.run_id)
            await transcript.end(ending)
        except Fenced:
            _say_lost(run)
        except Exception:
            logger.exception("run %s has no ending", run.record.run_id)

    async def _follow(self, transcript: Transcript, queue: EventQueue) -> None:
        """Move events from the queue to the log until the upstream call has ended."""
        retry_ms = random.randint(*RETRY_MS)
        await transcript.begin(heartbeat_ms=round(self.heartbeat_s * 1000), retry_ms=retry_ms)
        queue.hand_over = transcript.say_now
        while events := await queue.take():
            await transcript.extend(events)

    async def _call(self, run: Run, exchange: Exchange, reply: Reply) -> Outcome:
        """Ask the model; answers the finish reason, or why there is none."""
        try:
            await self.exchanges.keep_question(exchange)
            return await self.model.answer(reply)
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


def _outcome(call: asyncio.Task[Outcome], stopped: Cancelled | GatewayError | None) -> Outcome:
    """An answer that is whole stays so; else why we stopped goes before what broke by it."""
    told = Draining() if call.cancelled() else call.result()
    return told if isinstance(told, str) else stopped or told


def _say_lost(run: Run) -> None:
    logger.warning("run %s is given up: another worker has ended it", run.record.run_id)


async def _undisturbed(last_words: Coroutine[Any, Any, None]) -> None:
    """Await to the end, however often the task is cancelled meanwhile."""
    task = asyncio.ensure_future(last_words)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(task)
