"""Writes one run's events to the log, in an order that the state table allows, and keeps what they
add up to."""

import time
from collections.abc import Sequence

from app.errors import AnswerTooLarge, GatewayError
from app.events.log import EventLog, Fenced, ImmediateLog
from app.events.model import (
    Done,
    Draft,
    Ending,
    Error,
    Event,
    Final,
    Reasoning,
    RunRecord,
    Start,
    Token,
    ToolCall,
    ToolResult,
)
from app.llm.reply import Reply
from app.llm.text import utf8_size
from app.runs.answer import Answer
from app.runs.run import Cancelled, Outcome
from app.runs.state import State, advance

_SAID = (Token, Reasoning, Draft)


class Transcript:
    """``max_bytes``: UTF-8 bytes of all texts together, tools' arguments and results included."""

    def __init__(self, log: EventLog, record: RunRecord, max_bytes: int) -> None:
        self._log = log
        self._log_now = log if isinstance(log, ImmediateLog) else None
        self._record = record
        self._state = State.NEW
        self._room = max_bytes
        self.answer = Answer()

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
            self._room -= _size(event)
            if self._room < 0:
                fitting = events[:at]
                break
            if type(event) is Token:  # nearly always: as ``gather`` does
                self.answer.tokens.append(event.text)
            else:
                self.answer.gather(event)
        await self._write(fitting)
        if self._room < 0:
            raise AnswerTooLarge

    def say_now(self, event: Event) -> bool:
        """Write one event without waiting; False, and nothing is written, where ``extend`` must."""
        if self._log_now is None or self._state is not State.RUNNING:
            return False
        if not isinstance(event, _SAID) or (size := utf8_size(event.text)) > self._room:
            return False
        try:
            self._log_now.append_now(self._record.run_id, (event,))
        except Fenced:  # for whoever follows the queue, not for the model that speaks
            return False
        self._room -= size
        if type(event) is Token:
            self.answer.tokens.append(event.text)
        else:
            self.answer.gather(event)
        return True

    def ending(self, outcome: Outcome, reply: Reply) -> Sequence[Event]:
        """The one ending; its last event is ``Done``."""
        usage = reply.usage()
        status: Ending = "cancelled"
        frees_key = outcome is Cancelled.READERS_LEFT
        before: list[Event] = []
        if isinstance(outcome, str):
            status = "completed"
            model = reply.answered_by or self._record.model
            before = [Final(self.answer.text, outcome, usage, model)]
        elif isinstance(outcome, GatewayError):
            status, frees_key = "failed", outcome.retryable
            before = [Error.because(outcome, self._record.request_id)]
        done = Done(status, usage, time.time(), frees_key, reply.answered_by, reply.attempts)
        return [*before, done]

    async def end(self, ending: Sequence[Event]) -> None:
        """Write what ``ending`` made."""
        await self._write(ending)

    async def _write(self, events: Sequence[Event]) -> None:
        if not events:
            return
        for event in events:
            if self._state is not State.RUNNING or not isinstance(event, _SAID):  # else no change
                self._state = advance(self._state, event)
        await self._log.append(self._record.run_id, events)


def _size(event: Event) -> int:
    match event:
        case Token(text) | Reasoning(text) | Draft(text):
            return utf8_size(text)
        case ToolCall(arguments=text) | ToolResult(content=text):
            return utf8_size(text)
    return 0
