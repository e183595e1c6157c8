"""What goes into a model turn and what comes out of it: the seam to the code that asks a model.

No LangChain here: this is what the rest of the gateway sees of ``llm`` before LangChain has been
imported.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from app.errors import UpstreamError
from app.events.model import Reasoning, Token, Usage
from app.events.queue import EventQueue
from app.llm.clocks import TurnClocks
from app.llm.text import SurrogateJoiner, utf8_size

BYTES_PER_TOKEN = 4  # OpenAI's rule of thumb for English text


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a run asks: the question, the model's name as the upstream knows it, and parameters of
    OpenAI's chat completions (``temperature``, ``max_tokens``, ``stop`` …)."""

    text: str
    model: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


class Turn:
    """One model turn: takes what the upstream says, chunk by chunk, and puts it on the queue.

    ``finish_reason`` stays None until the upstream told one.
    """

    def __init__(self, prompt: Prompt, queue: EventQueue, clocks: TurnClocks) -> None:
        self.prompt = prompt
        self.clocks = clocks
        self.finish_reason: str | None = None
        self._queue = queue
        self._text = SurrogateJoiner()
        self._reasoning = SurrogateJoiner()
        self._told: Usage | None = None
        self._chunks = 0
        self._bytes = 0

    def chunk(self, text: str, reasoning: str, *, tool_call: bool) -> None:
        """One upstream chunk; both texts are often empty."""
        self.clocks.arrived(token=bool(text or reasoning or tool_call))
        if reasoning:
            self._say(Reasoning, self._reasoning.feed(reasoning))
        if text:
            self._say(Token, self._text.feed(text))

    def flush(self) -> None:
        """The upstream says nothing more: let out what was held back."""
        self._say(Reasoning, self._reasoning.flush())
        self._say(Token, self._text.flush())

    def finished(self, reason: str) -> None:
        self.finish_reason = reason
        self.clocks.finished()

    def used(self, usage: Usage) -> None:
        self._told = usage

    def usage(self) -> Usage:
        """As the upstream told, else estimated: most servers send a token a chunk, some more."""
        if self._told is not None:
            return self._told
        asked = -(-utf8_size(self.prompt.text) // BYTES_PER_TOKEN)
        answered = max(self._chunks, self._bytes // BYTES_PER_TOKEN)
        return Usage(asked, answered, asked + answered, estimated=True)

    def _say(self, kind: type[Token] | type[Reasoning], text: str) -> None:
        if text:
            self._chunks += 1
            self._bytes += utf8_size(text)
            self._queue.put(kind(text))


class UpstreamFailure(Exception):
    """An attempt failed. ``again``: asking once more may help; ``retry_after_s``: not sooner.

    ``kind`` is for the process's log: classes and statuses, never the upstream's text.
    """

    def __init__(
        self,
        error: UpstreamError,
        *,
        again: bool = False,
        retry_after_s: float | None = None,
        kind: str = "",
    ) -> None:
        super().__init__(kind)
        self.error = error
        self.again = again
        self.retry_after_s = retry_after_s


class UpstreamReader(Protocol):
    """Asks a model's server and streams its answer."""

    async def ask(self, turn: Turn) -> None:
        """One attempt. Returns when the answer has ended, well or not: ``turn`` knows.

        Raises ``UpstreamFailure``. Cancelling it closes the upstream connection.
        """

    async def aclose(self) -> None:
        """Close the connections that wait for the next turn."""
