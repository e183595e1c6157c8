"""LangChain's callbacks: what a model says, put on the run's queue as it comes."""

from typing import Any

from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk, GenerationChunk

from app.events.model import Usage
from app.llm.attempt import Attempt
from app.llm.text import repaired
from app.llm.turn import Turn

Token = str | list[str | dict[str, Any]]


class TokenHandler(AsyncCallbackHandler):
    """Puts what the model says on the run's queue, one callback for each upstream chunk."""

    run_inline = True
    raise_error = True
    takes_bare_text = True  # the lean reader's: no chunk where there is nothing but text

    def __init__(self, turn: Turn, attempt: Attempt) -> None:
        self._turn = turn
        self._attempt = attempt
        self.bug: Exception | None = None  # of ours, which is not the upstream's fault

    async def on_llm_new_token(
        self,
        token: Token,
        *,
        chunk: GenerationChunk | ChatGenerationChunk | None = None,
        **_: Any,
    ) -> None:
        try:
            if chunk is None and isinstance(token, str):
                self._turn.chunk(token, "", tool_call=False)
            else:
                self.tell(token, chunk)
        except Exception as error:
            self.bug = error
            raise
        if self._attempt.is_over_its_share():
            await self._attempt.give_way()

    def tell(self, token: Token, chunk: GenerationChunk | ChatGenerationChunk | None) -> None:
        """One chunk, to the turn."""
        text = token if isinstance(token, str) else _text(token)
        if not isinstance(chunk, ChatGenerationChunk) or not isinstance(
            chunk.message, AIMessageChunk
        ):
            self._turn.chunk(text, "", tool_call=False)
            return
        message = chunk.message
        text += _said(message, "refusal")
        reasoning = _said(message, "reasoning_content")
        self._turn.chunk(text, reasoning, tool_call=bool(message.tool_call_chunks))
        for at, piece in enumerate(message.tool_call_chunks):
            self._turn.tool_call_piece(
                at if piece["index"] is None else piece["index"],
                piece["id"] or "",
                piece["name"] or "",
                piece["args"] or "",
            )
        if message.usage_metadata and (usage := usage_of(message.usage_metadata)):
            self._turn.used(usage)
        reason = (chunk.generation_info or {}).get("finish_reason")
        if isinstance(reason, str):
            self._turn.finished(repaired(reason))


def _said(message: AIMessageChunk, name: str) -> str:
    """What others than our own models put there need not be text."""
    value = message.additional_kwargs.get(name)
    return value if isinstance(value, str) else ""


def _text(token: list[str | dict[str, Any]]) -> str:
    """Some servers send a list of parts where OpenAI sends a text."""
    texts = (part if isinstance(part, str) else part.get("text") for part in token)
    return "".join(text for text in texts if isinstance(text, str))


def usage_of(told: UsageMetadata) -> Usage | None:
    """None where the numbers are none that can be: then they are estimated."""
    numbers = (told["input_tokens"], told["output_tokens"], told["total_tokens"])
    if not all(0 <= number < 2**53 for number in numbers) or not any(numbers):
        return None
    return Usage(*numbers, estimated=False)
