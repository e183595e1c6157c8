"""What the upstream says is what every kind of reader gets, in the bytes that contract section 4
promises. Over real sockets, to ``curl -N``, httpx-sse and a bare socket."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import pytest
from httpx_sse import aconnect_sse

from app.simulator import expected_reasoning, expected_text
from app.wire.parse import Event, parse
from tests.live.reading import (
    HEARTBEAT,
    WAIT_S,
    answer,
    ask,
    chat,
    client,
    frames,
    names,
    opened,
    payload,
    request,
    seqs,
    stats,
)
from tests.live.servers import Gateway, SimulatorProcess

pytestmark = pytest.mark.anyio

CHINESE = " 你好，世界。\r\n「流式」输出：正常 — 👨‍👩‍👧‍👦 👩🏽‍🚀 🇪🇺 é à ﷽ \U0010ffff"  # noqa: RUF001
PROMPTS = {
    "markdown": ask("plain,interval=0", " Hello"),
    "awkward": ask("awkward"),
    "awkward, a chunk a write": ask("awkward,batch=1"),
    "awkward, reads of 1 byte": ask("awkward,cutat=1"),
    "awkward, reads of 7 bytes": ask("awkward,cutat=7"),
    "Chinese and emoji": ask("echo", CHINESE),
    "Chinese and emoji, reads of 1 byte": ask("echo,cutat=1", CHINESE),
    "a token of 1 MiB": ask("big"),
    "a token of 1 MiB, reads of 1000 bytes": ask("big,cutat=1000"),
    "nothing": ask("tokens,n=0"),
    "many tokens": ask("tokens,n=500"),
}
MANY_BYTES = ask("bulk")  # 7 MiB in 7168 chunks

USAGE = {"input_tokens": int, "output_tokens": int, "total_tokens": int, "estimated": bool}
FIELDS: dict[str, dict[str, Any]] = {
    "start": {
        "run_id": str,
        "conversation_id": str,
        "model": str,
        "heartbeat_ms": int,
        "request_id": str,
    },
    "token": {"text": str},
    "reasoning": {"text": str},
    "final": {"text": str, "finish_reason": str, "usage": dict, "model": str},
    "error": {"code": str, "message": str, "retryable": bool, "request_id": str},
    "done": {"status": str, "usage": dict},
}


async def by_curl(url: str) -> list[Event]:
    curl = await asyncio.create_subprocess_exec(
        *("curl", "-N", "-sS", "--noproxy", "*", "--max-time", str(WAIT_S), url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    body, errors = await curl.communicate()
    assert curl.returncode == 0, errors  # 18 if the chunked body had no proper end
    return parse(body)


async def by_httpx_sse(url: str) -> list[Event]:
    async with client("") as http, aconnect_sse(http, "GET", url) as source:
        return [Event(sse.id, sse.event, sse.data) async for sse in source.aiter_sse()]


async def by_socket(url: str) -> list[Event]:
    origin, path = url.rsplit("/", 1)
    async with opened(origin, "GET", f"/{path}") as stream:
        return parse(await stream.body())


READERS = {"curl": by_curl, "httpx-sse": by_httpx_sse, "a socket": by_socket}


def assert_whole(events: list[Event], text: str) -> None:
    """A completed run that said ``text``."""
    wanted = ["start", *["token"] * (len(events) - 3), "final", "done"]
    assert names(events) == wanted
    assert seqs(events) == list(range(1, len(events) + 1))
    assert answer(events) == text
    assert payload(events[-2])["text"] == text
    assert payload(events[-1])["status"] == "completed"


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
async def test_the_tokens_joined_are_final_and_what_the_upstream_sent(
    gateway: Gateway, prompt: str, read: Callable[[str], Awaitable[list[Event]]]
) -> None:
    async with client(gateway.url) as http:
        url = http.build_request("GET", "/chat", params={"text": prompt}).url

    assert_whole(await read(str(url)), expected_text(prompt))


async def test_7_mib_reach_three_kinds_of_readers_of_one_run(
    gateway: Gateway, simulator: SimulatorProcess
) -> None:
    text = expected_text(MANY_BYTES)
    async with chat(gateway.url, MANY_BYTES) as first:
        url = f"{gateway.url}/runs/{await first.run_id()}/events"
        reads = await asyncio.gather(first.rest(), by_curl(url), by_httpx_sse(url))

    for events in reads:
        assert_whole(events, text)
    assert (await stats(simulator, MANY_BYTES))["started"] == 1


async def test_a_body_of_post_says_the_same_as_a_query_of_get(gateway: Gateway) -> None:
    for path in ("/chat", "/stream-chat"):
        for field in ("text", "query"):
            prompt = PROMPTS["awkward"]
            async with opened(gateway.url, "POST", path, {field: prompt}) as stream:
                assert_whole(await stream.rest(), expected_text(prompt))


def strict_json(data: bytes) -> dict[str, Any]:
    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is no JSON")

    fields: dict[str, Any] = json.loads(data, parse_constant=refuse)
    return fields


def assert_exact(frame: bytes, run_id: str, seq: int) -> tuple[str, dict[str, Any]]:
    """One frame by contract section 4; its name and data."""
    assert frame.endswith(b"\n\n")
    assert b"\r" not in frame
    assert frame.isascii()
    lines = [line.partition(b": ") for line in frame[:-2].split(b"\n")]
    fields = {name.decode(): value for name, _, value in lines}
    assert len(fields) == len(lines), "a field stands twice"
    retry = fields.pop("retry", None)
    assert list(fields) == ["id", "event", "data"]
    assert re.fullmatch(rb"[A-Za-z0-9_-]{22,}\.[0-9]+", fields["id"])
    assert len(fields["id"]) < 64
    assert fields["id"].decode() == f"{run_id}.{seq}"
    name, data = fields["event"].decode(), strict_json(fields["data"])
    if name == "start":
        assert retry is not None
        assert retry.isdigit()
        assert 1000 <= int(retry) <= 3000
    else:
        assert retry is None
    assert {field: type(value) for field, value in data.items()} == FIELDS[name]
    if "usage" in data:
        assert {field: type(value) for field, value in data["usage"].items()} == USAGE
    return name, data


@pytest.mark.parametrize(
    "script",
    ["awkward,batch=1", "awkward,cutat=5", "big", "slow,first=1.2", "reasoning", "eof", "echo"],
)
async def test_every_byte_of_a_stream_is_as_promised(gateway: Gateway, script: str) -> None:
    prompt = ask(script, CHINESE)
    async with chat(gateway.url, prompt, include=["reasoning"]) as stream:
        run_id = await stream.run_id()
        body = await stream.body()
        writes = [frames(write) for write in stream.writes]
        # The chunked body had its proper end, so the connection serves the next request.
        stream.send(request("GET", "/health"))
        assert json.loads(await stream.body()) == {"status": "ok"}

    assert [frame for write in writes for frame in write] == frames(body)  # no frame is split
    told = [frame for frame in frames(body) if frame != HEARTBEAT]
    shown = [assert_exact(frame, run_id, seq) for seq, frame in enumerate(told, 1)]
    events = [name for name, _ in shown]
    failed = script == "eof"
    assert events[0] == "start"
    assert events[-2:] == (["error", "done"] if failed else ["final", "done"])
    assert set(events[1:-2]) <= {"token", "reasoning"}
    assert shown[0][1]["run_id"] == run_id
    assert shown[-1][1]["status"] == ("failed" if failed else "completed")
    assert answer(parse(body)) == expected_text(prompt)
    reasoning = "".join(data["text"] for name, data in shown if name == "reasoning")
    assert reasoning == expected_reasoning(prompt)


async def test_the_retry_differs_from_run_to_run(gateway: Gateway) -> None:
    retries = set()
    for _ in range(5):
        async with chat(gateway.url, ask("tokens,n=0")) as stream:
            match = re.search(rb"\nretry: ([0-9]+)\n", await stream.body())
            assert match
            retries.add(match[1])

    assert len(retries) > 1


async def test_the_start_comes_and_then_heartbeats_while_the_model_is_silent(
    gateway: Gateway,
) -> None:
    """The fixture's gateway beats every 0.5 s."""
    async with chat(gateway.url, ask("slow,first=2")) as stream:
        assert names(await stream.events(1)) == ["start"]
        beats = [await stream.write() for _ in range(2)]

    assert beats == [HEARTBEAT, HEARTBEAT]


