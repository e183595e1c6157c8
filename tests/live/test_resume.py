"""A connection may be cut anywhere: the joined stream equals the uncut one, nothing is lost,
nothing comes twice, and the upstream is asked once. Contract section 5."""

import asyncio
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from app.simulator import expected_reasoning, expected_text
from app.wire.parse import Event, EventParser, parse
from tests.live.leaving import LEAVE
from tests.live.reading import (
    HEARTBEAT,
    Stream,
    answer,
    ask,
    chat,
    followed,
    frames,
    names,
    opened,
    payload,
    seqs,
    stats,
)
from tests.live.servers import Gateway, SimulatorProcess

pytestmark = pytest.mark.anyio

GARBAGE = b'{"text": 7, "\xff'
Resume = Callable[[str, str], Any]  # the gateway's URL and a cursor to an opened stream


def run_of(cursor: str) -> str:
    return cursor.rpartition(".")[0]


def by_header(url: str, cursor: str) -> Any:
    return followed(url, run_of(cursor), cursor)


def by_query(url: str, cursor: str) -> Any:
    return followed(url, run_of(cursor), after=cursor.rpartition(".")[2])


def by_get_chat(url: str, cursor: str) -> Any:
    """What ``EventSource`` does: the same address again."""
    return opened(url, "GET", "/chat?text=sim:tokens", headers={"last-event-id": cursor})


def by_post_chat(url: str, cursor: str) -> Any:
    return opened(url, "POST", "/chat", GARBAGE, {"last-event-id": cursor})


def by_post_stream_chat(url: str, cursor: str) -> Any:
    """What fetch-event-source does: the same headers and body again."""
    headers = {"last-event-id": cursor, "idempotency-key": "one"}
    return opened(url, "POST", "/stream-chat", {"text": "sim:tokens", "seed": -1}, headers)


GETS: dict[str, Resume] = {
    "GET /runs/{id}/events": by_header,
    "?after=": by_query,
    "GET /chat": by_get_chat,
}
POSTS: dict[str, Resume] = {"POST /chat": by_post_chat, "POST /stream-chat": by_post_stream_chat}
WAYS = {**GETS, **POSTS}
every_way = pytest.mark.parametrize("resume", WAYS.values(), ids=WAYS)


async def replay(gateway: Gateway, run_id: str) -> list[bytes]:
    """The uncut run, frame by frame, once it has ended."""
    async with followed(gateway.url, run_id) as stream:
        body: bytes = await stream.body()
    return [frame for frame in frames(body) if frame != HEARTBEAT]


async def finished(gateway: Gateway, script: str, **fields: Any) -> list[Event]:
    async with chat(gateway.url, ask(script), **fields) as stream:
        events: list[Event] = await stream.rest()
    return events


@every_way
async def test_a_live_run_cut_after_every_event_is_resumed_without_loss_or_repeat(
    gateway: Gateway, simulator: SimulatorProcess, resume: Resume
) -> None:
    """Between two connections nobody reads: the run lives on by its grace."""
    prompt = ask("tokens,n=30,interval=0.02")
    async with chat(gateway.url, prompt) as stream:
        joined = await stream.events(1)
        stream.reset()
    while joined[-1].event != "done":
        async with resume(gateway.url, joined[-1].id) as stream:
            joined += await stream.events(1)
            LEAVE["RST" if len(joined) % 2 else "FIN"](stream)
            assert len(joined) <= 33

    assert joined == parse(b"".join(await replay(gateway, run_of(joined[0].id))))
    assert seqs(joined) == list(range(1, 34))
    assert answer(joined) == expected_text(prompt)
    assert (await stats(simulator, prompt))["started"] == 1


