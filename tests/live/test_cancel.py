"""``DELETE`` and ``POST …/cancel`` stop a run at every moment, and wait until its upstream call has
ended. Contract section 6."""

import asyncio
import time
from typing import Any

import httpx
import pytest

from app.simulator import expected_text
from tests.live.leaving import ALLOWANCE_S, ENDLESS, calling, ended, status_of
from tests.live.reading import answer, ask, chat, client, followed, names, payload, stats, until
from tests.live.servers import Gateway, SimulatorProcess

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_is_left")]

WAYS = {"DELETE": ("DELETE", "/runs/{}"), "POST": ("POST", "/runs/{}/cancel")}
in_both_ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


async def cancel(http: httpx.AsyncClient, run_id: str, way: tuple[str, str]) -> dict[str, Any]:
    """Stop a run; the answer's shape and time are checked."""
    method, path = way
    began = time.monotonic()
    response = await http.request(method, path.format(run_id))
    took_ms = (time.monotonic() - began) * 1000
    stopped: dict[str, Any] = response.json()
    assert response.status_code == 200, stopped
    assert set(stopped) == {"run_id", "status", "stopped_after_ms"}
    assert stopped["run_id"] == run_id
    assert type(stopped["stopped_after_ms"]) is int
    assert 0 <= stopped["stopped_after_ms"] <= took_ms + 1
    return stopped


def assert_ended_by(calls: list[dict[str, Any]], answered_at: float) -> None:
    """The other process may take a moment to be told of the closed connection."""
    assert [call["outcome"] for call in calls] == ["aborted"]
    assert calls[0]["ended_at"] <= answered_at + ALLOWANCE_S


@in_both_ways
@pytest.mark.parametrize(
    ("script", "read"),
    [("tokens,head=60", 1), ("silent", 1), ("comments,first=60", 1), (ENDLESS, 5), ("stall", 6)],
    ids=["before the head", "silence", "comments", "mid-answer", "stalled"],
)
async def test_a_cancel_ends_the_upstream_call_and_every_reader_is_told_done_alone(
    patient: Gateway, upstream: SimulatorProcess, script: str, read: int, way: tuple[str, str]
) -> None:
    prompt = ask(script)
    async with chat(patient.url, prompt) as stream, client(patient.url) as http:
        events = await stream.events(read)
        run_id = await stream.run_id()
        await calling(upstream, prompt)
        async with followed(patient.url, run_id) as other:
            await other.head()
            stopped = await cancel(http, run_id, way)
            answered_at = time.time()
            run = (await http.get(f"/runs/{run_id}")).json()
            events += await stream.rest()
            assert await other.rest() == events
        assert_ended_by(await ended(upstream, prompt), answered_at)
        async with followed(patient.url, run_id) as late:
            assert await late.rest() == events

    assert stopped["status"] == run["status"] == payload(events[-1])["status"] == "cancelled"
    assert names(events) == ["start", *["token"] * (len(events) - 2), "done"]
    assert expected_text(prompt).startswith(answer(events))
    assert run["error"] is None
    assert run["last_seq"] == len(events)
    assert run["usage"] == payload(events[-1])["usage"]
    assert run["usage"]["estimated"] is True


async def test_a_cancel_works_while_the_gateway_waits_to_ask_the_upstream_again(
    patient: Gateway, upstream: SimulatorProcess
) -> None:
    key = ask("x")[-16:]
    prompt = ask(f"status,code=503,retry_after=30,key={key}")
    async with chat(patient.url, prompt) as stream, client(patient.url) as http:
        await until(
            lambda: stats(upstream, prompt), lambda seen: seen["failed"] == 1, "the first refusal"
        )
        stopped = await cancel(http, await stream.run_id(), WAYS["DELETE"])
        events = await stream.rest()

    assert stopped["status"] == "cancelled"
    assert names(events) == ["start", "done"]
    assert (await stats(upstream, prompt))["started"] == 1


