"""Ask for one model turn: the retries before its first token, then the fallbacks, then the verdict.

After the first token nothing is tried again: a second answer would not continue the first.
"""

import asyncio
import random
from collections.abc import Iterable
from dataclasses import dataclass

from app.errors import (
    UpstreamBroken,
    UpstreamRejected,
    UpstreamStalled,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.llm.breaker import Breaker
from app.llm.catalogue import ModelEntry
from app.llm.reply import Reply
from app.llm.turn import Turn
from app.llm.upstream import UpstreamFailure, UpstreamReader

ATTEMPTS = 3  # for each model
# Full jitter (AWS architecture blog, 2015): a random wait up to base * 2^n, capped. Seconds.
BACKOFF_BASE_S = 0.5
BACKOFF_CAP_S = 8.0


@dataclass(frozen=True, slots=True)
class Source:
    """A model that can be asked. ``breaker`` None: it is never left out."""

    entry: ModelEntry
    breaker: Breaker | None = None

    @property
    def is_left_out(self) -> bool:
        return self.breaker is not None and self.breaker.state == "open"


async def ask(reader: UpstreamReader, sources: Iterable[Source], reply: Reply, turn: Turn) -> str:
    """Ask the first of ``sources``, and the others if it fails before its first token. Answers the
    finish reason.

    Raises ``UpstreamError``: that of the model that spoke; where none did, that of the first one.
    """
    asking = _Asking(reader, reply, turn)
    try:
        async with turn.clocks:
            await asking.ask(sources)
    except (UpstreamStalled, UpstreamTimeout):
        if turn.finish_reason is None:  # else it kept the connection, but the answer is whole
            asking.failed()
            raise
    finally:
        turn.flush()
    if turn.finish_reason is None:
        raise UpstreamBroken
    return turn.finish_reason


class _Asking:
    def __init__(self, reader: UpstreamReader, reply: Reply, turn: Turn) -> None:
        self._reader = reader
        self._reply = reply
        self._turn = turn
        self._source: Source | None = None

    def failed(self) -> None:
        """The one that was asked last did, by a clock."""
        if self._source is not None and self._source.breaker is not None:
            self._source.breaker.failed()

    async def ask(self, sources: Iterable[Source]) -> None:
        first: UpstreamFailure | None = None
        for source in sources:
            self._source = source
            self._turn.clocks.stalls_after(source.entry.stall_s)
            self._turn.asks(source.entry)
            try:
                return await self._ask_patiently(source)
            except UpstreamFailure as failure:
                if self._turn.clocks.first_token_seen:
                    raise failure.error from failure
                first = first or failure
        if first is None:
            raise UpstreamUnavailable
        raise first.error from first

    async def _ask_patiently(self, source: Source) -> None:
        """With retries. Raises ``UpstreamFailure``."""
        clocks = self._turn.clocks
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._ask_once(source)
            except UpstreamFailure as failure:
                if self._turn.finish_reason is not None:
                    return None  # the answer is whole; only its trailer was lost
                wait = failure.retry_after_s
                if wait is None:
                    wait = random.uniform(0, min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2**attempt))
                hopeless = not failure.again or clocks.first_token_seen or source.is_left_out
                if hopeless or attempt == ATTEMPTS or wait >= clocks.remaining():
                    raise
                await asyncio.sleep(wait)
        return None

    async def _ask_once(self, source: Source) -> None:
        breaker, turn = source.breaker, self._turn
        if breaker is not None and not breaker.admits():
            raise UpstreamFailure(UpstreamUnavailable(), kind="left out")
        self._reply.attempts += 1
        failed = False
        try:
            await self._reader.ask(turn, source.entry)
            failed = turn.finish_reason is None
        except UpstreamFailure as failure:
            failed = not isinstance(failure.error, UpstreamRejected)
            raise
        finally:
            if turn.clocks.first_token_seen:
                self._reply.answered_by = source.entry.name
            if breaker is not None:
                if turn.finish_reason is not None:
                    breaker.succeeded()
                elif failed:
                    breaker.failed()
                else:  # cancelled, or its caller's fault
                    breaker.released()
        if failed:
            raise UpstreamFailure(UpstreamBroken(), kind="no finish reason")
