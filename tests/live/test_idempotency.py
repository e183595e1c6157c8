"""The same ``Idempotency-Key`` and body never start a second run. Contract section 3."""

import asyncio
import secrets
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.live.leaving import ended, ending_of
from tests.live.reading import (
    HEARTBEAT,
    ask,
    chat,
    client,
    followed,
    names,
    opened,
    payload,
    stats,
    until,
)
from tests.live.servers import Gateway, SimulatorProcess

pytestmark = pytest.mark.anyio


def new_key() -> dict[str, str]:
    return {"idempotency-key": secrets.token_hex(8)}


async def run_of(gateway: Gateway, prompt: str, key: dict[str, str], **fields: Any) -> str:
    """Ask, read to the end, and answer the run's id."""
    async with chat(gateway.url, prompt, headers=key, **fields) as stream:
        events = await stream.rest()
        assert stream.status == 200, stream.writes
        assert events[0].event == "start"
        assert events[-1].event == "done"
        return str(await stream.run_id())


async def calls(simulator: SimulatorProcess, prompt: str) -> int:
    return int((await stats(simulator, prompt))["started"])


async def test_a_running_run_is_joined_from_its_first_event(
    gateway: Gateway, simulator: SimulatorProcess
) -> None:
    prompt, key = ask("tokens,n=20,interval=0.03"), new_key()
    async with chat(gateway.url, prompt, headers=key) as first:
        start = await first.events(5)
        async with chat(gateway.url, prompt, headers=key) as second:
            joined, whole = await second.rest(), start + await first.rest()
            assert await second.run_id() == await first.run_id()

    assert joined == whole
    assert await calls(simulator, prompt) == 1


async def test_a_finished_run_is_replayed(gateway: Gateway, simulator: SimulatorProcess) -> None:
    prompt, key = ask("awkward"), new_key()
    bodies = []
    for _ in range(3):
        async with chat(gateway.url, prompt, headers=key) as stream:
            bodies.append((await stream.body()).replace(HEARTBEAT, b""))

    assert bodies[0]
    assert bodies[1:] == bodies[:1] * 2
    assert await calls(simulator, prompt) == 1


async def test_twenty_requests_at_once_start_one_run_and_all_read_it(
    gateway: Gateway, simulator: SimulatorProcess
) -> None:
    prompt, key = ask("tokens,n=10,interval=0.02"), new_key()

    async def read() -> bytes:
        async with chat(gateway.url, prompt, headers=key) as stream:
            body: bytes = await stream.body()
        return body.replace(HEARTBEAT, b"")

    bodies = await asyncio.gather(*(read() for _ in range(20)))

    assert len(set(bodies)) == 1
    assert bodies[0].count(b"event: done") == 1
    assert await calls(simulator, prompt) == 1


async def test_bodies_are_compared_as_parsed_with_their_defaults(
    gateway: Gateway, simulator: SimulatorProcess
) -> None:
    prompt, key = ask("tokens,n=1"), new_key()
    text = prompt.replace(":", "\\u003a")
    same: list[tuple[str, str, bytes | dict[str, Any] | None]] = [
        ("POST", "/chat", {"text": prompt}),
        ("POST", "/chat", {"query": prompt}),
        ("POST", "/stream-chat", {"text": prompt}),
        ("POST", "/chat", {"on_disconnect": "cancel", "include": [], "text": prompt}),
        ("POST", "/chat", {"text": prompt, "seed": None, "query": None}),
        ("POST", "/chat", f' {{ "text" : "{text}" }} '.encode()),
        ("GET", f"/chat?{urlencode({'text': prompt})}", None),
        ("POST", "/runs", {"text": prompt}),
    ]
    run_ids = set()
    for method, path, body in same:
        async with opened(gateway.url, method, path, body, key) as stream:
            location = (await stream.head())["location"]
            run_ids.add(location.removesuffix("/events"))
            assert stream.status == (201 if path == "/runs" else 200)

    assert len(run_ids) == 1
    async with followed(gateway.url, run_ids.pop().removeprefix("/runs/")) as stream:
        await stream.rest()
    assert await calls(simulator, prompt) == 1


@pytest.mark.parametrize("script", ["tokens,n=2", "slow,first=1"], ids=["finished", "running"])
async def test_another_body_under_the_same_key_is_a_conflict(
    gateway: Gateway, simulator: SimulatorProcess, script: str
) -> None:
    prompt, key = ask(script), new_key()
    async with chat(gateway.url, prompt, headers=key, temperature=0.5) as stream:
        await stream.until("final" if script.startswith("tokens") else "start")
        for other in (
            {"text": prompt},
            {"text": prompt + " ", "temperature": 0.5},
            {"text": prompt, "temperature": 0.6},
            {"text": prompt, "temperature": 0.5, "grace_seconds": 5},
            {"text": prompt, "temperature": 0.5, "include": ["reasoning"]},
        ):
            for path in ("/chat", "/stream-chat", "/runs"):
                async with opened(gateway.url, "POST", path, other, key) as refused:
                    problem = await refused.problem()
                assert (refused.status, problem["code"]) == (422, "idempotency_conflict")
        await stream.rest()

    assert await calls(simulator, prompt) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "ä", "\x7f"])
