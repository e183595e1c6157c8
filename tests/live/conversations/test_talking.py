"""A conversation goes on: the model sees what was said, and callers see what was stored."""

import re

import pytest

from tests.live.asking import ask, assert_problem, get, marker
from tests.live.conversations.talking import Said, call, conversation_of, said, show, told
from tests.live.reading import until
from tests.live.servers import Gateway, SimulatorProcess

pytestmark = pytest.mark.anyio

FIELDS = {
    "id",
    "parent_id",
    "role",
    "text",
    "status",
    "model",
    "usage",
    "created_at",
    "run_id",
    "tool_calls",
    "tool_results",
    "reasoning",
    "active",
}
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00")
ODD = (
    "a\0b \U0001f469\u200d\U0001f4bb \u2028\u2029\x85\ufeff"
    "\r\n\t\x1b\ud7ff\ue000\uffff \\u0000 ' \" %s"
)


async def test_the_next_question_is_asked_with_all_that_was_said(
    gateway: Gateway, simulator: SimulatorProcess
) -> None:
    mark = marker()
    first = await ask(gateway, f"sim:tokens,n=2 {mark}")
    id_ = conversation_of(first)
    second = await ask(gateway, f"sim:tokens,n=1 {mark} again", conversation_id=id_)

    assert conversation_of(second) == id_
    assert await told(simulator, mark) == [
        ("user", f"sim:tokens,n=2 {mark}"),
        ("assistant", "tok0 tok1 "),
        ("user", f"sim:tokens,n=1 {mark} again"),
    ]


async def test_a_conversation_is_shown_with_all_fields_of_the_contract(gateway: Gateway) -> None:
    answers = [await ask(gateway, "sim:reasoning,n=2 of love?\n And  war?")]
    id_ = conversation_of(answers[0])
    answers.append(await ask(gateway, "sim:tokens,n=1", conversation_id=id_))
    response = await get(gateway, f"/conversations/{id_}")
    shown = response.json()

    assert response.headers["cache-control"] == "no-store"
    assert set(shown) == {"id", "title", "created_at", "updated_at", "messages"}
    assert (shown["id"], shown["title"]) == (id_, "sim:reasoning,n=2 of love? And war?")
    assert RFC3339.fullmatch(shown["created_at"])
    assert shown["updated_at"] > shown["created_at"]
    parent = None
    for at, message in enumerate(shown["messages"]):
        assert set(message) == FIELDS
        assert message["parent_id"] == parent
        assert message["run_id"] == answers[at // 2].run_id
        assert RFC3339.fullmatch(message["created_at"])
        assert (message["status"], message["active"]) == ("completed", True)
        parent = message["id"]
    question, answer, *_ = shown["messages"]
    assert (question["role"], question["model"], question["usage"]) == ("user", None, None)
    assert (answer["role"], answer["model"]) == ("assistant", answers[0].one("final")["model"])
    assert answer["text"] == answers[0].one("final")["text"]
    assert answer["usage"] == answers[0].one("done")["usage"]
    assert answer["reasoning"] == "why0 why1 "
    assert answer["tool_calls"] == answer["tool_results"] == []


async def test_who_looks_while_an_answer_is_made_sees_that_it_runs(gateway: Gateway) -> None:
    body = {"text": "sim:silent", "on_disconnect": "continue"}
    run = (await call(gateway, "POST", "/runs", body)).json()
    id_ = run["conversation_id"]
    question = Said("user", "sim:silent")

    async def look() -> list[Said]:
        found = await get(gateway, f"/conversations/{id_}")
        return await said(gateway, id_) if found.status_code == 200 else []

    assert await until(look, bool, "the question") == [question, Said("assistant", "", "running")]
    await call(gateway, "DELETE", f"/runs/{run['run_id']}")
    assert await said(gateway, id_) == [question, Said("assistant", "", "cancelled")]


LONG = "\U0001f600" * 200_000  # characters: the most that a question may have


@pytest.mark.parametrize(
    ("question", "answers"),
    [(f"sim:echo {ODD}", ODD), (f"sim:tokens,n=1 {LONG}"[: len(LONG)], "tok0 ")],
    ids=["odd", "long"],
)
async def test_text_comes_back_exactly(gateway: Gateway, question: str, answers: str) -> None:
    answer = await ask(gateway, question)
    assert answer.text == answers
    assert await said(gateway, conversation_of(answer)) == [
        Said("user", question),
        Said("assistant", answer.text),
    ]


async def test_a_title_can_be_changed_and_must_be_one(gateway: Gateway) -> None:
    id_ = conversation_of(await ask(gateway, "sim:tokens,n=1 " + "long " * 100))
    first = await show(gateway, id_)
    assert len(first["title"]) == 80
    assert first["title"].endswith("…")

    renamed = await call(gateway, "PATCH", f"/conversations/{id_}", {"title": ODD})
    assert renamed.status_code == 200
    assert renamed.json() == {
        name: ODD if name == "title" else first[name]
        for name in ("id", "title", "created_at", "updated_at")
    }
    for body in ({}, {"title": ""}, {"title": "x" * 201}, {"title": None}, {"title": "x", "id": 1}):
        refused = await call(gateway, "PATCH", f"/conversations/{id_}", body)
        assert_problem(refused, 422, "invalid_request")
    assert (await show(gateway, id_))["title"] == ODD


async def test_a_deleted_conversation_is_gone(gateway: Gateway) -> None:
    id_ = conversation_of(await ask(gateway, "sim:tokens,n=1"))
    gone = await call(gateway, "DELETE", f"/conversations/{id_}")
    assert (gone.status_code, gone.content) == (204, b"")
    await assert_not_there(gateway, id_)


@pytest.mark.parametrize("id_", ["unknown", "%00", "%F0%9F%98%80", "x" * 5000, "'"])
async def test_a_conversation_that_is_not_there_is_404(gateway: Gateway, id_: str) -> None:
    await assert_not_there(gateway, id_)


async def assert_not_there(gateway: Gateway, id_: str) -> None:
    path = f"/conversations/{id_}"
    for method, at, body in [
        ("GET", path, None),
        ("PATCH", path, {"title": "x"}),
        ("DELETE", path, None),
        ("POST", f"{path}/regenerate", None),
        ("POST", "/chat", {"text": "x", "conversation_id": id_[:200]}),
        ("POST", "/runs", {"text": "x", "conversation_id": id_[:200]}),
    ]:
        assert_problem(await call(gateway, method, at, body), 404, "not_found")
