"""Stock ``ChatOpenAI`` against the simulator: the client that the gateway is built on."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import openai
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from app.simulator import Simulator, expected_text
from app.simulator.texts import repaired

pytestmark = pytest.mark.anyio

BOUND_S = 20


@pytest.fixture
async def model(simulator: Simulator) -> AsyncIterator[ChatOpenAI]:
    async with httpx.AsyncClient() as client:
        yield ChatOpenAI(
            model="sim:tokens,n=4",
            base_url=simulator.url,
            api_key=SecretStr("any"),
            http_async_client=client,
            streaming=True,
            stream_usage=True,
            stream_chunk_timeout=None,
            max_retries=0,
            use_responses_api=False,
        )


async def _joined(
    model: ChatOpenAI, messages: list[HumanMessage | AIMessage | ToolMessage]
) -> AIMessageChunk:
    whole: AIMessageChunk | None = None
    async with asyncio.timeout(BOUND_S):
        async for chunk in model.astream(messages):
            assert isinstance(chunk, AIMessageChunk)
            whole = chunk if whole is None else whole + chunk
    assert whole is not None
    return whole


@pytest.mark.parametrize(
    ("prompt", "said_by"),
    [
        ("hello sim:plain,interval=0 what is SSE?", None),
        ("no spec: the model's name decides", "sim:tokens,n=4"),
        ("sim:tokens,n=300", None),
        ("sim:awkward", None),
        ("sim:awkward,cutat=5", None),
    ],
)
async def test_text_usage_and_finish_reason_arrive(
    model: ChatOpenAI, prompt: str, said_by: str | None
) -> None:
    answer = await _joined(model, [HumanMessage(prompt)])

    assert repaired(str(answer.content)) == expected_text(said_by or prompt)
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.response_metadata["model_name"] == "sim:tokens,n=4"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["input_tokens"] > 0
    if "tokens" in (said_by or prompt):
        said = expected_text(said_by or prompt).split()
        assert answer.usage_metadata["output_tokens"] == len(said)


async def test_a_tool_call_goes_there_and_back(model: ChatOpenAI) -> None:
    question = HumanMessage("sim:tool,preamble=1")
    call = await _joined(model, [question])

    assert [(c["name"], c["args"]) for c in call.tool_calls] == [("get_weather", {"city": "Paris"})]
    assert call.content == "Let me look that up. "
    assert call.response_metadata["finish_reason"] == "tool_calls"

    result = ToolMessage("18 degrees", tool_call_id=str(call.tool_calls[0]["id"]))
    said = AIMessage(content=call.content, tool_calls=call.tool_calls)
    answer = await _joined(model, [question, said, result])
    assert answer.content == "The tool says: 18 degrees"
    assert answer.response_metadata["finish_reason"] == "stop"


async def test_a_refusal_is_the_sdks_own_error(model: ChatOpenAI) -> None:
    with pytest.raises(openai.RateLimitError):
        await _joined(model, [HumanMessage("sim:status,code=429")])


async def test_an_error_in_the_stream_raises(model: ChatOpenAI) -> None:
    with pytest.raises(openai.APIError, match="The model broke"):
        await _joined(model, [HumanMessage("sim:error")])


async def test_leaving_early_closes_the_call(model: ChatOpenAI, simulator: Simulator) -> None:
    stream = model.astream([HumanMessage("sim:stall,after=1")])
    async with asyncio.timeout(BOUND_S):
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]  # typed as an iterator only
    await simulator.until(lambda view: view.aborted == 1)
