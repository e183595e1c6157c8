"""500 random lives of a gateway: whatever meets whatever, each run keeps its promises."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

import pytest

from app.errors import GatewayError, UpstreamBroken, UpstreamRejected
from app.events.log import EventLog
from app.events.memory import MemoryEventLog
from app.events.model import RunRecord
from app.llm.turn import Turn
from app.runs import run as run_module
from tests.events.making import read_to_end
from tests.runs.fakes import FarLog, World, checked, for_ever

pytestmark = pytest.mark.anyio

SCHEDULES = 500
STEPS = 12


class Life:
    """One schedule. Everything that chance decides comes from ``seed``."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        log: EventLog = (
            FarLog() if seed % 2 else MemoryEventLog(memory_bytes=2**30, retention_s=900)
        )
        self.world = World(self._script, log=log, run_timeout_s=0.01 if seed % 10 == 0 else 60)
        self.started: dict[str, RunRecord] = {}
        self._readers: list[ExitStack] = []

    async def live(self) -> None:
        actions: list[Callable[[], Awaitable[None]]] = [
            self._start,
            self._start,
            self._join,
            self._join,
            self._leave,
            self._cancel,
            self._pass,
            self._pass,
        ]
        async with self.world:
            await self._start()
            for _ in range(STEPS):
                await self._chance.choice(actions)()
            if self._chance.random() < 0.3:
                await self.world.supervisor.drain(0)
            for reader in self._readers:
                reader.close()
            for run in self.started.values():
                if self._chance.random() < 0.8:
                    self.world.tasks.create_task(self.world.cancel(run))
            await self.world.supervisor.drain(0.001)
            for run in self.started.values():
                checked(await read_to_end(self.world.log, run.run_id))

    async def _script(self, turn: Turn) -> str:
        for number in range(self._chance.randrange(5)):
            turn.chunk(str(number), "hm" * self._chance.randrange(2), tool_call=False)
            for _ in range(self._chance.randrange(3)):
                await asyncio.sleep(0)
        match self._chance.randrange(7):
            case 0:
                raise UpstreamBroken
            case 1:
                raise UpstreamRejected
            case 2:
                raise ValueError("a bug")
            case 3:
                await for_ever()
            case 4:
                try:
                    await for_ever()
                except asyncio.CancelledError:
                    await asyncio.sleep(0)  # closing takes a while
                    raise
            case 5:
                try:
                    await for_ever()
                except asyncio.CancelledError:
                    await for_ever()  # the first cancel gets lost
        return "stop"

    async def _start(self) -> None:
        key = self._chance.choice([None, "k", "K"])
        grace_s = self._chance.choice([None, 0, 0, 0.001, 60])
        try:
            run = await self.world.start(key, grace_s=grace_s)
        except GatewayError as error:
            raise AssertionError(f"{error.code} where there is room") from error
        self.started[run.run_id] = run

    async def _join(self) -> None:
        reader = ExitStack()
        reader.enter_context(self.world.supervisor.reading(self._any().run_id))
        self._readers.append(reader)

    async def _leave(self) -> None:
        if self._readers:
            self._readers.pop(self._chance.randrange(len(self._readers))).close()

    async def _cancel(self) -> None:
        self.world.tasks.create_task(self.world.cancel(self._any()))

    async def _pass(self) -> None:
        for _ in range(self._chance.randrange(6)):
            await asyncio.sleep(0)

    def _any(self) -> RunRecord:
        return self._chance.choice(list(self.started.values()))


async def test_500_random_schedules_end_every_run_once_and_leave_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_module, "CANCEL_AGAIN_S", 0.002)
    for seed in range(SCHEDULES):
        try:
            await Life(seed).live()
        except BaseException as error:
            error.add_note(f"schedule {seed}")
            raise
