"""The scripts: from a spec and a question to the steps of an answer.

Pure, and independent of how an answer travels: ``streamed`` and ``whole`` turn the
same steps into a stream or into one JSON body.
"""

import random
from collections.abc import Callable, Iterator
from itertools import islice

from app.simulator import texts
from app.simulator.ask import Ask
from app.simulator.calling import history, tool
from app.simulator.spec import choose
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
)
from app.simulator.styles import REACT, THINK, Styled

# How an answer of `chaos` breaks in the middle.
_BREAKS: tuple[tuple[Step, ...], ...] = (
    (End(None, done=False, close=Close.RST),),
    (End(None, done=False, close=Close.FIN),),
    (InStreamError("server_error"), End(None, done=False)),
)


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


def _chaos(ask: Ask) -> Iterator[Step]:
    """Whether a call fails, where and how, depends on the seed and the attempt alone."""
    spec = ask.spec
    chance = random.Random(f"{spec.count('seed')}:{ask.attempt}")
    fails, where = chance.random() < spec.share("p"), chance.choice(("before", "middle"))
    if spec.text("where") != "any":
        where = spec.text("where")
    words = tuple(f"{ask.model}:{k} " for k in range(spec.count("n")))
    if not fails:
        yield from _answer(words)
    elif where == "before":
        yield chance.choice((Refuse(500, None, None), Drop()))
    else:
        yield Role()
        yield from words[: chance.randint(1, max(1, len(words) - 1))]
        yield from chance.choice(_BREAKS)


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
    "think": lambda ask: _answer(THINK[ask.spec.text("form")].chunks),
    "react": lambda ask: _answer(REACT[ask.spec.text("form")].chunks),
    "tool": tool,
    "history": history,
    "chaos": _chaos,
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

    Up to where a broken stream breaks; surrogates repaired. What ``think`` and ``react`` hold
    beside the answer is content on this wire, so it is here too: ``expected_style`` tells it apart.
    """
    return texts.repaired("".join(step for step in _steps(prompt) if isinstance(step, str)))


def expected_reasoning(prompt: str) -> str:
    """The same for ``reasoning_content``."""
    return "".join(step.text for step in _steps(prompt) if isinstance(step, Reasoning))


def expected_chunks(prompt: str, limit: int = 1000) -> list[str]:
    """The first chunks of content as they are sent, surrogates and all."""
    return list(islice((step for step in _steps(prompt) if isinstance(step, str)), limit))


def expected_style(prompt: str) -> Styled:
    """The answer and the rest of ``think`` and ``react``. Raises ``KeyError`` for other scripts."""
    spec, _ = choose(prompt, "")
    return {"think": THINK, "react": REACT}[spec.name][spec.text("form")]
