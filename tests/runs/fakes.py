"""A supervisor among fakes that await where the real thing does, and what must hold of its runs."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from app.access.model import Limits
from app.access.quotas import MemoryQuotas, Quotas
from app.conversations.journal import Journal
from app.errors import GatewayError
from app.events.log import EventLog, Reader
from app.events.memory import MemoryEventLog
from app.events.model import (
    Done,
    Entry,
    Error,
    Event,
    Final,
    RunRecord,
    Snapshot,
    Start,
    Token,
)
from app.events.queue import EventQueue
from app.llm.clocks import TurnClocks
from app.llm.reply import Reply
from app.llm.turn import Prompt, Turn
from app.runs.account import Account
from app.runs.drive import Driver
from app.runs.exchange import Exchanges
from app.runs.neighbours import Alone, Neighbours
from app.runs.request import Request
from app.runs.run import Run
from app.runs.supervisor import Supervisor
from tests.events.making import read_to_end
from tests.llm.making import entry
from tests.runs.archive import MemoryArchive

BOUND_S = 10  # for one world: a hang is a failure with a name
NEVER_S = 60.0
OWNER = "me"

Script = Callable[[Turn], Awaitable[str]]


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


def says(*texts: str, reason: str = "stop", then: BaseException | None = None) -> Script:
    async def script(turn: Turn) -> str:
        for text in texts:
            turn.chunk(text, "", tool_call=False)
            await asyncio.sleep(0)
        if then is not None:
            raise then
        return reason

    return script


def hangs(*texts: str) -> Script:
    async def script(turn: Turn) -> str:
        await says(*texts)(turn)
        await for_ever()
        return "never"

    return script


def released(gate: asyncio.Event, *texts: str) -> Script:
    """Says ``texts``, and is whole once the gate is open."""

    async def script(turn: Turn) -> str:
        await says(*texts)(turn)
        await gate.wait()
        return "stop"

    return script


def lone_run(record: RunRecord, look: Callable[[str], bool]) -> Run:
    """Without a supervisor, of a caller without limits."""
    return Run(record, look, Account(MemoryQuotas(), record, Limits()))


class FakeModel:
    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked = 0
        self.open = 0  # upstream calls
        self.began = asyncio.Event()
        self.prompts: list[Prompt] = []
        self.replies: list[Reply] = []

    def reply(self, prompt: Prompt, queue: EventQueue) -> Reply:
        reply = Reply(prompt, queue)
        self.replies.append(reply)
        return reply

    async def answer(self, reply: Reply) -> str:
        self.asked += 1
        self.open += 1
        self.began.set()
        self.prompts.append(reply.prompt)
        clocks = TurnClocks(first_token_s=NEVER_S, stall_s=NEVER_S)
        turn = Turn(reply.prompt, reply.queue, clocks)
        reply.turns.append(turn)
        try:
            async with clocks:
                return await self.script(turn)
        finally:
            self.open -= 1
            turn.flush()


class FarLog:
    """A log behind a network: every call that may wait does, before and after it takes effect."""

    def __init__(self) -> None:
        self.near = MemoryEventLog(memory_bytes=2**30, retention_s=900)

    async def holder(self, owner: str, idempotency_key: str) -> RunRecord | None:
        await asyncio.sleep(0)
        found = await self.near.holder(owner, idempotency_key)
        await asyncio.sleep(0)
        return found

    async def open(self, record: RunRecord) -> RunRecord:
        await asyncio.sleep(0)
        holder = await self.near.open(record)
        await asyncio.sleep(0)
        return holder

    async def append(self, run_id: str, events: Sequence[Event]) -> None:
        await asyncio.sleep(0)
        await self.near.append(run_id, events)
        await asyncio.sleep(0)

    async def find(self, run_id: str, reaching: int = 0) -> Snapshot | None:
        await asyncio.sleep(0)
        return await self.near.find(run_id, reaching)

    def read(self, run_id: str, after: int) -> Reader:
        return self.near.read(run_id, after)


_: type[EventLog] = FarLog


class LateLog(FarLog):
    """Readers see an ending at once; whoever wrote it hears of that once ``gate`` is open, as from
    a Redis that is slow."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def append(self, run_id: str, events: Sequence[Event]) -> None:
        await super().append(run_id, events)
        if isinstance(events[-1], Done):
            await self.gate.wait()


