"""A stream whose caller is no longer accepted, at the scripted server."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest
from starlette.types import Message, Receive, Send

from app.api.late import LateBody
from app.api.stream import Body, StreamBody, WatchedBody
from app.errors import StoreAway
from app.events.model import RunRecord, Token
from app.wire.native import HEARTBEAT
from tests.api.serving import Server
from tests.runs.fakes import World, hangs, says

pytestmark = pytest.mark.anyio

FAREWELL = (
    b'event: error\ndata: {"code":"unauthorized","message":"A key or token that is valid here is '
    b'needed.","retryable":false,"request_id":"r1"}\n\n'
    b'event: done\ndata: {"status":"failed","usage":{"input_tokens":0,"output_tokens":0,'
    b'"total_tokens":0,"estimated":true}}\n\n'
)


class Watch:
    """Refuses when it is told to. ``watched``: how many streams there are."""

    def __init__(self) -> None:
        self.watched = 0
        self.refuse: Callable[[], None] = lambda: None

    @contextmanager
    def watching(self, refuse: Callable[[], None]) -> Iterator[None]:
        self.refuse = refuse
        self.watched += 1
        try:
            yield
        finally:
            self.watched -= 1


def body(world: World, run: RunRecord, heartbeat_s: float = 60.0) -> Body:
    reader = world.log.read(run.run_id, 0)
    return Body(world.supervisor, reader, run.run_id, (), heartbeat_s)


def watched(inner: StreamBody, watch: Watch) -> WatchedBody:
    return WatchedBody(inner, watch.watching, "r1")


async def test_it_ends_with_two_frames_without_ids_and_its_reader_has_left() -> None:
    watch, server = Watch(), Server()
    async with World(hangs("part")) as world:
        run = await world.start(grace_s=0)

        async def send(message: Message) -> None:
            await server.send(message)
            if b"part" in server.body and not server.has_ended:
                watch.refuse()

        await server.serves(watched(body(world, run), watch), send)
        assert await world.told(run) == ["part", "cancelled"]
    assert server.body.endswith(b'data: {"text":"part"}\n\n' + FAREWELL)
    assert server.events == ["start", "token", "error", "done"]
    assert [message["more_body"] for message in server.sent[-2:]] == [True, False]
    assert watch.watched == 0


async def test_a_reader_that_takes_nothing_has_left_before_it_was_told() -> None:
    """Its connection has no room: what it is still to be told must not keep the run alive."""
    watch, server = Watch(), Server()
    stuck, room = asyncio.Event(), asyncio.Event()
    async with World(hangs("part")) as world:
        run = await world.start(grace_s=0)

        async def send(message: Message) -> None:
            if message["type"] == "http.response.body":
                stuck.set()
                await room.wait()
            await server.send(message)

        serving = asyncio.ensure_future(server.serves(watched(body(world, run), watch), send))
        await stuck.wait()
        watch.refuse()
        assert (await world.told(run))[-1] == "cancelled"
        room.set()
        await serving
    assert server.body == FAREWELL, "what there was no room for is left out whole"


async def test_one_that_is_accepted_to_the_end_is_told_nothing_more() -> None:
    watch, server = Watch(), Server()
    async with World(says("one")) as world:
        run = await world.start()
        await server.serves(watched(body(world, run), watch))
    assert server.events == ["start", "token", "final", "done"]
    assert watch.watched == 0


async def test_a_refusal_behind_the_end_changes_nothing() -> None:
    watch, server = Watch(), Server()
    async with World(says("one")) as world:
        run = await world.start()

        async def send(message: Message) -> None:
            await server.send(message)
            if server.has_ended:
                watch.refuse()

        await server.serves(watched(body(world, run), watch), send)
    assert server.events == ["start", "token", "final", "done"]
    assert [message.get("more_body") for message in server.sent].count(False) == 1


async def test_a_refusal_while_its_end_waits_for_room_is_the_end() -> None:
    """One ``done``, whichever comes first."""
    watch, server = Watch(), Server()
    async with World(says("one")) as world:
        run = await world.start()

        async def send(message: Message) -> None:
            if message.get("more_body") is False and watch.watched:
                watch.refuse()
                await asyncio.get_running_loop().create_future()
            await server.send(message)

        await server.serves(watched(body(world, run), watch), send)
    assert server.events[-2:] == ["error", "done"]
    assert server.events.count("done") == 1
    assert server.has_ended


async def test_a_client_that_leaves_is_told_nothing() -> None:
    watch, server = Watch(), Server()
    async with World(hangs("part")) as world:
        run = await world.start(grace_s=0)
        serving = asyncio.ensure_future(server.serves(watched(body(world, run), watch)))
        await world.until(run, Token)
        server.leave()
        await serving
        assert (await world.told(run))[-1] == "cancelled"
    assert b"unauthorized" not in server.body
    assert watch.watched == 0


async def test_whoever_stops_the_task_stops_it() -> None:
    """A cancel that is not ours goes on outwards."""
    watch, server = Watch(), Server()
    async with World(hangs("part")) as world:
        run = await world.start(grace_s=0)
        serving = asyncio.ensure_future(server.serves(watched(body(world, run), watch)))
        await world.until(run, Token)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
    assert b"unauthorized" not in server.body


async def test_a_timeout_of_the_bodys_own_is_a_bug_and_no_refusal() -> None:
    watch, server = Watch(), Server()

    class Broken(Body):
        async def __call__(self, receive: Receive, send: Send) -> None:
            raise TimeoutError

    async with World(says("one")) as world:
        run = await world.start()
        inner = Broken(world.supervisor, None, run.run_id, (), 1.0)
        with pytest.raises(TimeoutError):
            await server.serves(watched(inner, watch))
    assert b"unauthorized" not in server.body


async def test_one_that_waits_for_the_shared_store_is_refused_too() -> None:
    watch, server = Watch(), Server()

    async def away() -> NoReturn:
        raise StoreAway

    def nothing(_: object) -> NoReturn:
        raise AssertionError("nothing was found")

    async def send(message: Message) -> None:
        await server.send(message)
        if server.body == HEARTBEAT * 2:
            watch.refuse()

    late = LateBody("u" * 22, away, nothing, 0.01)
    await server.serves(watched(late, watch), send)
    assert server.body == HEARTBEAT * 2 + FAREWELL
    assert server.has_ended


async def test_a_head_that_cannot_be_sent_counts_as_a_reader_that_came_and_left() -> None:
    async def refuse(_: Message) -> None:
        raise OSError("the connection is gone")

    async with World(hangs("part")) as world:
        run = await world.start(grace_s=0)
        with pytest.raises(OSError, match="gone"):
            await Server().serves(watched(body(world, run), Watch()), refuse)
        assert (await world.told(run))[-1] == "cancelled"
