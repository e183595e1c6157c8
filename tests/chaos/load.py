"""So many people at once: each asks, reads to the end, and asks again."""

import asyncio
import random
import resource
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp

from tests.chaos.checks import disagreement, wrong_with
from tests.chaos.plan import Plan
from tests.chaos.questions import Question, Questions
from tests.chaos.reader import Reader
from tests.chaos.records import Record, Violation

GO_ON = 0.25  # of the questions go on with the conversation before
FILES = 8192  # connections and more


@dataclass(slots=True)
class Asked:
    """What is kept of one reader. Times are Unix seconds. ``done_at``: None without an ending.
    ``head_at``: of its last stream."""

    question: Question
    run_id: str
    conversation_id: str | None
    status: str | None
    code: str | None
    text: str
    began_at: float
    head_at: float
    done_at: float | None
    over_at: float
    gone_at: float | None
    has_left: bool
    lost_conversation: bool


@dataclass(slots=True)
class Load:
    """``violations`` and the counters grow as people read."""

    url: str
    plan: Plan
    asked: list[Asked] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    reading: set[Record] = field(default_factory=set)
    is_stopping: bool = False

    async def run(self) -> None:
        """Until ``is_stopping`` and everybody has read to the end."""
        questions = Questions(self.plan.seed, self.plan.longest_s)
        async with session(self.url) as http, asyncio.TaskGroup() as tasks:
            for number in range(self.plan.streams):
                tasks.create_task(self._stream(http, questions, number))

    async def _stream(self, http: aiohttp.ClientSession, questions: Questions, number: int) -> None:
        chance = random.Random(f"reader {number} {self.plan.seed}")
        await asyncio.sleep(chance.uniform(0, 2))  # not all at once, which is another test's matter
        conversation_id: str | None = None
        while not self.is_stopping:
            if chance.random() >= GO_ON:
                conversation_id = None
            record = await self._ask(http, questions.next(), conversation_id, chance)
            conversation_id = record.conversation_id if record.status else None

    async def _ask(
        self,
        http: aiohttp.ClientSession,
        question: Question,
        conversation_id: str | None,
        chance: random.Random,
    ) -> Record:
        reader = Reader(http, Record(question, conversation_id), chance)
        records = [reader.record]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read(reader))
            if question.readers > 1:
                await reader.is_known.wait()
                if reader.record.run_id:
                    follower = Record(question, reader.record.conversation_id, reader.record.run_id)
                    records.append(follower)
                    tasks.create_task(self._read(Reader(http, follower, chance)))
        self._look_at(records)
        return reader.record

    async def _read(self, reader: Reader) -> None:
        self.reading.add(reader.record)
        try:
            await reader.read()
        finally:
            self.reading.discard(reader.record)

    def _look_at(self, records: Sequence[Record]) -> None:
        wrong = [each for record in records for each in wrong_with(record)]
        wrong += disagreement(records)
        run = f"run {records[0].run_id or '?'} ({records[0].question.text})"
        self.violations += [Violation(f"{run}: {each}", time.time()) for each in wrong]
        for record in records:
            self.asked.append(_kept(record))
            self.counts["events"] += len(record.heard)
            self.counts["resumes"] += record.resumes
            self.counts["cuts"] += record.cuts
            for status, count in record.refused.items():
                self.counts[f"answered {status}"] += count


def session(url: str) -> aiohttp.ClientSession:
    """As many connections as there are requests, each used once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, FILES), hard), hard))
    return aiohttp.ClientSession(
        url,
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        timeout=aiohttp.ClientTimeout(total=None),
        trust_env=False,
    )


def _kept(record: Record) -> Asked:
    return Asked(
        question=record.question,
        run_id=record.run_id,
        conversation_id=record.conversation_id,
        status=record.status,
        code=record.code,
        text=record.text(),
        began_at=record.began_at,
        head_at=record.went_on_at,
        done_at=record.done.at if record.done else None,
        over_at=time.time(),
        gone_at=record.gone_at,
        has_left=record.has_left,
        lost_conversation=record.lost_conversation,
    )