async def test_an_impossible_key_is_refused_and_starts_nothing(
    gateway: Gateway, simulator: SimulatorProcess, key: str
) -> None:
    prompt = ask("tokens,n=1")
    query = f"/chat?{urlencode({'text': prompt, 'idempotency_key': key})}"
    asked: list[tuple[str, str, dict[str, str] | None, dict[str, str] | None]] = [
        ("POST", "/chat", {"text": prompt}, {"idempotency-key": key}),
        ("POST", "/runs", {"text": prompt}, {"idempotency-key": key}),
        ("GET", f"/chat?{urlencode({'text': prompt})}", None, {"idempotency-key": key}),
        ("GET", query, None, None),
    ]
    for method, path, body, headers in asked:
        async with opened(gateway.url, method, path, body, headers) as stream:
            await stream.head()
            if stream.status == 400:  # DEL in a header: the HTTP parser may refuse it itself
                assert key == "\x7f"
                continue
            problem = await stream.problem()
        assert (stream.status, problem["code"]) == (422, "invalid_request"), path

    assert await calls(simulator, prompt) == 0


@pytest.mark.parametrize("key", ["1", "x" * 255, "~!@#$%^&*()'\" {};,=\\"])
async def test_any_printable_key_is_taken(
    gateway: Gateway, simulator: SimulatorProcess, key: str
) -> None:
    """Each under a text of its own would be a conflict, so the text follows from the key."""
    prompt = f"sim:tokens,n=1 the run of the key {key[:40]}"
    before = await calls(simulator, prompt)
    runs = {await run_of(gateway, prompt, {"idempotency-key": key}) for _ in range(2)}

    assert len(runs) == 1
    assert await calls(simulator, prompt) == before + 1


async def test_the_key_in_the_query_of_get_is_the_same_key_and_the_header_wins(
    gateway: Gateway, simulator: SimulatorProcess
) -> None:
    prompt, key = ask("tokens,n=1"), new_key()["idempotency-key"]
    run_id = await run_of(gateway, prompt, {"idempotency-key": key})
    for given, headers in [(key, None), ("another", {"idempotency-key": key})]:
        path = f"/chat?{urlencode({'text': prompt, 'idempotency_key': given})}"
        async with opened(gateway.url, "GET", path, headers=headers) as stream:
            assert await stream.run_id() == run_id

    assert await calls(simulator, prompt) == 1


async def test_no_key_and_other_keys_start_runs_of_their_own(
    gateway: Gateway, simulator: SimulatorProcess
) -> None:
    prompt = ask("tokens,n=1")
    keys = [new_key(), new_key(), {}, {}]
    assert len({await run_of(gateway, prompt, key) for key in keys}) == 4
    assert await calls(simulator, prompt) == 4


@pytest.mark.parametrize(
    ("script", "code", "frees"),
    [
        ("eof", "upstream_broken", True),
        ("stall", "upstream_stalled", True),
        ("status,code=429,type=insufficient_quota", "upstream_rate_limited", True),
        ("status,code=401", "upstream_auth", False),
        ("status,code=400", "upstream_rejected", False),
    ],
)
async def test_a_failure_frees_the_key_if_it_is_retryable(
    gateway: Gateway, simulator: SimulatorProcess, script: str, code: str, frees: bool
) -> None:
    prompt, key = ask(script), new_key()
    first = await run_of(gateway, prompt, key)
    async with followed(gateway.url, first) as stream:
        error = payload((await stream.until("error"))[-1])
    assert (error["code"], error["retryable"]) == (code, frees)
    second = await run_of(gateway, prompt, key)

    assert (second != first) == frees
    assert await calls(simulator, prompt) == 1 + frees
    async with followed(gateway.url, first) as stream:
        assert names(await stream.rest())[-2:] == ["error", "done"]  # it can still be read


async def test_a_cancel_by_request_keeps_the_key_and_readers_that_left_free_it(
    gateway: Gateway, simulator: SimulatorProcess
) -> None:
    for leaves in (False, True):
        prompt, key = ask("tokens,n=20,interval=0.1"), new_key()
        async with chat(gateway.url, prompt, headers=key, grace_seconds=0) as stream:
            await stream.events(2)
            first = await stream.run_id()
            if leaves:
                stream.reset()
            else:
                async with client(gateway.url) as http:
                    await http.delete(f"/runs/{first}")
        assert await ending_of(gateway, first) == "cancelled"
        async with chat(gateway.url, prompt, headers=key, grace_seconds=0) as stream:
            assert (await stream.run_id() != first) == leaves
            await stream.events(2)
        await ended(simulator, prompt)
        assert await calls(simulator, prompt) == 1 + leaves


async def test_a_key_lives_as_long_as_the_log_of_its_run(
    start_gateway: Callable[..., Gateway], simulator: SimulatorProcess
) -> None:
    gateway = start_gateway(run_retention_seconds=1)
    prompt, key = ask("tokens,n=1"), new_key()
    first = await run_of(gateway, prompt, key)
    assert await run_of(gateway, prompt, key) == first
    async with client(gateway.url) as http:
        await until(
            lambda: http.get(f"/runs/{first}"), lambda answer: answer.status_code == 404, "expiry"
        )

    assert await run_of(gateway, prompt, key) != first
    assert await calls(simulator, prompt) == 2
