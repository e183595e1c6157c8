"""A silent model: comment lines keep the connection alive and tell the reader so."""

import asyncio
import itertools
import time
from collections.abc import Iterator

import httpx
import httpx_sse
import pytest

from tests.live.asking import FRAME, HEARTBEAT, Answer, ask, client
from tests.live.servers import PLAIN, Gateway, SimulatorProcess, running_gateway

pytestmark = pytest.mark.anyio

HEARTBEAT_S = 0.6
# 35 s are to hold three of the default's 10 s; here one more, because a busy machine may be late.
SILENCE_S = 4.5 * HEARTBEAT_S


@pytest.fixture(scope="module")
def beating(
    simulator: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    with running_gateway(
        tmp_path_factory.mktemp("gateway"), simulator.url, heartbeat_seconds=HEARTBEAT_S
    ) as gateway:
        httpx.get(f"{gateway.url}/chat", params={"text": "sim:tokens,n=1"}, **PLAIN)  # warm
        yield gateway


def between(answer: Answer) -> list[tuple[str, bytes]]:
    """Each event's name with the bytes that stand between it and the event before."""
    found, end = [], 0
    for match in FRAME.finditer(answer.body):
        found.append((match[2].decode(), answer.body[end : match.start()]))
        end = match.end()
    assert end == len(answer.body), "something follows done"
    return found


def assert_heartbeats(raw: bytes, at_least: int, most: int) -> None:
    count = len(raw) // len(HEARTBEAT)
    assert raw == HEARTBEAT * count, "byte for byte, without a blank line"
    assert at_least <= count <= most


async def test_silence_is_bridged_wherever_it_falls(beating: Gateway) -> None:
    """Before the upstream's HTTP head, before the first token, in the middle of an answer."""
    began = time.monotonic()
    head, first, middle = await asyncio.gather(
        ask(beating, f"sim:slow,first=0,head={SILENCE_S}"),
        ask(beating, f"sim:slow,first={SILENCE_S}"),
        ask(beating, f"sim:tokens,n=2,interval={SILENCE_S}"),
    )
    most = int((time.monotonic() - began) / HEARTBEAT_S)

    for answer, silent in ((head, 1), (first, 1), (middle, 2)):
        assert answer.one("start")["heartbeat_ms"] == HEARTBEAT_S * 1000
        assert answer.names[-2:] == ["final", "done"]
        pieces = between(answer)
        assert pieces[0] == ("start", b""), "at once, before the model answers"
        assert pieces[silent][0] == "token"
        assert_heartbeats(pieces[silent][1], 3, most)
        assert pieces[-1] == ("done", b"")


async def test_a_reader_that_sees_none_of_the_reasoning_is_kept_alive(beating: Gateway) -> None:
    """30 hidden events, one each 0.1 s: nothing for this reader, so heartbeats."""
    began = time.monotonic()
    answer = await ask(beating, "sim:reasoning,n=30,interval=0.1")
    most = int((time.monotonic() - began) / HEARTBEAT_S)

    assert "reasoning" not in answer.names
    _, first, *_ = between(answer)
    assert first[0] == "token"
    assert_heartbeats(first[1], 3, most)
    assert [int(event.id.rpartition(".")[2]) for event in answer.events][:2] == [1, 32]


async def test_no_heartbeat_comes_while_tokens_flow(beating: Gateway) -> None:
    """A timer that counts from anything but the last byte would show in every try; a machine that
    hangs for 0.6 s shows in one."""
    tries = [await ask(beating, "sim:tokens,n=40,interval=0.05")]
    while HEARTBEAT in tries[-1].body and len(tries) < 4:
        tries.append(await ask(beating, "sim:tokens,n=40,interval=0.05"))

    assert HEARTBEAT not in tries[-1].body
    assert len(tries[-1].events) == 43


async def test_heartbeats_are_no_messages_to_httpx_sse(beating: Gateway) -> None:
    question = {"text": f"sim:tokens,n=2,interval={SILENCE_S}"}
    async with (
        asyncio.timeout(20),
        client(beating) as http,
        httpx_sse.aconnect_sse(http, "POST", "/chat", json=question) as source,
    ):
        seen = [message async for message in source.aiter_sse()]

    assert [message.event for message in seen] == ["start", "token", "token", "final", "done"]
    assert all(message.data and message.id for message in seen)


async def test_heartbeats_are_sent_when_they_are_due(beating: Gateway) -> None:
    """Not kept back until the silence is over."""
    question = {"text": f"sim:slow,first={SILENCE_S}"}
    async with (
        asyncio.timeout(20),
        client(beating) as http,
        http.stream("POST", "/chat", json=question) as response,
    ):
        arrivals = [time.monotonic() async for chunk in response.aiter_raw() if chunk == HEARTBEAT]

    assert len(arrivals) >= 3, "each in a write of its own"
    gaps = [later - earlier for earlier, later in itertools.pairwise(arrivals)]
    assert max(gaps) >= 0.9 * HEARTBEAT_S  # of a busy machine one may come early, not all
