"""A resume while the store that workers share cannot be reached, at the scripted server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NoReturn, cast

import pytest
from msgspec import structs
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from app.access.gate import Gate
from app.access.model import Caller
from app.access.quotas import MemoryQuotas
from app.access.watch import Watch
from app.api.callers import Access
from app.api.deps import Gateway, follow
from app.api.late import LateBody
from app.api.stream import NativeStream
from app.environment import load
from app.errors import BadCursor, Overloaded, StoreAway
from app.events.model import Include, Reasoning, RunRecord, Snapshot, Token
from app.wire.cursor import Cursor
from app.wire.native import HEARTBEAT
from tests.api.serving import Server
from tests.events.making import done, final, record, start
from tests.runs.fakes import OWNER, FarLog, World, hangs, says

pytestmark = pytest.mark.anyio

WHOLE = ["start", "reasoning", "token", "final", "done"]


class AwayLog(FarLog):
    """``away``: nothing can be found. ``looks``: how often that was tried."""

    def __init__(self) -> None:
        super().__init__()
        self.away = True
        self.lags = False
        self.looks = 0

    async def find(self, run_id: str, reaching: int = 0) -> Snapshot | None:
        self.looks += 1
        await asyncio.sleep(0)
        if self.away:
            raise StoreAway
        found = await self.near.find(run_id)
        return structs.replace(found, lags=self.lags) if found else None


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.api.late.LOOK_S", (0.005, 0.01))
    monkeypatch.setattr("app.api.late.AWAY_S", 5.0)


def parts(world: World) -> Gateway:
    """What following needs of them."""
    nothing = cast("Any", None)
    settings = load({"GATEWAY_HEARTBEAT_SECONDS": "0.1"})
    gate = Gate(settings)
    access = Access(gate, Watch(gate.still_accepts), MemoryQuotas())
    return Gateway(settings, access, world.log, nothing, world.supervisor, *[nothing] * 5)


async def resume(
    world: World,
    run_id: str,
    after: int = 0,
    *,
    include: set[Include] | None = None,
    owner: str = OWNER,
    method: str = "GET",
) -> Response:
    state = {"request_id": "r1"}
    request = Request({"type": "http", "method": method, "headers": [], "state": state})
    return await follow(request, parts(world), Caller(owner), Cursor(run_id, after), include)


async def streamed(world: World, run_id: str, after: int = 0, **more: Any) -> NativeStream:
    response = await resume(world, run_id, after, **more)
    assert isinstance(response, NativeStream)
    return response


async def ended_run(log: FarLog, include: frozenset[Include] = frozenset()) -> RunRecord:
    run = structs.replace(record(), include=include)
    await log.open(run)
    await log.append(run.run_id, [start(run), Reasoning("hm"), Token("one"), final("one"), done()])
    return run


async def still_runs(log: AwayLog, run: RunRecord) -> bool:
    found = await log.near.find(run.run_id)
    return found is not None and found.done is None


def nothing_to_follow(_: Snapshot) -> NoReturn:
    raise AssertionError("nothing was found")


def returning(log: AwayLog, server: Server, beats: int = 2) -> Callable[[Message], Any]:
    """A send that brings the store back once so many heartbeats were sent."""

    async def send(message: Message) -> None:
        await server.send(message)
        log.away = log.away and server.body.count(HEARTBEAT) < beats

    return send


@asynccontextmanager
async def away(script: Any = None, **more: Any) -> AsyncIterator[tuple[World, AwayLog, Server]]:
    log = AwayLog()
    async with World(script or says("x"), log=log, **more) as world:
        yield world, log, Server()


async def test_heartbeats_fill_the_time_until_the_run_is_found_and_its_events_follow() -> None:
    async with away() as (world, log, server):
        run = await ended_run(log, frozenset({"reasoning"}))
        stream = await streamed(world, run.run_id)
        await server.serves(stream, returning(log, server))
    assert server.sent[0]["status"] == 200
    assert stream.headers["content-location"] == f"/runs/{run.run_id}"
    assert server.body.startswith(HEARTBEAT * 2)
    assert server.events == WHOLE, "with what the run was started with"
    assert server.has_ended


@pytest.mark.parametrize(
    ("after", "include", "shown"),
    [(1, {"reasoning"}, WHOLE[1:]), (0, set(), ["start", "token", "final", "done"]), (5, None, [])],
)
async def test_cursor_and_include_count_as_ever(
    after: int, include: set[Include] | None, shown: list[str]
) -> None:
    async with away() as (world, log, server):
        run = await ended_run(log)
        stream = await streamed(world, run.run_id, after, include=include)
        await server.serves(stream, returning(log, server))
    assert server.events == shown
    assert server.has_ended


@pytest.mark.parametrize("whose", ["unknown", "another's", "a cursor past its end"])
async def test_what_would_be_an_error_ends_the_body_without_an_event(whose: str) -> None:
    async with away(hangs("part")) as (world, log, server):
        run = await world.start(grace_s=0)
        await world.until(run, Token)
        asked = {
            "unknown": partial(streamed, world, "u" * 22),
            "another's": partial(streamed, world, run.run_id, owner="you"),
            "a cursor past its end": partial(streamed, world, run.run_id, 99),
        }
        await server.serves(await asked[whose](), returning(log, server))
        assert server.body.strip(HEARTBEAT) == b""
        assert server.has_ended
        assert await still_runs(log, run), "nobody has read it"
        await world.cancel(run)


async def test_a_cursor_past_what_a_lagging_store_has_is_waited_at() -> None:
    async with away() as (world, log, server):
        log.lags = True
        run = record()
        await log.open(run)
        await log.append(run.run_id, [start(run)])
        back = returning(log, server)

        async def send(message: Message) -> None:
            await back(message)
            if server.body == HEARTBEAT * 4:  # two of them behind the return
                rest = [Token("one"), Token("two"), final("onetwo"), done()]
                await log.append(run.run_id, rest)

        await server.serves(await streamed(world, run.run_id, 2), send)
    assert server.events == ["token", "final", "done"]


async def test_without_lag_such_a_cursor_is_bad_and_with_it_good() -> None:
    async with away(hangs()) as (world, log, _):
        log.away = False
        run = await world.start()
        with pytest.raises(BadCursor):
            await resume(world, run.run_id, 50)
        log.lags = True
        assert (await resume(world, run.run_id, 50)).status_code == 200
        await world.cancel(run)


async def test_it_counts_as_a_reader_once_the_run_is_found() -> None:
    async with away(hangs("part")) as (world, log, server):
        run = await world.start(grace_s=0)
        stream = await streamed(world, run.run_id)

        async def send(message: Message) -> None:
            await server.send(message)
            if server.events:
                server.leave()
            log.away = log.away and HEARTBEAT not in server.body

        await server.serves(stream, send)
        assert (await world.told(run))[-1] == "cancelled"


async def test_a_reader_that_leaves_before_is_none() -> None:
    async with away(hangs("part")) as (world, log, server):
        run = await world.start(grace_s=0)

        async def leave(message: Message) -> None:
            await server.send(message)
            if HEARTBEAT in server.body:
                server.leave()

        async def refuse(_: Message) -> None:
            raise OSError("the connection is gone")

        await server.serves(await streamed(world, run.run_id), leave)
        assert not server.has_ended
        with pytest.raises(OSError, match="gone"):
            await Server().serves(await streamed(world, run.run_id), refuse)
        assert await still_runs(log, run)
        log.away = False
        await world.cancel(run)


async def test_a_store_that_stays_away_ends_the_body_without_done() -> None:
    async with away() as (world, log, server):
        run = await ended_run(log)
        find = partial(world.supervisor.find, run.run_id, OWNER)
        await server.serves(LateBody(run.run_id, find, nothing_to_follow, 0.01, away_s=0.1))
    assert server.body.strip(HEARTBEAT) == b""
    assert server.has_ended
    assert log.looks > 2


async def test_a_gateway_that_has_let_go_sends_its_reader_elsewhere() -> None:
    async with away() as (world, _, server):
        await world.supervisor.drain(0)
        await server.serves(await streamed(world, "u" * 22))
    assert server.body.strip(HEARTBEAT) == b""
    assert server.has_ended


async def test_heartbeats_come_while_a_look_takes_long() -> None:
    async with away() as (_, _, server):
        for_ever = asyncio.get_running_loop().create_future
        await server.serves(LateBody("r" * 22, for_ever, nothing_to_follow, 0.01, away_s=0.1))
    assert server.body.count(HEARTBEAT) > 3


async def test_where_there_is_no_room_for_readers_a_resume_is_refused() -> None:
    async with away(max_readers=0) as (world, _, _):
        with pytest.raises(Overloaded):
            await resume(world, "u" * 22)


async def test_the_ready_end_of_a_run_is_told_by_status_when_it_can_be_found() -> None:
    async with away() as (world, log, server):
        run = await ended_run(log)
        log.away = False
        assert (await resume(world, run.run_id, 5)).status_code == 204
        await server.serves(await streamed(world, run.run_id, 5, method="POST"))
    assert server.body == b""
