"""One answer at a time in a conversation, and one history, on all workers."""

import asyncio
from typing import Any

import pytest

from tests.live.asking import ask as ask_whole
from tests.live.asking import assert_problem, client, marker
from tests.live.conversations.talking import (
    Said,
    call,
    conversation_of,
    ending,
    regenerate,
    said,
    started,
    told,
)
from tests.live.leaving import ended
from tests.live.reading import WAIT_S, ask, chat, payload
from tests.live.servers import SimulatorProcess
from tests.live.sharing.pairs import Pair

pytestmark = pytest.mark.anyio

STALLS = "stall,after=2"
ONCE = "sim:tokens,n=1"


async def test_a_second_question_is_told_to_come_back_by_the_other_worker(pair: Pair) -> None:
    async with chat(pair.a.url, ask(STALLS)) as stream:
        id_ = await started(stream)
        question = {"text": ONCE, "conversation_id": id_}
        for path, asked in [
            ("/chat", question),
            ("/runs", question),
            (f"/chat?text=x&conversation_id={id_}", None),
            (f"/conversations/{id_}/regenerate", None),
        ]:
            method = "GET" if "?" in path else "POST"
            busy = await call(pair.b, method, path, asked)
            assert_problem(busy, 409, "conversation_busy")
            assert int(busy.headers["retry-after"]) > 0
        await call(pair.b, "DELETE", f"/runs/{await stream.run_id()}")
    assert len(await said(pair.b, id_)) == 2
    await ask_whole(pair.b, ONCE, conversation_id=id_)


async def test_of_two_questions_at_once_one_is_answered(
    pair: Pair, simulator: SimulatorProcess
) -> None:
    id_ = conversation_of(await ask_whole(pair.a, ONCE))
    for turn in range(20):
        prompt = ask("tokens,n=3,interval=0.02")
        question = {"text": prompt, "conversation_id": id_}
        answers = await asyncio.gather(
            *(call(gateway, "POST", "/chat", question) for gateway in (pair.a, pair.b) * 2)
        )
        codes = sorted(answer.status_code for answer in answers)
        assert codes == [200, 409, 409, 409], turn
        assert len(await ended(simulator, prompt)) == 1
    found = await said(pair.b, id_)
    assert len(found) == 42
    assert {message.status for message in found} == {"completed"}


async def test_a_question_interrupts_the_answer_that_the_other_worker_makes(
    pair: Pair, simulator: SimulatorProcess
) -> None:
    question = f"sim:{STALLS} {marker()}"
    async with chat(pair.a.url, question) as stream:
        id_ = await started(stream)
        await stream.events(2)
        body = {"text": ONCE, "conversation_id": id_, "if_busy": "interrupt"}
        run = await call(pair.b, "POST", "/runs", body)
        assert run.status_code == 201, run.text
        assert await ending(stream) == ["done", "cancelled"]
    assert (await ended(simulator, question))[0]["outcome"] == "aborted"
    await call(pair.a, "GET", run.json()["events_url"])
    assert await told(simulator, question) == [
        ("user", question),
        ("assistant", "tok0 tok1 "),
        ("user", ONCE),
    ]
    for gateway in (pair.a, pair.b):
        assert await said(gateway, id_) == [
            Said("user", question),
            Said("assistant", "tok0 tok1 ", "cancelled"),
            Said("user", ONCE),
            Said("assistant", "tok0 "),
        ]


async def test_interruptions_on_both_workers_at_once_keep_one_line(pair: Pair) -> None:
    for _ in range(5):
        async with chat(pair.a.url, ask(STALLS)) as stream:
            id_ = await started(stream)
            fields: dict[str, Any] = {"conversation_id": id_, "if_busy": "interrupt"}
            answers = await asyncio.gather(
                *(
                    ask_whole(gateway, f"{ONCE} {k}", **fields)
                    for k, gateway in enumerate((pair.a, pair.b) * 2)
                )
            )
            assert await ending(stream) == ["done", "cancelled"]
        statuses = [answer.one("done")["status"] for answer in answers]
        assert statuses.count("completed") >= 1
        assert set(statuses) <= {"completed", "cancelled"}
        found = await said(pair.b, id_)
        assert {message.text for message in found} >= {f"{ONCE} {k}" for k in range(4)}
        assert len(found) == 10, "every question is kept, in one line"
        assert all(message.active for message in found)