async def test_a_run_that_nobody_reads_can_be_cancelled(
    patient: Gateway, upstream: SimulatorProcess
) -> None:
    prompt = ask(ENDLESS)
    async with client(patient.url) as http:
        run_id = (await http.post("/runs", json={"text": prompt})).json()["run_id"]
        await calling(upstream, prompt)
        assert (await cancel(http, run_id, WAYS["DELETE"]))["status"] == "cancelled"
        assert_ended_by(await ended(upstream, prompt), time.time())


@in_both_ways
async def test_a_cancel_at_once_after_the_start_is_not_lost(
    patient: Gateway, upstream: SimulatorProcess, way: tuple[str, str]
) -> None:
    """The upstream call may not even have begun."""
    prompt = ask("silent")
    async with client(patient.url) as http:
        for _ in range(20):
            run_id = (await http.post("/runs", json={"text": prompt})).json()["run_id"]
            assert (await cancel(http, run_id, way))["status"] == "cancelled"
    calls = await ended(upstream, prompt)
    assert {call["outcome"] for call in calls} <= {"aborted"}


async def test_cancelling_twice_changes_nothing(
    patient: Gateway, upstream: SimulatorProcess
) -> None:
    async with chat(patient.url, ask(ENDLESS)) as stream, client(patient.url) as http:
        await stream.events(2)
        run_id = await stream.run_id()
        await cancel(http, run_id, WAYS["DELETE"])
        before = (await http.get(f"/runs/{run_id}")).json()
        for way in WAYS.values():
            again = await cancel(http, run_id, way)
            assert (again["status"], again["stopped_after_ms"]) == ("cancelled", 0)

        assert (await http.get(f"/runs/{run_id}")).json() == before
        assert names(await stream.rest()).count("done") == 1


async def test_many_cancels_at_the_same_time_all_answer_cancelled(
    patient: Gateway, upstream: SimulatorProcess
) -> None:
    prompt = ask(ENDLESS)
    async with chat(patient.url, prompt) as stream, client(patient.url) as http:
        await stream.events(2)
        run_id = await stream.run_id()
        both = [*WAYS.values()] * 10
        stopped = await asyncio.gather(*(cancel(http, run_id, way) for way in both))
        assert_ended_by(await ended(upstream, prompt), time.time())

        assert {answer["status"] for answer in stopped} == {"cancelled"}
        assert names(await stream.rest()).count("done") == 1


async def test_fifty_runs_cancelled_at_once_end_all(
    patient: Gateway, upstream: SimulatorProcess
) -> None:
    mark = ask("x").removeprefix("sim:x ")
    async with client(patient.url) as http:
        bodies = [{"text": f"sim:tokens,n=999,interval=0.2 {mark} {k}"} for k in range(50)]
        answers = await asyncio.gather(*(http.post("/runs", json=body) for body in bodies))
        await calling(upstream, mark, 50)
        run_ids = [answer.json()["run_id"] for answer in answers]
        stopped = await asyncio.gather(*(cancel(http, run, WAYS["DELETE"]) for run in run_ids))
        answered_at = time.time()
        calls = await ended(upstream, mark)

    assert {answer["status"] for answer in stopped} == {"cancelled"}
    assert len(calls) == 50
    assert {call["outcome"] for call in calls} == {"aborted"}
    assert max(call["ended_at"] for call in calls) <= answered_at + ALLOWANCE_S


@in_both_ways
@pytest.mark.parametrize(
    ("script", "status"), [("tokens,n=3", "completed"), ("eof", "failed")], ids=["end", "failure"]
)
async def test_an_ended_run_answers_a_cancel_with_its_status(
    patient: Gateway, script: str, status: str, way: tuple[str, str]
) -> None:
    async with chat(patient.url, ask(script)) as stream, client(patient.url) as http:
        events = await stream.until("done")
        run_id = await stream.run_id()
        stopped = await cancel(http, run_id, way)
        assert (stopped["status"], stopped["stopped_after_ms"]) == (status, 0)
        assert await status_of(patient, run_id) == status
        async with followed(patient.url, run_id) as again:
            assert await again.rest() == events
