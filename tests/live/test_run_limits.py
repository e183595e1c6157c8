"""What ends a run from our side, and upstreams that no simulator plays: deaf, absent, babbling."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing

import pytest

from tests.live.asking import Answer, ask, get, is_alive, marker, until
from tests.live.servers import Gateway, SimulatorProcess, running_gateway

pytestmark = pytest.mark.anyio

RUN_TIMEOUT_S = 2.0
MAX_ANSWER_BYTES = 10_000


@pytest.fixture(scope="module")
def strict(
    simulator: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    with running_gateway(
        tmp_path_factory.mktemp("gateway"),
        simulator.url,
        run_timeout_seconds=RUN_TIMEOUT_S,
        max_answer_bytes=MAX_ANSWER_BYTES,
    ) as gateway:
        yield gateway


def assert_failed(answer: Answer, code: str, *, retryable: bool) -> None:
    assert answer.names[-2:] == ["error", "done"]
    error = answer.one("error")
    assert (error["code"], error["retryable"]) == (code, retryable)
    assert answer.one("done")["status"] == "failed"


@pytest.mark.parametrize("script", ["tokens,n=10000,interval=0.05", "silent", "stall,after=3"])
async def test_a_run_that_takes_too_long_ends_and_keeps_its_text(
    strict: Gateway, simulator: SimulatorProcess, script: str
) -> None:
    word = marker()
    began = time.monotonic()
    answer = await ask(strict, f"sim:{script} {word}")

    assert time.monotonic() - began >= RUN_TIMEOUT_S - 0.05
    assert_failed(answer, "run_timeout", retryable=False)
    assert answer.text.startswith("" if script == "silent" else "tok0 tok1 tok2 ")
    await until(lambda: simulator.stats(word)["aborted"] == 1, "the upstream call is closed")
    await is_alive(strict)


async def test_an_answer_that_grows_too_large_ends_and_keeps_what_fitted(
    strict: Gateway, simulator: SimulatorProcess
) -> None:
    word = marker()
    answer = await ask(strict, f"sim:bulk,bytes=33554432,chunk=1000 {word}")

    assert_failed(answer, "answer_too_large", retryable=False)
    assert len(answer.text) == MAX_ANSWER_BYTES
    await until(lambda: simulator.stats(word)["aborted"] == 1, "the upstream call is closed")
    shown = (await get(strict, f"/runs/{answer.run_id}")).json()
    assert (shown["status"], shown["error"]["code"]) == ("failed", "answer_too_large")
    await is_alive(strict)


async def test_the_size_of_an_answer_is_counted_in_bytes_of_utf_8(strict: Gateway) -> None:
    fits = await ask(strict, "sim:echo " + "字" * (MAX_ANSWER_BYTES // 3))
    grows = await ask(strict, "sim:echo " + "字" * (MAX_ANSWER_BYTES // 3 + 1))

    assert fits.names[-2:] == ["final", "done"]
    assert_failed(grows, "answer_too_large", retryable=False)
    assert grows.text == fits.text


async def test_hidden_reasoning_counts_into_the_size_of_an_answer(strict: Gateway) -> None:
    answer = await ask(strict, "sim:reasoning,n=2000")

    assert_failed(answer, "answer_too_large", retryable=False)
    assert answer.names == ["start", "error", "done"]


async def test_a_port_where_nobody_listens_is_an_unavailable_upstream(
    start_gateway: Callable[..., Gateway],
) -> None:
    with closing(socket.socket()) as bound:  # taken, so that nobody else can listen there
        bound.bind(("127.0.0.1", 0))
        gateway = start_gateway(upstream=f"http://127.0.0.1:{bound.getsockname()[1]}/v1")
        answer = await ask(gateway, "Hello")

    assert_failed(answer, "upstream_unavailable", retryable=True)
    assert answer.names == ["start", "error", "done"]
    assert gateway.output.count("APIConnectionError") == 1, "one line for a run, not for an attempt"
    assert (await get(gateway, "/health")).status_code == 200


async def test_an_upstream_that_accepts_no_connection_is_given_up_by_the_connect_clock(
    start_gateway: Callable[..., Gateway],
) -> None:
    with closing(socket.socket()) as deaf, closing(socket.socket()) as first:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        first.connect(deaf.getsockname())  # fills the queue: the kernel answers nobody any more
        gateway = start_gateway(
            upstream=f"http://127.0.0.1:{deaf.getsockname()[1]}/v1", connect_timeout_seconds=0.3
        )
        began = time.monotonic()
        answer = await ask(gateway, "Hello", bound_s=20)

    assert time.monotonic() - began >= 0.9, "three attempts of 0.3 s"
    assert_failed(answer, "upstream_unavailable", retryable=True)


HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{"role":"assistant","content":"Hello"},"finish_reason":null}]}\n\n'
)
EMPTY = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{"content":""},"finish_reason":null}]}\n\n'
)


@asynccontextmanager
async def babbler(noise: bytes) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """An upstream that says one word and then makes noise, until its peer has left."""
    left = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD)
        try:
            while True:
                writer.write(noise)
                await writer.drain()
                await asyncio.sleep(0.05)  # the pace of the noise
        except ConnectionError:
            left.set()
        finally:
            writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", left


async def test_a_stall_is_noticed_behind_comment_pings(
    start_gateway: Callable[..., Gateway],
) -> None:
    async with babbler(b": ping\n\n") as (upstream, left):
        gateway = await asyncio.to_thread(start_gateway, upstream=upstream, stall_timeout_seconds=1)
        answer = await ask(gateway, "Hello", bound_s=10)

        assert_failed(answer, "upstream_stalled", retryable=True)
        assert answer.text == "Hello"
        async with asyncio.timeout(5):
            await left.wait()
