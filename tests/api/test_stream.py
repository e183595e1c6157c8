"""A stream's two halves against a scripted ASGI server: the head, then the body."""

import asyncio

import pytest
from starlette.types import Message, Receive, Scope, Send

from app.api.guard import RequestId
from app.api.stream import Body, NativeStream
from app.events.model import RunRecord, Token
from app.wire.native import HEARTBEAT
from tests.api.serving import Server
from tests.runs.fakes import World, hangs, says

pytestmark = pytest.mark.anyio

NEVER_S = 60.0


def body(world: World, run: RunRecord, heartbeat_s: float = NEVER_S) -> Body:
    reader = world.log.read(run.run_id, 0)
    return Body(world.supervisor, reader, run.run_id, (), heartbeat_s)


async def test_a_whole_answer_is_a_head_and_a_body_that_ends() -> None:
    async with World(says("one ", "two")) as world:
        run, server = await world.start(), Server()
        await server.serves(body(world, run))
    assert [message["type"] for message in server.sent[:2]] == [
        "http.response.start",
        "http.response.body",
    ]
    assert server.events == ["start", "token", "token", "final", "done"]
    assert server.sent[-1]["body"].endswith(b"}\n\n"), "its end comes with done"
    assert [message.get("more_body") for message in server.sent].count(False) == 1


async def test_a_client_that_leaves_ends_the_body_and_with_it_the_run() -> None:
    async with World(hangs("part")) as world:
        run, server = await world.start(grace_s=0), Server()
        serving = asyncio.ensure_future(server.serves(body(world, run)))
        await world.until(run, Token)
        server.leave()
        await serving
        assert await world.told(run) == ["part", "cancelled"]
    assert server.sent[-1].get("more_body") is not False  # nothing is sent to nobody


async def test_a_head_that_cannot_be_sent_counts_as_a_reader_that_came_and_left() -> None:
    async def refuse(_: Message) -> None:
        raise OSError("the connection is gone")

    async with World(hangs("part")) as world:
        run = await world.start(grace_s=0)
        with pytest.raises(OSError, match="gone"):
            await Server().serves(body(world, run), refuse)
        assert (await world.told(run))[-1] == "cancelled"


async def test_a_bug_behind_the_head_counts_as_a_reader_that_came_and_left() -> None:
    async with World(hangs("part")) as world:
        run, server = await world.start(grace_s=0), Server()
        stream = NativeStream(body(world, run))

        async def buggy(scope: Scope, receive: Receive, send: Send) -> None:
            await stream(scope, receive, send)
            raise RuntimeError("a bug")

        scope = {"type": "http", "method": "GET", "headers": []}
        with pytest.raises(RuntimeError, match="a bug"):
            await RequestId(buggy)(scope, server.receive, server.send)
        assert (await world.told(run))[-1] == "cancelled"


async def test_a_body_that_cannot_be_sent_counts_as_one_that_left() -> None:
    async def refuse(message: Message) -> None:
        if message["type"] == "http.response.body":
            raise OSError("the connection is gone")

    async with World(hangs("part")) as world:
        run = await world.start(grace_s=0)
        with pytest.raises(ExceptionGroup) as caught:
            await Server().serves(body(world, run), refuse)
        assert caught.group_contains(OSError, match="gone")
        assert (await world.told(run))[-1] == "cancelled"


async def test_silence_is_filled_with_heartbeats_between_whole_frames() -> None:
    async with World(hangs("part")) as world:
        run, server = await world.start(grace_s=0), Server()

        async def send(message: Message) -> None:
            await server.send(message)
            if server.body.endswith(HEARTBEAT * 3):
                server.leave()

        await server.serves(body(world, run, heartbeat_s=0.01), send)
    assert server.body.endswith(b'data: {"text":"part"}\n\n' + HEARTBEAT * 3)
