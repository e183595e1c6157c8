"""Runs whose worker is gone: ended by whoever finds them first, and stored as far as they came."""

import asyncio
from collections.abc import Sequence

import pytest

from app.conversations.journal import Journal
from app.conversations.model import Conversation, Message, Step, Write
from app.errors import StoreAway, WorkerLost
from app.events.model import (
    Done,
    Error,
    Event,
    Reasoning,
    Retract,
    RunRecord,
    Token,
    ToolCall,
    ToolResult,
    Usage,
)
from app.events.redis_lost import Lost
from app.runs import rescue
from app.runs.rescue import Rescue
from tests.events.making import record, start
from tests.runs.archive import MemoryArchive
from tests.runs.workers import eventually

pytestmark = pytest.mark.anyio


class FakeAbandoned:
    """Runs that others find as well. ``page``: so many are told at once; ``alive``: cannot be taken
    over; ``broken``: cannot even be read."""

    def __init__(self) -> None:
        self.runs: dict[str, Lost] = {}
        self.endings: dict[str, Sequence[Event]] = {}
        self.alive: set[str] = set()
        self.broken: set[str] = set()
        self.is_away = False
        self.page = 10
        self.looks = 0
        self.at_once = self.most_at_once = 0

    def add(self, *events: Event) -> RunRecord:
        run = record("k")
        self.runs[run.run_id] = Lost(run, 1, len(events) + 1, [start(run), *events])
        return run

    async def overdue(self) -> Sequence[str]:
        self.looks += 1
        await self._wait()
        return list(self.runs)[: self.page]

    async def whole(self, run_id: str) -> Lost | None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await self._wait()
        self.at_once -= 1
        if run_id in self.broken:
            raise ValueError("not what we packed")
        return self.runs.get(run_id)

    async def take_over(self, lost: Lost, ending: Sequence[Event]) -> bool:
        await self._wait()
        run_id = lost.record.run_id
        if run_id in self.alive or run_id not in self.runs:
            return False
        del self.runs[run_id]
        self.endings[run_id] = ending
        return True

    async def _wait(self) -> None:
        await asyncio.sleep(0)
        if self.is_away:
            raise StoreAway


class Rescued:
    """A rescue at work. Every run that is added has its question stored."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rescue, "LOOK_S", 0.01)
        self.abandoned = FakeAbandoned()
        self.archive = MemoryArchive()
        self.journal = Journal(self.archive)

    async def lost(self, *events: Event) -> RunRecord:
        run = self.abandoned.add(*events)
        answer = Message(
            run.answer_id, run.conversation_id, None, "assistant", "", "running", 1.5, run.run_id
        )
        conversation = Conversation(run.conversation_id, run.owner, "t", 1.5, 1.5, answer.id)
        await self.archive.write([Write((answer,), conversation, is_new=True)])
        return run

    def stored(self, run: RunRecord) -> Message:
        return self.archive.messages[run.answer_id]

    async def until(self, *, looks: int) -> None:
        """So many looks later, and everything is stored."""
        rescue = Rescue(self.abandoned, self.journal)
        tasks = [asyncio.ensure_future(part.run()) for part in (rescue, self.journal)]
        self.abandoned.looks = 0
        try:
            await eventually(lambda: self.abandoned.looks > looks and not self.journal._waiting)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def test_a_lost_run_gets_its_ending_and_its_answer_is_stored_as_far_as_it_came(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = Rescued(monkeypatch)
    call, result = ToolCall("1", "f", "{}"), ToolResult("1", "f", "4", is_error=False)
    run = await world.lost(
        Token("Let me "),
        Token("see."),
        Retract("Let me see."),
        call,
        result,
        Reasoning("hm"),
        Token("Fo"),
        Token("ur"),
    )
    await world.until(looks=1)
    error, done = world.abandoned.endings[run.run_id]
    assert error == Error.because(WorkerLost(), "req")
    assert isinstance(done, Done)
    assert (done.status, done.frees_key) == ("failed", True)
    assert done.usage == Usage(0, 5, 5, estimated=True)
    assert done.finished_at > 1_700_000_000, "Unix seconds"
    stored = world.stored(run)
    assert (stored.text, stored.reasoning, stored.status) == ("Four", "hm", "failed")
    assert stored.steps == (Step("Let me see.", (call,), (result,)),)
    assert (stored.usage, stored.model, stored.run_id) == (done.usage, "m", run.run_id)


async def test_of_a_run_that_lives_or_was_ended_by_others_nothing_is_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = Rescued(monkeypatch)
    run = await world.lost(Token("part"))
    world.abandoned.alive.add(run.run_id)
    await world.until(looks=3)
    assert world.abandoned.endings == {}
    assert (world.stored(run).status, world.stored(run).text) == ("running", "")


async def test_one_run_that_cannot_be_read_does_not_keep_others_from_their_ending(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = Rescued(monkeypatch)
    bad = await world.lost()
    world.abandoned.broken.add(bad.run_id)
    runs = [await world.lost(Token("part")) for _ in range(9)]
    await world.until(looks=3)
    assert world.abandoned.endings.keys() == {run.run_id for run in runs}
    assert "could not be ended" in caplog.text


async def test_many_lost_runs_are_ended_without_a_pause_and_some_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = Rescued(monkeypatch)
    monkeypatch.setattr(rescue, "LOOK_S", 3600)
    runs = [await world.lost(Token("part")) for _ in range(95)]
    await world.until(looks=9)
    assert world.abandoned.endings.keys() == {run.run_id for run in runs}
    assert world.abandoned.most_at_once == rescue.AT_ONCE


async def test_while_redis_is_away_it_waits_quietly(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = Rescued(monkeypatch)
    run = await world.lost(Token("part"))
    world.abandoned.is_away = True
    await world.until(looks=3)
    assert caplog.records == []
    world.abandoned.is_away = False
    await world.until(looks=1)
    assert world.stored(run).text == "part"
