"""A worker that was thought dead: another one has ended its run, and it finds out."""

import asyncio
import logging
from collections.abc import Callable, Sequence

import pytest

from app.events.log import Fenced
from app.events.model import Done, Event, RunRecord, Start, Token
from app.llm.turn import Turn
from app.runs.run import Cancelled
from tests.runs.fakes import FarLog, World, hangs, released, says

pytestmark = pytest.mark.anyio


class SharedLog(FarLog):
    """``fences``: for which events an append is refused."""

    def __init__(self, fences: Callable[[Event], bool] = lambda _: False) -> None:
        super().__init__()
        self.fences = fences
        self.tell: Callable[[str], None] | None = None
        self.is_hasty = self.has_let_go = False

    def when_fenced(self, callback: Callable[[str], None]) -> None:
        self.tell = callback

    def hasten(self) -> None:
        self.is_hasty = True

    def let_go(self) -> None:
        self.has_let_go = True

    async def append(self, run_id: str, events: Sequence[Event]) -> None:
        if any(map(self.fences, events)):
            raise Fenced
        await super().append(run_id, events)


class NearSharedLog(SharedLog):
    def append_now(self, run_id: str, events: Sequence[Event]) -> None:
        if any(map(self.fences, events)):
            raise Fenced
        self.near.append_now(run_id, events)


async def written(world: World, run: RunRecord) -> list[type[Event]]:
    """What the run itself wrote, once it is over."""
    await world.supervisor._idle.wait()
    reader = world.log.read(run.run_id, 0)
    entries = await reader.read(0)
    reader.close()
    return [type(entry.event) for entry in entries]


def assert_stored_nothing(world: World, run: RunRecord) -> None:
    assert world.archive.told(run.conversation_id)[-1] == ("assistant", "", "running")


@pytest.mark.parametrize("kind", [SharedLog, NearSharedLog])
async def test_a_refused_token_ends_the_upstream_call_and_nothing_is_written_or_stored(
    kind: type[SharedLog], caplog: pytest.LogCaptureFixture
) -> None:
    stored = asyncio.Event()

    async def script(turn: Turn) -> str:
        await says("good")(turn)
        await stored.wait()
        return await hangs("bad")(turn)

    log = kind(lambda event: event == Token("bad"))
    with caplog.at_level(logging.WARNING):
        async with World(script, log=log) as world:
            run = await world.start()
            await world.until(run, Token)
            stored.set()
            assert await written(world, run) == [Start, Token]
            assert_stored_nothing(world, run)
    [said] = caplog.records
    assert "another worker has ended it" in said.message


async def test_a_run_that_is_told_so_between_two_tokens_ends_quietly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = SharedLog()
    with caplog.at_level(logging.WARNING):
        async with World(hangs("part"), log=log) as world:
            run = await world.start()
            await world.until(run, Token)
            assert log.tell is not None
            log.tell("unknown")
            log.tell(run.run_id)
            assert await written(world, run) == [Start, Token]
            assert_stored_nothing(world, run)
    assert len(caplog.records) == 1


async def test_that_it_is_lost_counts_more_than_a_cancel_and_than_an_answer_that_is_whole() -> None:
    gate, log = asyncio.Event(), SharedLog()

    async def whole_when_cancelled(turn: Turn) -> str:
        try:
            await hangs("part")(turn)
        except asyncio.CancelledError:
            gate.set()
        return "stop"

    async with World(whole_when_cancelled, log=log) as world:
        run = await world.start()
        await world.until(run, Token)
        assert log.tell is not None
        world.supervisor._runs[run.run_id].stop(Cancelled.BY_REQUEST)
        log.tell(run.run_id)
        assert await written(world, run) == [Start, Token]
        assert_stored_nothing(world, run)
        assert gate.is_set()


async def test_an_ending_that_is_refused_is_given_up_with_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = SharedLog(lambda event: isinstance(event, Done))
    with caplog.at_level(logging.WARNING):
        async with World(says("all"), log=log) as world:
            run = await world.start()
            assert await written(world, run) == [Start, Token]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_a_drain_that_runs_out_of_time_makes_endings_hurry() -> None:
    log, gate = SharedLog(), asyncio.Event()
    async with World(released(gate, "all"), log=log) as world:
        run = await world.start()
        draining = asyncio.ensure_future(world.supervisor.drain(60))
        await world.until(run, Token)
        assert not log.is_hasty
        gate.set()
        await draining
        assert not log.is_hasty, "nothing was left to end"
    async with World(hangs(), log=log) as world:
        await world.start()
        await world.supervisor.drain(0)
        assert log.is_hasty


async def test_a_drain_lets_go_of_readers_of_others_runs_when_its_own_have_ended() -> None:
    gate, logs = asyncio.Event(), [SharedLog(), SharedLog()]
    async with World(released(gate, "all"), log=logs[0]) as world:
        run = await world.start()
        draining = asyncio.ensure_future(world.supervisor.drain(60))
        await world.until(run, Token)
        assert not logs[0].has_let_go, "they may read as long as we are there"
        gate.set()
        await draining
        assert logs[0].has_let_go
    async with World(hangs(), log=logs[1]) as world:
        await world.start()
        await world.supervisor.drain(0)
        assert logs[1].has_let_go
