"""Asks the model through LangChain's stock ``ChatOpenAI`` and an ``AsyncCallbackHandler``.

Importing this takes a second: only ``ChatModel.load`` does, in a thread. Deliberate oddities, each
against a measured trap of LangChain (``performance.md``):

1. ``stream_chunk_timeout=None``: its ``wait_for`` around each chunk swallows cancels on 3.11.
2. ``ainvoke`` with ``streaming=True``, not ``astream``: leaving that one early closes nothing.
3. ``run_inline``: a handler that is not inline costs a gather for each token.
4. ``max_retries=0``: the SDK's own retries wait without a word; ours stand in ``model.py``.
5. No read timeout: it is for each read, so ``: ping`` comments would feed it for ever.
6. One client without a cap on connections, because the SDK's queues silently above 1,000.
"""

import warnings
from contextvars import ContextVar
from typing import Any

import httpx2
import openai
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import AIMessageChunk, HumanMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk, GenerationChunk
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from app.events.model import Usage
from app.llm.failures import failure_of
from app.llm.text import repaired
from app.llm.turn import Turn, UpstreamReader
from app.settings import Settings

OPENAI_URL = "https://api.openai.com/v1"
WRITE_TIMEOUT_S = 30.0  # for the request; a prompt is small
KEEPALIVE_CONNECTIONS = 100
KEEPALIVE_S = 30.0


class _Attempt:
    head_seen = False


_attempt: ContextVar[_Attempt] = ContextVar("_attempt")


class LangChainReader:
    def __init__(self, settings: Settings, base_url: str | None) -> None:
        """``base_url``: of the built-in simulator, where that is to answer."""
        # It prints pieces of the answer, where a chunk has an odd type.
        warnings.filterwarnings("ignore", "(?s).*Pydantic serializer warnings", UserWarning)
        url = base_url or settings.openai_base_url or OPENAI_URL
        self._client = openai.DefaultAsyncHttpxClient(
            timeout=httpx2.Timeout(
                connect=settings.connect_timeout_seconds,
                read=None,
                write=WRITE_TIMEOUT_S,
                pool=None,
            ),
            limits=httpx2.Limits(
                max_connections=None,
                max_keepalive_connections=KEEPALIVE_CONNECTIONS,
                keepalive_expiry=KEEPALIVE_S,
            ),
            headers={"accept-encoding": "identity"},
            event_hooks={"response": [_note_head]},
            trust_env=base_url is None,  # a proxy has no way to our own loopback
        )
        self._model = _ChatOpenAI(
            model=settings.model,
            base_url=url,
            api_key=SecretStr(settings.openai_api_key or "none"),  # the SDK refuses an empty one
            http_async_client=self._client,
            timeout=self._client.timeout,  # None would override the client's
            streaming=True,
            stream_usage=True,
            stream_chunk_timeout=None,
            max_retries=0,
            use_responses_api=False,
        )

    async def ask(self, turn: Turn) -> None:
        attempt = _Attempt()
        _attempt.set(attempt)
        handler = TokenHandler(turn)
        try:
            await self._model.ainvoke(
                [HumanMessage(turn.prompt.text)],
                {"callbacks": [handler]},
                model=turn.prompt.model,
                **turn.prompt.parameters,
            )
        except Exception as error:
            if handler.bug is not None:
                raise
            raise failure_of(error, head_seen=attempt.head_seen) from error

    async def aclose(self) -> None:
        await self._client.aclose()


class TokenHandler(AsyncCallbackHandler):
    """Puts what the model says on the run's queue, one callback for each upstream chunk."""

    run_inline = True
    raise_error = True

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self.bug: Exception | None = None  # of ours, which is not the upstream's fault

    async def on_llm_new_token(
        self,
        token: str | list[str | dict[str, Any]],
        *,
        chunk: GenerationChunk | ChatGenerationChunk | None = None,
        **_: Any,
    ) -> None:
        try:
            self._tell(_text(token), chunk)
        except Exception as error:
            self.bug = error
            raise
        await self._turn.give_way()

    def _tell(self, text: str, chunk: GenerationChunk | ChatGenerationChunk | None) -> None:
        if not isinstance(chunk, ChatGenerationChunk) or not isinstance(
            chunk.message, AIMessageChunk
        ):
            self._turn.chunk(text, "", tool_call=False)
            return
        message = chunk.message
        text += message.additional_kwargs.get("refusal", "")
        reasoning = message.additional_kwargs.get("reasoning_content", "")
        self._turn.chunk(text, reasoning, tool_call=bool(message.tool_call_chunks))
        if message.usage_metadata and (usage := _usage(message.usage_metadata)):
            self._turn.used(usage)
        reason = (chunk.generation_info or {}).get("finish_reason")
        if isinstance(reason, str):
            self._turn.finished(repaired(reason))


class _ChatOpenAI(ChatOpenAI):
    """Stock, but for what stock drops, mixes up or renames."""

    def _convert_chunk_to_generation_chunk(
        self,
        chunk: dict[str, Any],
        default_chunk_class: type,
        base_generation_info: dict[str, Any] | None,
    ) -> ChatGenerationChunk | None:
        """Keeps the reasoning field of vLLM, DeepSeek and Qwen style servers, and refusals; passes
        over choices other than the first, which would be mixed into it."""
        choice = (chunk.get("choices") or [{}])[0]
        if choice.get("index"):
            return None
        if choice.get("finish_reason") and choice.get("delta") is None:
            choice["delta"] = {}
        generation = super()._convert_chunk_to_generation_chunk(
            chunk, default_chunk_class, base_generation_info
        )
        delta = choice.get("delta") or {}
        if generation is not None:
            for name, value in (
                ("reasoning_content", delta.get("reasoning_content") or delta.get("reasoning")),
                ("refusal", delta.get("refusal")),
            ):
                if value and isinstance(value, str):
                    generation.message.additional_kwargs[name] = value
        return generation

    def _get_request_payload(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """``max_tokens`` under its old name, which alone all compatible servers know."""
        payload = super()._get_request_payload(*args, **kwargs)
        if (self.openai_api_base or "").rstrip(
            "/"
        ) != OPENAI_URL and "max_completion_tokens" in payload:
            payload["max_tokens"] = payload.pop("max_completion_tokens")
        return payload


async def _note_head(response: httpx2.Response) -> None:
    _attempt.get().head_seen = response.is_success


def _text(token: str | list[str | dict[str, Any]]) -> str:
    """Some servers send a list of parts where OpenAI sends a text."""
    if isinstance(token, str):
        return token
    texts = (part if isinstance(part, str) else part.get("text") for part in token)
    return "".join(text for text in texts if isinstance(text, str))


def _usage(told: UsageMetadata) -> Usage | None:
    """None where the numbers are none that can be: then they are estimated."""
    numbers = (told["input_tokens"], told["output_tokens"], told["total_tokens"])
    if not all(0 <= number < 2**53 for number in numbers) or not any(numbers):
        return None
    return Usage(*numbers, estimated=False)


_: type[UpstreamReader] = LangChainReader