@every_way
async def test_a_finished_run_cut_at_every_byte_is_resumed_without_loss_or_repeat(
    gateway: Gateway, resume: Resume
) -> None:
    async with chat(gateway.url, ask("awkward")) as stream:
        body, run_id = await stream.body(), await stream.run_id()
    whole = parse(body)
    parser = EventParser()
    seen: list[Event] = []
    states = {("", 0)}  # all that the cuts can leave a reader with: its cursor and its events
    for at in range(len(body)):
        seen += parser.feed(body[at : at + 1])
        states.add((parser.last_event_id, len(seen)))

    assert len(states) == len(whole) + 1
    for cursor, count in states - {(whole[-1].id, len(whole))}:
        async with (
            resume(gateway.url, cursor) if cursor else followed(gateway.url, run_id) as stream
        ):
            assert whole[:count] + await stream.rest() == whole


class Flaky:
    """A reader whose connection breaks after some bytes, again and again."""

    def __init__(self, url: str, run_id: str, seed: int) -> None:
        self._url = url
        self._run_id = run_id
        self._random = random.Random(seed)
        self._cursor = ""
        self.events: list[Event] = []
        self.cuts = 0

    async def read(self) -> list[Event]:
        while not self.events or self.events[-1].event != "done":
            way = self._random.choice(list(WAYS.values()))
            async with (
                way(self._url, self._cursor) if self._cursor else followed(self._url, self._run_id)
            ) as stream:
                await self._some(stream)
        return self.events

    async def _some(self, stream: Stream) -> None:
        left = self._random.randrange(1, 700)
        parser = EventParser()
        while left and (data := await stream.write()):
            self.events += parser.feed(data[:left])
            left -= min(left, len(data))
        self._cursor = parser.last_event_id or self._cursor
        if not stream.ended:
            self.cuts += 1
            self._random.choice(list(LEAVE.values()))(stream)


async def test_twenty_readers_cut_at_random_bytes_of_one_live_run_each_get_everything(
    gateway: Gateway, simulator: SimulatorProcess
) -> None:
    prompt = ask("tokens,n=60,interval=0.02")
    async with chat(gateway.url, prompt) as uncut:
        run_id = await uncut.run_id()
        readers = [Flaky(gateway.url, run_id, seed) for seed in range(20)]
        whole, *reads = await asyncio.gather(uncut.rest(), *(reader.read() for reader in readers))

    assert answer(whole) == expected_text(prompt)
    assert all(events == whole for events in reads)
    assert all(reader.cuts >= 5 for reader in readers)
    assert (await stats(simulator, prompt))["started"] == 1


async def test_fifty_readers_that_come_at_any_time_get_the_same_bytes(
    gateway: Gateway, simulator: SimulatorProcess
) -> None:
    prompt = ask("tokens,n=50,interval=0.02")

    async def read(run_id: str) -> bytes:
        async with followed(gateway.url, run_id) as stream:
            body: bytes = await stream.body()
        return body.replace(HEARTBEAT, b"")

    async with chat(gateway.url, prompt) as first, asyncio.TaskGroup() as tasks:
        run_id = await first.run_id()
        reads: list[asyncio.Task[bytes]] = []
        while event := await first.event():  # one more with every event, the last behind `done`
            if event.event == "done" or len(reads) < 49:
                reads.append(tasks.create_task(read(run_id)))

    first_body = b"".join(first.writes).replace(HEARTBEAT, b"")
    assert len(reads) == 50
    assert {await task for task in reads} == {first_body}
    assert (await stats(simulator, prompt))["started"] == 1


@pytest.mark.parametrize("resume", GETS.values(), ids=GETS)
@pytest.mark.parametrize("past", [0, 1, 1_000_000])
async def test_a_finished_run_read_to_its_end_says_204_to_get(
    gateway: Gateway, resume: Resume, past: int
) -> None:
    last = (await finished(gateway, "tokens,n=2"))[-1].id
    async with resume(gateway.url, f"{run_of(last)}.{5 + past}") as stream:
        headers = await stream.head()

    assert stream.status == 204
    assert not {"content-length", "transfer-encoding", "content-type"} & set(headers)


