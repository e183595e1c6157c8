"""Hears what happens inside a ``Runnable`` and sorts it into turns, tool calls and results.

1. It is a streaming handler of LangChain's, so that models stream although they are only invoked.
2. A model call tagged ``nostream``, LangGraph's word, stays out.
3. Of models that speak at once the first is heard as the answer, and none while a tool runs: their
   texts would be mixed into one, and a ``retract`` takes back what came last. They are drafts.
4. A cancel is raised in callbacks too. A thread cannot be cancelled otherwise, and ``wait_for``
   around each chunk, ``ChatOpenAI``'s default, swallows a cancel on Python 3.11 (cpython#86296).
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, NamedTuple
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    ToolMessage,
)
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, LLMResult
from langchain_core.tracers._streaming import _StreamingCallbackHandler

from app.events.model import ToolCall, ToolResult, Usage
from app.llm.attempt import Attempt
from app.llm.callback import TokenHandler, usage_of
from app.llm.clocks import TurnClocks
from app.llm.reply import Reply
from app.llm.text import repaired
from app.llm.turn import Turn
from app.llm.upstream import Begin

logger = logging.getLogger(__name__)

NOSTREAM = "nostream"
TOOL_FAILED = "The tool failed."


class _Awaited(NamedTuple):
    """A call that was told of and has not begun, under the id that its model's server gave."""

    given_id: str
    call: ToolCall


class Listener(AsyncCallbackHandler, _StreamingCallbackHandler[Any]):
    """For one run, in its task. ``bug``: of ours, or of what we take: LangChain swallows what is
    raised in a thread."""

    run_inline = True
    raise_error = True

    def __init__(self, reply: Reply, begin: Begin, clocks: TurnClocks) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a listener belongs to a task")
        self.finish_reason = "stop"
        self.bug: Exception | None = None
        self._reply = reply
        self._begin = begin
        self._clocks = clocks
        self._loop = asyncio.get_running_loop()
        self._task = task
        self._cancelling = task.cancelling()
        self._closed = False
        self._attempt = Attempt()
        self._speaking: dict[UUID, Turn] = {}
        self._heard: set[UUID] = set()
        self._failures: list[tuple[BaseException, bool]] = []
        self._called: set[str] = set()
        self._awaited: list[_Awaited] = []
        self._tools: dict[UUID, ToolCall] = {}

    # -- of LangChain, in any thread ------------------------------------------------------------

    async def on_chat_model_start(
        self,
        serialized: dict[str, Any],  # noqa: ARG002  # LangChain's, as below
        messages: list[list[BaseMessage]],  # noqa: ARG002
        *,
        run_id: UUID,
        tags: list[str] | None = None,
        **_: Any,
    ) -> None:
        if NOSTREAM not in (tags or ()):
            self._here(self._model_begins, run_id)

    async def on_llm_new_token(self, token: Any, *, run_id: UUID, **more: Any) -> None:
        self._here(self._model_says, run_id, token, more.get("chunk"))
        if self._attempt.is_over_its_share() and self._is_here():
            await self._attempt.give_way()

    async def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        self._here(self._model_ends, run_id, response)

    async def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        self._here(self._model_fails, run_id, error)

    async def on_tool_start(
        self, serialized: dict[str, Any], input_str: str, *, run_id: UUID, **more: Any
    ) -> None:
        name = repaired((serialized or {}).get("name") or "tool")
        given_id = repaired(more.get("tool_call_id") or "")
        arguments = _arguments(more.get("inputs"), input_str)
        self._here(self._tool_begins, run_id, given_id, name, arguments)

    async def on_tool_end(self, output: Any, *, run_id: UUID, **_: Any) -> None:
        is_error = isinstance(output, ToolMessage) and output.status == "error"
        self._here(self._tool_ends, run_id, _content(output), is_error)

    async def on_tool_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        logger.warning("a tool of a runnable failed: %s", type(error).__name__)
        self._here(self._tool_ends, run_id, TOOL_FAILED, True)

    def tap_output_aiter(self, _: UUID, output: AsyncIterator[Any]) -> AsyncIterator[Any]:
        return output

    def tap_output_iter(self, _: UUID, output: Iterator[Any]) -> Iterator[Any]:
        return output

    # -- of the run -----------------------------------------------------------------------------

    @property
    def is_cancelled(self) -> bool:
        return self._task.cancelling() > self._cancelling

    def is_of_model(self, error: BaseException) -> bool:
        """A model call ended with it."""
        return any(error is known for known, _ in self._failures)

    def has_heard(self, error: BaseException) -> bool:
        """And had begun to answer."""
        return any(error is known and heard for known, heard in self._failures)

    def end(self, told: Any) -> None:
        """Where no model said the answer, it is what came out."""
        turns = list(self._reply.turns)
        text = _last_words(told)
        if not text or any(turn.has_answered for turn in turns):
            return
        turn = self._begin(self._reply, self._clocks)
        turn.chunk(text, "", tool_call=False)
        turn.flush()
        if turns:  # the models have told what they used
            turn.used(Usage(0, 0, 0, estimated=False))

    def close(self) -> None:
        """Hears nothing more."""
        self._closed = True
        for turn in self._speaking.values():
            turn.flush()

    # -- in our loop ----------------------------------------------------------------------------

    def _is_here(self) -> bool:
        return asyncio.get_running_loop() is self._loop

    def _here(self, do: Callable[..., None], *arguments: Any) -> None:
        """In our loop, whoever tells us. Raises what is to end the runnable."""
        if self._closed or self.is_cancelled:
            raise asyncio.CancelledError
        if not self._is_here():
            self._loop.call_soon_threadsafe(self._noted, do, *arguments)
        else:
            self._noted(do, *arguments)
        if self.bug is not None:
            raise self.bug

    def _noted(self, do: Callable[..., None], *arguments: Any) -> None:
        if self._closed or self.is_cancelled:
            return
        try:
            do(*arguments)
        except Exception as error:  # noqa: BLE001  # raised by ``_here`` and by ``run``
            self.bug = error

    def _model_begins(self, run_id: UUID) -> None:
        aside = bool(self._speaking or self._tools)
        self._clocks.begin()
        self._speaking[run_id] = self._begin(self._reply, self._clocks, aside=aside)
        self._reply.answered_by = self._reply.prompt.entry.name

    def _model_says(self, run_id: UUID, token: Any, chunk: Any) -> None:
        if (turn := self._speaking.get(run_id)) is not None:
            self._heard.add(run_id)
            TokenHandler(turn, self._attempt).tell(token, chunk)

    def _model_ends(self, run_id: UUID, response: LLMResult) -> None:
        heard = run_id in self._heard
        turn = self._silenced(run_id)
        if turn is None:
            return
        if (message := _message(response)) is not None:
            if not heard:  # it did not stream
                TokenHandler(turn, self._attempt).tell(message.content, _as_chunk(message))
            if message.usage_metadata and (usage := usage_of(message.usage_metadata)):
                turn.used(usage)  # of all chunks together: not every library tells it in one
        turn.flush()
        calls = turn.calls(self._called)
        self._awaited += map(_Awaited, turn.given_ids, calls)
        for call in calls:
            self._call(call)
        self.finish_reason = "stop" if calls else turn.finish_reason or "stop"

    def _model_fails(self, run_id: UUID, error: BaseException) -> None:
        self._failures.append((error, run_id in self._heard))
        if (turn := self._silenced(run_id)) is not None:
            turn.flush()

    def _silenced(self, run_id: UUID) -> Turn | None:
        self._heard.discard(run_id)
        turn = self._speaking.pop(run_id, None)
        if not self._speaking:
            self._clocks.pause()
        return turn

    def _tool_begins(self, run_id: UUID, given_id: str, name: str, arguments: str) -> None:
        for awaited in self._awaited:
            if (awaited.given_id, awaited.call.tool) == (given_id, name):
                self._awaited.remove(awaited)
                self._tools[run_id] = awaited.call
                return
        call_id = given_id if given_id and given_id not in self._called else str(run_id)
        call = self._tools[run_id] = ToolCall(call_id, name, arguments)
        self._call(call)

    def _call(self, call: ToolCall) -> None:
        self._called.add(call.id)
        self._reply.queue.put(call)

    def _tool_ends(self, run_id: UUID, content: str, is_error: bool) -> None:
        if (call := self._tools.pop(run_id, None)) is not None:
            self._reply.queue.put(ToolResult(call.id, call.tool, content, is_error))


