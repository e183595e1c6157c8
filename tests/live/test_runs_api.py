"""``POST /runs``, ``GET /runs/{id}``, bad cursors, and how long a log is kept. Contract sections
1, 3 and 5."""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from app.simulator import expected_text
from app.wire.parse import Event
from tests.live.reading import (
    answer,
    ask,
    chat,
    client,
    followed,
    names,
    opened,
    payload,
    seqs,
    stats,
    until,
)
from tests.live.servers import Gateway, SimulatorProcess

pytestmark = pytest.mark.anyio

ID = re.compile(r"[A-Za-z0-9_-]{22,}")
RFC_3339_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")
UNKNOWN = "A" * 22
SMALL_LOG_BYTES = 65_536  # the smallest that the setting takes


async def started(gateway: Gateway, script: str, **fields: Any) -> str:
    """The id of a run that nobody reads."""
    async with client(gateway.url) as http:
        response = await http.post("/runs", json={"text": ask(script), **fields})
    assert response.status_code == 201, response.text
    return str(response.json()["run_id"])


async def shown(gateway: Gateway, run_id: str) -> dict[str, Any]:
    async with client(gateway.url) as http:
        response = await http.get(f"/runs/{run_id}")
    assert response.status_code == 200, response.text
    fields: dict[str, Any] = response.json()
    return fields


async def read(gateway: Gateway, run_id: str) -> list[Event]:
    async with followed(gateway.url, run_id) as stream:
        events: list[Event] = await stream.rest()
    return events


async def gone(gateway: Gateway, run_id: str) -> bool:
    """Whether the run is answered as one that never was, in every way one may ask for it."""
    cursor = {"last-event-id": f"{run_id}.1"}
    asked: list[tuple[str, str, Any, dict[str, str] | None]] = [
        ("GET", "/runs/{}", None, None),
        ("GET", "/runs/{}/events", None, None),
        ("GET", "/runs/{}/events?after=1", None, None),
        ("GET", "/runs/{}/events", None, cursor),
        ("GET", "/chat?text=x", None, cursor),
        ("POST", "/chat", b"", cursor),
        ("POST", "/stream-chat", {"text": "x"}, cursor),
        ("DELETE", "/runs/{}", None, None),
        ("POST", "/runs/{}/cancel", None, None),
    ]
    bodies: list[dict[str, Any]] = []
    for method, path, body, headers in asked:
        async with opened(gateway.url, method, path.format(run_id), body, headers) as stream:
            await stream.head()
            if stream.status != 404:
                assert not bodies, "gone for some, not for others"
                return False
            bodies.append(await stream.problem())
    for problem in bodies:
        assert run_id not in problem["detail"]
        problem.pop("request_id")
    assert all(problem == bodies[0] for problem in bodies)
    assert bodies[0]["code"] == "not_found"
    return True


async def test_post_runs_starts_a_run_that_goes_on_without_readers(
    gateway: Gateway, simulator: SimulatorProcess
) -> None:
    prompt = ask("tokens,n=20,interval=0.02")
    async with client(gateway.url) as http:
        response = await http.post("/runs", json={"text": prompt, "grace_seconds": 0})
    body = response.json()
    run_id = body["run_id"]

    assert response.status_code == 201
    assert ID.fullmatch(body["conversation_id"])
    assert body == {
        "run_id": run_id,
        "conversation_id": body["conversation_id"],
        "status": "running",
        "events_url": f"/runs/{run_id}/events",
    }
    seen = await until(
        lambda: shown(gateway, run_id), lambda run: run["status"] != "running", "its end"
    )
    assert seen["status"] == "completed"
    assert answer(await read(gateway, run_id)) == expected_text(prompt)
    assert (await stats(simulator, prompt))["started"] == 1


async def test_a_running_run_is_shown_as_such(gateway: Gateway) -> None:
    before = time.time()
    async with chat(gateway.url, ask("stall,after=3"), model="any-model") as stream:
        events = await stream.events(4)
        run_id = await stream.run_id()
        run = await shown(gateway, run_id)

    assert RFC_3339_UTC.fullmatch(run["created_at"])
    created = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(before))
    assert created <= run.pop("created_at") < "9999"
    assert run == {
        "run_id": run_id,
        "conversation_id": payload(events[0])["conversation_id"],
        "answered_by": None,
        "attempts": None,
        "model": "any-model",
        "status": "running",
        "finished_at": None,
        "usage": None,
        "error": None,
        "last_seq": seqs(events)[-1],
    }


@pytest.mark.parametrize(
    ("script", "status", "error"),
    [
        ("tokens,n=7", "completed", None),
        ("cut,after=3", "failed", ("upstream_broken", True)),
        ("status,code=401", "failed", ("upstream_auth", False)),
        ("stall,after=4", "cancelled", None),
    ],
)
async def test_an_ended_run_is_shown_with_its_times_usage_and_error(
    gateway: Gateway, script: str, status: str, error: tuple[str, bool] | None
) -> None:
    async with chat(gateway.url, ask(script)) as stream, client(gateway.url) as http:
        run_id = await stream.run_id()
        if status == "cancelled":
            await stream.events(5)
            assert (await http.delete(f"/runs/{run_id}")).json()["status"] == "cancelled"
        await stream.rest()
    events = await read(gateway, run_id)
    run = await shown(gateway, run_id)

    told = payload(events[-2])
    assert (run["error"] is None) == (error is None)
    if error:
        assert run["error"] == {"code": error[0], "message": told["message"], "retryable": error[1]}
    created, finished = run["created_at"], run["finished_at"]
    assert RFC_3339_UTC.fullmatch(created)
    assert RFC_3339_UTC.fullmatch(finished)
    assert created <= finished
    usage, told_tokens = payload(events[-1])["usage"], names(events).count("token")
    assert usage["estimated"] == (status != "completed")
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert (
        (usage["output_tokens"] >= told_tokens)
        if usage["estimated"]
        else (usage["output_tokens"] == told_tokens)
    )
    assert run == {
        "run_id": run_id,
        "conversation_id": payload(events[0])["conversation_id"],
        "answered_by": payload(events[0])["model"] if told_tokens else None,
        "attempts": 1,
        "model": payload(events[0])["model"],
        "status": status,
        "created_at": created,
        "finished_at": finished,
        "usage": usage,
        "error": run["error"],
        "last_seq": len(events),
    }


