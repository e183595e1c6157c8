"""Writes one run's events to the log, in an order that the state table allows, and keeps what they
add up to: the answer."""

import time
from collections.abc import Sequence

from app.conversations.model import Step
from app.errors import AnswerTooLarge, GatewayError
from app.events.log import EventLog, ImmediateLog
from app.events.model import (
    Done,
    Draft,
    Ending,
    Error,
    Event,
    Final,
    Reasoning,
    Retract,
    RunRecord,
    Start,
    Token,
    ToolCall,
    ToolResult,
)
from app.llm.reply import Reply
from app.llm.text import utf8_size
from app.runs.run import Cancelled, Outcome
from app.runs.state import State, advance

_SAID = (Token, Reasoning, Draft)


class Transcript:
    """``max_bytes``: UTF-8 bytes of all texts together, tools' arguments and results included.

    ``steps`` and ``reasoning``: what belongs to the answer beside its text.
    """

    def __init__(self, log: EventLog, record: RunRecord, max_bytes: int) -> None:
        self._log = log
        self._log_now = log if isinstance(log, ImmediateLog) else None
        self._record = record
        self._state = State.NEW
        self._room = max_bytes
        self._tokens: list[str] = []
        self._reasoning: list[str] = []
        self._preamble = ""
        self.steps: list[Step] = []

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._tokens)

    @property
    def reasoning(self) -> str:
        return "".join(self._reasoning)

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
            self._gather(event)
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
        if type(event) is Token:  # nearly always: as ``_gather`` does
            self._tokens.append(event.text)
        else:
            self._gather(event)
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
            before = [Final(self.text, outcome, usage, model)]
        elif isinstance(outcome, GatewayError):
            status, frees_key = "failed", outcome.retryable
            before = [Error.because(outcome, self._record.request_id)]
        done = Done(status, usage, time.time(), frees_key, reply.answered_by, reply.attempts)
        return [*before, done]

    async def end(self, ending: Sequence[Event]) -> None:
        """Write what ``ending`` made."""
        await self._write(ending)

    def _gather(self, event: Event) -> None:
        match event:
            case Token(text):
                self._tokens.append(text)
            case Reasoning(text):
                self._reasoning.append(text)
            case Retract(text):
                self._tokens = [self.text.removesuffix(text)]
                self._preamble = text
            case ToolCall():
                if not self.steps or self.steps[-1].results:
                    self.steps.append(Step(self._preamble, ()))
                    self._preamble = ""
                step = self.steps[-1]
                self.steps[-1] = Step(step.text, (*step.calls, event))
            case ToolResult(id=call_id):
                for at, step in enumerate(self.steps):
                    if any(call.id == call_id for call in step.calls):
                        self.steps[at] = Step(step.text, step.calls, (*step.results, event))

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
