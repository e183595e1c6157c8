"""Scripts that are about what came before: tools, history, and what was sent upstream."""

import json
from typing import Any

import httpx
import pytest

from app.simulator import Simulator
from app.simulator.calling import QUOTED_RESULT
from app.simulator.kept import KEPT_BYTES, Kept
from tests.simulator.reading import PATH, chat, read

pytestmark = pytest.mark.anyio


def told(results: list[str]) -> list[dict[str, Any]]:
    """A turn that called as many tools, and their results; without any, one call unanswered."""
    function = {"name": "f", "arguments": "{}"}
    ids = [f"c{k}" for k in range(len(results) or 1)]
    calls = [{"id": one, "type": "function", "function": function} for one in ids]
    tools = [
        {"role": "tool", "tool_call_id": one, "content": result}
        for one, result in zip(ids, results, strict=False)
    ]
    return [{"role": "assistant", "content": None, "tool_calls": calls}, *tools]


async def asked(client: httpx.AsyncClient, prompt: str, *turns: list[str]) -> dict[str, Any]:
    """The message that follows so many turns with tools."""
    messages = [{"role": "user", "content": prompt}]
    for results in turns:
        messages += told(results)
    body = chat("", stream=False, messages=messages)
    message: dict[str, Any] = (await client.post(PATH, json=body)).json()["choices"][0]["message"]
    return message


def calls(message: dict[str, Any]) -> list[tuple[str, str]]:
    functions = [call["function"] for call in message["tool_calls"]]
    return [(function["name"], function["arguments"]) for function in functions]


async def test_one_turn_may_call_several_tools_with_their_own_arguments(
    client: httpx.AsyncClient,
) -> None:
    prompt = 'sim:tool,name=add+time,args={"a":"1%2B2"}+{},calls=2,preamble=1,rounds=2'
    for turns in ([], [["r"]]):
        message = await asked(client, prompt, *turns)
        assert calls(message) == [("add", '{"a":"1+2"}')] * 2 + [("time", "{}")] * 2
        assert message["content"] == "Let me look that up. "
    assert len({call["id"] for call in message["tool_calls"]}) == 4


async def test_turns_may_call_their_tools_in_turn(client: httpx.AsyncClient) -> None:
    prompt = "sim:tool,name=add+time,args={},order=inturn,rounds=3"
    turns: list[list[str]] = []
    for name in ("add", "time", "add"):
        assert calls(await asked(client, prompt, *turns)) == [(name, "{}")]
        turns.append(["r"])
    assert (await asked(client, prompt, *turns))["content"] == "The tool says: r"


async def test_arguments_that_are_no_json_are_right_once_a_result_told_so(
    client: httpx.AsyncClient,
) -> None:
    prompt = 'sim:tool,args={"a":1},repair=1'
    broken = calls(await asked(client, prompt))
    with pytest.raises(json.JSONDecodeError):
        json.loads(broken[0][1])
    assert calls(await asked(client, prompt, [])) == broken
    assert calls(await asked(client, prompt, ["no JSON"])) == [("get_weather", '{"a":1}')]
    assert "18" in (await asked(client, prompt, ["no JSON"], ["18 degrees"]))["content"]


async def test_of_a_long_result_the_answer_quotes_the_beginning(client: httpx.AsyncClient) -> None:
    content = (await asked(client, "sim:tool", ["x" * 100_000, "short"]))["content"]
    assert content == f"The tool says: {'x' * QUOTED_RESULT}…; short"


async def test_the_model_tells_what_it_was_sent(client: httpx.AsyncClient) -> None:
    messages = [
        {"role": "system", "content": "s" * 50},
        *told(["\u00e9"]),
        {"role": "user", "content": "sim:history"},
    ]
    tools = [{"type": "function", "function": {"name": name}} for name in ("add", "time")]
    seen = await read(client, "", messages=messages, tools=tools)

    assert len(seen.texts) > 20
    assert json.loads("".join(seen.texts)) == {
        "messages": [
            {"role": "system", "chars": 50, "begins": "s" * 40},
            {"role": "assistant", "chars": 0, "begins": "", "calls": ["f"]},
            {"role": "tool", "chars": 1, "begins": "\u00e9"},
            {"role": "user", "chars": 11, "begins": "sim:history"},
        ],
        "tools": ["add", "time"],
    }


async def test_requests_are_kept_and_found_by_a_mark_in_any_user_message(
    client: httpx.AsyncClient, simulator: Simulator
) -> None:
    bodies = [
        chat("sim:tokens,n=1 #a", tools=[{"type": "function", "function": {"name": "add"}}]),
        chat("sim:tokens,n=1 #b"),
        chat("", messages=[*chat("sim:echo #a")["messages"], {"role": "system", "content": "#b"}]),
        chat("sim:nope #c"),
    ]
    for body in bodies:
        await client.post(PATH, json=body)

    found = (await client.get("/requests", params={"contains": "#a"})).json()
    assert found == simulator.requests("#a") == [bodies[0], bodies[2]]
    assert simulator.requests("#b") == [bodies[1]]
    assert simulator.requests("#c") == [bodies[3]]
    assert simulator.requests() == bodies
    await client.post("/reset")
    assert simulator.requests() == []


def test_old_requests_are_forgotten_and_a_large_one_is_kept_alone() -> None:
    kept, third = Kept(), KEPT_BYTES // 3
    sizes = [10, third, third, KEPT_BYTES // 2, 20, KEPT_BYTES + 1]
    for count, left in enumerate([1, 2, 3, 2, 3, 1], start=1):
        kept.add(json.dumps(chat("x" * sizes[count - 1])).encode())
        found = [len(body["messages"][0]["content"]) for body in kept.find("x")]
        assert found == sizes[count - left : count]
