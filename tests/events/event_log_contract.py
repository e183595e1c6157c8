"""What every EventLog must do. Subclassed once per backend, never skipped silently.

Uses nothing but the protocol, and awaits everything that a backend across a network awaits.
"""

import asyncio

import pytest

from app.events.log import BATCH_BYTES, EventLog, LogGone, Reader
from app.events.model import Entry, Error, Event, RunRecord, Token
from app.wire.native import encode
from tests.events.making import done, final, read_to_end, record, start

BOUND_S = 20  # for one test
NEVER_S = 60  # a silence that a test would not survive


async def opened(log: EventLog, key: str | None = None, *, owner: str = "me") -> RunRecord:
    run = record(key, owner=owner)
    assert await log.open(run) is run
    return run


async def take(reader: Reader, count: int) -> list[Entry]:
    entries: list[Entry] = []
    while len(entries) < count:
        entries += await reader.read(NEVER_S)
    return entries


async def end_of(reader: Reader) -> None:
    """It is told that nothing will ever come."""
    with pytest.raises(LogGone):
        await reader.read(NEVER_S)


class EventLogContract:
    @pytest.fixture
    def log(self) -> EventLog:
        raise NotImplementedError("each backend provides its own log")

    async def test_events_are_numbered_from_one_without_gaps(self, log: EventLog) -> None:
        async with asyncio.timeout(BOUND_S):
            run = await opened(log)
            events: list[Event] = [start(run), Token("a"), Token("b"), final("ab"), done()]
            await log.append(run.run_id, events[:1])
            await log.append(run.run_id, events[1:3])
            await log.append(run.run_id, events[3:])
            entries = await read_to_end(log, run.run_id)
        assert [entry.seq for entry in entries] == [1, 2, 3, 4, 5]
        assert [entry.event for entry in entries] == events

    async def test_a_frame_is_the_native_one_of_its_event(self, log: EventLog) -> None:
        async with asyncio.timeout(BOUND_S):
            run = await opened(log)
            await log.append(run.run_id, [start(run), Token("\u2028\0\U0001f600"), done()])
            for entry in await read_to_end(log, run.run_id):
                assert entry.frame == encode(run.run_id, entry.seq, entry.event)

    async def test_a_reader_that_resumes_sees_only_what_it_missed(self, log: EventLog) -> None:
        async with asyncio.timeout(BOUND_S):
            run = await opened(log)
            await log.append(run.run_id, [start(run), Token("a"), Token("b"), done()])
            for after in range(4):
                entries = await read_to_end(log, run.run_id, after)
                assert [entry.seq for entry in entries] == list(range(after + 1, 5))

    async def test_replay_and_live_are_one_read(self, log: EventLog) -> None:
        async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as tasks:
            run = await opened(log)
            await log.append(run.run_id, [start(run), Token("a")])
            reader = log.read(run.run_id, 1)
            assert [entry.seq for entry in await take(reader, 1)] == [2]
            waiting = tasks.create_task(take(reader, 2))
            await asyncio.sleep(0)
            await log.append(run.run_id, [Token("b")])
            await log.append(run.run_id, [done()])
            assert [entry.seq for entry in await waiting] == [3, 4]

    async def test_readers_that_wait_before_the_first_event_all_get_it(self, log: EventLog) -> None:
        async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as tasks:
            run = await opened(log)
            readers = [tasks.create_task(read_to_end(log, run.run_id)) for _ in range(5)]
            await asyncio.sleep(0)
            await log.append(run.run_id, [start(run)])
            await log.append(run.run_id, [done()])
            seen = [await reader for reader in readers]
        assert [[entry.seq for entry in entries] for entries in seen] == [[1, 2]] * 5

    async def test_silence_is_an_empty_answer(self, log: EventLog) -> None:
        async with asyncio.timeout(BOUND_S):
            run = await opened(log)
            await log.append(run.run_id, [start(run)])
            reader = log.read(run.run_id, 1)
            began = asyncio.get_running_loop().time()
            assert list(await reader.read(0.02)) == []
            assert list(await reader.read(0.03)) == []
            assert asyncio.get_running_loop().time() - began >= 0.045  # clocks round
            await log.append(run.run_id, [Token("a")])
            assert [entry.seq for entry in await take(reader, 1)] == [2]
            assert list(await reader.read(0.0)) == []

    async def test_silence_before_the_first_event_is_an_empty_answer_too(
        self, log: EventLog
    ) -> None:
        async with asyncio.timeout(BOUND_S):
            run = await opened(log)
            reader = log.read(run.run_id, 0)
            assert list(await reader.read(0.01)) == []
            await log.append(run.run_id, [start(run)])
            assert [entry.seq for entry in await take(reader, 1)] == [1]

    async def test_a_cursor_past_the_last_event_waits_for_its_turn(self, log: EventLog) -> None:
        async with asyncio.timeout(BOUND_S):
            run = await opened(log)
            await log.append(run.run_id, [start(run)])
            reader = log.read(run.run_id, 3)
            assert list(await reader.read(0.01)) == []
            await log.append(run.run_id, [Token("a"), Token("b"), Token("c")])
            assert [entry.seq for entry in await take(reader, 1)] == [4]

    async def test_after_the_ending_nothing_ever_comes(self, log: EventLog) -> None:
        async with asyncio.timeout(BOUND_S):
            run = await opened(log)
            await log.append(run.run_id, [start(run), done()])
            reader = log.read(run.run_id, 0)
            assert [entry.seq for entry in await take(reader, 2)] == [1, 2]
            assert list(await reader.read(0.01)) == []
            assert list(await log.read(run.run_id, 2).read(0.01)) == []

    async def test_a_reader_whose_cursor_the_run_never_reached_is_told_at_its_end(
        self, log: EventLog
    ) -> None:
        async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as tasks:
            run = await opened(log)
            await log.append(run.run_id, [start(run)])
            waiting = tasks.create_task(end_of(log.read(run.run_id, 9)))
            await asyncio.sleep(0)
            await log.append(run.run_id, [done()])
            await waiting
            await end_of(log.read(run.run_id, 3))

    async def test_a_reader_that_waits_with_less_patience_is_woken_earlier(
        self, log: EventLog
    ) -> None:
        async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as tasks:
            run = await opened(log)
            reader = log.read(run.run_id, 0)
            patient = tasks.create_task(take(reader, 1))  # would wait for NEVER_S
            await asyncio.sleep(0)
            await log.append(run.run_id, [start(run)])
            await patient
            assert list(await reader.read(0.01)) == []

    async def test_a_cancelled_reader_misses_nothing_and_leaves_the_others_reading(
        self, log: EventLog
    ) -> None:
        async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as tasks:
            run = await opened(log)
            await log.append(run.run_id, [start(run)])
            other = tasks.create_task(read_to_end(log, run.run_id))
            reader = log.read(run.run_id, 0)
            await take(reader, 1)
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await reader.read(NEVER_S)
            await log.append(run.run_id, [Token("a"), done()])
            assert [entry.seq for entry in await take(reader, 2)] == [2, 3]
            assert [entry.seq for entry in await other] == [1, 2, 3]

    async def test_a_long_replay_comes_in_batches_that_miss_and_repeat_nothing(
        self, log: EventLog
    ) -> None:
        async with asyncio.timeout(BOUND_S):
            run = await opened(log)
            tokens = [Token("x" * 1000) for _ in range(300)]
            await log.append(run.run_id, [start(run), *tokens, done()])
            reader, entries, batches = log.read(run.run_id, 0), list[Entry](), 0
            while not entries or type(entries[-1].event) is Token:
                batch = await reader.read(NEVER_S)
                largest = max(len(entry.frame) for entry in batch)
                assert sum(len(entry.frame) for entry in batch) < BATCH_BYTES + largest
                entries += batch
                batches += 1
        assert [entry.seq for entry in entries] == list(range(1, 303))
        assert batches > 1

    async def test_a_reader_cancelled_in_a_long_replay_misses_nothing(self, log: EventLog) -> None:
        async with asyncio.timeout(BOUND_S):
            run = await opened(log)
            await log.append(run.run_id, [Token("x" * 1000) for _ in range(300)])
            for passes in range(1, 6):
                reader = log.read(run.run_id, 0)
                reading = asyncio.ensure_future(reader.read(NEVER_S))
                for _ in range(passes):
                    await asyncio.sleep(0)
                reading.cancel()
                await asyncio.wait({reading})
                seen = [] if reading.cancelled() else list(reading.result())
                seen += await take(reader, 300 - len(seen))
                assert [entry.seq for entry in seen] == list(range(1, 301))

    async def test_an_event_larger_than_a_batch_comes_whole(self, log: EventLog) -> None:
        async with asyncio.timeout(BOUND_S):
            run = await opened(log)
            await log.append(run.run_id, [Token("x" * 3 * BATCH_BYTES), done()])
            entries = await read_to_end(log, run.run_id)
        assert [entry.seq for entry in entries] == [1, 2]

    async def test_an_append_is_all_or_nothing(self, log: EventLog) -> None:
        async with asyncio.timeout(BOUND_S):
            run = await opened(log)
            await log.append(run.run_id, [start(run)])
            unspeakable = Error("x", object(), retryable=False, request_id="")  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                await log.append(run.run_id, [Token("a"), unspeakable, done()])
            await log.append(run.run_id, [Token("b"), done()])
            entries = await read_to_end(log, run.run_id)
        assert [entry.event for entry in entries] == [start(run), Token("b"), done()]

    async def test_runs_do_not_see_each_other(self, log: EventLog) -> None:
        async with asyncio.timeout(BOUND_S):
            one, two = await opened(log), await opened(log)
            await log.append(one.run_id, [Token("1"), done()])
            await log.append(two.run_id, [Token("2"), done()])
            assert (await read_to_end(log, one.run_id))[0].event == Token("1")
            assert (await read_to_end(log, two.run_id))[0].event == Token("2")

    # -- what is known of a run -------------------------------------------------------------

    async def test_a_run_is_found_as_it_stands(self, log: EventLog) -> None:
        async with asyncio.timeout(BOUND_S):
            run = await opened(log)
            new = await log.find(run.run_id)
            await log.append(run.run_id, [start(run), Token("a")])
            running = await log.find(run.run_id)
            failure = Error("internal", "m", retryable=False, request_id="req")
            await log.append(run.run_id, [failure, done("failed")])
            ended = await log.find(run.run_id)
        assert new is not None
        assert running is not None
        assert ended is not None
        assert new.record == running.record == ended.record == run
        assert [one.last_seq for one in (new, running, ended)] == [0, 2, 4]
        assert [one.status for one in (new, running, ended)] == ["running", "running", "failed"]
        assert (running.error, running.done) == (None, None)
        assert (ended.error, ended.done) == (failure, done("failed"))

    async def test_an_unknown_run_is_not_found(self, log: EventLog) -> None:
        async with asyncio.timeout(BOUND_S):
            assert await log.find(record().run_id) is None

    # -- idempotency keys -------------------------------------------------------------------

    async def test_a_key_belongs_to_the_first_run_that_claims_it(self, log: EventLog) -> None:
        async with asyncio.timeout(BOUND_S):
            assert await log.holder("me", "k") is None
            first = await opened(log, "k")
            second = record("k")
            assert await log.open(second) == first
            assert await log.holder("me", "k") == first
            assert await log.find(second.run_id) is None, "nothing was begun"
            await log.append(first.run_id, [start(first), done()])
            assert await log.holder("me", "k") == first, "it lives as long as the log"

    async def test_a_key_is_its_owners_alone(self, log: EventLog) -> None:
        async with asyncio.timeout(BOUND_S):
            mine, yours = await opened(log, "k"), await opened(log, "k", owner="you")
            assert await log.holder("me", "k") == mine
            assert await log.holder("you", "k") == yours

    async def test_runs_without_a_key_never_meet(self, log: EventLog) -> None:
        async with asyncio.timeout(BOUND_S):
            assert (await opened(log)) != (await opened(log))

    async def test_an_ending_that_frees_the_key_lets_another_run_have_it(
        self, log: EventLog
    ) -> None:
        async with asyncio.timeout(BOUND_S):
            first = await opened(log, "k")
            await log.append(first.run_id, [start(first), done("failed", frees_key=True)])
            assert await log.holder("me", "k") is None
            second = await opened(log, "k")
            assert await log.holder("me", "k") == second
            assert len(await read_to_end(log, first.run_id)) == 2, "its log stays"

    async def test_of_many_that_claim_a_key_at_once_one_gets_it(self, log: EventLog) -> None:
        async with asyncio.timeout(BOUND_S):
            runs = [record("k") for _ in range(20)]
            holders = await asyncio.gather(*(log.open(run) for run in runs))
            assert len({holder.run_id for holder in holders}) == 1
            begun = [run for run in runs if await log.find(run.run_id)]
        assert begun == [holders[0]]
