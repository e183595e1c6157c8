"""Runs whose worker is gone get an ending, and what they said is stored."""

import asyncio
import logging
import random
import time
from collections.abc import Iterator, Sequence
from typing import NoReturn, Protocol

from app.conversations.journal import Journal
from app.conversations.model import Message, Write
from app.errors import StoreAway, WorkerLost
from app.events.model import Done, Draft, Error, Event, Reasoning, RunRecord, Token, Usage
from app.events.redis_lost import Lost, LostRuns
from app.llm.turn import estimated_tokens
from app.runs.answer import Answer

logger = logging.getLogger(__name__)

LOOK_S = 2.0
AT_ONCE = 4  # runs that are rescued side by side: half of the connections to Redis


class Abandoned(Protocol):
    """See ``LostRuns``."""

    async def overdue(self) -> Sequence[str]: ...

    async def whole(self, run_id: str) -> Lost | None: ...

    async def take_over(self, lost: Lost, ending: Sequence[Event]) -> bool: ...


_: type[Abandoned] = LostRuns


class Rescue:
    def __init__(self, abandoned: Abandoned, journal: Journal) -> None:
        self._abandoned = abandoned
        self._journal = journal

    async def run(self) -> NoReturn:
        """For ever: look for such runs and end them."""
        while True:
            if not await self._look():
                await asyncio.sleep(LOOK_S)

    async def _look(self) -> int:
        """How many were rescued: there may be more."""
        try:
            found = list(await self._abandoned.overdue())
        except StoreAway:
            return 0
        except Exception:
            logger.exception("looking for runs of dead workers met a bug")
            return 0
        random.shuffle(found)  # other workers find them as well: not all of us begin with the same
        left = iter(found)
        async with asyncio.TaskGroup() as tasks:
            hands = [tasks.create_task(self._work(left)) for _ in range(min(AT_ONCE, len(found)))]
        return sum(hand.result() for hand in hands)

    async def _work(self, run_ids: Iterator[str]) -> int:
        count = 0
        for run_id in run_ids:
            try:
                count += await self._rescue(run_id)
            except StoreAway:
                break
            except Exception:
                logger.exception("run %s of a dead worker could not be ended", run_id)
        return count

    async def _rescue(self, run_id: str) -> bool:
        """Whether it was us."""
        lost = await self._abandoned.whole(run_id)
        if lost is None:
            return False
        done = Done("failed", _usage(lost.events), time.time(), WorkerLost.retryable)
        error = Error.because(WorkerLost(), lost.record.request_id)
        if not await self._abandoned.take_over(lost, [error, done]):
            return False
        logger.warning("run %s was ended in place of its worker, which is gone", run_id)
        self._journal.keep_later(Write((_answer(lost.record, lost.events, done),), is_lost=True))
        return True


def _usage(events: Sequence[Event]) -> Usage:
    """Of what was said, as ``Turn`` estimates it. What was asked is known to the dead one only."""
    said = [event.text for event in events if isinstance(event, Token | Reasoning | Draft)]
    answered = max(len(said), estimated_tokens("".join(said)))
    return Usage(0, answered, answered, estimated=True)


def _answer(record: RunRecord, events: Sequence[Event], done: Done) -> Message:
    answer = Answer()
    for event in events:
        answer.gather(event)
    return Message(
        id=record.answer_id,
        conversation_id=record.conversation_id,
        parent_id=None,  # that is stored already
        role="assistant",
        text=answer.text,
        status=done.status,
        created_at=record.created_at,
        run_id=record.run_id,
        model=record.model,
        usage=done.usage,
        reasoning=answer.reasoning,
        steps=tuple(answer.steps),
    )
