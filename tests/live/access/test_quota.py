"""Limits of a caller: what meets them, what never does, and what the answers say of them."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.access.key import KeyLimits
from tests.live.access.conftest import StartGuarded
from tests.live.access.people import Guarded, call, joined
from tests.live.asking import assert_problem
from tests.live.leaving import LEAVE
from tests.live.reading import ask, opened, until
from tests.live.servers import Gateway

pytestmark = pytest.mark.anyio

SLOWLY = "tokens,n=10000,interval=0.05"
RATE = KeyLimits(rate="6/hour")
TWO_RUNS = KeyLimits(max_runs=2)


def left(response: httpx.Response) -> dict[str, int]:
    """What remains, by policy."""
    items = re.findall(r'"(\w+)";r=(\d+)', response.headers.get("ratelimit", ""))
    return {name: int(remaining) for name, remaining in items}


def assert_limited(response: httpx.Response, limit: str) -> None:
    assert_problem(response, 429, "rate_limited")
    assert limit in response.json()["detail"]
    assert int(response.headers["retry-after"]) > 0


async def test_requests_are_counted_down_to_429(guarded: Guarded) -> None:
    ann = await joined(guarded, limits=RATE)
    seen = [await call(guarded.url, ann, "GET", "/models") for _ in range(6)]
    assert [left(each)["requests"] for each in seen] == [5, 4, 3, 2, 1, 0]
    assert seen[0].headers["ratelimit-policy"] == '"requests";q=6;w=3600'
    refused = await call(guarded.url, ann, "POST", "/chat", {"text": "hi"})
    assert_limited(refused, "6 requests per")
    assert left(refused) == {"requests": 0}
    assert refused.headers["ratelimit-policy"] == '"requests";q=6;w=3600'
    assert (await call(guarded.url, guarded.bob, "GET", "/models")).status_code == 200


async def test_resuming_and_cancelling_are_never_counted(guarded: Guarded) -> None:
    ann = await joined(guarded, limits=RATE)
    patient = {"text": ask(SLOWLY), "grace_seconds": 60}
    async with opened(guarded.url, "POST", "/chat", patient, ann.headers) as stream:
        cursor = (await stream.events(3))[-1].id
        run_id = await stream.run_id()
    other = await call(guarded.url, ann, "POST", "/runs", {"text": ask(SLOWLY)})
    while (await call(guarded.url, ann, "GET", f"/runs/{run_id}")).status_code != 429:
        pass
    headers = {**ann.headers, "last-event-id": cursor}
    conversation = other.json()["conversation_id"]
    for method, path, body in [
        ("GET", f"/runs/{run_id}/events", None),
        ("GET", "/chat?text=hi", None),
        ("POST", "/chat", {"text": "hi"}),
        ("POST", "/stream-chat", {"text": "hi"}),
        ("POST", f"/conversations/{conversation}/regenerate", {}),
    ] * 2:
        async with opened(guarded.url, method, path, body, headers) as stream:
            await stream.events(2)
            assert await stream.run_id() == run_id
    for method, path in (("DELETE", f"/runs/{run_id}"), ("POST", f"/runs/{run_id}/cancel")) * 4:
        stopped = await call(guarded.url, ann, method, path)
        assert (stopped.status_code, stopped.json()["status"]) == (200, "cancelled")
    last = other.json()["run_id"]
    assert (await call(guarded.url, ann, "DELETE", f"/runs/{last}")).status_code == 200
    for method, path in (("GET", "/session"), ("DELETE", "/session"), ("GET", "/ready")):
        assert (await call(guarded.url, ann, method, path)).status_code < 300


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/chat", {"text": "hi"}),
        ("POST", "/stream-chat", {"text": "hi"}),
        ("GET", "/chat?text=hi", None),
        ("POST", "/runs", {"text": "hi"}),
        ("GET", "/runs/{}", None),
        ("GET", "/conversations", None),
        ("GET", "/conversations/{}", None),
        ("PATCH", "/conversations/{}", {"title": "x"}),
        ("DELETE", "/conversations/{}", None),
        ("POST", "/conversations/{}/regenerate", None),
        ("GET", "/models", None),
        ("POST", "/session", None),
    ],
)
@pytest.mark.parametrize("cursor", [False, True])
async def test_everything_else_is_counted(
    guarded: Guarded, method: str, path: str, body: Any, cursor: bool
) -> None:
    """A ``Last-Event-ID`` where nothing is resumed changes nothing."""
    if cursor and ("chat" in path or "regenerate" in path):
        return
    headers = {"last-event-id": f"{'u' * 22}.1"} if cursor else {}
    before = left(await call(guarded.url, guarded.ann, "GET", "/models"))["requests"]
    found = await call(guarded.url, guarded.ann, method, path.format("u" * 22), body, headers)
    assert left(found)["requests"] == before - 1, found.text


async def test_who_has_no_limits_of_its_own_has_the_gateways(start_guarded: StartGuarded) -> None:
    guarded = start_guarded()
    begun = await call(guarded.url, guarded.ann, "POST", "/runs", {"text": "sim:tokens,n=1"})
    policies = begun.headers["ratelimit-policy"].split(", ")
    assert [policy.partition(";qu")[0] for policy in policies] == [
        '"requests";q=120;w=60',
        '"runs";q=20',
    ]


async def test_an_open_gateway_limits_nobody_unless_it_is_told_to(
    gateway: Gateway, start_gateway: Callable[..., Gateway]
) -> None:
    free = await call(gateway.url, None, "GET", "/models")
    assert not [name for name in free.headers if name.startswith("ratelimit")]
    told = start_gateway(rate_limit="2/hour")
    seen = [await call(told.url, None, "GET", "/models") for _ in range(3)]
    assert [each.status_code for each in seen] == [200, 200, 429]


async def test_runs_at_once_are_limited_and_the_answers_say_so(guarded: Guarded) -> None:
    ann = await joined(guarded, limits=TWO_RUNS)
    begun = [await call(guarded.url, ann, "POST", "/runs", {"text": ask(SLOWLY)}) for _ in range(2)]
    assert [left(each)["runs"] for each in begun] == [1, 0]
    assert '"runs";q=2' in begun[0].headers["ratelimit-policy"]
    for method, path, body in [
        ("POST", "/chat", {"text": "hi"}),
        ("GET", "/chat?text=hi", None),
        ("POST", "/runs", {"text": "hi"}),
    ]:
        refused = await call(guarded.url, ann, method, path, body)
        assert_limited(refused, "2 runs at once")
        assert left(refused)["runs"] == 0
        assert left(refused)["requests"] > 0, "it was counted as a request, too"
    assert (
        await call(guarded.url, guarded.bob, "POST", "/runs", {"text": "hi"})
    ).status_code == 201
    run_id = begun[0].json()["run_id"]
    assert (await call(guarded.url, ann, "DELETE", f"/runs/{run_id}")).status_code == 200
    again = await call(guarded.url, ann, "POST", "/runs", {"text": ask(SLOWLY)})
    assert (again.status_code, left(again)["runs"]) == (201, 0)


@pytest.mark.parametrize("how", LEAVE)
async def test_no_slot_leaks_where_readers_start_and_leave(guarded: Guarded, how: str) -> None:
    """Phantom 429s: a slot that a cut connection had taken was never given back."""
    ann = await joined(guarded, limits=TWO_RUNS)

    async def is_free() -> int:
        probe = await call(guarded.url, ann, "POST", "/runs", {"text": "sim:tokens,n=1"})
        return left(probe).get("runs", -1)

    for number in range(50):
        body = {"text": ask("silent" if number % 2 else SLOWLY), "grace_seconds": 0}
        async with opened(guarded.url, "POST", "/chat", body, ann.headers) as stream:
            if number % 3:
                await stream.events(1)
                assert stream.status == 200
            LEAVE[how](stream)
        # Of two slots one is the probe's own; a leaked one would never come back.
        await until(is_free, (1).__eq__, f"both slots after {number + 1} starts")


async def test_no_slot_leaks_where_many_come_at_once(guarded: Guarded) -> None:
    ann = await joined(guarded, limits=TWO_RUNS)

    async def start_and_leave() -> int:
        body = {"text": ask("silent"), "grace_seconds": 0}
        async with opened(guarded.url, "POST", "/chat", body, ann.headers) as stream:
            await stream.head()
            return stream.status

    statuses = await asyncio.gather(*(start_and_leave() for _ in range(50)))
    assert set(statuses) <= {200, 429}
    assert 200 in statuses

    async def two_begin() -> list[int]:
        begun = [
            await call(guarded.url, ann, "POST", "/runs", {"text": ask("silent")}) for _ in range(2)
        ]
        for each in begun:
            if each.status_code == 201:
                path = f"/runs/{each.json()['run_id']}"
                await call(guarded.url, ann, "DELETE", path)
        return [each.status_code for each in begun]

    await until(two_begin, [201, 201].__eq__, "both slots")


async def test_the_tokens_of_a_day_are_counted_and_run_out(guarded: Guarded) -> None:
    ann = await joined(guarded, limits=KeyLimits(tokens_per_day=50))
    first = await call(guarded.url, ann, "POST", "/chat", {"text": ask("tokens,n=60")})
    assert left(first)["tokens"] == 50
    async with opened(guarded.url, "POST", "/chat", {"text": "hi"}, ann.headers) as stream:
        problem = await stream.problem()
    assert (problem["status"], problem["code"]) == (429, "rate_limited")
    assert "50 tokens per day" in problem["detail"]
    refused = await call(guarded.url, ann, "POST", "/runs", {"text": "hi"})
    assert left(refused)["tokens"] == 0
    assert 0 < int(refused.headers["retry-after"]) <= 86_400
