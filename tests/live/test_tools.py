"""Tools of Python in real answers: what a reader sees, and what a tool can do to one."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.simulator.texts import PREAMBLE
from tests.live.asking import Answer, ask, assert_problem, client
from tests.live.servers import Gateway, SimulatorProcess
from tests.live.several import calling, gateway_with, kept_text, messages_of, requests, told

pytestmark = pytest.mark.anyio

MODELS = """
[[models]]
name = "any"
base_url = "{0}"

[[models]]
name = "none"
base_url = "{0}"
tools = []

[[models]]
name = "one"
base_url = "{0}"
tools = ["calculate"]
"""
OWN = ["linger", "spawn", "meet", "fail", "leave", "panic", "huge", "block"]
TOOLS = ["app.llm.builtin:calculate", *(f"mytools:{name}" for name in OWN)]
SUM = ("calculate", {"expression": "6*7"})
BARE = {"start", "token", "retract", "final", "done"}


@pytest.fixture(scope="module")
def armed(
    simulator: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    cwd = tmp_path_factory.mktemp("armed")
    shutil.copy(Path(__file__).with_name("mytools.py"), cwd)
    models = MODELS.format(simulator.url)
    with gateway_with(cwd, models, tools=",".join(TOOLS), max_iterations=3) as gateway:
        yield gateway


async def result_of(gateway: Gateway, call: tuple[str, dict[str, Any] | str]) -> dict[str, Any]:
    """Of the only call in a run that ends well."""
    answer = await ask(gateway, calling(call), include=["tools"])
    assert answer.one("done")["status"] == "completed"
    assert answer.text.startswith("The tool says: ")
    return answer.one("tool_result")


async def test_curl_sees_only_the_answer_and_what_is_taken_back(armed: Gateway) -> None:
    body = json.dumps({"text": calling(SUM, preamble=1)})
    curl = await asyncio.create_subprocess_exec(
        *("curl", "-sN", "--max-time", "20", "--noproxy", "*", f"{armed.url}/chat"),
        *("-H", "content-type: application/json", "--data-binary", body),
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await curl.communicate()

    assert curl.returncode == 0
    answer = Answer(httpx.Headers(), printed)
    assert set(answer.names) == BARE
    assert answer.one("retract")["text"] == PREAMBLE
    assert kept_text(answer) == answer.one("final")["text"] == "The tool says: 42"


async def test_a_resume_around_what_is_taken_back_gives_the_same_text(armed: Gateway) -> None:
    answer = await ask(armed, calling(SUM, preamble=1))
    frames = answer.body.split(b"\n\n")
    async with client(armed) as http:
        for at, event in enumerate(answer.events[:-1], 1):
            headers = {"last-event-id": event.id}
            rest = await http.get(f"/runs/{answer.run_id}/events", headers=headers)
            assert rest.content.split(b"\n\n") == frames[at:]


async def test_calls_and_results_are_told_in_order_to_those_who_ask(armed: Gateway) -> None:
    prompt = calling(SUM, preamble=1)
    answer = await ask(armed, prompt, include=["tools"])

    names = [name for name in answer.names if name != "token"]
    assert names == ["start", "retract", "tool_call", "tool_result", "final", "done"]
    call, result = answer.one("tool_call"), answer.one("tool_result")
    assert (call["name"], json.loads(call["arguments"])) == SUM
    assert result == {"id": call["id"], "name": "calculate", "content": "42", "is_error": False}
    assert kept_text(answer) == answer.one("final")["text"]
    _, kept = messages_of(armed, answer.one("start")["conversation_id"])
    assert (kept["tool_calls"], kept["tool_results"]) == ([call], [result])
    assert kept["text"] == answer.one("final")["text"]


async def test_calls_of_one_turn_run_side_by_side(armed: Gateway) -> None:
    prompt = calling(("meet", {"name": "a"}), ("meet", {"name": "b"}))
    answer = await ask(armed, prompt, include=["tools"])

    names = [name for name in answer.names if name != "token"]
    assert names == ["start", *["tool_call"] * 2, *["tool_result"] * 2, "final", "done"]
    calls = {
        call["id"]: json.loads(call["arguments"])["name"] for call in told(answer, "tool_call")
    }
    for result in told(answer, "tool_result"):
        assert result["content"] == f"{calls[result['id']]} met another"
    assert answer.one("final")["text"] == "The tool says: a met another; b met another"


@pytest.mark.parametrize(
    ("model", "chosen", "offered"),
    [
        ("any", None, ["calculate", *OWN]),
        ("any", [], None),
        ("any", ["calculate"], ["calculate"]),
        ("any", ["block", "calculate"], ["calculate", "block"]),
        ("one", None, ["calculate"]),
        ("none", None, None),
        ("none", [], None),
    ],
)
async def test_the_model_is_offered_the_tools_that_it_may_use_and_the_body_names(
    armed: Gateway,
    simulator: SimulatorProcess,
    model: str,
    chosen: list[str] | None,
    offered: list[str] | None,
) -> None:
    prompt = "sim:tokens,n=1" + calling().removeprefix("sim:tool,name=,args=")
    more: dict[str, Any] = {} if chosen is None else {"tools": chosen}
    await ask(armed, prompt, model=model, **more)

    (body,) = requests(simulator, prompt)
    if offered is None:
        assert "tools" not in body
    else:
        assert [tool["function"]["name"] for tool in body["tools"]] == offered


@pytest.mark.parametrize(
    ("model", "chosen"),
    [("any", ["nothing"]), ("none", ["calculate"]), ("one", ["calculate", "block"])],
)
async def test_a_tool_that_the_model_does_not_have_is_refused(
    armed: Gateway, model: str, chosen: list[str]
) -> None:
    async with client(armed) as http:
        body = {"text": "hello", "model": model, "tools": chosen}
        response = await http.post("/chat", json=body)
    assert_problem(response, 422, "invalid_request")
    assert chosen[-1] in response.json()["detail"]


async def test_what_cannot_be_a_tools_name_is_refused_and_not_repeated(armed: Gateway) -> None:
    async with client(armed) as http:
        response = await http.post("/chat", json={"text": "hello", "tools": ["<b>\n", "calculate"]})
    assert_problem(response, 422, "invalid_request")
    assert "tools.0" in response.json()["detail"]
    assert "<b>" not in response.text


async def test_a_model_that_calls_a_tool_it_was_not_offered_is_told_so(
    armed: Gateway, simulator: SimulatorProcess
) -> None:
    prompt = calling(("block", {"seconds": 60}))
    answer = await ask(armed, prompt, include=["tools"], tools=["calculate"])

    assert answer.one("tool_result")["is_error"]
    assert answer.one("tool_result")["content"] == "There is no such tool. There are: calculate"
    assert answer.one("done")["status"] == "completed"


async def test_arguments_that_are_no_json_are_told_to_the_model_which_mends_them(
    armed: Gateway, simulator: SimulatorProcess
) -> None:
    prompt = calling(SUM, repair=1)
    answer = await ask(armed, prompt, include=["tools"])

    first, second = told(answer, "tool_result")
    assert first["is_error"]
    assert "not a JSON object" in first["content"]
    assert (second["content"], second["is_error"]) == ("42", False)
    assert answer.one("final")["text"] == "The tool says: 42"
    _, mending, _ = requests(simulator, prompt)
    assert [message["role"] for message in mending["messages"]] == ["user", "assistant", "tool"]
    assert mending["messages"][-1]["content"] == first["content"]


@pytest.mark.parametrize(
    ("call", "content"),
    [
        (("calculate", {"expression": "1/0"}), "division by zero"),
        (("calculate", {"expresion": "1"}), "expression: Field required"),
        (("fail", {}), "the tool failed"),
        (("leave", {}), "the tool failed"),
        (("panic", {}), "the tool failed"),
        (("calculate", "[1]"), "not a JSON object"),
    ],
)
async def test_a_tool_that_fails_gives_the_model_an_error_and_the_run_goes_on(
    armed: Gateway, call: tuple[str, dict[str, Any] | str], content: str
) -> None:
    result = await result_of(armed, call)

    assert result["is_error"]
    assert content in result["content"]
    assert "SECRET" not in result["content"]


@pytest.mark.parametrize("unit", ["x", "\u20ac"])
async def test_a_result_that_is_too_long_is_cut(armed: Gateway, unit: str) -> None:
    content = (await result_of(armed, ("huge", {"unit": unit})))["content"]

    text, mark, more = content.partition("\n[cut: ")
    assert mark
    assert set(text) == {unit}
    assert len(content.encode()) <= 64 * 1024
    left = int(more.removesuffix(" bytes more]"))
    assert len(text.encode()) + left == 200 * 1024 // len(unit.encode()) * len(unit.encode())


async def test_a_tool_that_blocks_blocks_nobody_else(armed: Gateway) -> None:
    """It is over last, though it began first."""
    ended: list[str] = []

    async def run(name: str, call: tuple[str, dict[str, Any] | str]) -> None:
        await result_of(armed, call)
        ended.append(name)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(run("blocking", ("block", {"seconds": 3})))
        async with client(armed) as http:
            await http.get("/health")
        tasks.create_task(run("quick", SUM))
    assert ended == ["quick", "blocking"]


async def test_a_model_that_calls_for_ever_is_stopped_and_what_it_said_is_kept(
    armed: Gateway, simulator: SimulatorProcess
) -> None:
    prompt = calling(SUM, rounds=5, preamble=1)
    answer = await ask(armed, prompt, include=["tools"])

    assert answer.one("error")["code"] == "too_many_iterations"
    assert answer.one("error")["retryable"] is False
    assert answer.one("done")["status"] == "failed"
    assert len(requests(simulator, prompt)) == 3
    assert [result["content"] for result in told(answer, "tool_result")] == ["42", "42"]
    _, kept = messages_of(armed, answer.one("start")["conversation_id"])
    assert kept["status"] == "failed"
    assert kept["text"] == kept_text(answer)
    assert (kept["tool_calls"], kept["tool_results"]) == (
        told(answer, "tool_call"),
        told(answer, "tool_result"),
    )


async def test_the_next_question_shows_the_model_what_was_called(
    armed: Gateway, simulator: SimulatorProcess
) -> None:
    first = await ask(armed, calling(SUM))
    conversation_id = first.one("start")["conversation_id"]
    answer = await ask(armed, "sim:history", conversation_id=conversation_id)

    messages = json.loads(answer.one("final")["text"])["messages"]
    assert [each["role"] for each in messages] == ["user", "assistant", "tool", "assistant", "user"]
    assert messages[1]["calls"] == ["calculate"]
    assert messages[2]["begins"] == "42"
