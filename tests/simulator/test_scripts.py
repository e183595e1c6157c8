"""Every script that ends well, as a client sees it over a real socket."""

import json
import time
from typing import Any

import httpx
import pytest

from app.simulator import AWKWARD, Simulator, expected_chunks, expected_reasoning, expected_text
from app.simulator.spec import DEMO_INTERVAL_S
from app.simulator.texts import repaired
from tests.simulator.reading import PATH, chat, read

pytestmark = pytest.mark.anyio

WELL = [
    "hello sim:plain,interval=0 and more",
    "sim:tokens,n=3",
    "sim:tokens,n=0",
    "sim:echo \u4f60 <b>&\n\n",
    "sim:echo ",
    "sim:awkward",
    "sim:big,bytes=300000",
    "sim:bulk,bytes=500000,chunk=1000",
    "sim:reasoning,n=3",
    "sim:think",
    "sim:think,form=unclosed",
    "sim:think,form=lookalike",
    "sim:react",
    "sim:react,form=json",
    "sim:slow,first=0.05",
    "sim:comments,first=0.05",
    "sim:tokens,n=7,batch=3",
    "sim:tokens,n=3,interval=0.01,head=0.01,first=0.01",
]


@pytest.mark.parametrize("prompt", WELL)
async def test_a_stream_is_role_text_finish_usage_and_done(
    client: httpx.AsyncClient, prompt: str
) -> None:
    seen = await read(client, prompt)

    assert seen.deltas[0]["role"] == "assistant"
    assert not seen.deltas[0]["content"]
    assert not any("role" in delta for delta in seen.deltas[1:])
    assert seen.texts == expected_chunks(prompt, 10_000)
    assert repaired("".join(seen.texts)) == expected_text(prompt)
    assert seen.finish_reasons == ["stop"]
    assert seen.chunks[-1]["choices"] == []
    assert seen.chunks[-1]["usage"]["completion_tokens"] == len(seen.deltas) - 2
    assert all(chunk["usage"] is None for chunk in seen.chunks[:-1])
    assert {(c["id"], c["object"], c["model"]) for c in seen.chunks} == {
        (seen.chunks[0]["id"], "chat.completion.chunk", "m")
    }
    assert seen.done
    assert seen.raw.endswith(b"data: [DONE]\n\n")
    assert seen.raw.isascii()


@pytest.mark.parametrize("prompt", WELL)
async def test_an_unstreamed_answer_says_the_same(client: httpx.AsyncClient, prompt: str) -> None:
    answer = (await client.post(PATH, json=chat(prompt, stream=False))).json()

    assert answer["object"] == "chat.completion"
    message = answer["choices"][0]["message"]
    assert repaired(message["content"]) == expected_text(prompt)
    assert message.get("reasoning_content", "") == expected_reasoning(prompt)
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["total_tokens"] > 0


async def test_without_a_script_the_demo_answers_at_a_readable_pace(
    client: httpx.AsyncClient,
) -> None:
    started = time.monotonic()
    seen = await read(client, "hello")

    assert "".join(seen.texts) == expected_text("hello")
    assert time.monotonic() - started >= (len(seen.texts) - 1) * DEMO_INTERVAL_S


@pytest.mark.parametrize("more", [{"stream_options": None}, {"model": "sim:tokens,n=2,usage=0"}])
async def test_usage_is_sent_only_when_asked_for_and_not_switched_off(
    client: httpx.AsyncClient, more: dict[str, Any]
) -> None:
    prompt = "" if "model" in more else "sim:tokens,n=2"
    seen = await read(client, prompt, **more)

    assert seen.done
    assert not any("usage" in chunk for chunk in seen.chunks)


async def test_the_spec_may_stand_in_text_parts_and_be_the_last_users(
    client: httpx.AsyncClient,
) -> None:
    messages = [
        {"role": "user", "content": "sim:status"},
        {"role": "assistant", "content": "sim:status"},
        {"role": "user", "content": [{"type": "text", "text": "sim:tok"}, {"text": "ens,n=1"}]},
        {"role": "assistant", "content": None},
    ]
    assert (await read(client, "", messages=messages)).texts == ["tok0 "]