@pytest.mark.parametrize("resume", POSTS.values(), ids=POSTS)
@pytest.mark.parametrize("past", [0, 1, 1_000_000])
async def test_a_finished_run_read_to_its_end_says_nothing_more_to_post(
    gateway: Gateway, resume: Resume, past: int
) -> None:
    last = (await finished(gateway, "tokens,n=2"))[-1].id
    async with resume(gateway.url, f"{run_of(last)}.{5 + past}") as stream:
        assert await stream.body() == b""
        assert stream.status == 200
        assert (await stream.head())["content-type"] == "text/event-stream; charset=utf-8"


async def test_a_cursor_past_the_end_of_a_running_run_is_refused_and_one_at_its_end_waits(
    gateway: Gateway,
) -> None:
    async with chat(gateway.url, ask("slow,first=1.5")) as stream, AsyncExitStack() as stack:
        start = (await stream.events(1))[0].id
        waiting = []
        for resume in WAYS.values():
            async with resume(gateway.url, f"{run_of(start)}.2") as ahead:
                assert (await ahead.problem())["code"] == "bad_cursor"
                assert ahead.status == 400
            waiting.append(await stack.enter_async_context(resume(gateway.url, start)))
        rest = await stream.rest()
        assert rest[-1].event == "done"
        for reader in waiting:
            assert await reader.rest() == rest


async def test_the_header_wins_over_the_query_and_an_empty_one_is_absent(gateway: Gateway) -> None:
    events = await finished(gateway, "tokens,n=10")
    run_id = run_of(events[0].id)
    for cursor, query, wanted in [
        (events[2].id, {"after": "7"}, events[3:]),
        (events[2].id, {"after": "nonsense"}, events[3:]),
        ("", {"after": "7"}, events[7:]),
        (None, {"after": "7"}, events[7:]),
        ("", {}, events),
        (f"{run_id}.0", {"after": "7"}, events),
        (None, {"after": "0"}, events),
    ]:
        async with followed(gateway.url, run_id, cursor, **query) as stream:
            assert await stream.rest() == wanted, (cursor, query)


async def test_an_empty_last_event_id_on_chat_starts_a_run(gateway: Gateway) -> None:
    for method in ("GET", "POST"):
        prompt = ask("tokens,n=1")
        path = f"/chat?text={prompt.replace(' ', '+')}" if method == "GET" else "/chat"
        body = {"text": prompt} if method == "POST" else None
        async with opened(gateway.url, method, path, body, {"last-event-id": ""}) as stream:
            assert names(await stream.rest()) == ["start", "token", "final", "done"]


@pytest.mark.parametrize("started_with", [[], ["reasoning"]], ids=["hidden", "shown"])
async def test_a_reader_sees_what_the_run_was_started_with_unless_it_asks_otherwise(
    gateway: Gateway, started_with: list[str]
) -> None:
    prompt = ask("reasoning,n=20")
    async with chat(gateway.url, prompt, include=started_with) as stream:
        first = await stream.rest()
    run_id = run_of(first[0].id)
    reads = {}
    for name, query in {
        "default": {},
        "shown": {"include": "reasoning,tools"},
        "hidden": {"include": ""},
        "others": {"include": "drafts"},
    }.items():
        async with followed(gateway.url, run_id, **query) as stream:
            reads[name] = await stream.rest()

    shown, hidden = reads["shown"], reads["hidden"]
    assert reads["default"] == first == (shown if started_with else hidden)
    assert reads["others"] == hidden
    assert seqs(shown) == list(range(1, len(shown) + 1))
    assert names(shown[1:21]) == ["reasoning"] * 20
    assert "".join(payload(event)["text"] for event in shown[1:21]) == expected_reasoning(prompt)
    assert hidden == [event for event in shown if event.event != "reasoning"]
    assert seqs(hidden)[:2] == [1, 22]  # what is hidden leaves a gap
    assert answer(hidden) == expected_text(prompt) == payload(hidden[-2])["text"]
    async with followed(gateway.url, run_id, shown[5].id, include="") as stream:
        assert await stream.rest() == hidden[1:]  # from the middle of the gap
