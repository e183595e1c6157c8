"""Any worker stops a run of any other one, and answers when its upstream call has ended."""

import asyncio
import time
from typing import Any

import pytest

from tests.live.leaving import ENDLESS, calling, ended
from tests.live.reading import ask, chat, client, followed, names, payload
from tests.live.servers import SimulatorProcess
from tests.live.sharing.pairs import Pair, cancel, look, start
from tests.live.test_cancel import assert_ended_by

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("script", "seen"),
    [
        ("tokens,head=60", ["start"]),
        ("silent", ["start"]),
        (ENDLESS, ["start", "token", "token", "token"]),
    ],
    ids=["before the upstream's head", "before the first token", "mid-answer"],
)
@pytest.mark.parametrize("method", ["DELETE", "POST"])
async def test_a_run_is_cancelled_on_the_other_worker(
    pair: Pair, simulator: SimulatorProcess, script: str, seen: list[str], method: str
) -> None:
    prompt = ask(script)
    async with chat(pair.a.url, prompt) as stream:
        run_id = await stream.run_id()
        assert names(await stream.events(len(seen))) == seen
        await calling(simulator, prompt)
        async with followed(pair.b.url, run_id) as other, client(pair.b.url) as http:
            path = f"/runs/{run_id}" + ("/cancel" if method == "POST" else "")
            response = await http.request(method, path)
            assert response.status_code == 200, response.text
            answered_at = time.time()
            told: dict[str, Any] = response.json()
            assert told["run_id"] == run_id
            assert told["status"] == "cancelled"
            assert 0 < told["stopped_after_ms"] < 5_000
            assert_ended_by(await ended(simulator, prompt), answered_at)
            rest = await stream.rest()
            assert payload(rest[-1])["status"] == "cancelled"
            assert names(rest) == ["token"] * (len(rest) - 1) + ["done"]
            assert (await other.rest())[-1] == rest[-1]
        assert await look(pair.a, run_id) == await look(pair.b, run_id)
        again = [await cancel(gateway, run_id) for gateway in (pair.a, pair.b)]
        told = {"run_id": run_id, "status": "cancelled", "stopped_after_ms": 0}
        assert again == [(200, told)] * 2


async def test_two_cancels_on_each_worker_at_once_are_one(
    pair: Pair, simulator: SimulatorProcess
) -> None:
    prompt = ask(ENDLESS)
    async with chat(pair.a.url, prompt) as stream:
        run_id = await stream.run_id()
        await stream.events(3)
        answers = await asyncio.gather(
            *(cancel(gateway, run_id) for gateway in (pair.a, pair.b) * 2)
        )
        answered_at = time.time()
        for status, told in answers:
            assert (status, told["status"]) == (200, "cancelled")
        rest = names(await stream.rest())
        assert rest.count("done") == 1
    assert_ended_by(await ended(simulator, prompt), answered_at)


async def test_a_run_that_has_ended_is_not_stopped_by_the_other_worker(pair: Pair) -> None:
    for script, status in [("tokens,n=2", "completed"), ("eof,after=1", "failed")]:
        async with chat(pair.a.url, ask(script)) as stream:
            run_id = await stream.run_id()
            await stream.rest()
        told = {"run_id": run_id, "status": status, "stopped_after_ms": 0}
        assert await cancel(pair.b, run_id) == (200, told)
        assert (await look(pair.b, run_id))["status"] == status


async def test_many_runs_are_cancelled_from_the_other_worker_at_once(
    pair: Pair, simulator: SimulatorProcess
) -> None:
    prompt = ask(ENDLESS)
    run_ids = await asyncio.gather(*(start(pair.a, prompt) for _ in range(60)))
    await calling(simulator, prompt, 60)
    answers = await asyncio.gather(*(cancel(pair.b, run_id) for run_id in run_ids))
    assert {status for status, _ in answers} == {200}
    assert {told["status"] for _, told in answers} == {"cancelled"}
    calls = await ended(simulator, prompt)
    assert [call["outcome"] for call in calls] == ["aborted"] * 60


async def test_a_run_that_nobody_knows_cannot_be_stopped(pair: Pair) -> None:
    status, problem = await cancel(pair.b, "A" * 22)
    assert (status, problem["code"]) == (404, "not_found")