@pytest.mark.parametrize("size", [1, 2, 7, 100])
async def test_cut_writes_carry_the_same_bytes(client: httpx.AsyncClient, size: int) -> None:
    seen = await read(client, f"sim:tokens,n=5,cutat={size}")

    assert seen.texts == expected_chunks("sim:tokens,n=5")
    assert seen.done


async def test_awkward_chunks_arrive_one_by_one_with_their_halves_of_an_emoji(
    client: httpx.AsyncClient,
) -> None:
    seen = await read(client, "sim:awkward")

    assert seen.texts == list(AWKWARD)
    assert b'"content":"\\ud83d"}' in seen.raw
    assert b'"content":"\\ude00"}' in seen.raw


async def test_reasoning_comes_before_the_text(client: httpx.AsyncClient) -> None:
    seen = await read(client, "sim:reasoning,n=3")

    thoughts = [delta["reasoning_content"] for delta in seen.deltas[1:4]]
    assert "".join(thoughts) == expected_reasoning("sim:reasoning,n=3") == "why0 why1 why2 "
    assert seen.usages[0]["completion_tokens_details"]["reasoning_tokens"] == 3


async def test_inline_thinking_splits_its_tags_over_chunks(client: httpx.AsyncClient) -> None:
    seen = await read(client, "sim:think")

    assert "".join(seen.texts).startswith("<think>")
    assert "</think>" in "".join(seen.texts)
    assert not any("think>" in text for text in seen.texts)


@pytest.mark.parametrize("reason", ["length", "content_filter"])
async def test_another_finish_reason_can_be_had(client: httpx.AsyncClient, reason: str) -> None:
    seen = await read(client, f"sim:finish,reason={reason},after=2")

    assert (seen.finish_reasons, len(seen.texts), seen.done) == ([reason], 2, True)


async def test_comments_keep_a_slow_stream_alive(client: httpx.AsyncClient) -> None:
    assert (await read(client, "sim:comments,first=0.5")).comments == 3


def _joined(deltas: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Tool calls put together as clients do it: by index."""
    calls: dict[int, dict[str, Any]] = {}
    for delta in deltas:
        for part in delta.get("tool_calls", []):
            call = calls.setdefault(part["index"], {"arguments": ""})
            call |= {"id": part["id"], "name": part["function"]["name"]} if "id" in part else {}
            call["arguments"] += part["function"]["arguments"]
    return calls


async def test_a_tool_call_comes_in_fragments(client: httpx.AsyncClient) -> None:
    prompt = "sim:tool,name=add,args=%7B%22a%22%3A1%2C%22b%22%3A2%7D,calls=2,preamble=1"
    seen = await read(client, prompt)

    calls = _joined(seen.deltas)
    assert [json.loads(calls[i]["arguments"]) for i in (0, 1)] == [{"a": 1, "b": 2}] * 2
    assert calls[0]["name"] == "add"
    assert calls[0]["id"] != calls[1]["id"]
    assert seen.finish_reasons == ["tool_calls"]
    assert "".join(seen.texts) == "Let me look that up. "


@pytest.mark.parametrize(("rounds", "finish"), [(1, "stop"), (2, "tool_calls")])
async def test_after_the_tools_result_the_model_answers_with_it_or_calls_again(
    client: httpx.AsyncClient, rounds: int, finish: str
) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": f"sim:tool,rounds={rounds}"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "18 degrees"},
    ]
    seen = await read(client, "", messages=messages)

    assert seen.finish_reasons == [finish]
    assert ("18 degrees" in "".join(seen.texts)) is (rounds == 1)


async def test_all_ways_to_a_model_are_listed(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/v1/models")).json()

    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]][:2] == ["simulator", "sim:plain"]


async def test_two_simulators_share_nothing(simulator: Simulator) -> None:
    async with Simulator() as other, httpx.AsyncClient(base_url=other.origin) as client:
        await read(client, "sim:tokens,n=1")
        assert other.stats.view().started == 1
    assert simulator.stats.view().started == 0
