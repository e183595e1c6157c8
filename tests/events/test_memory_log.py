"""The log in memory: the contract of every log, and what only this one promises about room."""

import asyncio

import pytest

from app.errors import Overloaded
from app.events.log import EventLog, LogGone
from app.events.memory import MemoryEventLog
from app.events.model import Done, RunRecord, Token
from app.events.runlog import LOG_BYTES, LogReader
from tests.events.event_log_contract import EventLogContract
from tests.events.making import done, read_to_end, record, start

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
BOUND_S = 20


class TestMemoryEventLog(EventLogContract):
    @pytest.fixture
    def log(self) -> EventLog:
        return MemoryEventLog(memory_bytes=64 * MIB, retention_s=900)


async def finished(log: MemoryEventLog, text: str = "", key: str | None = None) -> RunRecord:
    run = await log.open(record(key))
    await log.append(run.run_id, [start(run), Token(text), done()])
    return run


async def gone(log: MemoryEventLog, run: RunRecord) -> bool:
    return await log.find(run.run_id) is None


async def until_gone(log: MemoryEventLog, run: RunRecord) -> None:
    """Waits with a reader, which is told. The caller bounds it."""
    with pytest.raises(LogGone):
        await log.read(run.run_id, 3).read(60)


async def test_a_finished_log_is_dropped_after_its_retention_and_all_its_bytes_come_back() -> None:
    log = MemoryEventLog(memory_bytes=MIB, retention_s=0.05)
    async with asyncio.timeout(BOUND_S):
        began = asyncio.get_running_loop().time()
        first, second = await finished(log, "x" * 1000, "k"), await finished(log)
        assert log.bytes > 2 * LOG_BYTES + 1000
        await until_gone(log, second)
        assert asyncio.get_running_loop().time() - began >= 0.045
        assert await gone(log, first)
        assert await log.holder("me", "k") is None
        assert log.bytes == 0


async def test_a_running_log_is_never_dropped_for_its_age() -> None:
    log = MemoryEventLog(memory_bytes=MIB, retention_s=0.01)
    async with asyncio.timeout(BOUND_S):
        running = await log.open(record("k"))
        await log.append(running.run_id, [start(running)])
        await until_gone(log, await finished(log))
        await log.append(running.run_id, [Token("a"), done()])
        assert len(await read_to_end(log, running.run_id)) == 3


async def test_logs_that_finish_later_are_dropped_later() -> None:
    log = MemoryEventLog(memory_bytes=MIB, retention_s=0.03)
    async with asyncio.timeout(BOUND_S):
        for _ in range(3):  # the timer stops with the last log and starts again with the next
            await until_gone(log, await finished(log))
        assert log.bytes == 0


async def test_for_room_the_oldest_finished_logs_go_first() -> None:
    log = MemoryEventLog(memory_bytes=64 * 1024, retention_s=900)
    running = await log.open(record())
    await log.append(running.run_id, [start(running)])
    one, two = await finished(log, "x" * 12_000), await finished(log, "x" * 12_000)
    assert not await gone(log, one)
    three = await finished(log, "x" * 12_000)
    await log.open(record())
    assert [await gone(log, run) for run in (one, two, three)] == [True, False, False]
    assert not await gone(log, running)


async def test_without_anything_to_drop_a_new_run_is_refused_and_running_ones_go_on() -> None:
    log = MemoryEventLog(memory_bytes=64 * 1024, retention_s=900)
    running = await log.open(record("k"))
    await log.append(running.run_id, [start(running), Token("x" * 64 * 1024)])
    before = log.bytes
    refused = record("other")
    with pytest.raises(Overloaded):
        await log.open(refused)
    assert log.bytes == before
    assert await gone(log, refused)
    assert await log.holder("me", "other") is None, "a refused run holds no key"
    assert (await log.open(record("k"))) is running, "joining needs no room"
    await log.append(running.run_id, [Token("y"), done()])
    await log.open(record())


async def test_what_a_log_costs_is_more_than_its_frames() -> None:
    log = MemoryEventLog(memory_bytes=64 * MIB, retention_s=900)
    run = await log.open(record())
    before = log.bytes
    await log.append(run.run_id, [Token("x" * 10_000)])
    assert log.bytes - before > 20_000, "text and frame"


async def test_a_key_that_was_freed_and_claimed_again_outlives_the_first_log() -> None:
    log = MemoryEventLog(memory_bytes=64 * 1024, retention_s=900)
    first = await log.open(record("k"))
    await log.append(first.run_id, [start(first), done("failed", frees_key=True)])
    second = await log.open(record("k"))
    await log.append(second.run_id, [start(second), Token("x" * 29_500)])
    await log.open(record())  # drops the first
    assert await gone(log, first)
    assert await log.holder("me", "k") is second


async def test_a_reader_of_a_dropped_log_gets_the_rest_and_a_new_one_is_told() -> None:
    log = MemoryEventLog(memory_bytes=64 * 1024, retention_s=900)
    async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as tasks:
        run = await finished(log, "x" * 32_000)
        behind = log.read(run.run_id, 0)
        waiting = tasks.create_task(until_gone(log, run))
        await asyncio.sleep(0)
        await log.open(record())
        await waiting
        assert isinstance((await behind.read(0))[-1].event, Done)
        with pytest.raises(LogGone):
            await behind.read(0)
        with pytest.raises(LogGone):
            log.read(run.run_id, 0)
        with pytest.raises(LogGone):
            log.read(record().run_id, 0)


async def test_a_reader_that_was_cancelled_leaves_no_timer_behind() -> None:
    log = MemoryEventLog(memory_bytes=MIB, retention_s=900)
    run = await log.open(record())
    reader = asyncio.ensure_future(log.read(run.run_id, 0).read(3600))
    await asyncio.sleep(0)
    reader.cancel()
    await asyncio.wait({reader})
    armed = getattr(asyncio.get_running_loop(), "_scheduled", [])
    assert [timer for timer in armed if not timer.cancelled()] == []


async def test_silence_is_told_though_its_timer_fired_just_when_the_reader_was_woken() -> None:
    log, run = MemoryEventLog(memory_bytes=MIB, retention_s=60), record()
    await log.open(run)
    reader = log.read(run.run_id, 0)
    assert isinstance(reader, LogReader)
    async with asyncio.timeout(BOUND_S):
        reading = asyncio.ensure_future(reader.read(0.05))
        await asyncio.sleep(0)
        log._logs._logs[run.run_id].waiters.wake()  # for nothing, as a wave may
        assert reader._timer
        reader._timer.cancel()
        reader._silent()  # the timer, in the same pass
        assert await reading == []
