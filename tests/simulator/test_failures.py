"""Every script that misbehaves, down to the bytes."""

import asyncio
import json
import time

import httpx
import pytest

from app.simulator import SECRET, Simulator
from tests.simulator.reading import PATH, chat, connect, read, request

pytestmark = pytest.mark.anyio

BOUND_S = 5  # for anything that should come at once


@pytest.mark.parametrize("interval", ["", ",interval=0.005"])
@pytest.mark.parametrize(("how", "error"), [("rst", ConnectionResetError), ("fin", None)])
async def test_a_cut_comes_after_the_tokens_and_without_an_end(
    simulator: Simulator, how: str, error: type[Exception] | None, interval: str
) -> None:
    raw, caught = b"", None
    async with asyncio.timeout(BOUND_S), connect(simulator) as (reader, writer):
        writer.write(request(f"sim:cut,after=3,how={how}{interval}"))
        try:
            while data := await reader.read(65536):
                raw += data
        except OSError as problem:
            caught = type(problem)
    assert caught is error
    if how == "fin":  # a reset may overtake what was not read yet
        assert raw.count(b'"tok') == 3
        assert not raw.endswith(b"0\r\n\r\n")
    assert simulator.stats.view().calls[0].tokens_sent == 3


async def test_a_client_reads_the_tokens_before_a_reset(client: httpx.AsyncClient) -> None:
    seen = await read(client, "sim:cut,after=3,interval=0.02")

    assert seen.texts == ["tok0 ", "tok1 ", "tok2 "]
    assert isinstance(seen.broken, httpx.ReadError)


async def test_a_cut_after_nothing_leaves_a_head_alone(simulator: Simulator) -> None:
    async with asyncio.timeout(BOUND_S), connect(simulator) as (reader, writer):
        writer.write(request("sim:cut,after=0,how=fin"))
        raw = await reader.read()
    assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
    assert raw.endswith(b"\r\n\r\n")
    assert raw.count(b"\r\n\r\n") == 1


async def test_a_connection_can_close_without_any_byte(simulator: Simulator) -> None:
    async with asyncio.timeout(BOUND_S), connect(simulator) as (reader, writer):
        writer.write(request("sim:cut,how=nohead"))
        assert await reader.read() == b""


@pytest.mark.parametrize(("name", "done"), [("eof", False), ("done_only", True)])
async def test_a_body_can_end_well_without_a_finish_reason(
    client: httpx.AsyncClient, name: str, done: bool
) -> None:
    seen = await read(client, f"sim:{name},after=2")

    assert seen.broken is None
    assert (len(seen.texts), seen.finish_reasons, seen.usages, seen.done) == (2, [], [], done)


async def test_an_answer_can_be_complete_without_the_last_http_chunk(simulator: Simulator) -> None:
    async with connect(simulator) as (reader, writer):
        writer.write(request("sim:noterm,after=1"))
        async with asyncio.timeout(BOUND_S):
            raw = await reader.readuntil(b"data: [DONE]\n\n\r\n")
        assert b'"finish_reason":"stop"' in raw
        assert b'"total_tokens"' in raw
        assert simulator.stats.view().open == 1
    assert (await simulator.until(lambda view: view.open == 0)).finished == 1


@pytest.mark.parametrize(
    ("prompt", "last"),
    [
        ("sim:silent", b'"content":"","refusal"'),
        ("sim:stall,after=2", b'"tok1 "'),
        ("sim:slow,first=60", b'"content":"","refusal"'),
        ("sim:tokens,n=5,interval=60", b'"tok0 "'),
    ],
)
async def test_a_silent_stream_says_so_much_and_sees_at_once_that_its_reader_left(
    simulator: Simulator, prompt: str, last: bytes
) -> None:
    async with connect(simulator) as (reader, writer):
        writer.write(request(prompt))
        async with asyncio.timeout(BOUND_S):
            await reader.readuntil(last)
        assert simulator.stats.view().open == 1
        left_at = time.time()
    view = await simulator.until(lambda view: view.open == 0)
    assert (view.aborted, view.connections) == (1, 0)
    ended_at = view.calls[0].ended_at
    assert ended_at is not None
    assert -0.05 < ended_at - left_at < 1