def assert_headers(headers: Any, run_id: str) -> None:
    """All of contract section 3; what it does not name must not come, but for HTTP's own and what
    keeps other sites' pages out."""
    assert dict(headers, date="") == {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-store, no-transform",
        "x-accel-buffering": "no",
        "x-request-id": headers["x-request-id"],
        "content-location": f"/runs/{run_id}",
        "location": f"/runs/{run_id}/events",
        "transfer-encoding": "chunked",
        "x-content-type-options": "nosniff",
        "cross-origin-resource-policy": "same-origin",
        "date": "",
    }
    assert len(headers.multi_items()) == len(headers), "a header stands twice"


async def test_every_stream_carries_the_promised_headers_and_no_others(gateway: Gateway) -> None:
    sent = {"accept-encoding": "gzip, deflate, br", "accept": "*/*"}
    prompt = ask("tokens,n=3")
    async with chat(gateway.url, prompt) as stream:
        run_id, last = await stream.run_id(), (await stream.rest())[1].id
    resume = {**sent, "last-event-id": last}
    asked: list[tuple[str, str, Any, dict[str, str]]] = [
        ("POST", "/chat", {"text": prompt}, sent),
        ("POST", "/stream-chat", {"text": prompt}, sent),
        ("GET", "/chat?text=sim:tokens", None, sent),
        ("GET", f"/runs/{run_id}/events", None, sent),
        ("GET", f"/runs/{run_id}/events?after=2", None, sent),
        ("POST", "/chat", {"text": prompt}, resume),
        ("GET", "/chat?text=x", None, resume),
    ]
    for method, path, body, headers in asked:
        async with opened(gateway.url, method, path, body, headers) as stream:
            assert_headers(await stream.head(), await stream.run_id())
            assert stream.status == 200
            events = await stream.rest()
        assert events[-1].event == "done"
        assert (await stream.run_id() == run_id) == ("runs" in path or headers is resume)


@pytest.mark.parametrize("given", ["a", "A-z_0.9", "x" * 128])
async def test_a_request_id_of_the_caller_is_taken(gateway: Gateway, given: str) -> None:
    async with chat(gateway.url, ask("eof"), headers={"x-request-id": given}) as stream:
        assert (await stream.head())["x-request-id"] == given
        events = await stream.rest()

    assert payload(events[0])["request_id"] == given
    assert events[-2].event == "error"
    assert payload(events[-2])["request_id"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a;b", "ä", "<script>"])
async def test_an_odd_request_id_is_replaced(gateway: Gateway, given: str) -> None:
    async with chat(gateway.url, ask("tokens,n=1"), headers={"x-request-id": given}) as stream:
        told = (await stream.head())["x-request-id"]
        events = await stream.rest()

    assert told != given
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", told)
    assert payload(events[0])["request_id"] == told
