"""One idempotency key is one run, whichever worker is asked."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.live.asking import ask as ask_whole
from tests.live.asking import assert_problem, marker
from tests.live.conversations.talking import conversation_of
from tests.live.reading import answer, ask, chat, client, stats
from tests.live.servers import Gateway, SimulatorProcess
from tests.live.sharing.pairs import Pair, cancel, ending, look, start

pytestmark = pytest.mark.anyio


async def post(gateway: Gateway, path: str, key: str, **fields: Any) -> httpx.Response:
    async with client(gateway.url) as http:
        return await http.post(path, json=fields, headers={"idempotency-key": key})


def body(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return response.text.replace(": hb\n", "")


@pytest.mark.parametrize("place", ["a new conversation", "the same conversation"])
async def test_the_same_request_forty_times_at_once_is_one_run(
    pair: Pair, simulator: SimulatorProcess, place: str
) -> None:
    fields: dict[str, Any] = {"text": ask("tokens,n=10,interval=0.02")}
    if place == "the same conversation":
        fields["conversation_id"] = conversation_of(await ask_whole(pair.a, "sim:tokens,n=1"))
    key = marker()
    answers = await asyncio.gather(
        *(post(gateway, "/chat", key, **fields) for gateway in (pair.a, pair.b) * 20)
    )

    assert len({body(answer) for answer in answers}) == 1
    assert len({answer.headers["location"] for answer in answers}) == 1
    run_id = answers[0].headers["location"].split("/")[2]
    assert await look(pair.a, run_id) == await look(pair.b, run_id)
    assert (await stats(simulator, fields["text"]))["started"] == 1


async def test_many_keys_on_both_workers_at_once_are_one_run_each(
    pair: Pair, simulator: SimulatorProcess
) -> None:
    keys = [marker() for _ in range(40)]
    mark = ask("tokens,n=2")
    answers = await asyncio.gather(
        *(
            post(gateway, "/runs", key, text=f"{mark} {key}")
            for key in keys
            for gateway in (pair.a, pair.b)
        )
    )
    assert {answer.status_code for answer in answers} == {201}
    run_ids = [answer.json()["run_id"] for answer in answers]
    assert run_ids[::2] == run_ids[1::2]
    assert len(set(run_ids)) == len(keys)
    for run_id in set(run_ids):
        await ending(pair.b, run_id)
    assert (await stats(simulator, mark))["started"] == len(keys)


async def test_the_same_key_with_another_body_is_refused_by_the_other_worker(pair: Pair) -> None:
    key, prompt = marker(), ask("tokens,n=20,interval=0.05")
    run_id = await start(pair.a, prompt, headers={"idempotency-key": key})
    for _ in ("while it runs", "when it has ended"):
        assert_problem(
            await post(pair.b, "/chat", key, text=f"{prompt}!"), 422, "idempotency_conflict"
        )
        same = await post(pair.b, "/runs", key, text=prompt, temperature=None)
        assert same.json()["run_id"] == run_id
        await ending(pair.b, run_id)


async def test_a_run_that_has_ended_is_replayed_by_the_other_worker(
    pair: Pair, simulator: SimulatorProcess
) -> None:
    key, prompt = marker(), ask("tokens,n=5")
    first = await post(pair.a, "/chat", key, text=prompt)
    assert body(await post(pair.b, "/chat", key, text=prompt)) == body(first)
    assert (await stats(simulator, prompt))["started"] == 1


async def test_a_retryable_failure_frees_the_key_on_all_workers(
    pair: Pair, simulator: SimulatorProcess
) -> None:
    key, prompt = marker(), ask("eof,after=1")
    runs = [await post(gateway, "/chat", key, text=prompt) for gateway in (pair.a, pair.b, pair.a)]
    assert all('"upstream_broken"' in body(run) for run in runs)
    assert len({run.headers["location"] for run in runs}) == 3
    assert (await stats(simulator, prompt))["started"] == 3


async def test_a_key_is_freed_when_readers_left_and_kept_when_somebody_cancelled(
    pair: Pair,
) -> None:
    for is_forsaken in (True, False):
        key, prompt = {"idempotency-key": marker()}, ask("silent")
        async with chat(pair.a.url, prompt, grace_seconds=0, headers=key) as stream:
            run_id = await stream.run_id()
            await stream.events(1)
            if not is_forsaken:
                await cancel(pair.b, run_id)
        assert (await ending(pair.b, run_id))["status"] == "cancelled"
        async with chat(pair.b.url, prompt, grace_seconds=0, headers=key) as stream:
            assert (await stream.run_id() != run_id) is is_forsaken
            events = await stream.events(1)
            assert answer(events) == ""
