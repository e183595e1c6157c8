"""The gateway goes down, or its log does: runs still end once, and nothing is left."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from app.errors import Draining, Internal
from app.events.log import EventLog
from app.events.memory import MemoryEventLog
from app.events.model import Done, Event, RunRecord, Start, Token
from app.llm.turn import Turn
from tests.events.making import read_to_end
from tests.runs.fakes import (
    BOUND_S,
    FakeModel,
    FarLog,
    World,
    checked,
    failed,
    for_ever,
    hangs,
    released,
    says,
    short,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["near", "far"])
def log(request: pytest.FixtureRequest) -> EventLog:
    if request.param == "near":
        return MemoryEventLog(memory_bytes=2**30, retention_s=900)
    return FarLog()


# -- drain --------------------------------------------------------------------------------------


async def test_a_drain_with_time_lets_runs_finish_and_starts_no_new_ones(log: EventLog) -> None:
    gate = asyncio.Event()
    async with World(released(gate, "all"), log=log) as world:
        runs = [await world.start() for _ in range(5)]
        draining = world.tasks.create_task(world.supervisor.drain(60))
        await world.model.began.wait()
        await asyncio.sleep(0)
        assert world.supervisor.draining
        with pytest.raises(Draining):
            await world.start()
        assert not draining.done()
        gate.set()
        await draining
        for run in runs:
            assert await world.told(run) == ["all", "final stop", "completed"]


async def test_runs_can_be_cancelled_and_read_while_the_gateway_drains(log: EventLog) -> None:
    async with World(hangs("part"), log=log) as world:
        run = await world.start()
        draining = world.tasks.create_task(world.supervisor.drain(60))
        await world.until(run, Token)
        with world.supervisor.reading(run.run_id):
            assert await world.cancel(run) == "cancelled"
        await draining


@pytest.mark.parametrize("seconds", [0, 0.02])
async def test_a_drain_that_runs_out_of_time_ends_what_is_left(
    log: EventLog, seconds: float
) -> None:
    async with World(hangs("part"), log=log) as world:
        runs = [await world.start() for _ in range(5)]
        for run in runs:
            await world.until(run, Token)
        await world.supervisor.drain(seconds)
        assert world.supervisor._runs == {}, "the drain waits for the endings"
        for run in runs:
            assert await world.told(run) == failed(Draining, "part")


async def test_a_drain_without_runs_returns_at_once_and_twice_is_no_error() -> None:
    async with World(says()) as world:
        await world.supervisor.drain(60)
        await world.supervisor.drain(0)


async def test_a_run_that_is_just_beginning_is_drained_too() -> None:
    async with World(hangs(), log=FarLog()) as world:
        starting = world.tasks.create_task(world.start())
        await asyncio.sleep(0)  # it waits for the log
        await world.supervisor.drain(0)
        assert await world.told(await starting) == failed(Draining)


# -- the application's task group ----------------------------------------------------------------


class Application:
    """A task group with one run in it, which can be cancelled from outside."""

    def __init__(self, log: EventLog, model: FakeModel) -> None:
        self.log = log
        self.model = model
        self.started = asyncio.Event()
        self.run: RunRecord | None = None
        self.task = asyncio.ensure_future(self._live())

    async def _live(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            world = World(self.model.script, log=self.log, max_answer_bytes=1000)
            world.model = self.model
            self.supervisor = world.supervisor = world.new_supervisor(tasks)
            tasks.create_task(world.journal.run())
            self.run = await world.start("k")
            self.started.set()
            await for_ever()

    async def crash(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})
        assert self.task.cancelled(), self.task

    async def told(self) -> list[str]:
        assert self.run is not None
        assert self.supervisor._runs == {}
        assert self.model.open == 0
        return short(checked(await read_to_end(self.log, self.run.run_id)))


@pytest.mark.parametrize("texts", [(), ("part",)])
async def test_an_application_that_is_cancelled_ends_its_runs(
    log: EventLog, texts: tuple[str, ...]
) -> None:
    async with asyncio.timeout(BOUND_S):
        application = Application(log, FakeModel(hangs(*texts)))
        await application.started.wait()
        await application.model.began.wait()
        for _ in range(10):
            await asyncio.sleep(0)  # let it say its part
        await application.crash()
        assert await application.told() == failed(Draining, *texts)


@pytest.mark.parametrize("passes", range(12))
async def test_a_run_has_one_ending_at_whatever_moment_the_application_is_cancelled(
    log: EventLog, passes: int
) -> None:
    async with asyncio.timeout(BOUND_S):
        application = Application(log, FakeModel(says("a", "b")))
        await application.started.wait()
        for _ in range(passes):
            await asyncio.sleep(0)
        await application.crash()
        assert (await application.told())[-1] in {"failed", "completed"}


async def test_a_run_that_waits_for_its_call_to_close_has_its_ending_too(log: EventLog) -> None:
    closing = asyncio.Event()

    async def slow_to_close(turn: Turn) -> str:
        turn.chunk("x" * 1001, "", tool_call=False)  # too large: the call is told to end
        try:
            await for_ever()
        finally:
            closing.set()
            await asyncio.sleep(0.01)
        return "never"

    async with asyncio.timeout(BOUND_S):
        application = Application(log, FakeModel(slow_to_close))
        await closing.wait()
        await application.crash()
        assert (await application.told())[-1] == "failed"


# -- a log that fails ---------------------------------------------------------------------------


class FailingLog(FarLog):
    """Refuses an append for which ``broken`` is true."""

    def __init__(self, broken: Callable[[Event], bool]) -> None:
        super().__init__()
        self._broken = broken
        self.refused = 0

    async def append(self, run_id: str, events: Sequence[Event]) -> None:
        await asyncio.sleep(0)
        if any(map(self._broken, events)):
            self.refused += 1
            raise ConnectionError("the store is gone")
        await super().append(run_id, events)


async def test_a_log_that_refuses_an_event_fails_the_run() -> None:
    log, stored = FailingLog(lambda event: event == Token("bad")), asyncio.Event()

    async def script(turn: Turn) -> str:
        turn.chunk("good", "", tool_call=False)
        await stored.wait()
        return await hangs("bad")(turn)

    async with World(script, log=log) as world:
        run = await world.start()
        await world.until(run, Token)
        stored.set()
        assert await world.told(run) == failed(Internal, "good")
        assert log.refused == 1


async def test_a_run_without_a_beginning_still_has_an_ending() -> None:
    log = FailingLog(lambda event: isinstance(event, Start))
    async with World(hangs("part"), log=log) as world:
        run = await world.start()
        entries = await read_to_end(log, run.run_id)
        assert short(entry.event for entry in entries) == failed(Internal)


async def test_a_run_whose_ending_cannot_be_written_leaves_nothing_and_disturbs_nobody() -> None:
    log = FailingLog(lambda event: isinstance(event, Done) and event.status == "failed")
    async with World(says("a"), log=log) as world:
        whole = world.model.script
        world.model.script = says("part", then=ValueError("bug"))
        await world.start()
        await world.model.began.wait()
        await asyncio.sleep(0)
        world.model.script = whole
        assert (await world.told(await world.start()))[-1] == "completed"
        await world.supervisor.drain(60)
        assert log.refused >= 1
