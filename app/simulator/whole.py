"""An unstreamed answer: the same steps, as one JSON body. Pure.

What breaks a stream breaks this in the nearest way: a cut comes in the middle of the body, a
silence instead of the head, an in-stream error is a status, and a missing finish reason is null.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from app.simulator import frames as wire
from app.simulator.ops import Leave, Op, Setting, Sleep, Write, instead, leave, message
from app.simulator.stats import Outcome
from app.simulator.steps import (
    Close,
    Drop,
    End,
    Garbage,
    InStreamError,
    Page,
    Reasoning,
    Refuse,
    Role,
    Step,
    ToolPart,
)
from app.simulator.texts import SECRET


@dataclass(slots=True)
class _Message:
    """The answer so far."""

    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: dict[int, list[ToolPart]] = field(default_factory=dict)
    tokens: int = 0

    def add(self, step: str | Reasoning | ToolPart) -> None:
        self.tokens += 1
        if isinstance(step, str):
            self.content.append(step)
        elif isinstance(step, Reasoning):
            self.reasoning.append(step.text)
        else:
            self.calls.setdefault(step.index, []).append(step)

    def as_json(self) -> dict[str, object]:
        text = "".join(self.content) if self.content or not self.calls else None
        made: dict[str, object] = {"role": "assistant", "content": text, "refusal": None}
        if self.reasoning:
            made["reasoning_content"] = "".join(self.reasoning)
        if self.calls:
            made["tool_calls"] = [
                {
                    "id": parts[0].id,
                    "type": "function",
                    "function": {
                        "name": parts[0].name,
                        "arguments": "".join(part.arguments for part in parts),
                    },
                }
                for parts in self.calls.values()
            ]
        return made


def whole(steps: Iterator[Step], setting: Setting) -> Iterator[Op]:
    """The operations of one answer that comes when a stream of it would have ended."""
    made = _Message()
    wait = 0.0
    for step in steps:
        if isinstance(step, Refuse | Page | Drop):
            yield from instead(step, setting)
            return
        if isinstance(step, End):
            wait += setting.spec.seconds("interval") * max(0, made.tokens - 1)
            yield Sleep(wait)
            yield from _end(step, made, setting)
            return
        if isinstance(step, Role):
            wait += setting.spec.seconds("first")
        elif isinstance(step, Garbage | InStreamError):
            yield Sleep(wait)
            yield from _broken(step, setting)
            return
        else:
            made.add(step)
    raise RuntimeError(f"the script {setting.spec.name} has no end")


def _end(end: End, made: _Message, setting: Setting) -> Iterator[Op]:
    if end.reason is None and end.close is Close.NEVER:
        yield leave(end)  # stalled: there is no part of an unstreamed answer to show
        return
    counts = wire.usage(setting.prompt_tokens, made.tokens, len(made.reasoning))
    shown = counts if setting.usage else None
    body = setting.frames.whole(made.as_json(), end.reason, shown)
    answer = message(200, body, keep_alive=setting.keep_alive)
    if end.close in (Close.RST, Close.FIN):
        answer = answer[: -len(body) // 2]
    yield Write(answer, made.tokens)
    yield leave(end)


def _broken(step: Garbage | InStreamError, setting: Setting) -> Iterator[Op]:
    if isinstance(step, Garbage):
        status, body = 200, wire.GARBAGE[step][1]
    else:
        status = 500
        body = wire.error_body(f"The model broke: {SECRET}", step.code, status=status)
    yield Write(message(status, body, keep_alive=setting.keep_alive))
    yield Leave(Close.KEEP, Outcome.FAILED)