async def test_a_peer_that_closes_politely_is_seen_as_well(simulator: Simulator) -> None:
    async with connect(simulator) as (reader, writer):
        writer.write(request("sim:silent,head=60"))
        await simulator.until(lambda view: view.open == 1)
        writer.write_eof()
        assert (await simulator.until(lambda view: view.aborted == 1)).calls[0].bytes_sent == 0
        assert await reader.read() == b""


@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_carries_its_status_header_and_marker(
    client: httpx.AsyncClient, stream: bool
) -> None:
    prompt = "sim:status,code=429,retry_after=7,type=insufficient_quota"
    answer = await client.post(PATH, json=chat(prompt, stream=stream))

    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    error = answer.json()["error"]
    assert error["code"] == error["type"] == "insufficient_quota"
    assert SECRET in error["message"]


async def test_the_first_calls_of_a_key_are_refused_until_a_reset(
    client: httpx.AsyncClient,
) -> None:
    async def call(key: str) -> int:
        prompt = f"sim:status,code=503,times=2,key={key},n=1"
        return (await client.post(PATH, json=chat(prompt, stream=False))).status_code

    assert [await call("a") for _ in range(4)] == [503, 503, 200, 200]
    assert await call("b") == 503
    await client.post("/reset")
    assert await call("a") == 503


async def test_an_error_object_ends_a_stream(client: httpx.AsyncClient) -> None:
    seen = await read(client, "sim:error,after=2,code=overloaded")

    assert len(seen.texts) == 2
    assert seen.chunks[-1]["error"]["code"] == "overloaded"
    assert SECRET in seen.chunks[-1]["error"]["message"]
    assert not seen.done


@pytest.mark.parametrize(
    ("kind", "bad"),
    [("json", b'"content":"br\n\n'), ("shape", b"data: []\n\n"), ("utf8", b"\xff\xfe\xc3(")],
)
async def test_garbage_comes_after_the_tokens_and_the_stream_goes_on(
    client: httpx.AsyncClient, kind: str, bad: bytes
) -> None:
    raw = b""
    body = chat(f"sim:malformed,after=2,kind={kind}")
    async with client.stream("POST", PATH, json=body) as response:
        async for data in response.aiter_raw():
            raw += data
    before, after = raw.split(bad)
    assert before.count(b'"tok') == 2
    assert b"data: [DONE]" in after

    unstreamed = await client.post(PATH, json=chat(body["messages"][0]["content"], stream=False))
    with pytest.raises((ValueError, TypeError)):
        json.loads(unstreamed.content)["choices"]


async def test_a_page_can_stand_where_a_stream_should(client: httpx.AsyncClient) -> None:
    answer = await client.post(PATH, json=chat("sim:malformed,kind=html"))

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert SECRET in answer.text


@pytest.mark.parametrize("how", ["rst", "fin", "nohead"])
async def test_an_unstreamed_answer_can_be_cut(client: httpx.AsyncClient, how: str) -> None:
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        await client.post(PATH, json=chat(f"sim:cut,how={how}", stream=False))


async def test_an_unstreamed_answer_fails_where_a_stream_would(client: httpx.AsyncClient) -> None:
    error = await client.post(PATH, json=chat("sim:error", stream=False))
    assert (error.status_code, SECRET in error.text) == (500, True)

    ended = await client.post(PATH, json=chat("sim:eof", stream=False))
    assert ended.json()["choices"][0]["finish_reason"] is None

    with pytest.raises(httpx.ReadTimeout):
        await client.post(PATH, json=chat("sim:stall", stream=False), timeout=0.2)
