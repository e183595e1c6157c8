"""The scripts: from a spec and a question to the steps of an answer.

Pure, and independent of how an answer travels: ``streamed`` and ``whole`` turn the
same steps into a stream or into one JSON body.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from app.simulator import texts
from app.simulator.spec import Spec, choose
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


@dataclass(frozen=True, slots=True)
class Ask:
    """What a script may know about the request."""

    spec: Spec
    text: str  # of the user, without the spec
    prompt: str = ""  # of the user, with it
    messages: int = 1  # in the request: makes tool call ids unique in a conversation
    rounds: int = 0  # turns since the last user message that called tools
    results: tuple[str, ...] = ()  # the tool messages at the very end of the request
    attempt: int = 1  # the how manyth call with this `key=` it is, from 1


def _tokens(count: int) -> Iterator[Step]:
    return map(texts.token, range(count))


def _answer(chunks: Iterator[str] | tuple[str, ...], end: End | None = None) -> Iterator[Step]:
    yield Role()
    yield from chunks
    yield end or End()


def _after(ask: Ask, end: End) -> Iterator[Step]:
    """``after`` tokens, then an ending that is not as it should be."""
    yield Role()
    yield from _tokens(ask.spec.count("after"))
    yield end


def _bulk(ask: Ask) -> Iterator[Step]:
    return _answer(texts.filled(ask.spec.count("bytes"), ask.spec.count("chunk")))


def _big(ask: Ask) -> Iterator[Step]:
    whole = "".join(texts.filled(ask.spec.count("bytes"), 4096))
    return _answer((whole, "small."))


def _reasoning(ask: Ask) -> Iterator[Step]:
    yield Role(None)
    for k in range(ask.spec.count("n")):
        yield Reasoning(f"why{k} ")
    yield from texts.pieces(texts.ANSWER)
    yield End()


def _think(_: Ask) -> Iterator[Step]:
    return _answer((*texts.THINK, *texts.pieces(texts.ANSWER)))


def _tool(ask: Ask) -> Iterator[Step]:
    if ask.results and ask.rounds >= ask.spec.count("rounds"):
        yield from _answer(texts.pieces(f"The tool says: {'; '.join(ask.results)}"))
        return
    preamble = ask.spec.count("preamble")
    yield Role("" if preamble else None)
    if preamble:
        yield from texts.pieces(texts.PREAMBLE)
    arguments = ask.spec.text("args")
    for index in range(ask.spec.count("calls")):
        yield ToolPart(index, "", f"call_{ask.messages}_{index}", ask.spec.text("name"))
        for start in range(0, len(arguments), 5):
            yield ToolPart(index, arguments[start : start + 5])
    yield End("tool_calls")


def _cut(ask: Ask) -> Iterator[Step]:
    how = ask.spec.text("how")
    if how == "nohead":
        yield Drop()
        return
    if ask.spec.count("after"):  # else: the head and no chunk at all
        yield Role()
        yield from _tokens(ask.spec.count("after"))
    yield End(None, done=False, close=Close(how))


def _malformed(ask: Ask) -> Iterator[Step]:
    """All goes on as if nothing had happened: a reader that skips the garbage shows success."""
    kind = ask.spec.text("kind")
    if kind == "html":
        yield Page()
        return
    after = ask.spec.count("after")
    yield Role()
    yield from _tokens(after)
    yield Garbage(kind)
    yield texts.token(after)
    yield End()


def _error(ask: Ask) -> Iterator[Step]:
    yield Role()
    yield from _tokens(ask.spec.count("after"))
    yield InStreamError(ask.spec.text("code"))
    yield End(None, done=False)


def _status(ask: Ask) -> Iterator[Step]:
    spec = ask.spec
    if spec.has("times") and ask.attempt > spec.count("times"):
        yield from _answer(map(texts.token, range(spec.count("n"))))
        return
    code = spec.text("type") if spec.has("type") else None
    retry_after = spec.text("retry_after") if spec.has("retry_after") else None
    yield Refuse(spec.count("code"), code, retry_after)


_NOTHING_MORE = End(None, done=False, close=Close.NEVER)

_PLAY: dict[str, Callable[[Ask], Iterator[Step]]] = {
    "plain": lambda ask: _answer(texts.pieces(texts.demo(ask.text))),
    "tokens": lambda ask: _answer(map(texts.token, range(ask.spec.count("n")))),
    "echo": lambda ask: _answer(iter(ask.text)),
    "awkward": lambda _: _answer(texts.AWKWARD),
    "big": _big,
    "bulk": _bulk,
    "reasoning": _reasoning,
    "think": _think,
    "tool": _tool,
    "silent": lambda _: _answer((), _NOTHING_MORE),
    "slow": lambda _: _answer(texts.pieces(texts.ANSWER)),
    "comments": lambda _: _answer(texts.pieces(texts.ANSWER)),
    "stall": lambda ask: _after(ask, _NOTHING_MORE),
    "cut": _cut,
    "eof": lambda ask: _after(ask, End(None, done=False)),
    "done_only": lambda ask: _after(ask, End(None)),
    "noterm": lambda ask: _after(ask, End(close=Close.NEVER)),
    "malformed": _malformed,
    "error": _error,
    "status": _status,
    "finish": lambda ask: _after(ask, End(ask.spec.text("reason"))),
}


def play(ask: Ask) -> Iterator[Step]:
    """The steps of one answer: up to ``End``, or ``Refuse``, ``Page`` or ``Drop`` alone."""
    return _PLAY[ask.spec.name](ask)


def _steps(prompt: str) -> Iterator[Step]:
    spec, text = choose(prompt, "")
    for step in play(Ask(spec, text, prompt)):
        if isinstance(step, Garbage | InStreamError):
            return
        yield step


def expected_text(prompt: str) -> str:
    """The exact text that a correct reader shows for a prompt (or a bare spec).

    Up to where a broken stream breaks; surrogates repaired. The inline ``<think>`` of ``think``
    is content on this wire, so it is included; ``texts.ANSWER`` is what follows it.
    """
    return texts.repaired("".join(step for step in _steps(prompt) if isinstance(step, str)))


def expected_reasoning(prompt: str) -> str:
    """The same for ``reasoning_content``."""
    return "".join(step.text for step in _steps(prompt) if isinstance(step, Reasoning))


def expected_chunks(prompt: str, limit: int = 1000) -> list[str]:
    """The first chunks of content as they are sent, surrogates and all."""
    return list(islice((step for step in _steps(prompt) if isinstance(step, str)), limit))
