"""Writes one run's events to the log, in an order that the state table allows."""

import time
from collections.abc import Sequence

from app.errors import AnswerTooLarge, GatewayError
from app.events.log import EventLog, ImmediateLog
from app.events.model import (
    Done,
    Ending,
    Error,
    Event,
    Final,
    Reasoning,
    RunRecord,
    Start,
    Token,
    Usage,
)
from app.llm.text import utf8_size
from app.runs.run import Cancelled, Outcome
from app.runs.state import State, advance

_SAID = (Token, Reasoning)


class Transcript:
    """``max_bytes``: UTF-8 bytes of all texts together."""

    def __init__(self, log: EventLog, record: RunRecord, max_bytes: int) -> None:
        self._log = log
        self._log_now = log if isinstance(log, ImmediateLog) else None
        self._record = record
        self._state = State.NEW
        self._room = max_bytes
        self._tokens: list[str] = []

    async def begin(self, *, heartbeat_ms: int, retry_ms: int) -> None:
        record = self._record
        await self._write(
            [
                Start(
                    record.run_id,
                    record.conversation_id,
                    record.model,
                    heartbeat_ms,
                    record.request_id,
                    retry_ms,
                )
            ]
        )

    async def extend(self, events: Sequence[Event]) -> None:
        """Raises ``AnswerTooLarge``; what fitted is written, and nothing fits from then on."""
        fitting = events
        for at, event in enumerate(events):
            if isinstance(event, _SAID):
                self._room -= utf8_size(event.text)
                if self._room < 0:
                    fitting = events[:at]
                    break
            if isinstance(event, Token):
                self._tokens.append(event.text)
        await self._write(fitting)
        if self._room < 0:
            raise AnswerTooLarge

    def say_now(self, event: Event) -> bool:
        """Write one event without waiting; False, and nothing is written, where ``extend`` must."""
        if self._log_now is None or self._state is not State.RUNNING:
            return False
        if not isinstance(event, _SAID) or (size := utf8_size(event.text)) > self._room:
            return False
        self._log_now.append_now(self._record.run_id, (event,))
        self._room -= size
        if isinstance(event, Token):
            self._tokens.append(event.text)
        return True

    async def end(self, outcome: Outcome, usage: Usage) -> None:
        """Write the one ending."""
        if isinstance(outcome, str):
            text = "".join(self._tokens)
            final = Final(text, outcome, usage, self._record.model)
            await self._write([final, self._done("completed", usage, frees_key=False)])
        elif isinstance(outcome, GatewayError):
            error = Error.because(outcome, self._record.request_id)
            done = self._done("failed", usage, frees_key=outcome.retryable)
            await self._write([error, done])
        else:
            frees = outcome is Cancelled.READERS_LEFT
            await self._write([self._done("cancelled", usage, frees_key=frees)])

    @staticmethod
    def _done(status: Ending, usage: Usage, *, frees_key: bool) -> Done:
        return Done(status, usage, time.time(), frees_key)

    async def _write(self, events: Sequence[Event]) -> None:
        if not events:
            return
        for event in events:
            if self._state is not State.RUNNING or not isinstance(event, _SAID):  # else no change
                self._state = advance(self._state, event)
        await self._log.append(self._record.run_id, events)
