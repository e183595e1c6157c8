"""Other versions of an answer, edited questions: siblings, of which the newest is shown."""

import pytest

from tests.live.asking import ask, assert_problem, marker
from tests.live.conversations.talking import (
    Said,
    Shown,
    call,
    conversation_of,
    messages,
    regenerate,
    said,
    told,
)
from tests.live.reading import names, opened, request
from tests.live.servers import Gateway, SimulatorProcess

pytestmark = pytest.mark.anyio

ONCE = "sim:tokens,n=1"  # answers `tok0 `


async def begun(gateway: Gateway, *questions: str) -> str:
    """A conversation in which these were asked."""
    first, *others = questions
    id_ = conversation_of(await ask(gateway, first))
    for question in others:
        await ask(gateway, question, conversation_id=id_)
    return id_


def shown(found: list[Shown]) -> list[str]:
    """The texts of the branch that is shown, which must be one."""
    active = [message for message in found if message["active"]]
    parents = [None, *(message["id"] for message in active[:-1])]
    assert [message["parent_id"] for message in active] == parents
    return [message["text"] for message in active]


async def test_a_new_version_stands_beside_the_old_answer_and_is_shown(
    gateway: Gateway, simulator: SimulatorProcess
) -> None:
    mark = marker()
    question = f"{ONCE} {mark}"
    id_ = await begun(gateway, "sim:tokens,n=2", question)
    again = [await regenerate(gateway, id_), await regenerate(gateway, id_, {})]
    assert [answer.names for answer in again] == [["start", "token", "final", "done"]] * 2
    assert {conversation_of(answer) for answer in again} == {id_}

    earlier = [("user", "sim:tokens,n=2"), ("assistant", "tok0 tok1 ")]
    assert await told(simulator, mark) == [*earlier, ("user", question)]
    found = await messages(gateway, id_)
    assert [message["role"] for message in found] == ["user", "assistant"] * 2 + ["assistant"] * 2
    assert {message["parent_id"] for message in found[3:]} == {found[2]["id"]}
    assert [message["active"] for message in found] == [True] * 3 + [False, False, True]
    assert [message["run_id"] for message in found[4:]] == [answer.run_id for answer in again]

    await ask(gateway, ONCE, conversation_id=id_)
    found = await messages(gateway, id_)
    assert found[6]["parent_id"] == found[5]["id"]
    assert shown(found) == ["sim:tokens,n=2", "tok0 tok1 ", question, "tok0 ", ONCE, "tok0 "]


async def test_a_failed_answer_is_made_anew(gateway: Gateway, simulator: SimulatorProcess) -> None:
    mark = marker()
    question = f"sim:cut,after=2 {mark}"
    id_ = await begun(gateway, question)
    assert (await regenerate(gateway, id_)).names[-2:] == ["error", "done"]
    assert await told(simulator, mark) == [("user", question)]
    assert await said(gateway, id_) == [
        Said("user", question),
        Said("assistant", "tok0 tok1 ", "failed", active=False),
        Said("assistant", "tok0 tok1 ", "failed"),
    ]


async def test_an_earlier_answer_can_be_made_anew(gateway: Gateway) -> None:
    id_ = await begun(gateway, "sim:tokens,n=2", "sim:tokens,n=1")
    first = (await messages(gateway, id_))[1]
    await regenerate(gateway, id_, {"parent_message_id": first["id"], "conversation_id": id_})
    found = await messages(gateway, id_)
    assert shown(found) == ["sim:tokens,n=2", "tok0 tok1 "]
    assert len(found) == 5


async def test_what_makes_no_new_version_is_refused(gateway: Gateway) -> None:
    id_ = await begun(gateway, ONCE)
    path = f"/conversations/{id_}/regenerate"
    for body in (
        {"text": "x"},
        {"query": "x"},
        {"conversation_id": "another"},
        {"if_busy": "x"},
        {"strange": 1},
    ):
        assert_problem(await call(gateway, "POST", path, body), 422, "invalid_request")
    unknown = await call(gateway, "POST", path, {"parent_message_id": "unknown"})
    assert_problem(unknown, 404, "not_found")
    assert len(await messages(gateway, id_)) == 2


