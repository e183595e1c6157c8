"""LangChain's chunks, made and merged without work that nobody sees."""

import inspect
import logging
from collections.abc import Awaitable
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult

logger = logging.getLogger(__name__)

# Chunks that are kept until they are merged: each takes 3 KB, merging this many a few milliseconds.
MERGE_AT = 256
_set = object.__setattr__  # past pydantic's, which validates
_MESSAGE_FIELDS = frozenset({"content", "additional_kwargs", "id", "tool_call_chunks"})
_CHUNK_FIELDS = frozenset({"message", "generation_info", "text"})


def plain_chunk(text: str, reasoning: str, message_id: str | None) -> ChatGenerationChunk:
    """The chunk that stock makes of a delta of text or reasoning, without pydantic's validation."""
    message = AIMessageChunk.__new__(AIMessageChunk)
    _set(
        message,
        "__dict__",
        {
            "content": text,
            "additional_kwargs": {"reasoning_content": reasoning} if reasoning else {},
            "response_metadata": {"model_provider": "openai"},
            "type": "AIMessageChunk",
            "name": None,
            "id": message_id,
            "tool_calls": [],
            "invalid_tool_calls": [],
            "usage_metadata": None,
            "tool_call_chunks": [],
            "chunk_position": None,
        },
    )
    _set(message, "__pydantic_fields_set__", set(_MESSAGE_FIELDS))
    _set(message, "__pydantic_extra__", {})
    _set(message, "__pydantic_private__", None)
    chunk = ChatGenerationChunk.__new__(ChatGenerationChunk)
    _set(
        chunk,
        "__dict__",
        {"text": text, "generation_info": None, "type": "ChatGenerationChunk", "message": message},
    )
    _set(chunk, "__pydantic_fields_set__", set(_CHUNK_FIELDS))
    _set(chunk, "__pydantic_extra__", None)
    _set(chunk, "__pydantic_private__", None)
    return chunk


class Parts:
    """One answer's chunks as ``generate_from_stream`` merges them. Plain ones in a row are kept as
    texts and joined: a chunk for each token would keep 1.9 KB. Others are merged from time to time:
    at the end alone it would take seconds for a tool call of 30,000 pieces."""

    def __init__(self, message_id: str | None) -> None:
        self.message_id = message_id
        self._chunks: list[ChatGenerationChunk] = []
        self._texts: list[str] = []
        self._reasonings: list[str] = []
        self._closed = True  # also where nothing came

    def add_plain(self, text: str, reasoning: str) -> None:
        """A chunk of ``plain_chunk``, without making it."""
        self._closed = False
        self._texts.append(text)
        if reasoning:
            self._reasonings.append(reasoning)

    def add(self, chunk: ChatGenerationChunk) -> None:
        """As ``BaseChatModel`` gathers a chunk: it gets its id and metadata."""
        self._join()
        message = chunk.message
        self._closed = not isinstance(message, AIMessageChunk) or bool(message.chunk_position)
        message.response_metadata = {**(chunk.generation_info or {}), **message.response_metadata}
        if message.id is None:
            message.id = self.message_id
        self._chunks.append(chunk)
        if len(self._chunks) >= MERGE_AT:
            first, *rest = self._chunks
            self._chunks = [first + rest]

    def end(self) -> ChatGenerationChunk | None:
        """The empty chunk that closes an answer, unless the upstream's own did."""
        if self._closed:
            return None
        end = ChatGenerationChunk(
            message=AIMessageChunk(content="", chunk_position="last", id=self.message_id)
        )
        self._join()
        self._chunks.append(end)
        return end

    def result(self) -> ChatResult:
        """Raises ``ValueError`` when nothing came."""
        self._join()
        return generate_from_stream(iter(self._chunks))

    def _join(self) -> None:
        if self._texts:
            text, reasoning = "".join(self._texts), "".join(self._reasonings)
            self._chunks.append(plain_chunk(text, reasoning, self.message_id))
            self._texts, self._reasonings = [], []


class Listeners:
    """Who hears of one call's chunks: LangChain's ``on_llm_new_token``, handlers looked up once.

    Inline coroutine handlers are awaited directly, with the manager's arguments and its rule for
    errors; with any other kind attached, the manager does it all. A handler class with
    ``takes_bare_text = True``, such as our own, gets text alone with ``chunk=None``, which
    LangChain documents as optional: where only such ones listen, no chunk is made for a token.
    """

    def __init__(
        self, run_manager: AsyncCallbackManagerForLLMRun | None, message_id: str | None
    ) -> None:
        self._manager = run_manager
        self._message_id = message_id
        handlers = run_manager.handlers if run_manager else []
        self._handlers = [handler for handler in handlers if not handler.ignore_llm]
        self._direct = all(
            handler.run_inline and inspect.iscoroutinefunction(handler.on_llm_new_token)
            for handler in self._handlers
        )
        self._bare = self._direct and all(
            getattr(handler, "takes_bare_text", False) for handler in self._handlers
        )
        self._run_id: Any = run_manager.run_id if run_manager else None
        self._parent_run_id = run_manager.parent_run_id if run_manager else None
        self._tags = run_manager.tags if run_manager else None

    def plain(self, text: str, reasoning: str) -> Awaitable[None]:
        """Tell of a chunk of text or reasoning alone."""
        if self._bare and not reasoning:
            return self._tell(text, None)
        return self.chunk(plain_chunk(text, reasoning, self._message_id))

    def chunk(self, chunk: ChatGenerationChunk) -> Awaitable[None]:
        token: Any = chunk.message.content
        if self._direct or self._manager is None:
            return self._tell(token, chunk)
        return self._manager.on_llm_new_token(token, chunk=chunk)

    async def _tell(self, token: Any, chunk: ChatGenerationChunk | None) -> None:
        for handler in self._handlers:
            try:
                await handler.on_llm_new_token(
                    token,
                    chunk=chunk,
                    run_id=self._run_id,
                    parent_run_id=self._parent_run_id,
                    tags=self._tags,
                )
            except Exception as error:
                logger.warning(
                    "Error in %s.on_llm_new_token callback: %r", type(handler).__name__, error
                )
                if handler.raise_error:
                    raise