class World:
    """A supervisor in a task group of its own. Leaving it waits for all runs, and looks for leaks.

    Leaving with a run that never ends fails after ``BOUND_S``.
    """

    def __init__(
        self,
        script: Script,
        *,
        log: EventLog | None = None,
        neighbours: Neighbours | None = None,
        archive: MemoryArchive | None = None,
        quotas: Quotas | None = None,
        run_timeout_s: float = NEVER_S,
        max_runs: int = 1000,
        max_readers: int = 1000,
        max_answer_bytes: int = 10**6,
    ) -> None:
        self.model = FakeModel(script)
        self.log: EventLog = log or FarLog()
        self.neighbours = neighbours or Alone()
        self.archive = archive or MemoryArchive()
        self.quotas = quotas
        self.journal = Journal(self.archive)
        self._limits = (run_timeout_s, max_answer_bytes)
        self._room = {"max_runs": max_runs, "max_readers": max_readers}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._before = asyncio.all_tasks()
        await self._stack.enter_async_context(asyncio.timeout(BOUND_S))
        self.tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        self._writer = self.tasks.create_task(self.journal.run())
        self.supervisor = self.new_supervisor(self.tasks)
        return self

    def new_supervisor(self, tasks: asyncio.TaskGroup) -> Supervisor:
        exchanges = Exchanges(self.archive, self.journal, newest=20)
        driver = Driver(self.log, self.model, exchanges, tasks, *self._limits, heartbeat_s=10)
        return Supervisor(driver, neighbours=self.neighbours, quotas=self.quotas, **self._room)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if error is None:
            await self.supervisor._idle.wait()
        self._writer.cancel()
        swallowed = await self._stack.__aexit__(kind, error, traceback)
        if error is None:
            self.assert_nothing_leaks()
        return bool(swallowed)

    def assert_nothing_leaks(self) -> None:
        assert asyncio.all_tasks() <= self._before, "a task outlives its run"
        assert self.supervisor._runs == {}, "a run outlives its ending"
        assert self.supervisor._readers == 0
        assert self.model.open == 0, "an upstream call outlives its run"

    async def start(
        self,
        key: str | None = None,
        *,
        text: str = "hi",
        grace_s: float | None = 5.0,
        owner: str = OWNER,
        **more: Any,
    ) -> RunRecord:
        request = Request(text, entry(), frozenset(), grace_s, f"of {text}", key, **more)
        return await self.supervisor.start(request, owner, "req")

    async def cancel(self, run: RunRecord) -> str:
        return (await self.supervisor.cancel(run.run_id, OWNER)).status

    async def until(self, run: RunRecord, kind: type[Event]) -> None:
        """Wait until such an event is in the log."""
        reader = self.log.read(run.run_id, 0)
        while not any(type(entry.event) is kind for entry in await reader.read(NEVER_S)):
            pass

    async def told(self, run: RunRecord) -> list[str]:
        """The whole run in short, after every rule that always holds was checked."""
        return short(checked(await read_to_end(self.log, run.run_id)))


def checked(entries: Sequence[Entry]) -> list[Event]:
    """A run's events, if they are a story that the contract allows."""
    events = [entry.event for entry in entries]
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1)), "gapless"
    assert isinstance(events[0], Start)
    done = events[-1]
    assert isinstance(done, Done)
    assert not any(isinstance(event, Start | Done) for event in events[1:-1])
    said = events[1:-1]
    last = said.pop() if said else None
    if done.status == "completed":
        assert isinstance(last, Final)
        assert last.usage == done.usage
        assert last.text == "".join(event.text for event in said if isinstance(event, Token))
    elif done.status == "failed":
        assert isinstance(last, Error)
    elif last is not None:
        said.append(last)
    assert not any(isinstance(event, Final | Error) for event in said)
    return events


def short(events: Iterable[Event]) -> list[str]:
    """What a test compares: tokens as their text, an error as its code, the ending's status."""
    told = []
    for event in events:
        match event:
            case Token(text=text):
                told.append(text)
            case Error(code=code):
                told.append(code)
            case Done(status=status):
                told.append(status)
            case Final(finish_reason=reason):
                told.append(f"final {reason}")
    return told


def failed(error: type[GatewayError], *texts: str) -> list[str]:
    return [*texts, error.code, "failed"]
