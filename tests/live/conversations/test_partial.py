"""An answer that was cut short is kept as far as it came, and the conversation goes on."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.live.asking import ask, assert_problem, marker
from tests.live.conversations.talking import (
    Said,
    call,
    conversation_of,
    ending,
    has_ended,
    messages,
    said,
    started,
    told,
)
from tests.live.reading import chat
from tests.live.servers import Gateway, SimulatorProcess

pytestmark = pytest.mark.anyio

PARTIAL = "tok0 tok1 tok2 "


async def cancelled(gateway: Gateway, mark: str) -> tuple[str, str]:
    """Conversation and question."""
    question = f"sim:stall,after=3 {mark}"
    async with chat(gateway.url, question) as stream:
        id_ = await started(stream)
        await stream.events(3)
        await call(gateway, "DELETE", f"/runs/{await stream.run_id()}")
        assert await ending(stream) == ["done", "cancelled"]
    return id_, question


async def cut_upstream(gateway: Gateway, mark: str) -> tuple[str, str]:
    question = f"sim:cut,after=3 {mark}"
    answer = await ask(gateway, question)
    assert answer.one("error")["code"] == "upstream_broken"
    return conversation_of(answer), question


async def left(gateway: Gateway, mark: str) -> tuple[str, str]:
    question = f"sim:stall,after=3 {mark}"
    async with chat(gateway.url, question, grace_seconds=0) as stream:
        id_ = await started(stream)
        await stream.events(3)
        stream.reset()
        assert (await has_ended(gateway, await stream.run_id()))["status"] == "cancelled"
    return id_, question


@pytest.mark.parametrize(
    ("cut_short", "status"),
    [(cancelled, "cancelled"), (cut_upstream, "failed"), (left, "cancelled")],
)
async def test_a_partial_answer_is_kept_and_the_model_sees_it(
    gateway: Gateway,
    simulator: SimulatorProcess,
    cut_short: Callable[[Gateway, str], Coroutine[Any, Any, tuple[str, str]]],
    status: str,
) -> None:
    mark = marker()
    id_, question = await cut_short(gateway, mark)
    partial = [Said("user", question), Said("assistant", PARTIAL, status)]
    assert await said(gateway, id_) == partial
    usage = (await messages(gateway, id_))[1]["usage"]
    assert usage["estimated"]
    assert usage["output_tokens"] > 0

    more = "sim:tokens,n=1 go on"
    assert (await ask(gateway, more, conversation_id=id_)).text == "tok0 "
    assert await told(simulator, mark) == [
        ("user", question),
        ("assistant", PARTIAL),
        ("user", more),
    ]
    assert await said(gateway, id_) == [*partial, Said("user", more), Said("assistant", "tok0 ")]


async def test_an_answer_without_a_word_is_kept_and_the_model_does_not_see_it(
    gateway: Gateway, simulator: SimulatorProcess
) -> None:
    mark = marker()
    question = f"sim:status,code=400 {mark}"
    id_ = conversation_of(await ask(gateway, question))
    more = "sim:tokens,n=1"
    await ask(gateway, more, conversation_id=id_)
    assert (await said(gateway, id_))[1] == Said("assistant", "", "failed")
    assert await told(simulator, mark) == [("user", question), ("user", more)]


async def test_deleting_a_conversation_cancels_the_answer_that_is_made_in_it(
    gateway: Gateway,
) -> None:
    async with chat(gateway.url, "sim:stall,after=1") as stream:
        id_ = await started(stream)
        await stream.events(1)
        gone = await call(gateway, "DELETE", f"/conversations/{id_}")
        assert gone.status_code == 204
        assert await ending(stream) == ["done", "cancelled"]
    path = f"/conversations/{id_}"
    assert_problem(await call(gateway, "GET", path), 404, "not_found")
    assert_problem(await call(gateway, "DELETE", path), 404, "not_found")


async def test_a_conversation_can_be_deleted_as_soon_as_its_id_is_told(gateway: Gateway) -> None:
    """Its question may not even be stored by then."""
    for _ in range(10):
        async with chat(gateway.url, "sim:stall,after=1") as stream:
            path = f"/conversations/{await started(stream)}"
            assert (await call(gateway, "DELETE", path)).status_code == 204
            assert await ending(stream) == ["done", "cancelled"]
        assert_problem(await call(gateway, "GET", path), 404, "not_found")


async def test_deleting_while_a_question_is_asked_leaves_nothing_behind(gateway: Gateway) -> None:
    """Whichever comes first: there is no conversation afterwards."""
    for _ in range(10):
        id_ = conversation_of(await ask(gateway, "sim:tokens,n=1"))
        path = f"/conversations/{id_}"
        asked, regenerated, deleted = await asyncio.gather(
            call(gateway, "POST", "/chat", {"text": "sim:tokens,n=9", "conversation_id": id_}),
            call(gateway, "POST", f"{path}/regenerate"),
            call(gateway, "DELETE", path),
        )
        assert deleted.status_code == 204
        assert asked.status_code in {200, 404, 409}
        assert regenerated.status_code in {200, 404, 409}
        assert_problem(await call(gateway, "GET", path), 404, "not_found")
