"""One answer at a time in a conversation: who comes second is refused, or interrupts."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.live.asking import ask, assert_problem, client, marker
from tests.live.conversations.talking import (
    Said,
    call,
    conversation_of,
    ending,
    regenerating,
    said,
    started,
    told,
)
from tests.live.reading import chat
from tests.live.servers import Gateway, SimulatorProcess

pytestmark = pytest.mark.anyio

STALLS = "sim:stall,after=2"
ONCE = "sim:tokens,n=1"


async def test_a_second_run_in_a_running_conversation_is_told_to_come_back(
    gateway: Gateway,
) -> None:
    async with chat(gateway.url, STALLS) as stream:
        id_ = await started(stream)
        body = {"text": ONCE, "conversation_id": id_}
        for path, asked in [
            ("/chat", body),
            ("/runs", body),
            (f"/chat?text=x&conversation_id={id_}", None),
            (f"/conversations/{id_}/regenerate", None),
        ]:
            method = "GET" if "?" in path else "POST"
            busy = await call(gateway, method, path, asked)
            assert_problem(busy, 409, "conversation_busy")
            assert int(busy.headers["retry-after"]) > 0
        await call(gateway, "DELETE", f"/runs/{await stream.run_id()}")
    assert len(await said(gateway, id_)) == 2


async def test_an_interruption_stores_what_was_said_before_the_model_is_asked_again(
    gateway: Gateway, simulator: SimulatorProcess
) -> None:
    mark = marker()
    question = f"{STALLS} {mark}"
    async with chat(gateway.url, question) as stream:
        id_ = await started(stream)
        await stream.events(2)
        body = {"text": ONCE, "conversation_id": id_, "if_busy": "interrupt"}
        run = await call(gateway, "POST", "/runs", body)
        assert run.status_code == 201
        assert await ending(stream) == ["done", "cancelled"]
    await call(gateway, "GET", run.json()["events_url"])
    assert await told(simulator, mark) == [
        ("user", question),
        ("assistant", "tok0 tok1 "),
        ("user", ONCE),
    ]
    assert await said(gateway, id_) == [
        Said("user", question),
        Said("assistant", "tok0 tok1 ", "cancelled"),
        Said("user", ONCE),
        Said("assistant", "tok0 "),
    ]


async def test_a_new_version_interrupts_the_one_that_is_made(gateway: Gateway) -> None:
    async with chat(gateway.url, STALLS) as stream:
        id_ = await started(stream)
        await stream.events(2)
        async with regenerating(gateway, id_, if_busy="interrupt") as again:
            await started(again)
            assert await ending(stream) == ["done", "cancelled"]
            await again.events(2)
            await call(gateway, "DELETE", f"/runs/{await again.run_id()}")
            assert await ending(again) == ["done", "cancelled"]
    assert await said(gateway, id_) == [
        Said("user", STALLS),
        Said("assistant", "tok0 tok1 ", "cancelled", active=False),
        Said("assistant", "tok0 tok1 ", "cancelled"),
    ]


async def test_of_two_interruptions_at_once_one_interrupts_the_other(gateway: Gateway) -> None:
    for _ in range(5):
        async with chat(gateway.url, STALLS) as stream:
            id_ = await started(stream)
            fields: dict[str, Any] = {"conversation_id": id_, "if_busy": "interrupt"}
            answers = await asyncio.gather(
                *(ask(gateway, f"{ONCE} {k}", **fields) for k in range(3))
            )
            assert await ending(stream) == ["done", "cancelled"]
        ended = [answer.one("done")["status"] for answer in answers]
        assert ended.count("completed") >= 1
        assert set(ended) <= {"completed", "cancelled"}
        found = await said(gateway, id_)
        assert len(found) == 8, "every question is kept, in one line"
        assert all(message.active for message in found)
        assert {message.text for message in found} >= {f"{ONCE} {k}" for k in range(3)}


async def test_the_same_key_twice_at_the_same_time_joins_one_run(
    gateway: Gateway, simulator: SimulatorProcess
) -> None:
    for interrupts in ({}, {"if_busy": "interrupt"}):
        id_, mark = conversation_of(await ask(gateway, ONCE)), marker()
        body = {"text": f"sim:tokens,n=5 {mark}", "conversation_id": id_, **interrupts}
        key = {"idempotency-key": mark}
        answers = await asyncio.gather(
            *(call(gateway, "POST", "/chat", body, key) for _ in range(5))
        )
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.headers["location"] for answer in answers}) == 1
        assert len({answer.text.replace(": hb\n", "") for answer in answers}) == 1
        assert len(await said(gateway, id_)) == 4
        assert (await asyncio.to_thread(simulator.stats, mark))["started"] == 1


async def test_a_question_right_after_done_is_never_too_early(gateway: Gateway) -> None:
    id_ = conversation_of(await ask(gateway, ONCE))
    async with asyncio.timeout(60), client(gateway) as http:
        for turn in range(100):
            body = {"text": f"{ONCE} {turn}", "conversation_id": id_}
            async with http.stream("POST", "/chat", json=body) as response:
                assert response.status_code == 200, f"turn {turn}: {await response.aread()!r}"
                async for line in response.aiter_lines():
                    if line == "event: done":
                        break
    found = await said(gateway, id_)
    assert len(found) == 202
    assert {message.status for message in found} == {"completed"}
    assert all(message.active for message in found)


async def test_a_question_right_after_a_cancel_is_never_too_early(gateway: Gateway) -> None:
    id_ = conversation_of(await ask(gateway, ONCE))
    for _ in range(20):
        async with chat(gateway.url, STALLS, conversation_id=id_) as stream:
            await stream.head()
            assert stream.status == 200, await stream.body()
            await stream.events(3)
            await call(gateway, "DELETE", f"/runs/{await stream.run_id()}")
    assert {message.status for message in (await said(gateway, id_))[3::2]} == {"cancelled"}


async def test_what_began_while_its_conversation_was_deleted_is_cancelled(
    start_gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    gateway = start_gateway(data_dir=tmp_path)
    id_ = conversation_of(await ask(gateway, ONCE))
    await said(gateway, id_)
    with closing(sqlite3.connect(tmp_path / "gateway.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # the deletion waits, and so nothing is gone yet
        deleted = asyncio.ensure_future(call(gateway, "DELETE", f"/conversations/{id_}"))
        await call(gateway, "GET", "/conversations")  # by then it has begun
        async with chat(gateway.url, STALLS, conversation_id=id_) as stream:
            assert await started(stream) == id_
            other.execute("ROLLBACK")
            assert (await deleted).status_code == 204
            assert await ending(stream) == ["done", "cancelled"]
    gone = await call(gateway, "GET", f"/conversations/{id_}")
    assert_problem(gone, 404, "not_found")
