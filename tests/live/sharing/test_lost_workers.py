"""Workers that are killed, and one that stands still for longer than its lease. Both at the same
time, because what is seen of them takes a lease."""

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import NamedTuple

import pytest

from app.simulator.scripts import expected_text
from app.wire.parse import Event
from tests.live.asking import ask as ask_whole
from tests.live.asking import get, marker
from tests.live.conversations.talking import Said, said
from tests.live.leaving import ENDLESS, GRACE_S, ended
from tests.live.reading import (
    Stream,
    answer,
    ask,
    chat,
    followed,
    payload,
    until,
)
from tests.live.servers import Gateway, SimulatorProcess
from tests.live.sharing.pairs import (
    Store,
    assert_contiguous,
    assert_lost,
    cancel,
    ending,
    look,
    several,
    start,
    store_in,
)
from tests.live.test_resume import WAYS
from tests.postgres import Postgres
from tests.redis_server import RedisServer

pytestmark = pytest.mark.anyio

LOST_S = 25.0  # the issue's: from the death of a worker to the ending of its runs
AHEAD = 900_000  # who can say what a worker that is gone has told its readers?
SLACK_S = 5.0  # of a machine that has other work


class Workers(NamedTuple):
    killed: Gateway
    frozen: Gateway
    reader: Gateway
    """Only reads, and is killed too."""
    other: Gateway
    store: Store


@pytest.fixture
def workers(
    redis_server: RedisServer,
    postgres: Postgres,
    simulator: SimulatorProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Workers]:
    store = store_in(redis_server)
    settings = {
        "redis_url": store.url,
        "database_url": postgres.database(),
        "heartbeat_seconds": 0.5,
        "reconnect_grace_seconds": GRACE_S,
    }
    cwds = [tmp_path_factory.mktemp("worker") for _ in range(4)]
    with several(simulator, cwds, settings) as gateways:
        killed, frozen, reader, other = gateways
        yield Workers(killed, frozen, reader, other, store)
        for gateway in gateways:
            assert "Traceback" not in gateway.output, gateway.output


class Lost:
    """A run of a worker that is about to be lost, and its readers there and elsewhere."""

    def __init__(self, worker: Gateway, other: Gateway, tokens: int = 10_000) -> None:
        self.worker, self.other = worker, other
        self.prompt = ask(f"tokens,n={tokens},interval=0.02")
        self.key = marker()
        self.events: list[Event] = []

    async def begin(self, stack: AsyncExitStack) -> None:
        headers = {"idempotency-key": self.key}
        self.here: Stream = await stack.enter_async_context(
            chat(self.worker.url, self.prompt, headers=headers, on_disconnect="continue")
        )
        self.run_id = await self.here.run_id()
        self.there: Stream = await stack.enter_async_context(followed(self.other.url, self.run_id))
        self.events = await self.here.events(50)
        self.conversation_id = str(payload(self.events[0])["conversation_id"])
        await self.there.events(40)


async def resumed(gateway: Gateway, way: str, cursor: str) -> list[Event]:
    """With the head at once, whatever is known of the run."""
    async with WAYS[way](gateway.url, cursor) as stream:
        await stream.head()
        assert stream.status == 200, await stream.body()
        events: list[Event] = await stream.rest()
    return events


async def everybody_learns_it(lost: Lost, since: float) -> list[Event]:
    """From any cursor, one that is ahead of Redis too. Answers the whole run."""
    cursors = [f"{lost.run_id}.{number}" for number in (0, 1, 7, 50)]
    ahead = f"{lost.run_id}.{AHEAD}"
    reads = await asyncio.gather(
        lost.there.rest(),
        *(
            resumed(lost.other, way, cursor)
            for cursor, way in zip([*cursors, ahead], WAYS, strict=True)
        ),
    )
    took_s = time.monotonic() - since
    assert took_s < LOST_S + SLACK_S, f"{took_s:.1f} s"
    live, whole, *parts, late = reads
    for events in reads:
        assert_lost(events)
    assert_contiguous(whole[:-2])
    assert whole[40:] == live
    for number, part in zip((1, 7, 50), parts, strict=True):
        assert part == whole[number:]
    assert late == whole[-2:]
    assert expected_text(lost.prompt).startswith(answer(whole))
    return whole


