"""One run at a time in a conversation: who waits, who is refused, who interrupts."""

import asyncio

import pytest

from app.conversations import journal
from app.errors import ConversationBusy, Draining, NotFound, Overloaded
from app.events.log import EventLog
from app.events.memory import MemoryEventLog
from app.events.model import Done, RunRecord, Token
from app.llm.turn import Turn
from app.runs import supervisor
from tests.runs.fakes import NEVER_S, OWNER, FarLog, World, hangs, released, says

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["near", "far"])
def log(request: pytest.FixtureRequest) -> EventLog:
    if request.param == "near":
        return MemoryEventLog(memory_bytes=2**30, retention_s=900)
    return FarLog()


async def test_a_second_run_in_a_conversation_is_refused_until_the_first_has_ended(
    log: EventLog,
) -> None:
    async with World(hangs("part"), log=log) as world:
        first = await world.start()
        with pytest.raises(ConversationBusy):
            await world.start(conversation_id=first.conversation_id)
        await world.start()  # in one of its own
        await world.cancel(first)
        second = await world.start(conversation_id=first.conversation_id)
        assert second.conversation_id == first.conversation_id
        await world.supervisor.drain(0)


async def test_somebody_elses_conversation_is_not_busy_but_not_there() -> None:
    async with World(hangs()) as world:
        first = await world.start()
        await world.model.began.wait()
        for if_busy in ("reject", "interrupt"):
            with pytest.raises(NotFound):
                await world.start(
                    conversation_id=first.conversation_id, owner="other", if_busy=if_busy
                )
        assert await world.cancel(first) == "cancelled"


async def test_a_run_that_is_being_stopped_is_waited_for(log: EventLog) -> None:
    async with World(hangs("part"), log=log) as world:
        first = await world.start(grace_s=0)
        await world.until(first, Token)
        with world.supervisor.reading(first.run_id):
            pass
        world.model.script = says("next")
        second = await world.start(conversation_id=first.conversation_id)
        assert await world.told(first) == ["part", "cancelled"]
        assert await world.told(second) == ["next", "final stop", "completed"]


async def test_who_asks_as_soon_as_done_is_told_is_never_refused(log: EventLog) -> None:
    async with World(says("one"), log=log) as world:
        run = await world.start()
        for _ in range(20):
            await world.until(run, Done)
            run = await world.start(conversation_id=run.conversation_id)
        await world.until(run, Done)
        told = world.archive.told(run.conversation_id)
    assert [status for _, _, status in told[:-1]] == ["completed"] * 41


async def test_who_asks_while_the_answer_is_stored_waits(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "ANSWER_WAIT_S", NEVER_S)
    gate = asyncio.Event()
    async with World(released(gate, "one"), log=log) as world:
        first = await world.start()
        await world.until(first, Token)
        world.archive.gate.clear()
        gate.set()
        while not world.journal._waiting:  # noqa: ASYNC110  the answer is handed over untold
            await asyncio.sleep(0)
        second = asyncio.ensure_future(world.start(conversation_id=first.conversation_id))
        await asyncio.wait({second}, timeout=0.05)
        assert not second.done()
        world.archive.gate.set()
        assert await world.told(await second) == ["one", "final stop", "completed"]


async def test_an_interruption_stores_the_part_before_it_asks(log: EventLog) -> None:
    async with World(hangs("part"), log=log) as world:
        first = await world.start(text="one")
        await world.until(first, Token)
        world.model.script = says("whole")
        second = await world.start(
            text="two", conversation_id=first.conversation_id, if_busy="interrupt"
        )
        assert await world.told(first) == ["part", "cancelled"]
        assert await world.told(second) == ["whole", "final stop", "completed"]
        seen = [(message.text, message.status) for message in world.model.prompts[-1].messages]
    assert seen == [("one", "completed"), ("part", "cancelled"), ("two", "completed")]


