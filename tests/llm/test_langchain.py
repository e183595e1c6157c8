"""The real reader, LangChain and SDK included, against the real simulator over HTTP."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.environment import load
from app.events.model import Event, Reasoning, Token
from app.events.queue import EventQueue
from app.llm.clocks import TurnClocks
from app.llm.langchain import LangChainReader
from app.llm.toolbox import Toolbox
from app.llm.turn import Turn
from app.llm.upstream import UpstreamFailure
from app.simulator import SECRET, Simulator, expected_reasoning, expected_text
from tests.llm.making import entry, prompt

pytestmark = pytest.mark.anyio

BOUND_S = 30
ENTRY = entry("some-model", is_simulator=True)


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as server:
        yield server


@pytest.fixture(params=["lean", "langchain"])
async def reader(
    request: pytest.FixtureRequest, simulator: Simulator
) -> AsyncIterator[LangChainReader]:
    settings = load({"GATEWAY_UPSTREAM_READER": request.param})
    reader = LangChainReader(settings, simulator.url, Toolbox())
    yield reader
    await reader.aclose()


def turn_of(text: str, queue: EventQueue, **parameters: Any) -> Turn:
    clocks = TurnClocks(first_token_s=BOUND_S, stall_s=BOUND_S)
    return Turn(prompt(text, parameters=parameters), queue, clocks)


async def ask(reader: LangChainReader, text: str, **parameters: Any) -> tuple[Turn, list[Event]]:
    queue = EventQueue()
    turn = turn_of(text, queue, **parameters)
    async with asyncio.timeout(BOUND_S):
        try:
            async with turn.clocks:
                await reader.ask(turn, ENTRY)
        finally:
            turn.flush()
            queue.close()
        return turn, await queue.take()


async def failure(reader: LangChainReader, text: str) -> UpstreamFailure:
    with pytest.raises(UpstreamFailure) as caught:
        await ask(reader, text)
    return caught.value


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Token))


@pytest.mark.parametrize(
    "prompt",
    ["sim:tokens,n=200", "sim:awkward", "sim:awkward,cutat=3", "sim:awkward,batch=7", "sim:think"],
)
async def test_the_text_arrives_exactly_as_it_was_said(
    reader: LangChainReader, prompt: str
) -> None:
    turn, events = await ask(reader, prompt)
    assert text_of(events) == expected_text(prompt)
    assert turn.finish_reason == "stop"


async def test_each_chunk_is_one_callback_and_nothing_is_empty(reader: LangChainReader) -> None:
    _, events = await ask(reader, "sim:tokens,n=50")
    assert events == [Token(f"tok{number} ") for number in range(50)]


async def test_reasoning_has_a_channel_of_its_own(reader: LangChainReader) -> None:
    turn, events = await ask(reader, "sim:reasoning,n=5")
    said = "".join(event.text for event in events if isinstance(event, Reasoning))
    assert said == expected_reasoning("sim:reasoning,n=5")
    assert text_of(events) == expected_text("sim:reasoning,n=5")
    kinds = [type(event) for event in events]
    assert kinds == [Reasoning] * 5 + [Token] * (len(events) - 5)
    assert turn.clocks.first_token_seen


async def test_usage_is_asked_for_and_told(reader: LangChainReader) -> None:
    turn, _ = await ask(reader, "sim:tokens,n=50")
    usage = turn.usage()
    assert (usage.output_tokens, usage.estimated) == (50, False)
    assert usage.total_tokens == usage.input_tokens + 50


async def test_usage_is_estimated_where_the_server_does_not_tell(reader: LangChainReader) -> None:
    turn, _ = await ask(reader, "sim:tokens,n=50,usage=0")
    assert (turn.usage().output_tokens, turn.usage().estimated) == (72, True)


@pytest.mark.parametrize("reason", ["length", "content_filter"])
async def test_the_finish_reason_is_the_upstreams(reader: LangChainReader, reason: str) -> None:
    turn, _ = await ask(reader, f"sim:finish,reason={reason}")
    assert turn.finish_reason == reason


async def test_a_tool_call_counts_as_a_first_token(reader: LangChainReader) -> None:
    turn, events = await ask(reader, "sim:tool")
    assert (events, turn.finish_reason) == ([], "tool_calls")
    assert turn.clocks.first_token_seen


@pytest.mark.parametrize("prompt", ["sim:eof,after=3", "sim:done_only,after=3"])
async def test_an_answer_without_a_finish_reason_ends_without_one(
    reader: LangChainReader, prompt: str
) -> None:
    turn, events = await ask(reader, prompt)
    assert (text_of(events), turn.finish_reason) == ("tok0 tok1 tok2 ", None)


@pytest.mark.parametrize(
    ("prompt", "code", "again"),
    [
        ("sim:status,code=400", "upstream_rejected", False),
        ("sim:status,code=401", "upstream_auth", False),
        ("sim:status,code=404", "upstream_rejected", False),
        ("sim:status,code=408", "upstream_unavailable", True),
        ("sim:status,code=409", "upstream_rejected", True),
        ("sim:status,code=429", "upstream_rate_limited", True),
        ("sim:status,code=429,type=insufficient_quota", "upstream_rate_limited", False),
        ("sim:status,code=503", "upstream_unavailable", True),
        ("sim:error,after=2", "upstream_unavailable", False),
        ("sim:error,after=0,code=rate_limit_exceeded", "upstream_rate_limited", False),
        ("sim:error,after=2,code=context_length_exceeded", "upstream_rejected", False),
        ("sim:cut,how=nohead", "upstream_unavailable", True),
        ("sim:cut,how=rst,after=0", "upstream_broken", False),
        ("sim:cut,how=fin,after=0", "upstream_broken", False),
        ("sim:cut,how=rst", "upstream_broken", False),
        ("sim:cut,how=fin", "upstream_broken", False),
        ("sim:malformed,kind=json", "upstream_broken", False),
        ("sim:malformed,kind=shape", "upstream_broken", False),
        ("sim:malformed,kind=utf8", "upstream_broken", False),
    ],
)
async def test_a_failure_keeps_what_was_said_and_tells_its_code(
    reader: LangChainReader, prompt: str, code: str, again: bool
) -> None:
    told = await failure(reader, prompt)
    assert (told.error.code, told.again) == (code, again)
    assert SECRET not in f"{told}{told.error}"


async def test_retry_after_of_a_refusal_is_passed_on(reader: LangChainReader) -> None:
    told = await failure(reader, "sim:status,code=429,retry_after=7")
    assert told.retry_after_s == 7


async def test_what_was_said_before_a_failure_is_on_the_queue(reader: LangChainReader) -> None:
    queue = EventQueue()
    turn = turn_of("sim:cut,after=5,interval=0.001", queue)
    async with asyncio.timeout(BOUND_S):
        with pytest.raises(UpstreamFailure):
            async with turn.clocks:
                await reader.ask(turn, ENTRY)
        assert text_of(await queue.take()) == "tok0 tok1 tok2 tok3 tok4 "


async def test_nobody_there_is_worth_another_try() -> None:
    async with Simulator() as stopped:
        url = stopped.url
    reader = LangChainReader(load({}), url, Toolbox())
    told = await failure(reader, "hello")
    assert (told.error.code, told.again) == ("upstream_unavailable", True)
    await reader.aclose()


# -- cancelling ---------------------------------------------------------------------------------


async def cancelled_at(reader: LangChainReader, prompt: str, chunks: int, passes: int) -> bool:
    """Cancel one call ``passes`` turns of the loop behind a chunk; whether it ended cancelled."""
    queue = EventQueue()
    turn = turn_of(prompt, queue)

    async def asking() -> None:
        async with turn.clocks:
            await reader.ask(turn, ENTRY)

    task = asyncio.ensure_future(asking())
    taken = 0
    while taken < chunks:
        taken += len(await queue.take())
    for _ in range(passes):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    return task.cancelled()


@pytest.mark.parametrize(
    "prompt",
    [
        "sim:stall,after=3",  # silent when it is cancelled
        "sim:tokens,n=100000,interval=0.0005",  # a chunk may arrive with the cancel
        "sim:tokens,n=1000000,interval=0.005,batch=20",  # in bursts
    ],
)
async def test_cancelling_closes_the_upstream_connection_100_times_of_100(
    simulator: Simulator, reader: LangChainReader, prompt: str
) -> None:
    chance = random.Random(prompt)
    async with asyncio.timeout(BOUND_S):
        for _ in range(10):
            burst = [
                cancelled_at(reader, prompt, chance.randrange(1, 4), chance.randrange(8))
                for _ in range(10)
            ]
            assert await asyncio.gather(*burst) == [True] * 10
            await simulator.until(lambda view: view.open == 0 and view.connections == 0)
    view = simulator.stats.view()
    assert (view.aborted, view.started) == (100, 100)


@pytest.mark.parametrize("prompt", ["sim:silent", "sim:slow,head=60"])
async def test_cancelling_before_the_first_token_closes_it_too(
    simulator: Simulator, reader: LangChainReader, prompt: str
) -> None:
    async with asyncio.timeout(BOUND_S):
        tasks = [asyncio.ensure_future(ask(reader, prompt)) for _ in range(20)]
        await simulator.until(lambda view: view.open == 20)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        view = await simulator.until(lambda view: view.open == 0 and view.connections == 0)
    assert all(task.cancelled() for task in tasks)
    assert view.aborted == 20


async def test_a_finished_connection_is_used_again(
    simulator: Simulator, reader: LangChainReader
) -> None:
    for _ in range(3):
        await ask(reader, "sim:tokens,n=3")
    assert simulator.stats.view().connections == 1
    await reader.aclose()
    await simulator.until(lambda view: view.connections == 0)


@pytest.mark.parametrize("reader", ["langchain"], indirect=True)
async def test_an_upstream_that_always_has_more_ready_lets_others_run(
    reader: LangChainReader,
) -> None:
    """Else one flat-out answer makes every other one wait for seconds. Shown with the slow reader:
    what the fast one finds in one read takes it no longer than its share."""
    turn = turn_of("sim:tokens,n=5000", EventQueue())
    since_last_pass: list[int] = []
    said = 0

    def chunk(*_: Any, **__: Any) -> None:
        nonlocal said
        said += 1

    async def watch() -> None:
        nonlocal said
        while True:
            await asyncio.sleep(0)
            since_last_pass.append(said)
            said = 0

    turn.chunk = chunk  # type: ignore[method-assign]  # counts instead of telling
    async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as tasks, turn.clocks:
        watching = tasks.create_task(watch())
        await reader.ask(turn, ENTRY)
        watching.cancel()

    assert sum(since_last_pass) >= 5000
    assert max(since_last_pass) < 100  # a few of stock's chunks; 235 without the share
