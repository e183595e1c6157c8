"""The way from runs to the archive: a bounded queue, so that no stream waits for a database.

What waits is written in the order in which it came, all in one transaction. It leaves the queue
when it is known to be stored and not before, so whatever breaks or is cancelled, the same write is
tried again; storing twice changes nothing.
"""

import asyncio
import logging
import random
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import accumulate, islice, takewhile
from typing import NoReturn

from app.conversations.model import Message, Write
from app.conversations.store import Archive, Unavailable

logger = logging.getLogger(__name__)

MIB = 1024 * 1024
# A question is stored before the model is asked; a database that takes longer must not keep
# people waiting. Seconds.
QUESTION_WAIT_S = 2.0
# An answer is stored before its ending is told, or a gateway that is killed just then would have
# told of an answer that nobody finds again. Seconds.
ANSWER_WAIT_S = 0.5
SETTLE_WAIT_S = 2.0
# An answer has time: others that end meanwhile share its transaction. A question takes all along.
LINGER_S = 0.02
# A transaction costs a millisecond of CPU, with one question in it or with ten. So beyond a burst
# there is one for each ``LINGER_S`` only, and questions share them.
BURST = 10
# The first pause after a failure and the longest, each with full jitter: gateways that lost the
# same database do not come back all at once. Seconds.
RETRY_S = (0.1, 5.0)
# For one transaction. After an hour without a database all that waits would never be done in time.
BATCH_BYTES = 4 * MIB
_WRITE_BYTES = 2048  # a write without its texts: its structs and ids


class Pending:
    """A write that waits. ``was_tried``: stored or not, the archive has said something."""

    __slots__ = ("bytes", "conversation_id", "was_tried", "write")

    def __init__(self, write: Write) -> None:
        self.write = write
        self.conversation_id = write.messages[0].conversation_id
        self.bytes = _WRITE_BYTES + sum(map(sys.getsizeof, _texts(write.messages)))
        self.was_tried = False