async def test_of_many_interruptions_each_ends_the_one_before(log: EventLog) -> None:
    async with World(hangs(), log=log) as world:
        first = await world.start(text="0")
        runs = await asyncio.gather(
            *(
                world.start(text=str(k), conversation_id=first.conversation_id, if_busy="interrupt")
                for k in range(1, 6)
            )
        )
        ended = [run for run in (first, *runs) if run.run_id not in world.supervisor._runs]
        assert [await world.told(run) for run in ended] == [["cancelled"]] * 5
        await world.supervisor.drain(0)
        await world.journal.settled(first.conversation_id)
        asked = [
            text for role, text, _ in world.archive.told(first.conversation_id) if role == "user"
        ]
    assert sorted(asked) == [str(k) for k in range(6)]


async def test_who_cannot_be_interrupted_in_time_keeps_the_conversation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "CANCEL_WAIT_S", 0.01)
    gate = asyncio.Event()

    async def deaf(_: Turn) -> str:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue
        return "stop"

    async with World(deaf) as world:
        first = await world.start()
        await world.model.began.wait()
        with pytest.raises(ConversationBusy):
            await world.start(conversation_id=first.conversation_id, if_busy="interrupt")
        with pytest.raises(ConversationBusy):
            await world.supervisor.silence(first.conversation_id, OWNER)
        gate.set()


async def test_who_waited_for_an_end_and_meets_a_shutdown_is_refused(log: EventLog) -> None:
    async with World(hangs(), log=log) as world:
        first = await world.start()
        await world.model.began.wait()
        waiting = asyncio.ensure_future(
            world.start(conversation_id=first.conversation_id, if_busy="interrupt")
        )
        await world.supervisor.drain(0)
        with pytest.raises(Draining):
            await waiting
    assert world.model.asked == 1


@pytest.mark.parametrize("if_busy", ["reject", "interrupt"])
async def test_the_same_key_at_the_same_time_joins_one_run(log: EventLog, if_busy: str) -> None:
    async with World(says("once"), log=log) as world:
        id_ = (await begun(world)).conversation_id
        runs = await asyncio.gather(
            *(world.start("k", conversation_id=id_, if_busy=if_busy) for _ in range(5))
        )
        assert len({run.run_id for run in runs}) == 1
        await world.told(runs[0])
        assert world.model.asked == 2


async def test_the_same_key_at_the_same_time_fails_for_all_where_the_first_one_does(
    log: EventLog,
) -> None:
    async with World(says("never"), log=log) as world:
        found = await asyncio.gather(
            *(world.start("k", conversation_id="unknown") for _ in range(3)),
            return_exceptions=True,
        )
        assert [type(error) for error in found] == [NotFound] * 3


async def test_a_refused_run_leaves_its_conversation_free(log: EventLog) -> None:
    async with World(says("fine"), log=log) as world:
        id_ = (await begun(world)).conversation_id
        with pytest.raises(NotFound):
            await world.start(conversation_id=id_, parent_message_id="unknown")
        world.archive.is_away = True
        with pytest.raises(Overloaded):
            await world.start(conversation_id=id_)
        world.archive.is_away = False
        run = await world.start(conversation_id=id_)
        assert await world.told(run) == ["fine", "final stop", "completed"]


async def test_silence_ends_what_runs_and_nothing_else(log: EventLog) -> None:
    async with World(hangs("part"), log=log) as world:
        first, other = await world.start(), await world.start()
        await world.until(first, Token)
        await world.supervisor.silence(first.conversation_id, "somebody else")
        await world.supervisor.silence("unknown", OWNER)
        assert (await world.supervisor.find(first.run_id, OWNER)).status == "running"
        await world.supervisor.silence(first.conversation_id, OWNER)
        assert await world.told(first) == ["part", "cancelled"]
        assert (await world.supervisor.find(other.run_id, OWNER)).status == "running"
        await world.cancel(other)


async def begun(world: World) -> RunRecord:
    """A conversation in which a run has ended."""
    run = await world.start()
    await world.told(run)
    await world.cancel(run)
    return run
