"""A LangGraph agent that answers in place of the gateway's own loop, over a real upstream."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.simulator import expected_style, expected_text
from app.simulator.texts import PREAMBLE
from tests.live.asking import ask, assert_problem, client, get, is_alive, marker
from tests.live.leaving import ended
from tests.live.reading import chat, names, payload
from tests.live.servers import Gateway, SimulatorProcess
from tests.live.several import (
    calling,
    gateway_with,
    has_ended,
    kept_text,
    messages_of,
    refused,
    requests,
    run_of,
    stopped,
    told,
)

pytestmark = pytest.mark.anyio

MODELS = """
[[models]]
name = "agent"
runnable = "myagent:agent"

[[models]]
name = "thinking"
runnable = "myagent:agent"
reasoning = "tags"
"""
CALL = ("double", {"number": 21})


def folder(path: Path, upstream: str) -> Path:
    shutil.copy(Path(__file__).with_name("myagent.py"), path)
    (path / "upstream").write_text(upstream)
    return path


@pytest.fixture(scope="module")
def agent(
    simulator: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    cwd = folder(tmp_path_factory.mktemp("agent"), simulator.url)
    with gateway_with(cwd, MODELS, tools="app.llm.builtin:calculate") as gateway:
        yield gateway


async def test_it_streams_token_by_token(agent: Gateway) -> None:
    answer = await ask(agent, f"sim:tokens,n=20 {marker()}")

    assert answer.names == ["start", *["token"] * 20, "final", "done"]
    assert answer.text == answer.one("final")["text"] == expected_text("sim:tokens,n=20")
    assert answer.one("final")["model"] == answer.one("start")["model"] == "agent"
    assert answer.one("final")["finish_reason"] == "stop"
    assert answer.one("done")["usage"]["estimated"] is False
    run = run_of(agent, answer.run_id)
    assert (run["answered_by"], run["attempts"]) == ("agent", 1)


def test_the_first_words_name_it(agent: Gateway) -> None:
    assert "model  agent, which is myagent:agent, and 1 more\n" in agent.lines


async def test_a_token_is_told_before_the_next_one_came(agent: Gateway) -> None:
    async with chat(agent.url, f"sim:tokens,n=2,interval=60 {marker()}") as stream:
        assert names(await stream.events(2)) == ["start", "token"]


async def test_the_preamble_of_its_tool_call_is_taken_back(agent: Gateway) -> None:
    answer = await ask(agent, calling(CALL, preamble=1), include=["tools"])

    order = [name for name in answer.names if name != "token"]
    assert order == ["start", "retract", "tool_call", "tool_result", "final", "done"]
    assert answer.one("retract")["text"] == PREAMBLE
    call, result = answer.one("tool_call"), answer.one("tool_result")
    assert (call["name"], json.loads(call["arguments"])) == CALL
    assert result == {"id": call["id"], "name": "double", "content": "42", "is_error": False}
    assert kept_text(answer) == answer.one("final")["text"] == "The tool says: 42"
    bare = await ask(agent, calling(CALL, preamble=1))
    assert set(bare.names) == {"start", "token", "retract", "final", "done"}


async def test_its_tools_failure_is_a_result(agent: Gateway) -> None:
    answer = await ask(agent, calling(("fail", {}), CALL), include=["tools"])

    results = {each["name"]: each for each in told(answer, "tool_result")}
    assert results["fail"]["is_error"]
    assert not results["double"]["is_error"]
    assert b"SECRET" not in answer.body
    assert answer.one("done")["status"] == "completed"


async def test_it_sees_the_conversation_which_is_stored(
    agent: Gateway, simulator: SimulatorProcess
) -> None:
    prompt = calling(CALL, preamble=1)
    first = await ask(agent, prompt)
    conversation_id = first.one("start")["conversation_id"]
    second = await ask(agent, "sim:history", conversation_id=conversation_id)

    heard = json.loads(second.one("final")["text"])["messages"]
    roles = ["user", "assistant", "tool", "assistant", "user"]
    assert [message["role"] for message in heard] == roles
    *_, asked = requests(simulator, prompt)
    assert asked["messages"][0]["content"] == prompt
    question, answer, _, again = messages_of(agent, conversation_id)
    assert (question["text"], answer["text"]) == (prompt, "The tool says: 42")
    assert [call["name"] for call in answer["tool_calls"]] == ["double"]
    assert (answer["model"], answer["status"], again["status"]) == (
        "agent",
        "completed",
        "completed",
    )


async def test_its_model_goes_through_the_filter(agent: Gateway) -> None:
    answer = await ask(agent, "sim:think", model="thinking", include=["reasoning"])

    expected = expected_style("sim:think")
    assert answer.text == answer.one("final")["text"] == expected.answer
    assert "".join(data["text"] for data in told(answer, "reasoning")) == expected.aside


async def test_a_cancel_closes_its_upstream_call(
    agent: Gateway, simulator: SimulatorProcess
) -> None:
    prompt = f"sim:tokens,n=10000,interval=0.05 {marker()}"
    async with chat(agent.url, prompt) as stream:
        start, *said = await stream.events(4)
        await stopped(agent, payload(start)["run_id"])
        said += await stream.rest()
    (call,) = await ended(simulator, prompt.split()[-1])
    assert call["outcome"] == "aborted"
    _, kept = messages_of(agent, payload(start)["conversation_id"])
    assert kept["status"] == "cancelled"
    assert kept["text"] == "".join(payload(e)["text"] for e in said if e.event == "token")


async def test_leaving_without_grace_closes_its_upstream_call(
    agent: Gateway, simulator: SimulatorProcess
) -> None:
    prompt = f"sim:silent {marker()}"
    async with chat(agent.url, prompt, grace_seconds=0) as stream:
        run_id = await stream.run_id()
        await stream.events(1)
        stream.reset()
    assert (await has_ended(agent, run_id))["status"] == "cancelled"
    calls = await ended(simulator, prompt.split()[-1])
    assert {call["outcome"] for call in calls} <= {"aborted"}


@pytest.mark.parametrize(
    ("script", "code", "text"),
    [
        ("sim:status,code=500", "upstream_unavailable", ""),
        ("sim:status,code=401", "upstream_auth", ""),
        ("sim:cut,after=3", "upstream_broken", "tok0 tok1 tok2 "),
    ],
)
async def test_its_models_failure_is_told_in_our_words(
    agent: Gateway, script: str, code: str, text: str
) -> None:
    answer = await ask(agent, script)

    assert answer.one("error")["code"] == code
    assert answer.text == text
    assert b"SECRET" not in answer.body
    await is_alive(agent)


async def test_it_brings_its_own_tools_and_takes_none(agent: Gateway) -> None:
    items = (await get(agent, "/models")).json()["items"]
    assert [item["tools"] for item in items] == [None, None]
    async with client(agent) as http:
        response = await http.post("/chat", json={"text": "hello", "tools": ["double"]})
    assert_problem(response, 422, "invalid_request")


BROKEN = {"raising": "raise ValueError('one\\ntwo')", "exiting": "raise SystemExit('bye')"}
BAD = ["myagent:nothing", "nosuchmodule:agent", "myagent:no_agent", *(f"{it}:x" for it in BROKEN)]


@pytest.mark.parametrize("where", BAD)
def test_one_that_cannot_be_loaded_stops_the_start(where: str, tmp_path: Path) -> None:
    folder(tmp_path, "http://127.0.0.1:9/v1")
    for name, source in BROKEN.items():
        (tmp_path / f"{name}.py").write_text(source)
    (tmp_path / "models.toml").write_text(f'[[models]]\nname = "a"\nrunnable = "{where}"\n')

    line = refused(tmp_path, models_file="models.toml")

    assert "models.toml:3: runnable takes a LangChain Runnable: " in line
    assert where in line or "bye" in line