async def test_a_question_right_after_done_is_never_too_early_on_the_other_worker(
    pair: Pair, simulator: SimulatorProcess
) -> None:
    mark = marker()
    id_ = conversation_of(await ask_whole(pair.a, f"{ONCE} {mark}"))
    async with asyncio.timeout(60), client(pair.a) as a, client(pair.b) as b:
        for turn in range(60):
            question = {"text": f"{ONCE} {mark} {turn}", "conversation_id": id_}
            async with (b, a)[turn % 2].stream("POST", "/chat", json=question) as response:
                assert response.status_code == 200, f"turn {turn}: {await response.aread()!r}"
                async for line in response.aiter_lines():
                    if line == "event: done":
                        break
            assert (await told(simulator, f"{mark} {turn}"))[-3:] == [
                ("user", f"{ONCE} {mark} {turn - 1}" if turn else f"{ONCE} {mark}"),
                ("assistant", "tok0 "),
                ("user", f"{ONCE} {mark} {turn}"),
            ]
    found = await said(pair.b, id_)
    assert len(found) == 122
    assert {message.status for message in found} == {"completed"}
    assert all(message.active for message in found)


async def test_a_question_right_after_a_cancel_is_never_too_early_on_the_other_worker(
    pair: Pair,
) -> None:
    id_ = conversation_of(await ask_whole(pair.a, ONCE))
    for turn in range(20):
        here, there = (pair.a, pair.b) if turn % 2 else (pair.b, pair.a)
        async with chat(here.url, ask(STALLS), conversation_id=id_) as stream:
            await stream.head()
            assert stream.status == 200, (turn, await stream.body())
            await stream.events(3)
            await call(there, "DELETE", f"/runs/{await stream.run_id()}")
    assert {message.status for message in (await said(pair.b, id_))[3::2]} == {"cancelled"}


async def test_a_conversation_is_deleted_while_the_other_worker_answers_in_it(
    pair: Pair, simulator: SimulatorProcess
) -> None:
    prompt = ask(STALLS)
    async with chat(pair.a.url, prompt) as stream:
        id_ = await started(stream)
        await stream.events(2)
        assert (await call(pair.b, "DELETE", f"/conversations/{id_}")).status_code == 204
        rest = await stream.rest()
        assert payload(rest[-1])["status"] == "cancelled"
    assert (await ended(simulator, prompt))[0]["outcome"] == "aborted"
    for gateway in (pair.a, pair.b):
        assert_problem(await call(gateway, "GET", f"/conversations/{id_}"), 404, "not_found")


async def test_a_question_in_a_conversation_that_is_being_deleted_is_not_answered_for_long(
    pair: Pair, simulator: SimulatorProcess
) -> None:
    """Asked on one worker, deleted on the other, at the same time."""

    async def both(delay_s: float) -> None:
        prompt = ask(STALLS)
        id_ = conversation_of(await ask_whole(pair.a, ONCE))

        async def delete() -> int:
            await asyncio.sleep(delay_s)  # no order is promised: each round tries another one
            return (await call(pair.b, "DELETE", f"/conversations/{id_}")).status_code

        deleting = asyncio.ensure_future(delete())
        async with chat(pair.a.url, prompt, conversation_id=id_) as stream:
            await stream.head()
            assert stream.status in (200, 404), stream.status
            if stream.status == 200:
                assert await ending(stream) == ["done", "cancelled"]
        assert await deleting == 204
        assert {each["outcome"] for each in await ended(simulator, prompt)} <= {"aborted"}
        for gateway in (pair.a, pair.b):
            assert_problem(await call(gateway, "GET", f"/conversations/{id_}"), 404, "not_found")

    async with asyncio.timeout(WAIT_S):
        for round_ in range(4):
            await asyncio.gather(*(both((round_ + k / 8) / 250) for k in range(8)))


async def test_a_new_version_is_made_by_the_other_worker(pair: Pair) -> None:
    id_ = conversation_of(await ask_whole(pair.a, ONCE))
    assert (await regenerate(pair.b, id_)).text == "tok0 "
    shown = [await said(gateway, id_) for gateway in (pair.a, pair.b)]
    assert shown[0] == shown[1]
    assert [message.active for message in shown[0]] == [True, False, True]
