"""The queue before the archive; with an archive that is slow, fails and hangs when told to."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from app.conversations import journal as module
from app.conversations.journal import Journal
from app.conversations.model import Message, Write
from app.conversations.store import Archive, Unavailable
from tests.conversations.making import answer, ask, id_of

pytestmark = pytest.mark.anyio
BOUND_S = 20
DOWN = Unavailable("SQLITE_BUSY")


class FakeArchive:
    """``stored``: the batches. ``failures``: raised by the next tries. ``gate``: closed, tries
    wait before they store. ``poison``: writes that fail whenever they are tried."""

    def __init__(self) -> None:
        self.stored: list[list[Write]] = []
        self.failures: list[Exception] = []
        self.poison: list[Write] = []
        self.tried = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def write(self, writes: Sequence[Write]) -> None:
        self.tried.set()
        await asyncio.sleep(0)
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        if any(write in self.poison for write in writes):
            raise TypeError("what people wrote")
        self.stored.append(list(writes))

    async def branch(self, *_: object) -> Sequence[Message] | None:
        return None

    @property
    def writes(self) -> list[Write]:
        return [write for batch in self.stored for write in batch]


_: type[Archive] = FakeArchive


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", (0.001, 0.01))


@asynccontextmanager
async def running(journal: Journal) -> AsyncIterator[asyncio.Task[None]]:
    async with asyncio.timeout(BOUND_S):
        task: asyncio.Task[None] = asyncio.ensure_future(journal.run())
        yield task
        assert task.cancelled() or not task.done()
        task.cancel()
        await asyncio.wait({task})


async def test_a_question_is_stored_when_keep_returns() -> None:
    archive, asked = FakeArchive(), ask()
    journal = Journal(archive)
    async with running(journal):
        await journal.keep(asked)
        assert archive.stored == [[asked]]


async def test_a_question_takes_the_answers_that_wait_along_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LINGER_S", 3600)
    archive, first, second = FakeArchive(), ask(), ask()
    journal = Journal(archive)
    async with running(journal):
        journal.keep_later(answer(first))
        await asyncio.sleep(0)
        await journal.keep(second)
        assert archive.stored == [[answer(first), second]]


async def test_questions_behind_a_burst_of_transactions_share_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LINGER_S", 0.2)
    monkeypatch.setattr(module, "BURST", 2)
    archive, first, second, third, *others = FakeArchive(), *(ask() for _ in range(6))
    journal = Journal(archive)
    async with running(journal), asyncio.TaskGroup() as tasks:
        for question in (first, second, third):
            await journal.keep(question)
        for question in others:
            tasks.create_task(journal.keep(question))
            for _ in range(5):  # each has the time for a transaction of its own
                await asyncio.sleep(0)
    assert archive.stored == [[first], [second], [third], others]


async def test_answers_that_end_together_share_a_transaction() -> None:
    archive = FakeArchive()
    journal, ended = Journal(archive), [answer(ask()) for _ in range(9)]
    async with running(journal):
        async with asyncio.TaskGroup() as tasks:
            for write in ended:
                tasks.create_task(journal.keep_together(write))
                await asyncio.sleep(0)
        assert archive.stored == [ended]


async def test_an_answer_that_nobody_waits_for_any_more_is_stored() -> None:
    archive, asked = FakeArchive(), ask()
    archive.gate.clear()
    journal = Journal(archive)
    async with running(journal):
        waiting = asyncio.ensure_future(journal.keep_together(answer(asked)))
        await archive.tried.wait()
        waiting.cancel()
        archive.gate.set()
        await journal.settled(id_of(asked))
        assert archive.stored == [[answer(asked)]]


async def test_what_comes_during_a_write_is_written_next() -> None:
    archive, asked = FakeArchive(), [ask() for _ in range(5)]
    journal = Journal(archive)
    async with running(journal), asyncio.TaskGroup() as tasks:
        archive.gate.clear()
        for write in asked:
            tasks.create_task(journal.keep(write))
            await asyncio.sleep(0)
        await archive.tried.wait()
        archive.gate.set()
    assert archive.writes == asked
    assert len(archive.stored) < len(asked)


async def test_a_question_waits_no_longer_than_for_the_first_failure() -> None:
    archive, asked = FakeArchive(), ask()
    archive.failures = [DOWN] * 3
    journal = Journal(archive)
    async with running(journal):
        await journal.keep(asked)
        assert archive.stored == []
        assert journal.trouble == "SQLITE_BUSY"
        await journal.settled(id_of(asked))
        assert archive.stored == [[asked]]
        assert journal.trouble is None


async def test_while_there_is_trouble_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUESTION_WAIT_S", 3600)
    monkeypatch.setattr(module, "ANSWER_WAIT_S", 3600)
    archive = FakeArchive()
    archive.failures = [DOWN]
    journal = Journal(archive)
    async with running(journal):
        await journal.keep(ask())
        archive.gate.clear()
        await journal.keep(ask())
        await journal.keep_together(answer(ask()))
        assert journal.trouble


async def test_an_archive_that_hangs_keeps_nobody_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("QUESTION_WAIT_S", "ANSWER_WAIT_S", "SETTLE_WAIT_S"):
        monkeypatch.setattr(module, name, 0.01)
    archive, asked = FakeArchive(), ask()
    archive.gate.clear()
    journal = Journal(archive)
    async with running(journal):
        await journal.keep(asked)
        await journal.keep_together(answer(asked))
        with pytest.raises(Unavailable):
            await journal.settled(id_of(asked))
        archive.gate.set()
        monkeypatch.setattr(module, "SETTLE_WAIT_S", BOUND_S)
        await journal.settled(id_of(asked))
        assert archive.writes == [asked, answer(asked)]


async def test_what_fails_for_a_while_is_stored_in_the_order_in_which_it_came() -> None:
    archive = FakeArchive()
    archive.failures = [DOWN] * 5
    journal, expected = Journal(archive), list[Write]()
    async with running(journal):
        for _ in range(5):
            asked = ask()
            await journal.keep(asked)
            journal.keep_later(answer(asked))
            expected += [asked, answer(asked)]
        await journal.settled(id_of(asked))
        assert archive.writes == expected


async def test_a_write_that_fails_by_itself_is_logged_by_its_ids_and_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    archive, asked = FakeArchive(), [ask("secret") for _ in range(3)]
    archive.poison = [asked[1]]
    journal = Journal(archive)
    for write in asked:
        journal.keep_later(write)
    async with running(journal):
        await journal.settled(id_of(asked[2]))
    assert archive.writes == [asked[0], asked[2]]
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    bad = asked[1].messages
    for id_ in (id_of(asked[1]), bad[0].id, bad[1].id, bad[0].run_id, "TypeError"):
        assert id_ in record.getMessage()
    assert "secret" not in caplog.text
    assert "what people wrote" not in caplog.text


async def test_an_archive_that_goes_away_while_each_is_tried_alone_loses_nothing() -> None:
    archive, asked = FakeArchive(), [ask() for _ in range(3)]
    archive.failures = [TypeError(), DOWN]
    journal = Journal(archive)
    for write in asked:
        journal.keep_later(write)
    async with running(journal):
        await journal.settled(id_of(asked[2]))
    assert archive.writes == asked


async def test_it_is_full_while_more_waits_than_it_may_hold() -> None:
    archive, asked = FakeArchive(), ask("x" * 100_000)
    journal = Journal(archive, max_bytes=100_000)
    seen = [journal.is_full]
    async with running(journal):
        journal.keep_later(asked)
        seen.append(journal.is_full)
        await journal.settled(id_of(asked))
        seen.append(journal.is_full)
    assert seen == [False, True, False]


async def test_a_transaction_has_a_bound_so_that_it_ends_in_time() -> None:
    archive = FakeArchive()
    journal, asked = Journal(archive), [ask("x" * module.MIB) for _ in range(10)]
    for write in asked:
        journal.keep_later(write)
    huge = answer(asked[0], "x" * 2 * module.BATCH_BYTES)
    journal.keep_later(huge)
    async with running(journal):
        await journal.settled(id_of(asked[0]))
    assert archive.writes == [*asked, huge]
    assert [len(batch) for batch in archive.stored] == [3, 3, 3, 1, 1]


async def test_a_write_that_was_cut_off_by_a_cancel_is_written_at_exit() -> None:
    archive, asked = FakeArchive(), ask()
    journal = Journal(archive)
    archive.gate.clear()
    async with running(journal) as task:
        journal.keep_later(asked)
        await archive.tried.wait()
        task.cancel()
        await asyncio.wait({task})
        archive.gate.set()
        await journal.drain(BOUND_S)
    assert archive.stored == [[asked]]


async def test_what_is_left_at_exit_is_logged_by_its_ids(caplog: pytest.LogCaptureFixture) -> None:
    archive, asked = FakeArchive(), [ask("secret"), ask()]
    archive.failures = [DOWN] * 1000
    journal = Journal(archive)
    for write in asked:
        journal.keep_later(write)
    async with asyncio.timeout(BOUND_S):
        await journal.drain(0.02)
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [
        id_of(write) in record.getMessage() for write, record in zip(asked, errors, strict=True)
    ] == [True, True]
    assert "secret" not in caplog.text
