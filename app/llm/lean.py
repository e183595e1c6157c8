"""``ChatOpenAI`` that reads its streams with aiohttp and msgspec: the same, for a tenth of the CPU.

Of stock it keeps the request (LangChain builds it), every callback with its chunk, the final
message, the classes of errors and cancellation; a differential test holds it to that. What differs:

1. aiohttp reads the bytes and ``DataSplitter`` cuts them. An event of text or reasoning alone is
   decoded into a struct; every other one goes through stock's own code. So what is frequent is fast
   and what is rare is exact.
2. ``ainvoke`` streams inside ``_agenerate`` and keeps texts, not chunks. A chunk of text is made
   without pydantic's validation, with the fields that stock's has.
3. One callback for each upstream event, also when many come in one read, because a handler may
   count them. Inline handlers are awaited as LangChain's manager does, without its gather.
4. The SDK's own retries are not made; the gateway retries. Structured output, the Responses API and
   LangSmith's gateway are left to stock.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, Literal

import aiohttp
import httpx2
import msgspec
import openai
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.utils.utils import LC_ID_PREFIX
from langchain_openai.chat_models.base import _handle_openai_api_error, _handle_openai_bad_request
from openai._models import construct_type
from openai.types.chat import ChatCompletionChunk
from pydantic import PrivateAttr

from app.llm.attempt import note_head
from app.llm.chunks import Parts, emitter, plain_chunk
from app.llm.sse import DataSplitter
from app.llm.stock import StockChatOpenAI

ERROR_BODY_BYTES = 64 * 1024  # of a refusal; only its code is looked at
KEEPALIVE_S = 30.0
DRAIN_S = 1.0  # how long the end of a body may take to come behind [DONE]
_DONE = b"[DONE]"

# A chunk, and whether it is of text or reasoning alone.
Said = tuple[ChatGenerationChunk, bool]
_End = Exception | Literal["done"] | None


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

    _session: aiohttp.ClientSession | None = PrivateAttr(default=None)
    _drains: set[asyncio.Task[None]] = PrivateAttr(default_factory=set)

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
        parts = Parts(f"{LC_ID_PREFIX}-{run_manager.run_id}" if run_manager else None)
        emit = emitter(run_manager)
        async with aclosing(self._batches(payload, parts.message_id)) as batches:
            async for batch in batches:
                for chunk, plain in batch:
                    parts.add(chunk, plain=plain)
                    if emit is not None:
                        await emit(chunk.message.content, chunk)
        end = parts.end()
        if end is not None and emit is not None:
            await emit("", end)
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
        async with aclosing(self._batches(payload, None)) as batches:
            async for batch in batches:
                for chunk, _ in batch:
                    if run_manager:
                        logprobs = (chunk.generation_info or {}).get("logprobs")
                        await run_manager.on_llm_new_token(
                            chunk.text, chunk=chunk, logprobs=logprobs
                        )
                    yield chunk

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
        for_stock = "response_format" in payload or self._use_responses_api(payload)
        if for_stock or self.include_response_headers or self._uses_gateway:
            return None
        return payload

    async def _batches(
        self, payload: dict[str, Any], message_id: str | None
    ) -> AsyncGenerator[list[Said], None]:
        """The chunks of each read. To be closed by who iterates: that closes the connection."""
        request = httpx2.Request(
            "POST", f"{(self.openai_api_base or '').rstrip('/')}/chat/completions"
        )
        with stock_errors(request):
            response = await self._post(request, payload)
            split = DataSplitter().feed
            end: _End = None
            try:
                async for read in response.content.iter_any():
                    batch, end = self._decoded(split(read), request, message_id)
                    if batch:
                        yield batch
                    if end is not None:
                        break
            finally:
                if end == "done":
                    self._drain(response)
                else:
                    response.close()
            if isinstance(end, Exception):
                raise end

    def _decoded(
        self, events: list[bytes], request: httpx2.Request, message_id: str | None
    ) -> tuple[list[Said], _End]:
        """The chunks up to the end, if it is among these events: what came before counts."""
        said: list[Said] = []
        for data in events:
            if data.startswith(_DONE):
                return said, "done"
            try:
                delta = _plain(data).choices[0].delta
            except (msgspec.DecodeError, UnicodeDecodeError):
                try:
                    if chunk := self._stock_chunk(data, request):
                        said.append((chunk, False))
                except Exception as error:  # noqa: BLE001  # raised once what came before is out
                    return said, error
            else:
                reasoning = delta.reasoning_content or delta.reasoning or ""
                said.append((plain_chunk(delta.content or "", reasoning, message_id), True))
        return said, None

    async def _post(
        self, request: httpx2.Request, payload: dict[str, Any]
    ) -> aiohttp.ClientResponse:
        """The head of a 200. Raises what the SDK raises for other statuses."""
        client = self.root_async_client
        headers = {
            name: value
            for name, value in {**client.default_headers, **client.auth_headers}.items()
            if isinstance(value, str)
        }
        response = await self._connections().post(
            str(request.url),
            data=msgspec.json.encode(payload),
            headers=headers | {"content-type": "application/json", "accept-encoding": "identity"},
            params=client.default_query,
        )
        if response.status < 300:
            note_head()
            return response
        try:
            body = await response.content.read(ERROR_BODY_BYTES)
        finally:
            response.close()
        raise client._make_status_error_from_response(
            httpx2.Response(
                response.status,
                headers=list(response.headers.items()),
                content=body,
                request=request,
            )
        )

    def _stock_chunk(self, data: bytes, request: httpx2.Request) -> ChatGenerationChunk | None:
        """As ``AsyncStream`` and ``ChatOpenAI._astream`` do it, line by line."""
        told = json.loads(data.decode())
        if isinstance(told, dict) and (error := told.get("error")):
            message = error.get("message") if isinstance(error, dict) else None
            raise openai.APIError(
                message
                if isinstance(message, str) and message
                else "An error occurred during streaming",
                request=request,
                body=error,
            )
        typed: Any = construct_type(type_=ChatCompletionChunk, value=told)
        return self._convert_chunk_to_generation_chunk(typed.model_dump(), AIMessageChunk, {})

    def _connections(self) -> aiohttp.ClientSession:
        """Made in the loop that uses it. No cap: a cap would queue without a word."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.connect_timeout_s),
                trust_env=self.trust_env,
                auto_decompress=True,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _drain(self, response: aiohttp.ClientResponse) -> None:
        """Behind [DONE] only the end of the body is to come; read to it, the connection can serve
        the next request. Nobody waits for that."""
        if response.content.at_eof():
            return  # which gave it back
        task = asyncio.ensure_future(_read_to_end(response))
        self._drains.add(task)
        task.add_done_callback(self._drains.discard)

    async def aclose(self) -> None:
        for task in self._drains:
            task.cancel()
        await asyncio.gather(*self._drains, return_exceptions=True)
        if self._session is not None:
            await self._session.close()


async def _read_to_end(response: aiohttp.ClientResponse) -> None:
    try:
        async with asyncio.timeout(DRAIN_S):
            while await response.content.readany():
                pass
    except (TimeoutError, aiohttp.ClientError):
        pass  # then the connection serves nobody again
    finally:
        response.close()  # a body read to its end has given its connection back before


@contextmanager
def stock_errors(request: httpx2.Request) -> Iterator[None]:
    """aiohttp's errors as the SDK's, and those as LangChain's."""
    try:
        try:
            yield
        except TimeoutError as error:
            raise openai.APITimeoutError(request=request) from error
        except (aiohttp.ClientError, OSError) as error:
            raise openai.APIConnectionError(request=request) from error
    except openai.BadRequestError as error:
        _handle_openai_bad_request(error)
    except openai.APIError as error:
        _handle_openai_api_error(error)