class Journal:
    """``max_bytes``: of memory, about, that what waits may take before it ``is_full``."""

    def __init__(self, archive: Archive, max_bytes: int = 64 * MIB) -> None:
        self._archive = archive
        self._max_bytes = max_bytes
        self._waiting: deque[Pending] = deque()
        self._bytes = 0
        self._in_conversation: Counter[str] = Counter()
        self._failures = 0  # in a row
        self._has_work = asyncio.Event()
        self._hurry = asyncio.Event()
        self._stepped = asyncio.Event()  # set and replaced after each try
        self.trouble: str | None = None
        """Why nothing can be written just now, in a word or two."""

    @property
    def is_full(self) -> bool:
        """No new run may begin: what it says could not be kept."""
        return self._bytes > self._max_bytes

    async def keep(self, write: Write) -> None:
        """For a question. Returns when it is stored; or after ``QUESTION_WAIT_S`` or a failure,
        and then it is tried again later."""
        pending = self._add(write)
        self._hurry.set()
        await self._until_tried(pending, QUESTION_WAIT_S)

    async def keep_together(self, write: Write) -> None:
        """For an answer: as ``keep``, but it lingers, and waits for ``ANSWER_WAIT_S``."""
        await self._until_tried(self._add(write), ANSWER_WAIT_S)

    def keep_later(self, write: Write) -> None:
        """For what another write follows that is waited for."""
        self._add(write)

    async def settled(self, conversation_id: str) -> None:
        """Wait until all of a conversation is stored, so that who reads it finds what this process
        wrote. Raises ``Unavailable`` after ``SETTLE_WAIT_S``."""
        if conversation_id not in self._in_conversation:
            return
        self._hurry.set()
        try:
            async with asyncio.timeout(SETTLE_WAIT_S):
                while conversation_id in self._in_conversation:
                    await self._stepped.wait()
        except TimeoutError:
            raise Unavailable(self.trouble or "slow") from None

    async def run(self) -> NoReturn:
        """Write what comes, until cancelled, which it may be at any moment."""
        clock = asyncio.get_running_loop().time
        due = 0.0  # when the transactions so far would have begun, one for each ``LINGER_S``
        while True:
            await self._has_work.wait()
            if not self._hurry.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(LINGER_S):
                        await self._hurry.wait()
            if (early_s := due - BURST * LINGER_S - clock()) > 0:
                await asyncio.sleep(early_s)
            due = max(due, clock()) + LINGER_S
            await self._step()

    async def drain(self, seconds: float) -> None:
        """At exit, once ``run`` has ended: try for ``seconds`` to write what is left, then log
        what is lost."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._waiting:
                    await self._step()
        for pending in self._waiting:
            _log_lost(pending, self.trouble or "no time was left")

    async def _step(self) -> None:
        """Try to write what waits, a batch of it; after a failure, pause."""
        self._hurry.clear()
        batch = self._batch()
        try:
            try:
                await self._archive.write([pending.write for pending in batch])
            except Unavailable:
                raise
            except Exception:  # noqa: BLE001  whose fault it is shows when each is tried alone
                await self._one_by_one(batch)
            else:
                self._remove(batch)
        except Unavailable as error:
            if self.trouble is None:
                logger.warning("conversations cannot be stored now, so they wait: %s", error)
            self.trouble = str(error) or "unavailable"
            self._failures += 1
            self._tell(batch)
            first, longest = RETRY_S
            pause = min(longest, first * 2 ** min(self._failures - 1, 16))
            await asyncio.sleep(random.uniform(0, pause))
        else:
            if self.trouble is not None:
                logger.warning("conversations are stored again")
            self.trouble = None
            self._failures = 0
            self._tell(batch)

    async def _one_by_one(self, batch: list[Pending]) -> None:
        """Drop those that fail by themselves: they would hold up all others for ever."""
        for pending in batch:
            try:
                await self._archive.write([pending.write])
            except Unavailable:
                raise
            except Exception as error:  # noqa: BLE001  logged by kind: its text may be the people's
                _log_lost(pending, type(error).__name__)
            self._remove([pending])

    def _add(self, write: Write) -> Pending:
        pending = Pending(write)
        self._waiting.append(pending)
        self._bytes += pending.bytes
        self._in_conversation[pending.conversation_id] += 1
        self._has_work.set()
        return pending

    async def _until_tried(self, pending: Pending, seconds: float) -> None:
        """At once while there is trouble: nobody else need wait to learn it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not pending.was_tried and self.trouble is None:
                    await self._stepped.wait()

    def _batch(self) -> list[Pending]:
        """The oldest that fit into one transaction, at least one."""
        total = accumulate(pending.bytes for pending in self._waiting)
        count = sum(1 for _ in takewhile(lambda size: size <= BATCH_BYTES, total))
        return list(islice(self._waiting, max(count, 1)))

    def _remove(self, stored: list[Pending]) -> None:
        """From the front, where they stand."""
        for pending in stored:
            self._waiting.popleft()
            self._bytes -= pending.bytes
            self._in_conversation[pending.conversation_id] -= 1
            if not self._in_conversation[pending.conversation_id]:
                del self._in_conversation[pending.conversation_id]
        if not self._waiting:
            self._has_work.clear()

    def _tell(self, batch: list[Pending]) -> None:
        for pending in batch:
            pending.was_tried = True
        self._stepped.set()
        self._stepped = asyncio.Event()


def _texts(messages: Iterable[Message]) -> Iterator[str]:
    for message in messages:
        yield message.text
        yield message.reasoning
        for step in message.steps:
            yield step.text
            yield from (call.arguments for call in step.calls)
            yield from (result.content for result in step.results)


def _log_lost(pending: Pending, why: str) -> None:
    logger.error(
        "conversation %s, run %s: messages %s were not stored (%s)",
        pending.conversation_id,
        pending.write.messages[0].run_id,
        ", ".join(message.id for message in pending.write.messages),
        why,
    )
