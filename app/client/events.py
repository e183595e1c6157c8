"""What a run tells the one who asked: contract section 4, as a client reads it. Pure.

Not the server's classes: gateway and client are not always of the same age, so fields and events
that are not known here are passed over.
"""

from typing import Literal

import msgspec


class Start(msgspec.Struct, frozen=True):
    run_id: str
    model: str
    heartbeat_ms: int
    conversation_id: str | None = None


class Token(msgspec.Struct, frozen=True):
    text: str


class Retract(msgspec.Struct, frozen=True):
    """``text``, which the last tokens brought, is not part of the answer."""

    text: str


class Final(msgspec.Struct, frozen=True):
    text: str
    finish_reason: str


class Error(msgspec.Struct, frozen=True):
    code: str
    message: str
    retryable: bool


class Done(msgspec.Struct, frozen=True):
    """Always the last."""

    status: Literal["completed", "failed", "cancelled"]


class Waiting(msgspec.Struct, frozen=True):
    """From the client, not from the wire: it tries again in so many seconds.

    ``resuming``: there is a run, or may be one, that it comes back to.
    """

    reason: str
    seconds: float
    resuming: bool


RunEvent = Start | Token | Retract | Final | Error | Done
Event = RunEvent | Waiting

_KINDS: dict[str, type[RunEvent]] = {kind.__name__.lower(): kind for kind in RunEvent.__args__}


def decode(name: str, data: str) -> RunEvent | None:
    """None for an event that is not known here. Raises ``ValueError``."""
    kind = _KINDS.get(name)
    return msgspec.json.decode(data, type=kind) if kind else None
