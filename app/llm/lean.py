"""``ChatOpenAI`` that reads its streams with aiohttp and msgspec: the same, for a tenth of the CPU.

Of stock it keeps the request (LangChain builds it), every callback with its chunk, the final
message, the classes of errors and cancellation; a differential test holds it to that. What differs:

1. aiohttp reads the bytes and ``DataSplitter`` cuts them. An event of text or reasoning alone is
   decoded into a struct; every other one goes through stock's own code. So what is frequent is fast
   and what is rare is exact.
2. ``ainvoke`` streams inside ``_agenerate`` and keeps texts, not chunks. A chunk of text is made
   without pydantic's validation, with the fields that stock's has, and for our own handler not at
   all (``app.llm.chunks``).
3. One callback for each upstream event, also when many come in one read, because a handler may
   count them. Inline handlers are awaited as LangChain's manager does, without its gather.
4. The SDK's own retries are not made; the gateway retries. Structured output, the Responses API and
   LangSmith's gateway are left to stock.
"""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import msgspec
import openai
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.utils.utils import LC_ID_PREFIX
from openai._models import construct_type
from openai.types.chat import ChatCompletionChunk
from pydantic import PrivateAttr

from app.llm.chunks import Listeners, Parts, plain_chunk
from app.llm.connections import Answer, Connections, stock_errors
from app.llm.stock import StockChatOpenAI

_DONE = b"[DONE]"


class _Delta(msgspec.Struct, gc=False):
    """A delta of text or reasoning alone. What stock would look at must be null or absent here,
    else decoding fails and stock's code takes over."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: None = None
    function_call: None = None
    refusal: None = None
    id: None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta
    index: Literal[0] = 0
    finish_reason: None = None
    logprobs: None = None


class _Plain(msgspec.Struct, gc=False):
    choices: tuple[_Choice]
    usage: None = None
    error: None = None
    type: None = None


_plain = msgspec.json.Decoder(_Plain).decode


class LeanChatOpenAI(StockChatOpenAI):
    """Leave ``streaming`` unset, or LangChain goes around ``_agenerate``."""

    connect_timeout_s: float = 10.0
    trust_env: bool = True

    _made: Connections | None = PrivateAttr(default=None)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        payload = self._stream_payload(messages, stop, kwargs)
        if payload is None:
            return await super()._agenerate(messages, stop, run_manager, **kwargs)
        message_id = f"{LC_ID_PREFIX}-{run_manager.run_id}" if run_manager else None
        parts, listeners = Parts(message_id), Listeners(run_manager, message_id)
        answer = await self._connections().ask(payload)
        try:
            while not answer.whole and (events := await answer.read()) is not None:
                for said in self._said(events, answer):
                    if isinstance(said, _Delta):
                        text, reasoning = said.content or "", _reasoning(said)
                        parts.add_plain(text, reasoning)
                        await listeners.plain(text, reasoning)
                    elif said is None:
                        await answer.give_way()
                    else:
                        parts.add(said)
                        await listeners.chunk(said)
        finally:
            answer.close()
        if end := parts.end():
            await listeners.chunk(end)
        return parts.result()

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        payload = self._stream_payload(messages, stop, kwargs)
        if payload is None:
            async for chunk in super()._astream(messages, stop, run_manager, **kwargs):
                yield chunk
            return
        answer = await self._connections().ask(payload)
        try:
            while not answer.whole and (events := await answer.read()) is not None:
                for said in self._said(events, answer):
                    if said is None:
                        await answer.give_way()
                        continue
                    if isinstance(said, _Delta):
                        chunk = plain_chunk(said.content or "", _reasoning(said), None)
                    else:
                        chunk = said
                    if run_manager:
                        logprobs = (chunk.generation_info or {}).get("logprobs")
                        await run_manager.on_llm_new_token(
                            chunk.text, chunk=chunk, logprobs=logprobs
                        )
                    yield chunk
        finally:
            answer.close()

    def _stream_payload(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> dict[str, Any] | None:
        """The request's body; None where stock is to make the request."""
        told = {key: value for key, value in kwargs.items() if key != "stream_usage"}
        if self._should_stream_usage(kwargs.get("stream_usage"), **told):
            told["stream_options"] = {"include_usage": True}
        payload: dict[str, Any] = self._get_request_payload(
            messages, stop=stop, **{**told, "stream": True}
        )
        payload |= payload.pop("extra_body", None) or {}  # as the SDK merges it
        for_stock = "response_format" in payload or self._use_responses_api(payload)
        if for_stock or self.include_response_headers or self._uses_gateway:
            return None
        return payload

    def _said(
        self, events: list[bytes], answer: Answer
    ) -> Iterator[_Delta | ChatGenerationChunk | None]:
        """What each event says, or None, up to the end, which ``answer`` is told of."""
        for data in events:
            if data.startswith(_DONE):
                answer.end()
                return
            try:
                delta = _plain(data).choices[0].delta
            except (msgspec.DecodeError, UnicodeDecodeError):
                yield self._stock_chunk(data, answer)
            else:
                yield delta

    def _stock_chunk(self, data: bytes, answer: Answer) -> ChatGenerationChunk | None:
        """As ``AsyncStream`` and ``ChatOpenAI._astream`` do it, line by line."""
        told = json.loads(data.decode())
        if isinstance(told, dict) and (error := told.get("error")):
            message = error.get("message") if isinstance(error, dict) else None
            if not isinstance(message, str) or not message:
                message = "An error occurred during streaming"
            with stock_errors(answer.request):
                raise openai.APIError(message, request=answer.request, body=error)
        return self._convert_chunk_to_generation_chunk(_typed(told), AIMessageChunk, {})

    def _connections(self) -> Connections:
        """Made in the loop that uses it."""
        if self._made is None:
            self._made = Connections(
                self.root_async_client,
                f"{(self.openai_api_base or '').rstrip('/')}/chat/completions",
                connect_timeout_s=self.connect_timeout_s,
                trust_env=self.trust_env,
            )
        return self._made

    async def aclose(self) -> None:
        if self._made is not None:
            await self._made.aclose()


def _reasoning(delta: _Delta) -> str:
    return delta.reasoning_content or delta.reasoning or ""


def _typed(told: Any) -> Any:
    """The event as the SDK's models show it: fields that it lacks are None. Half the cost of an
    event, so not where stock asks for nothing that may be missing: at an answer's usual end."""
    match told:
        case {"choices": [], "usage": {}} if not told["usage"]:
            pass  # the model makes zeros of it
        case {"choices": []}:
            return told
        case {"choices": [{"delta": {**delta}, **choice}], **event} if (
            not delta.get("tool_calls")
            and delta.get("function_call") is None
            and choice.get("logprobs") is None
            and event.get("usage") != {}
        ):
            return told
    typed: Any = construct_type(type_=ChatCompletionChunk, value=told)
    return typed.model_dump()
