"""A streamed answer: steps to operations, paced as the spec says. Pure."""

from collections.abc import Iterator

from app.simulator import frames as wire
from app.simulator.ops import Op, Setting, Sleep, Write, instead, leave
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

WRITE_BYTES = 64 * 1024  # of an unpaced answer at once: large writes, yet others get their turn
COMMENT_INTERVAL_S = 0.2  # of the script `comments`


class _Body:
    """Gathers frames into writes, one HTTP chunk each; the first write carries the head."""

    def __init__(self, setting: Setting) -> None:
        spec = setting.spec
        self._head = wire.head(
            200,
            "text/event-stream; charset=utf-8",
            length=None,
            chunked=setting.chunked,
            close=not setting.keep_alive,
            extra={"cache-control": "no-cache"},
        )
        self._chunked = setting.chunked
        self._frames: list[bytes] = []
        self._size = self._tokens = 0
        self.interval = spec.seconds("interval")
        self.paced = bool(self.interval) or spec.has("batch")
        self._batch = spec.count("batch") if spec.has("batch") else 1
        self.completion = self.reasoning = 0  # tokens of the whole answer

    def add(self, frame: bytes, *, tokens: int = 0, reasoning: int = 0) -> None:
        self._frames.append(frame)
        self._size += len(frame)
        self._tokens += tokens
        self.completion += tokens
        self.reasoning += reasoning

    @property
    def full(self) -> bool:
        return self._tokens >= self._batch if self.paced else self._size >= WRITE_BYTES

    def flush(self, tail: bytes = b"") -> Iterator[Write]:
        """What was gathered, then ``tail`` as it is. Nothing at all when there is nothing."""
        data = b"".join(self._frames)
        if data and self._chunked:
            data = wire.chunk(data)
        data = self._head + data + tail
        if data:
            yield Write(data, self._tokens)
        self._head = b""
        self._frames.clear()
        self._size = self._tokens = 0


def streamed(steps: Iterator[Step], setting: Setting) -> Iterator[Op]:
    """The operations of a stream. With an interval the k-th write is due at k intervals."""
    body = _Body(setting)
    for step in steps:
        if isinstance(step, Refuse | Page | Drop):
            yield from instead(step, setting)
            return
        if isinstance(step, End):
            yield from _end(step, body, setting)
            return
        if isinstance(step, Role):
            body.add(setting.frames.role(step.content))
            if body.paced or setting.spec.seconds("first"):
                yield from body.flush()
                yield from _before_first(body, setting)
            continue
        if body.full:
            yield from body.flush()
            yield Sleep(body.interval)
        _add(step, body, setting)
    raise RuntimeError(f"the script {setting.spec.name} has no end")


def _before_first(body: _Body, setting: Setting) -> Iterator[Op]:
    wait = setting.spec.seconds("first")
    if setting.spec.name == "comments":
        while wait > 0:
            body.add(wire.COMMENT)
            yield from body.flush()
            yield Sleep(min(wait, COMMENT_INTERVAL_S))
            wait -= COMMENT_INTERVAL_S
    elif wait:
        yield Sleep(wait)


def _add(
    step: str | Reasoning | ToolPart | Garbage | InStreamError, body: _Body, setting: Setting
) -> None:
    frames = setting.frames
    if isinstance(step, str):
        body.add(frames.content(step), tokens=1)
    elif isinstance(step, Reasoning):
        body.add(frames.reasoning(step.text), tokens=1, reasoning=1)
    elif isinstance(step, ToolPart):
        body.add(frames.tool(step), tokens=1)
    elif isinstance(step, Garbage):
        body.add(wire.GARBAGE[step][0])
    else:
        body.add(frames.error(step.code))


def _end(end: End, body: _Body, setting: Setting) -> Iterator[Op]:
    if body.paced:
        yield from body.flush()  # the last token in a write of its own, as all before it
    if end.reason is not None:
        body.add(setting.frames.finish(end.reason))
        if setting.usage:
            counts = wire.usage(setting.prompt_tokens, body.completion, body.reasoning)
            body.add(setting.frames.usage(counts))
    if end.done:
        body.add(wire.DONE)
    complete = end.close is Close.KEEP and setting.chunked
    yield from body.flush(wire.LAST_CHUNK if complete else b"")
    yield leave(end)
