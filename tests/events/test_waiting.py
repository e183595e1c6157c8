"""Who waits for a run's next event is woken: few at once, many in waves, nobody never."""

import asyncio

import pytest

from app.events.log import EventLog
from app.events.memory import MemoryEventLog
from app.events.model import Token
from app.events.waiting import FEW, Waiters
from tests.events.making import record

pytestmark = pytest.mark.anyio

BOUND_S = 30
MANY = 7 * FEW


async def passes(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_few_are_woken_at_once() -> None:
    waiters = Waiters()
    futures = [waiters.add() for _ in range(FEW)]
    waiters.wake()
    assert all(future.done() for future in futures)


async def test_many_are_woken_some_at_a_time_so_that_others_get_their_turn() -> None:
    waiters = Waiters()
    futures = [waiters.add() for _ in range(MANY)]
    waiters.wake()
    woken = []
    async with asyncio.timeout(BOUND_S):
        while not all(future.done() for future in futures):
            await asyncio.sleep(0)
            woken.append(sum(future.done() for future in futures))
    assert max(after - before for before, after in zip([0, *woken], woken, strict=False)) == FEW


async def test_who_comes_during_a_wave_is_woken_by_the_wake_that_came_during_it() -> None:
    waiters = Waiters()
    first = [waiters.add() for _ in range(MANY)]
    waiters.wake()
    async with asyncio.timeout(BOUND_S):
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        second = [waiters.add() for _ in range(MANY)]
        waiters.wake()
        await asyncio.gather(*first, *second)


async def test_who_left_is_not_woken_and_disturbs_nobody() -> None:
    waiters = Waiters()
    futures = [waiters.add() for _ in range(MANY)]
    waiters.wake()
    for future in futures[::2]:
        future.cancel()
        waiters.discard(future)
    async with asyncio.timeout(BOUND_S):
        await asyncio.gather(*futures[1::2])


async def test_many_readers_of_one_run_each_read_every_event_once() -> None:
    log: EventLog = MemoryEventLog(memory_bytes=1 << 24, retention_s=60)
    run = record()
    await log.open(run)
    told = [Token(f"tok{k} ") for k in range(200)]

    async def read_all() -> list[int]:
        reader, seen = log.read(run.run_id, 0), list[int]()
        while len(seen) < len(told):
            entries = await reader.read(BOUND_S)
            assert entries  # nobody is woken for nothing
            seen += [entry.seq for entry in entries]
        reader.close()
        return seen

    async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as tasks:
        early = [tasks.create_task(read_all()) for _ in range(MANY)]
        for at in range(0, len(told), 8):
            await log.append(run.run_id, told[at : at + 8])
            await passes(at % 5)
            early.append(tasks.create_task(read_all()))
    assert all(task.result() == list(range(1, len(told) + 1)) for task in early)
