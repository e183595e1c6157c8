"""500 random lives of two workers that share quotas: no caller ever has more runs than it may, and
in the end each slot is given back and each token counted once.

``python -m tests.runs.test_random_quotas 10000`` lives more of them and says what happened.
"""

import asyncio
import logging
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytest

from app.access.model import Limits
from app.conversations import journal
from app.errors import GatewayError, RateLimited, StoreAway, UpstreamBroken
from app.events.log import Fenced
from app.events.model import Event, RunRecord
from app.llm.turn import Turn
from app.runs import account, elsewhere, supervisor
from app.runs import run as run_module
from tests.runs.fakes import FarLog, World, for_ever
from tests.runs.quotas import FarQuotas, passes
from tests.runs.workers import two_workers

pytestmark = pytest.mark.anyio

LIVES = 500
STEPS = 30
CALLERS = {
    "one": Limits(max_runs=1, tokens_per_day=10**9),
    "two": Limits(max_runs=2),
    "three": Limits(max_runs=3, tokens_per_day=10**9),
}


class BadLog(FarLog):
    """Sometimes it cannot be reached, has a bug, or another worker has written the ending."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance

    async def open(self, record: RunRecord) -> RunRecord:
        if self._chance.random() < 0.05:
            await asyncio.sleep(0)
            raise self._chance.choice([StoreAway(), OSError("a bug")])
        return await super().open(record)

    async def append(self, run_id: str, events: Sequence[Event]) -> None:
        if self._chance.random() < 0.05:
            await asyncio.sleep(0)
            raise self._chance.choice([Fenced(), OSError("a bug")])
        await super().append(run_id, events)


class Life:
    """Everything that chance decides comes from ``seed``. ``happened``: how often what did."""

    def __init__(self, seed: int, happened: Counter[str]) -> None:
        self._chance = random.Random(seed)
        self._happened = happened
        self.quotas = FarQuotas(self._living)
        self._worlds: list[World] = []
        self._started: dict[str, RunRecord] = {}
        self._starting: list[asyncio.Task[None]] = []
        self._cancelling: list[asyncio.Task[None]] = []
        self._readers: list[ExitStack] = []
        self._upstream = Counter[str]()  # open calls, by caller
        self._most = Counter[str]()  # of them, so far
        self._timeout_s = 0.005 if seed % 4 == 0 else 60

    async def live(self) -> None:
        actions: list[Callable[[World], Awaitable[None]]] = [
            *[self._start] * 6,
            *[self._pass] * 4,
            *[self._cancel] * 2,
            self._join,
            self._leave,
            self._abandon,
            self._kill,
        ]
        log = BadLog(self._chance)
        async with two_workers(
            self._script, log, self.quotas, run_timeout_s=self._timeout_s
        ) as workers:
            self._worlds = [workers.a, workers.b]
            for _ in range(STEPS):
                await self._chance.choice(actions)(self._chance.choice(self._worlds))
            for reader in self._readers:
                reader.close()
            for world in self._worlds:
                if self._chance.random() < 0.5:
                    await world.supervisor.drain(0)
            await asyncio.gather(*self._starting, return_exceptions=True)
            for world in self._worlds:
                await world.supervisor.drain(0.001)
            await asyncio.gather(*self._cancelling, return_exceptions=True)
        await self._check()

    async def _check(self) -> None:
        for owner, limits in CALLERS.items():
            assert await self.quotas.running(owner) == 0, f"{owner} has lost a slot"
            assert max(self.quotas.most[owner], self._most[owner]) <= (limits.max_runs or 0)
        replies = [reply for world in self._worlds for reply in world.model.replies]
        spent = {
            reply.prompt.messages[-1].run_id: reply.usage().total_tokens
            for reply in replies
            if CALLERS[reply.prompt.messages[-1].text].tokens_per_day is not None
        }
        assert self.quotas.counted == spent
        self._happened["run that asked"] += len(replies)
        self._happened["token counted"] += sum(spent.values())

    def _living(self, owner: str) -> int:
        runs = [run for world in self._worlds for run in world.supervisor._runs.values()]
        return sum(run.record.owner == owner for run in runs)

    async def _script(self, turn: Turn) -> str:
        owner = turn.prompt.messages[-1].text
        self._upstream[owner] += 1
        self._most[owner] = max(self._most[owner], self._upstream[owner])
        try:
            return await self._say(turn)
        finally:
            self._upstream[owner] -= 1

    async def _say(self, turn: Turn) -> str:
        for number in range(self._chance.randrange(4)):
            turn.chunk(str(number), "", tool_call=False)
            await passes(self._chance.randrange(3))
        match self._chance.randrange(6):
            case 0:
                raise UpstreamBroken
            case 1:
                raise ValueError("a bug")
            case 2 | 3:
                await for_ever()
            case 4:
                try:
                    await for_ever()
                except asyncio.CancelledError:
                    await asyncio.sleep(0.001)  # closing takes a while
                    raise
        return "stop"

    # -- what happens -------------------------------------------------------------------------

    async def _start(self, world: World) -> None:
        self._starting.append(world.tasks.create_task(self._ask(world)))

    async def _ask(self, world: World) -> None:
        chance = self._chance
        owner = chance.choice(list(CALLERS))
        theirs = [run.conversation_id for run in self._started.values() if run.owner == owner]
        try:
            run = await world.start(
                chance.choice([None, None, "k", "K"]),
                text=owner,
                grace_s=chance.choice([None, 0, 0, 0.001, 60]),
                owner=owner,
                limits=CALLERS[owner],
                conversation_id=chance.choice([*[None] * 5, *theirs[-3:], "nowhere"]),
                if_busy=chance.choice(["reject", "interrupt"]),
            )
        except (GatewayError, OSError) as error:
            self._happened[f"start refused: {type(error).__name__}"] += 1
        except asyncio.CancelledError:
            self._happened["client that left while its run was being started"] += 1
        else:
            self._happened["joined" if run.run_id in self._started else "started"] += 1
            self._started[run.run_id] = run

    async def _abandon(self, _: World) -> None:
        if self._starting:
            self._chance.choice(self._starting).cancel()

    async def _join(self, world: World) -> None:
        if self._started:
            reader = ExitStack()
            reader.enter_context(world.supervisor.reading(self._any().run_id))
            self._readers.append(reader)

    async def _leave(self, _: World) -> None:
        if self._readers:
            self._readers.pop(self._chance.randrange(len(self._readers))).close()

    async def _cancel(self, world: World) -> None:
        async def cancel(run: RunRecord) -> None:
            stopped = await world.supervisor.cancel(run.run_id, run.owner)
            self._happened[f"cancel that found it {stopped.status}"] += 1

        if self._started:
            self._cancelling.append(world.tasks.create_task(cancel(self._any())))

    async def _kill(self, _: World) -> None:
        """The task of a run, perhaps before it has begun, as a process does that goes down."""
        runs = [task for task in asyncio.all_tasks() if task.get_name().startswith("run ")]
        if runs:
            self._happened["killed"] += self._chance.choice(runs).cancel()

    async def _pass(self, _: World) -> None:
        await passes(self._chance.randrange(12))

    def _any(self) -> RunRecord:
        return self._chance.choice(list(self._started.values()))


@contextmanager
def in_a_hurry() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "CANCEL_AGAIN_S", 0.002)
        patch.setattr(elsewhere, "LOOK_AGAIN_S", 0.001)
        patch.setattr(supervisor, "CANCEL_WAIT_S", 0.01)
        patch.setattr(journal, "LINGER_S", 0.0)
        patch.setattr(account, "COUNT_S", 0.0005)
        yield


async def lives(count: int) -> Counter[str]:
    happened = Counter[str]()
    with in_a_hurry():
        for seed in range(count):
            try:
                await Life(seed, happened).live()
            except BaseException as error:
                error.add_note(f"life {seed}")
                raise
    return happened


async def test_in_500_random_lives_no_slot_is_lost_and_no_caller_has_more_than_it_may(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL, "app.runs")  # not thousands of tracebacks
    happened = await lives(LIVES)
    assert happened["start refused: " + RateLimited.__name__] > LIVES
    assert happened["started"] > LIVES
    assert happened["joined"] > 0


if __name__ == "__main__":
    for what, times in sorted(asyncio.run(lives(int(sys.argv[1]))).items()):
        sys.stdout.write(f"{times:9,}  {what}\n")