async def test_runs_of_lost_workers_end_for_everybody(
    workers: Workers, simulator: SimulatorProcess
) -> None:
    async with AsyncExitStack() as stack:
        killed = Lost(workers.killed, workers.other)
        frozen = Lost(workers.frozen, workers.other)
        # Its upstream call ends meanwhile, so that there is a whole answer when its worker wakes.
        late = Lost(workers.frozen, workers.other, 400)
        await asyncio.gather(*(each.begin(stack) for each in (killed, frozen, late)))
        stuck = await start(workers.frozen, ask(ENDLESS))
        forsaken = ask(ENDLESS)
        run_id = await start(workers.other, forsaken)
        reader = await stack.enter_async_context(followed(workers.reader.url, run_id))
        await reader.events(5)
        # Its claim is there: else it would not be its reader's death that ends the run.
        await until(lambda: claims(workers.store, run_id), bool, "a claim")

        workers.reader.signal(signal.SIGKILL)
        workers.killed.signal(signal.SIGKILL)
        workers.frozen.signal(signal.SIGSTOP)
        since = time.monotonic()
        killed.events += await rest_of(killed.here)
        cancelling = asyncio.ensure_future(cancel(workers.other, stuck))
        try:
            wholes = await asyncio.gather(
                *(everybody_learns_it(each, since) for each in (killed, frozen, late))
            )
            found = await until(
                lambda: look(workers.other, stuck), lambda run: run["error"], "the stuck run's end"
            )
            assert found["error"]["code"] == "worker_lost"
        finally:
            workers.frozen.signal(signal.SIGCONT)
        assert await cancelling == (202, {"run_id": stuck, "status": "running"})

        for lost, whole in zip((frozen, late), wholes[1:], strict=True):
            # What its readers got before stays, and they get the same ending.
            lost.events += await lost.here.rest()
            assert_lost(lost.events)
            assert_contiguous(lost.events[:-2])
            assert lost.events[-2:] == whole[-2:]
        for lost, whole in zip((killed, frozen, late), wholes, strict=True):
            await ended(simulator, lost.prompt)
            await assert_told(workers, lost, whole)
        for lost in (killed, frozen):
            assert (await ended(simulator, lost.prompt))[0]["outcome"] == "aborted"
        for run_id_ in (frozen.run_id, late.run_id, stuck):
            assert await ending(workers.frozen, run_id_) == await look(workers.other, run_id_)
        assert (await ended(simulator, forsaken))[0]["outcome"] == "aborted"
        shown = await ending(workers.other, run_id)
        assert (shown["status"], shown["error"]) == ("cancelled", None)
        for gateway in (workers.frozen, workers.other):
            for lost in (frozen, late):
                assert len(await said(gateway, lost.conversation_id)) == 4, "two answers"


async def claims(store: Store, run_id: str) -> int:
    with store.redis.client() as redis:
        return int(await asyncio.to_thread(redis.zcard, store.keys.readers(run_id)))


async def rest_of(stream: Stream) -> list[Event]:
    """Of one whose server was killed."""
    events: list[Event] = []
    try:
        while event := await stream.event():
            events.append(event)
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return events
    raise AssertionError("it ended properly")


async def assert_told(workers: Workers, lost: Lost, whole: list[Event]) -> None:
    """The run, its conversation and its key, as everybody finds them afterwards."""
    shown = await look(workers.other, lost.run_id)
    assert shown["status"] == "failed"
    assert shown["error"]["code"] == "worker_lost"
    assert shown["last_seq"] == 1_000_001
    partial = [Said("user", lost.prompt), Said("assistant", answer(whole), "failed")]

    async def talk() -> list[Said]:
        return await said(workers.other, lost.conversation_id)

    await until(talk, lambda found: found == partial, "the partial answer")
    response = await get(workers.other, f"/runs/{lost.run_id}/events?after=1000001")
    assert response.status_code == 204
    again = await start(workers.other, lost.prompt, headers={"idempotency-key": lost.key})
    assert again != lost.run_id, "the key is free"
    more = await ask_whole(workers.other, "sim:tokens,n=2", conversation_id=lost.conversation_id)
    assert more.text == "tok0 tok1 "
    await cancel(workers.other, again)
