"""What can happen in a run, and what is known of it: frozen values, no storage, no wire format.

Structs of msgspec, because a run makes one for each token: frozen, so that one object serves every
reader, and outside the garbage collector (``gc=False``), because they hold no cycles.
"""

from typing import ClassVar, Literal

from msgspec import Struct

from app.errors import GatewayError

Ending = Literal["completed", "failed", "cancelled"]
Status = Literal["running"] | Ending
Include = Literal["reasoning", "tools", "drafts"]


class Usage(Struct, frozen=True, gc=False):
    """Tokens; ``estimated`` where the upstream never told."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    estimated: bool


class Event(Struct, frozen=True, gc=False):
    """``name`` is the SSE event name, ``shown_with`` what ``include`` must hold to see it."""

    name: ClassVar[str]
    shown_with: ClassVar[Include | None] = None


class Start(Event, frozen=True, gc=False):
    """``retry_ms`` differs from run to run, so that readers do not come back all at once."""

    name = "start"

    run_id: str
    conversation_id: str
    model: str
    heartbeat_ms: int
    request_id: str
    retry_ms: int


class Token(Event, frozen=True, gc=False):
    name = "token"

    text: str


class Reasoning(Event, frozen=True, gc=False):
    name = "reasoning"
    shown_with = "reasoning"

    text: str


class Draft(Event, frozen=True, gc=False):
    """Text that is known not to be the answer: before ``Final Answer:``, say."""

    name = "draft"
    shown_with = "drafts"

    text: str


class Retract(Event, frozen=True, gc=False):
    """The tokens since the last model turn began, joined, turned out to be a tool call's preamble:
    they are not the answer."""

    name = "retract"

    text: str


class ToolCall(Event, frozen=True, gc=False):
    """``arguments``: JSON as the model wrote it, as in OpenAI's API; it may be none."""

    name = "tool_call"
    shown_with = "tools"

    id: str
    tool: str
    arguments: str


class ToolResult(Event, frozen=True, gc=False):
    name = "tool_result"
    shown_with = "tools"

    id: str
    tool: str
    content: str
    is_error: bool


class Final(Event, frozen=True, gc=False):
    name = "final"

    text: str
    finish_reason: str
    usage: Usage
    model: str


class Error(Event, frozen=True, gc=False):
    name = "error"

    code: str
    message: str
    retryable: bool
    request_id: str

    @classmethod
    def because(cls, error: GatewayError, request_id: str) -> "Error":
        return cls(error.code, error.message, error.retryable, request_id)


class Done(Event, frozen=True, gc=False):
    """Always last. Only ``status`` and ``usage`` go on the wire. ``finished_at``: Unix seconds.
    ``frees_key``: the run's idempotency key may start another run from now on. ``answered_by``: the
    model that said the last word. ``attempts``: requests made to models, with retries."""

    name = "done"

    status: Ending
    usage: Usage
    finished_at: float
    frees_key: bool
    answered_by: str | None = None
    attempts: int = 0


class Entry(Struct, frozen=True, gc=False):
    """An event with its number in the run, and its native frame, encoded once for all readers."""

    seq: int
    event: Event
    frame: bytes


class RunRecord(Struct, frozen=True, gc=False):
    """Who asked for a run and how; known from its first moment, never changed.

    ``created_at``: Unix seconds. ``fingerprint``: of the body, as parsed; empty without a key.
    ``grace_s``: seconds that the run outlives its last reader, None: for ever. ``answer_id``: of
    the message that the answer becomes.
    """

    run_id: str
    owner: str
    model: str
    conversation_id: str
    created_at: float
    request_id: str
    include: frozenset[Include]
    grace_s: float | None
    idempotency_key: str | None
    fingerprint: str
    answer_id: str


class Snapshot(Struct, frozen=True, gc=False):
    """A run as it stands: its record, its last number, and how it ended if it has. ``lags``: its
    readers elsewhere may have seen more than this, so a cursor past ``last_seq`` may be good."""

    record: RunRecord
    last_seq: int
    error: Error | None
    done: Done | None
    lags: bool = False

    @property
    def status(self) -> Status:
        return self.done.status if self.done else "running"
