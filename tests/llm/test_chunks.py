"""Merging an answer's chunks as they come gives what LangChain's merging at the end gives."""

import random
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import SecretStr

from app.llm import chunks
from app.llm.chunks import Parts
from app.llm.stock import StockChatOpenAI

MODEL = StockChatOpenAI(model="m", base_url="http://model.invalid/v1", api_key=SecretStr("k"))
COUNT = 5 * chunks.MERGE_AT


def converted(choices: list[dict[str, Any]], usage: dict[str, int] | None) -> ChatGenerationChunk:
    event = {"model": "m", "service_tier": "default", "choices": choices, "usage": usage}
    chunk = MODEL._convert_chunk_to_generation_chunk(event, AIMessageChunk, {})
    assert chunk is not None
    return chunk


def some_chunk(rnd: random.Random, at: int) -> ChatGenerationChunk:
    """Anything but the last: pieces of two tool calls, text with usage or logprobs, usage alone."""
    usage = {"prompt_tokens": 1, "completion_tokens": at, "total_tokens": at + 1}
    kind = rnd.randrange(4)
    if kind == 0:
        return converted([], usage)
    choice: dict[str, Any] = {"index": 0, "finish_reason": None, "logprobs": None}
    if kind == 1:
        index = rnd.randrange(2)
        function = {"name": f"f{index}" if at < 2 else None, "arguments": f"{at} "}
        call = {"index": index, "id": None, "type": "function", "function": function}
        return converted([{**choice, "delta": {"content": None, "tool_calls": [call]}}], None)
    if kind == 2:
        logprobs = {"content": [{"token": f"{at}", "logprob": -0.5}], "refusal": None}
        return converted([{**choice, "delta": {"content": f"{at} "}, "logprobs": logprobs}], None)
    return converted([{**choice, "delta": {"content": f"{at} "}}], usage)


def answer() -> ChatResult:
    rnd = random.Random(20261122)  # the same each time
    parts = Parts("lc_run--1")
    for at in range(COUNT):
        if rnd.random() < 0.3:
            parts.add_plain(f"plain{at} ", "because " if rnd.random() < 0.2 else "")
        else:
            parts.add(some_chunk(rnd, at))
    return parts.result()


def test_merging_from_time_to_time_gives_what_merging_at_the_end_gives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    merged = answer()
    monkeypatch.setattr(chunks, "MERGE_AT", 10**9)
    assert merged == answer()
    message = merged.generations[0].message
    assert isinstance(message, AIMessage)
    assert len(message.tool_calls) + len(message.invalid_tool_calls) == 2
    assert message.usage_metadata
