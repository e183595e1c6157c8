"""What goes into a run's model turns, and what comes out of one.

No LangChain here: this is what the rest of the gateway sees of ``llm`` before LangChain has been
imported.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.conversations.model import Message, Step
from app.errors import AnswerTooLarge
from app.events.model import Draft, Event, Reasoning, Retract, Token, ToolCall, Usage
from app.events.queue import EventQueue
from app.llm.answer import answer_filter
from app.llm.catalogue import ModelEntry
from app.llm.clocks import TurnClocks
from app.llm.text import SurrogateJoiner, repaired, utf8_size

BYTES_PER_TOKEN = 4  # OpenAI's rule of thumb for English text
MAX_CALLS = 128  # in one turn; OpenAI offers a model no more tools than that


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a run asks: the conversation, with the question as its last message; which model;
    parameters of OpenAI's chat completions (``temperature``, ``max_tokens``, ``stop`` …); the names
    of the tools that the model may call."""

    entry: ModelEntry
    messages: tuple[Message, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[str, ...] = ()

    def estimated_tokens(self) -> int:
        return sum(estimated_tokens(message.text) for message in self.messages)


def estimated_tokens(text: str) -> int:
    return -(-utf8_size(text) // BYTES_PER_TOKEN)


class _Call:
    """A tool call as far as it has come."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id = self.name = ""
        self.arguments: list[str] = []

    def is_followed_by(self, call_id: str, name: str, arguments: str) -> bool:
        """Whether a piece with the same number begins another call: some servers number all of them
        0, and of those some give no ids either, but then send each call whole."""
        if call_id or self.id:
            return bool(call_id and self.id and call_id != self.id)
        is_whole = bool(self.arguments) and self.arguments[-1].rstrip().endswith("}")
        return bool(name) and is_whole and arguments.lstrip().startswith("{")


class Turn:
    """One model turn: takes what the upstream says, chunk by chunk, and puts it on the queue.

    ``steps``: the turns before it, which called tools. ``aside``: its text is no part of the
    answer. ``finish_reason`` stays None until the upstream told one. ``preamble``: the text that
    turned out to belong to a tool call.
    """

    def __init__(
        self,
        prompt: Prompt,
        queue: EventQueue,
        clocks: TurnClocks,
        *,
        steps: Sequence[Step] = (),
        max_argument_bytes: int = 2**20,
        aside: bool = False,
    ) -> None:
        self.prompt = prompt
        self.steps = steps
        self.clocks = clocks
        self.finish_reason: str | None = None
        self.preamble = ""
        self._queue = queue
        self._text = SurrogateJoiner()
        self._reasoning = SurrogateJoiner()
        self._told: Usage | None = None
        self._chunks = 0
        self._bytes = 0
        self._said: list[str] = []
        self._calls: list[_Call] = []
        self._calls_by_index: dict[int, _Call] = {}
        self._argument_room = max_argument_bytes
        self._is_answer = not aside  # until it calls a tool
        self.asks(prompt.entry)

    def asks(self, entry: ModelEntry) -> None:
        """It is to be read in this model's style, and may call what this one may use: a fallback
        stands in for the model of the prompt, which has not said a word."""
        self.tools = tuple(name for name in self.prompt.tools if entry.allows(name))
        self._takes_calls = bool(self.tools) or entry.runnable is not None
        self._filter = answer_filter(
            think_tags=entry.reasoning == "tags", react=entry.answer == "react"
        )

    @property
    def has_answered(self) -> bool:
        """It said something that is part of the answer."""
        return self._is_answer and bool(self._said)

    @property
    def given_ids(self) -> tuple[str, ...]:
        """Those of ``calls`` as the server gave them, empty where it gave none."""
        return tuple(call.id for call in self._calls)

    def chunk(self, text: str, reasoning: str, *, tool_call: bool) -> None:
        """One upstream chunk; both texts are often empty."""
        self.clocks.arrived(token=bool(text or reasoning or tool_call))
        if reasoning and (reasoning := self._reasoning.feed(reasoning)):
            self._say(Reasoning(reasoning), reasoning)
        if text and (text := self._text.feed(text)):
            if self._filter is None and self._is_answer:  # nearly always: as ``_pass_on`` does
                self._said.append(text)
                self._say(Token(text), text)
            else:
                self._pass_on(text)

    def tool_call_piece(self, index: int, call_id: str, name: str, arguments: str) -> None:
        """Of call number ``index``; pieces of ``arguments`` add up, an id or name that is told
        again does not. Only a model that was offered tools calls any; a runnable has its own.
        Raises ``AnswerTooLarge``."""
        if not self._takes_calls:
            return
        if not self._calls:
            self._take_back()
        call_id, name = repaired(call_id), repaired(name)
        call = self._calls_by_index.get(index)
        if call is None or call.is_followed_by(call_id, name, arguments):
            if len(self._calls) == MAX_CALLS:
                raise AnswerTooLarge
            call = self._calls_by_index[index] = _Call()
            self._calls.append(call)
        size = sum(map(utf8_size, (call_id, name, repaired(arguments))))
        self._argument_room -= size
        if self._argument_room < 0:
            raise AnswerTooLarge
        self._chunks += 1
        self._bytes += size
        call.id = call.id or call_id
        call.name = call.name or name
        if arguments:
            call.arguments.append(arguments)

    def flush(self) -> None:
        """The upstream says nothing more: let out what was held back."""
        if reasoning := self._reasoning.flush():
            self._say(Reasoning(reasoning), reasoning)
        self._let_out()

    def calls(self, taken: Iterable[str] = ()) -> tuple[ToolCall, ...]:
        """The tools that the model called, each under an id that is not ``taken``: some servers
        give none, or the same one in each turn."""
        seen, calls = {"", *taken}, list[ToolCall]()
        for call in self._calls:
            call_id = call.id if call.id not in seen else f"call_{secrets.token_urlsafe(16)}"
            seen.add(call_id)
            calls.append(ToolCall(call_id, call.name, repaired("".join(call.arguments))))
        return tuple(calls)

    def finished(self, reason: str) -> None:
        self.finish_reason = reason
        self.clocks.finished()

    def used(self, usage: Usage) -> None:
        self._told = usage

    def usage(self) -> Usage:
        """As the upstream told, else estimated: most servers send a token a chunk, some more."""
        if self._told is not None:
            return self._told
        asked = self.prompt.estimated_tokens() + sum(map(_step_tokens, self.steps))
        answered = max(self._chunks, self._bytes // BYTES_PER_TOKEN)
        return Usage(asked, answered, asked + answered, estimated=True)

    def _take_back(self) -> None:
        """What was said is a preamble of tool calls, and what follows is no part of the answer."""
        self._let_out()
        self._is_answer = False
        if self._said:
            self.preamble = "".join(self._said)
            self._queue.put(Retract(self.preamble))

    def _let_out(self) -> None:
        if text := self._text.flush():
            self._pass_on(text)
        if self._filter is not None:
            for event in self._filter.flush():
                self._sort(event)

    def _pass_on(self, text: str) -> None:
        if self._filter is None:
            self._sort(Token(text))
        else:
            for event in self._filter.feed(text):
                self._sort(event)

    def _sort(self, event: Event) -> None:
        if type(event) is Token:
            if self._is_answer:
                self._said.append(event.text)
            else:
                event = Draft(event.text)
        self._say(event, event.text)  # type: ignore[attr-defined]  # all that a filter tells is text

    def _say(self, event: Event, text: str) -> None:
        self._chunks += 1
        self._bytes += utf8_size(text)
        self._queue.put(event)


def _step_tokens(step: Step) -> int:
    said = sum(estimated_tokens(call.arguments) for call in step.calls)
    heard = sum(estimated_tokens(result.content) for result in step.results)
    return estimated_tokens(step.text) + said + heard
