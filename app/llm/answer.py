"""Tell the answer from what a model writes around it, in one model turn. Pure: text in, events out.

Chunks may be cut anywhere; the work is linear however they are. ``app.llm.react`` has the ReAct
styles. A tag is exactly ``<think>`` or ``</think>``: ``<thinking>``, ``<Think>`` and a closing one
that closes nothing are text. Reasoning that is not closed goes on to the end.
"""

from collections.abc import Sequence
from typing import Protocol

from app.events.model import Event, Reasoning, Token
from app.llm.react import React
from app.llm.said import Said

OPENING, CLOSING = "<think>", "</think>"


class AnswerFilter(Protocol):
    """For one model turn. Takes text without lone surrogates (``SurrogateJoiner``) and answers
    ``Token``, ``Reasoning`` and ``Draft``, never empty ones."""

    def feed(self, text: str) -> Sequence[Event]:
        """What is known so far; at most a marker's length of text is held back."""

    def flush(self) -> Sequence[Event]:
        """The turn is over: what was held back, if anything."""


def answer_filter(*, think_tags: bool, react: bool) -> AnswerFilter | None:
    """The filter for a model's style. None where all text is the answer; with both, what stands
    outside the tags is read as ReAct."""
    if think_tags:
        return _ThinkTags(React() if react else None)
    return React() if react else None


class _ThinkTags:
    """Holds back what may be the beginning of the tag that can come next."""

    __slots__ = ("_held", "_inside", "_outside")

    def __init__(self, outside: "React | None") -> None:
        self._outside = outside
        self._inside = False
        self._held = ""

    def feed(self, text: str) -> Sequence[Event]:
        if "<" not in text and not self._held:  # nearly every chunk
            if self._inside:
                return (Reasoning(text),) if text else ()
            if self._outside is None:
                return (Token(text),) if text else ()
            return self._outside.feed(text)
        said = Said()
        text = self._held + text
        start = 0
        while (at := text.find(self._tag, start)) >= 0:
            self._pass(text[start:at], said)
            start = at + len(self._tag)
            self._inside = not self._inside
        end = self._end_of_known(text, start)
        self._pass(text[start:end], said)
        self._held = text[end:]
        return said.events()

    def flush(self) -> Sequence[Event]:
        said = Said()
        self._pass(self._held, said)
        self._held = ""
        if self._outside is not None:
            self._outside.end(said)
        return said.events()

    @property
    def _tag(self) -> str:
        return CLOSING if self._inside else OPENING

    def _end_of_known(self, text: str, start: int) -> int:
        """Where the text ends, or what may be the beginning of a tag begins."""
        at = text.rfind("<", max(start, len(text) - len(self._tag) + 1))
        return at if at >= 0 and self._tag.startswith(text[at:]) else len(text)

    def _pass(self, text: str, said: Said) -> None:
        if self._inside:
            said.add(Reasoning, text)
        elif self._outside is None:
            said.add(Token, text)
        else:
            self._outside.put(text, said)