MALFORMED = [
    "x",
    "1",
    ".",
    f"{UNKNOWN}",
    f"{UNKNOWN}.",
    f"{UNKNOWN}.-1",
    f"{UNKNOWN}.1.1",
    f"{UNKNOWN}.+1",
    f"{UNKNOWN}.1e3",
    f"{UNKNOWN}. 1",
    f"{UNKNOWN}.0x1",
    f"{UNKNOWN}.\u0661",
    f"{UNKNOWN}.{'9' * 60}",
    f"{UNKNOWN[:-1]}.1",
    f"{UNKNOWN}/../x.1",
    f"{UNKNOWN}ü.1",
    "x" * 10_000,
]


@pytest.mark.parametrize("cursor", MALFORMED)
async def test_a_malformed_last_event_id_is_refused_everywhere(
    gateway: Gateway, cursor: str
) -> None:
    run_id = await started(gateway, "tokens,n=1")
    sent = cursor.replace(UNKNOWN, run_id).encode().decode("latin-1")  # UTF-8 on the wire
    for method, path in [
        ("GET", f"/runs/{run_id}/events"),
        ("GET", f"/runs/{run_id}/events?after=1"),
        ("GET", "/chat?text=sim:tokens"),
        ("POST", "/chat"),
        ("POST", "/stream-chat"),
    ]:
        body = {"text": "sim:tokens"} if method == "POST" else None
        async with opened(gateway.url, method, path, body, {"last-event-id": sent}) as stream:
            problem = await stream.problem()
        assert (stream.status, problem["code"]) == (400, "bad_cursor"), path


@pytest.mark.parametrize("after", ["x", "-1", "%2B1", "1.0", "1%20", "9" * 60, "%D9%A1", "0x1"])
async def test_a_malformed_after_is_refused(gateway: Gateway, after: str) -> None:
    run_id = await started(gateway, "tokens,n=1")
    async with opened(gateway.url, "GET", f"/runs/{run_id}/events?after={after}") as stream:
        problem = await stream.problem()

    assert (stream.status, problem["code"]) == (400, "bad_cursor")


async def test_the_id_of_another_run_is_refused_and_an_unknown_one_is_not_found(
    gateway: Gateway,
) -> None:
    mine, other = [await started(gateway, "tokens,n=1") for _ in range(2)]
    for cursor in (f"{other}.1", f"{UNKNOWN}.1"):
        async with followed(gateway.url, mine, cursor) as stream:
            assert (await stream.problem())["code"] == "bad_cursor"
            assert stream.status == 400

    assert await gone(gateway, UNKNOWN)
    assert not await gone(gateway, mine)


async def test_an_unknown_include_is_refused(gateway: Gateway) -> None:
    run_id = await started(gateway, "tokens,n=1")
    async with followed(gateway.url, run_id, include="reasoning,secrets") as stream:
        assert (await stream.problem())["code"] == "invalid_request"
        assert stream.status == 422


async def test_a_finished_run_is_gone_after_its_retention_and_a_running_one_stays(
    start_gateway: Callable[..., Gateway],
) -> None:
    retention_s = 1.0
    gateway = start_gateway(run_retention_seconds=retention_s)
    async with chat(gateway.url, ask("tokens,n=4,interval=0.6")) as living:
        run_id = await started(gateway, "tokens,n=2")
        assert names(await read(gateway, run_id))[-1] == "done"
        finished = time.monotonic()
        await until(lambda: gone(gateway, run_id), bool, "its expiry")
        kept_s = time.monotonic() - finished
        events = await read(gateway, await living.run_id())

    assert kept_s > retention_s - 0.2  # read a moment after its end
    assert names(events) == ["start", *["token"] * 4, "final", "done"]


async def test_short_of_memory_the_oldest_finished_runs_go_first_and_then_new_ones_are_refused(
    start_gateway: Callable[..., Gateway],
) -> None:
    gateway = start_gateway(log_memory_bytes=SMALL_LOG_BYTES)
    runs = []
    for _ in range(12):  # a dozen kilobytes each
        runs.append(await started(gateway, "tokens,n=25"))
        await read(gateway, runs[-1])
    left = [run_id for run_id in runs if not await gone(gateway, run_id)]
    assert 1 <= len(left) < len(runs)
    assert left == runs[-len(left) :]

    async with chat(gateway.url, ask("stall,after=500"), grace_seconds=0) as big:
        await big.events(501)  # far above the limit, and running runs are never cut short
        assert not await gone(gateway, await big.run_id())
        async with chat(gateway.url, ask("tokens")) as refused:
            problem = await refused.problem()
            assert (refused.status, problem["code"]) == (503, "overloaded")
            assert int((await refused.head())["retry-after"]) >= 1
        for run_id in left:
            assert await gone(gateway, run_id)
        async with client(gateway.url) as http:
            assert (await http.delete(f"/runs/{await big.run_id()}")).status_code == 200
    await read(gateway, await started(gateway, "tokens,n=1"))
    assert await gone(gateway, await big.run_id())