async def test_a_new_version_is_made_once_for_one_key(gateway: Gateway) -> None:
    id_ = await begun(gateway, "sim:tokens,n=3")
    key = marker()
    one = await regenerate(gateway, id_, idempotency_key=key)
    same = await regenerate(gateway, id_, {}, idempotency_key=key)
    assert one.events == same.events
    path, headers = f"/conversations/{id_}/regenerate", {"idempotency-key": key}
    conflict = await call(gateway, "POST", path, {"seed": 1}, headers)
    assert_problem(conflict, 422, "idempotency_conflict")

    resumed = await regenerate(gateway, id_, last_event_id=one.events[1].id)
    assert resumed.events == one.events[2:]
    assert len(await messages(gateway, id_)) == 3


async def test_only_a_body_without_a_byte_is_none(gateway: Gateway) -> None:
    id_ = await begun(gateway, ONCE)
    path = f"/conversations/{id_}/regenerate"
    async with opened(gateway.url, "POST", path, b"") as stream:
        assert names(await stream.rest()) == ["start", "token", "final", "done"]
        chunked = request("POST", path, headers={"transfer-encoding": "chunked"})
        stream.send(chunked + b'c\r\n{"text":"x"}\r\n0\r\n\r\n')
        assert (await stream.problem())["status"] == 415
        stream.send(request("POST", path, b"x"))
        assert (await stream.problem())["status"] == 422
    assert len(await messages(gateway, id_)) == 3


async def test_a_question_behind_an_earlier_answer_begins_a_branch(
    gateway: Gateway, simulator: SimulatorProcess
) -> None:
    mark = marker()
    id_ = await begun(gateway, f"sim:tokens,n=1 {mark}", "sim:tokens,n=2")
    parent = (await messages(gateway, id_))[1]["id"]
    await ask(gateway, "sim:tokens,n=3", conversation_id=id_, parent_message_id=parent)
    earlier = [("user", f"sim:tokens,n=1 {mark}"), ("assistant", "tok0 ")]
    assert await told(simulator, mark) == [*earlier, ("user", "sim:tokens,n=3")]
    assert await said(gateway, id_) == [
        Said("user", f"sim:tokens,n=1 {mark}"),
        Said("assistant", "tok0 "),
        Said("user", "sim:tokens,n=2", active=False),
        Said("assistant", "tok0 tok1 ", active=False),
        Said("user", "sim:tokens,n=3"),
        Said("assistant", "tok0 tok1 tok2 "),
    ]
    await ask(gateway, ONCE, conversation_id=id_)
    found = await messages(gateway, id_)
    assert shown(found)[2:] == ["sim:tokens,n=3", "tok0 tok1 tok2 ", ONCE, "tok0 "]

    # back on the branch that is not shown
    await ask(gateway, ONCE, conversation_id=id_, parent_message_id=found[3]["id"])
    assert shown(await messages(gateway, id_))[2:] == [
        "sim:tokens,n=2",
        "tok0 tok1 ",
        ONCE,
        "tok0 ",
    ]


@pytest.mark.parametrize("at", [0, 2], ids=["the first question", "a later question"])
async def test_an_edited_question_stands_beside_the_one_it_was(
    gateway: Gateway, simulator: SimulatorProcess, at: int
) -> None:
    mark = marker()
    id_ = await begun(gateway, f"{ONCE} one {mark}", f"{ONCE} two {mark}")
    title = (await call(gateway, "GET", f"/conversations/{id_}")).json()["title"]
    old = (await messages(gateway, id_))[at]
    edited = f"sim:tokens,n=2 edited {mark}"
    await ask(gateway, edited, conversation_id=id_, parent_message_id=old["id"])

    found = await messages(gateway, id_)
    assert len(found) == 6
    assert found[4]["parent_id"] == old["parent_id"]
    before = [f"{ONCE} one {mark}", "tok0 "][:at]
    assert shown(found) == [*before, edited, "tok0 tok1 "]
    assert [text for _, text in await told(simulator, mark)] == [*before, edited]
    assert (await call(gateway, "GET", f"/conversations/{id_}")).json()["title"] == title


async def test_a_parent_that_is_not_in_the_conversation_is_404(gateway: Gateway) -> None:
    id_, other = await begun(gateway, ONCE), await begun(gateway, ONCE)
    for parent in ("unknown", "a\0b", (await messages(gateway, other))[1]["id"]):
        body = {"text": ONCE, "conversation_id": id_, "parent_message_id": parent}
        assert_problem(await call(gateway, "POST", "/chat", body), 404, "not_found")
    alone = {"text": ONCE, "parent_message_id": (await messages(gateway, id_))[1]["id"]}
    assert_problem(await call(gateway, "POST", "/chat", alone), 422, "invalid_request")
    assert len(await messages(gateway, id_)) == 2
