"""What an answer does to its connection, and when. Pure: no clock, no socket.

An answer is a sequence of operations: write these bytes, let so much time pass, leave the
connection in that way. ``streamed`` and ``whole`` make them, ``player`` carries them out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from app.simulator import frames as wire
from app.simulator.frames import Frames
from app.simulator.spec import Spec
from app.simulator.stats import Outcome
from app.simulator.steps import (
    Close,
    Drop,
    End,
    Page,
    Refuse,
)
from app.simulator.texts import SECRET


@dataclass(frozen=True, slots=True)
class Write:
    data: bytes
    tokens: int = 0  # chunks of content, reasoning or tool call in it


@dataclass(frozen=True, slots=True)
class Sleep:
    """Seconds on the answer's own timetable; 0 only lets others have a turn."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Leave:
    """The last operation. With ``Close.NEVER`` the outcome counts once the peer has left."""

    close: Close
    outcome: Outcome


Op = Write | Sleep | Leave


@dataclass(frozen=True, slots=True)
class Setting:
    """What the request, not the script, decides about an answer's form."""

    spec: Spec
    frames: Frames
    prompt_tokens: int
    usage: bool  # whether token counts are sent
    keep_alive: bool = True
    chunked: bool = True  # false for HTTP/1.0: the body ends with the connection


def message(
    status: int,
    body: bytes,
    *,
    keep_alive: bool,
    content_type: str = "application/json",
    extra: dict[str, str] | None = None,
) -> bytes:
    """A whole HTTP answer whose length is known."""
    close = not keep_alive
    return wire.head(status, content_type, length=len(body), close=close, extra=extra) + body


def instead(step: Refuse | Page | Drop, setting: Setting) -> Iterator[Op]:
    """The answers that are neither a stream nor a completion, whatever was asked for."""
    if isinstance(step, Drop):
        yield Leave(Close.FIN, Outcome.FAILED)
        return
    keep_alive = setting.keep_alive
    if isinstance(step, Page):
        html = "text/html; charset=utf-8"
        yield Write(message(200, wire.PAGE, keep_alive=keep_alive, content_type=html))
    else:
        extra = {} if step.retry_after is None else {"retry-after": step.retry_after}
        text = f"Refused with {step.status}: {SECRET}"
        body = wire.error_body(text, step.code, status=step.status)
        yield Write(message(step.status, body, keep_alive=keep_alive, extra=extra))
    yield Leave(Close.KEEP, Outcome.FAILED)


def leave(end: End) -> Leave:
    """Whether an answer with this ending was finished, as the statistics count it."""
    if end.reason is not None:
        return Leave(end.close, Outcome.FINISHED)
    waits = end.close is Close.NEVER
    return Leave(end.close, Outcome.ABORTED if waits else Outcome.FAILED)


def cut_at(ops: Iterator[Op], size: int) -> Iterator[Op]:
    """Every write in slices of ``size`` bytes, each in a turn of the loop of its own."""
    for op in ops:
        if not isinstance(op, Write):
            yield op
            continue
        for start in range(0, len(op.data), size):
            last = start + size >= len(op.data)
            yield Write(op.data[start : start + size], op.tokens if last else 0)
            yield Sleep(0)
