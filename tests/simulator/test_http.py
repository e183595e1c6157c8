"""The HTTP side, byte by byte."""

import asyncio
import json
import socket
from typing import Any

import httpx
import pytest

from app.simulator import Simulator
from app.simulator.protocol import MAX_BODY_BYTES, MAX_HEAD_BYTES
from tests.simulator.reading import PATH, chat, connect, post, request

pytestmark = pytest.mark.anyio

BOUND_S = 5
GET_HEALTH = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"no json", "malformed"),
        (b"\xff", "no chat completion"),
        (b"[]", "Expected `object`"),
        (b"[" * 100_000, "no chat completion"),
        (b'{"model":"m"}', "messages"),
        (b'{"model":"m","messages":[]}', "at least one message"),
        (b'{"messages":[{"role":"user","content":"x"}]}', "model"),
        (b'{"model":"m","messages":[{"role":"user","content":7}]}', "content"),
        (b'{"model":"sim:nope","messages":[{"role":"user"}]}', "known: plain"),
    ],
)
async def test_a_bad_body_is_refused_as_openai_would(
    client: httpx.AsyncClient, simulator: Simulator, body: bytes, says: str
) -> None:
    answer = await client.post(PATH, content=body)

    assert answer.status_code == 400
    assert says in answer.json()["error"]["message"]
    assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
    assert (simulator.stats.view().started, simulator.stats.view().rejected) == (0, 1)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/chat/completions", 404),
        ("GET", PATH, 405),
        ("POST", "/stats", 405),
        ("HEAD", "/health", 405),
    ],
)
async def test_unknown_paths_and_methods_are_refused(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await client.request(method, path)

    assert answer.status_code == status
    assert ("allow" in answer.headers) is (status == 405)
    assert (await client.get("/health")).json() == {"status": "ok"}


async def test_a_connection_serves_many_requests(
    client: httpx.AsyncClient, simulator: Simulator
) -> None:
    for _ in range(3):
        await client.post(PATH, json=chat("sim:tokens,n=1"))
        await client.post(PATH, json=chat("sim:tokens,n=1", stream=False))
    assert simulator.stats.view().connections == 1


@pytest.mark.parametrize("size", [1, 3, 10_000])
async def test_pipelined_requests_are_answered_in_order_however_they_are_cut(
    simulator: Simulator, size: int
) -> None:
    chunked = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    body = json.dumps(chat("sim:tokens,n=2", stream=False)).encode()
    chunked += b"".join(b"%x\r\n%b\r\n" % (1, bytes([c])) for c in body) + b"0\r\n\r\n"
    everything = request("sim:tokens,n=1,interval=0.01") + chunked + GET_HEALTH
    last = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    async with asyncio.timeout(BOUND_S), connect(simulator) as (reader, writer):
        for start in range(0, len(everything + last), size):
            writer.write((everything + last)[start : start + size])
            await asyncio.sleep(0)  # so that the loop may take it as one read
        raw = await reader.read()
    assert raw.count(b"HTTP/1.1 200 OK") == 4
    assert raw.index(b"[DONE]") < raw.index(b"tok0 tok1 ") < raw.index(b'{"status":"ok"}')


async def test_hundreds_of_pipelined_requests_do_not_recurse(simulator: Simulator) -> None:
    async with asyncio.timeout(BOUND_S), connect(simulator) as (reader, writer):
        writer.write(GET_HEALTH * 2000)
        for _ in range(2000):
            await reader.readuntil(b'{"status":"ok"}')


async def test_more_pipelined_requests_than_can_wait_end_the_connection(
    simulator: Simulator,
) -> None:
    async with connect(simulator) as (_, writer):
        writer.write(request("sim:silent") + GET_HEALTH * 200)
        await simulator.until(lambda view: view.aborted == 1 and view.connections == 0)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"y" * MAX_HEAD_BYTES + b"\r\n\r\n", b"431"),
        (b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1), b"413"),
        (b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx", b"400"),
    ],
)
async def test_what_cannot_be_read_is_refused_and_the_connection_closed(
    simulator: Simulator, sent: bytes, status: bytes
) -> None:
    async with asyncio.timeout(BOUND_S), connect(simulator) as (reader, writer):
        writer.write(sent)
        raw = await reader.read()
    assert raw.startswith(b"HTTP/1.1 " + status)
    assert b"connection: close" in raw
    assert json.loads(raw.split(b"\r\n\r\n")[1])["error"]["type"] == "invalid_request_error"


async def test_a_client_that_still_sends_reads_why_its_body_was_refused(
    client: httpx.AsyncClient,
) -> None:
    async def endless() -> Any:
        for _ in range(MAX_BODY_BYTES // 2**20 + 2):
            yield b" " * 2**20

    assert (await client.post(PATH, content=endless())).status_code == 413


async def test_a_client_that_waits_for_continue_gets_it(simulator: Simulator) -> None:
    body = json.dumps(chat("sim:tokens,n=1")).encode()
    whole = post(body, headers="expect: 100-continue\r\n")
    async with asyncio.timeout(BOUND_S), connect(simulator) as (reader, writer):
        writer.write(whole.removesuffix(body))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        await reader.readuntil(b"[DONE]")


async def test_an_upgrade_that_we_do_not_make_is_ignored(simulator: Simulator) -> None:
    upgrade = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
    async with asyncio.timeout(BOUND_S), connect(simulator) as (reader, writer):
        writer.write(upgrade + GET_HEALTH)
        for _ in range(2):
            await reader.readuntil(b'{"status":"ok"}')


async def test_http_1_0_gets_a_body_that_ends_with_the_connection(simulator: Simulator) -> None:
    async with asyncio.timeout(BOUND_S), connect(simulator) as (reader, writer):
        writer.write(request("sim:tokens,n=1").replace(b"HTTP/1.1", b"HTTP/1.0"))
        raw = await reader.read()
    assert b"chunked" not in raw
    assert raw.endswith(b"\n\ndata: [DONE]\n\n")


async def test_a_reader_that_does_not_read_stops_the_writer(simulator: Simulator) -> None:
    """Some 9.7 MB of stream; kernel buffers on loopback take a part of it."""
    url = httpx.URL(simulator.url)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((url.host, url.port))
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, request("sim:bulk"))
        await simulator.until(lambda view: bool(view.calls and view.calls[0].bytes_sent))
        sent = -1
        while sent != simulator.stats.view().calls[0].bytes_sent:  # until it stands still
            sent = simulator.stats.view().calls[0].bytes_sent
            async with asyncio.timeout(BOUND_S):
                for _ in range(20):
                    await asyncio.sleep(0)
        assert 0 < sent < 9_000_000
        assert simulator.stats.view().open == 1
        async with asyncio.timeout(BOUND_S):
            while simulator.stats.view().open:
                assert await loop.sock_recv(sock, 1 << 20)
    assert simulator.stats.view().finished == 1