def _message(response: LLMResult) -> AIMessage | None:
    generation = response.generations[0][0] if response.generations else None
    message = generation.message if isinstance(generation, ChatGeneration) else None
    return message if isinstance(message, AIMessage) else None


def _as_chunk(message: AIMessage) -> ChatGenerationChunk:
    return ChatGenerationChunk(
        message=AIMessageChunk(
            content=message.content,
            additional_kwargs=message.additional_kwargs,
            tool_call_chunks=[
                tool_call_chunk(
                    name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=at
                )
                for at, call in enumerate(message.tool_calls)
            ],
        ),
        generation_info={"finish_reason": message.response_metadata.get("finish_reason")},
    )


def _arguments(inputs: Any, written: str) -> str:
    try:
        return repaired(json.dumps(inputs, default=str) if inputs is not None else written)
    except (TypeError, ValueError, RecursionError):  # what code gives a tool need not be JSON
        return repaired(written)


def _last_words(told: Any) -> str:
    if isinstance(told, Mapping):
        told = told.get("messages")
    if isinstance(told, list):
        told = told[-1] if told else None
    return "" if told is None or isinstance(told, HumanMessage) else _content(told)


def _content(output: Any) -> str:
    if isinstance(output, BaseMessage):
        return repaired(str(output.text))
    if isinstance(output, str):
        return repaired(output)
    return repaired(json.dumps(output, default=str))
