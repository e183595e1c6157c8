"""What a run writes: its beginning, what fits, and one ending."""

import asyncio

import pytest

from app.errors import AnswerTooLarge, Draining, Internal, UpstreamBroken
from app.events.log import EventLog
from app.events.memory import MemoryEventLog
from app.events.model import Done, Error, Event, Final, Reasoning, RunRecord, Start, Token
from app.events.queue import EventQueue
from app.llm.clocks import TurnClocks
from app.llm.reply import Reply
from app.llm.turn import Turn
from app.runs.run import Cancelled, Outcome
from app.runs.transcript import Transcript
from tests.events.making import USAGE, read_to_end, record
from tests.llm.making import prompt

pytestmark = pytest.mark.anyio

BOUND_S = 10


class Written:
    """A transcript that has begun, and what it wrote."""

    def __init__(self, max_bytes: int = 1000) -> None:
        self.log: EventLog = MemoryEventLog(memory_bytes=2**20, retention_s=900)
        self.run: RunRecord = record("k")
        self.transcript = Transcript(self.log, self.run, max_bytes)

    async def begin(self) -> Transcript:
        await self.log.open(self.run)
        await self.transcript.begin(heartbeat_ms=10_000, retry_ms=1500)
        return self.transcript

    async def events(self) -> list[Event]:
        async with asyncio.timeout(BOUND_S):
            return [entry.event for entry in await read_to_end(self.log, self.run.run_id)]


async def end(transcript: Transcript, outcome: Outcome) -> None:
    turn = Turn(prompt(), EventQueue(), TurnClocks(first_token_s=1, stall_s=1))
    turn.used(USAGE)
    reply = Reply(prompt(), EventQueue())
    reply.turns.append(turn)
    await transcript.end(transcript.ending(outcome, reply))


async def test_a_run_begins_with_all_that_a_reader_must_know() -> None:
    written = Written()
    transcript = await written.begin()
    await end(transcript, "stop")
    run = written.run
    assert (await written.events())[0] == Start(
        run.run_id, run.conversation_id, "m", 10_000, "req", 1500
    )


async def test_final_repeats_the_tokens_and_not_the_reasoning() -> None:
    written = Written()
    transcript = await written.begin()
    await transcript.extend([Token("Hel"), Reasoning("hm"), Token("lo")])
    await transcript.extend([Token("!")])
    await end(transcript, "length")
    *said, final, done = (await written.events())[1:]
    assert said == [Token("Hel"), Reasoning("hm"), Token("lo"), Token("!")]
    assert final == Final("Hello!", "length", USAGE, "m")
    assert isinstance(done, Done)
    assert (done.status, done.usage, done.frees_key) == ("completed", USAGE, False)
    assert done.finished_at > 1_700_000_000, "Unix seconds"


@pytest.mark.parametrize(
    ("outcome", "status", "frees_key"),
    [
        (UpstreamBroken(), "failed", True),
        (Draining(), "failed", True),
        (Internal(), "failed", False),
        (Cancelled.BY_REQUEST, "cancelled", False),
        (Cancelled.READERS_LEFT, "cancelled", True),
    ],
)
async def test_every_outcome_has_its_ending_and_says_whether_the_key_is_free(
    outcome: Outcome, status: str, frees_key: bool
) -> None:
    written = Written()
    transcript = await written.begin()
    await transcript.extend([Token("part")])
    await end(transcript, outcome)
    events = await written.events()
    assert events[1] == Token("part")
    done = events[-1]
    assert isinstance(done, Done)
    assert (done.status, done.frees_key) == (status, frees_key)
    errors = [event for event in events if isinstance(event, Error)]
    if isinstance(outcome, Cancelled):
        assert errors == []
    else:
        assert not isinstance(outcome, str)
        assert errors == [Error.because(outcome, "req")]
        assert events[-2] == errors[0]


@pytest.mark.parametrize("outcome", ["stop", Internal(), Cancelled.BY_REQUEST])
async def test_a_second_ending_is_impossible(outcome: Outcome) -> None:
    written = Written()
    transcript = await written.begin()
    await end(transcript, "stop")
    with pytest.raises(RuntimeError, match="impossible"):
        await end(transcript, outcome)
    with pytest.raises(RuntimeError, match="impossible"):
        await transcript.extend([Token("late")])
    assert len(await written.events()) == 3


async def test_bytes_are_counted_as_utf8_in_tokens_and_reasoning_together() -> None:
    written = Written(max_bytes=9)
    transcript = await written.begin()
    await transcript.extend([Token("é" * 2), Reasoning("é" * 2)])  # 8 bytes, 4 characters
    await transcript.extend([Token("x")])
    with pytest.raises(AnswerTooLarge):
        await transcript.extend([Token("y")])


async def test_what_fitted_of_a_batch_is_kept_and_nothing_behind_it() -> None:
    written = Written(max_bytes=4)
    transcript = await written.begin()
    with pytest.raises(AnswerTooLarge):
        await transcript.extend([Token("ab"), Token("cd"), Token("e"), Token("")])
    with pytest.raises(AnswerTooLarge):
        await transcript.extend([Token("")])
    await end(transcript, AnswerTooLarge())
    assert (await written.events())[1:3] == [Token("ab"), Token("cd")]
    assert len(await written.events()) == 5


async def test_a_batch_of_nothing_writes_nothing() -> None:
    written = Written()
    transcript = await written.begin()
    await transcript.extend([])
    await end(transcript, "stop")
    assert len(await written.events()) == 3


async def test_what_is_said_now_is_written_like_the_rest_as_long_as_it_fits() -> None:
    written = Written(max_bytes=6)
    assert not written.transcript.say_now(Token("too early"))
    transcript = await written.begin()
    assert transcript.say_now(Token("äb"))
    await transcript.extend([Token("c")])
    assert transcript.say_now(Reasoning("d"))
    assert not transcript.say_now(Token("ef"))
    assert not transcript.say_now(Final("äbc", "stop", USAGE, "m"))
    with pytest.raises(AnswerTooLarge):
        await transcript.extend([Token("ef")])
    assert not transcript.say_now(Token("x"))
    await end(transcript, AnswerTooLarge())
    assert not transcript.say_now(Token(""))
    said = (await written.events())[1:-2]
    assert said == [Token("äb"), Token("c"), Reasoning("d")]
