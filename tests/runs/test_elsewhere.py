"""Runs of another worker: cancelled, interrupted and silenced from here."""

import asyncio

import pytest

from app.errors import ConversationBusy, Draining, StoreAway
from app.events.log import EventLog
from app.events.memory import MemoryEventLog
from app.events.model import RunRecord, Token
from app.llm.turn import Turn
from app.runs import elsewhere, supervisor
from app.runs.neighbours import Talker
from tests.runs.fakes import OWNER, FarLog, Script, World, hangs, released, says
from tests.runs.workers import Workers, two_workers

pytestmark = pytest.mark.anyio


def deaf_until(gate: asyncio.Event) -> Script:
    async def deaf(_: Turn) -> str:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue
        return "stop"

    return deaf


# -- cancel -------------------------------------------------------------------------------------


async def test_a_cancel_reaches_the_worker_that_makes_the_run_and_waits_for_its_end() -> None:
    async with two_workers(hangs("part")) as workers:
        run = await workers.a.start()
        await workers.a.until(run, Token)
        stopped = await workers.b.supervisor.cancel(run.run_id, OWNER)
        assert stopped.status == "cancelled"
        assert workers.a.model.open == 0, "the answer comes when the upstream call has ended"
        assert await workers.b.told(run) == ["part", "cancelled"]


async def test_a_cancel_that_gets_lost_is_said_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elsewhere, "STOP_AGAIN_S", 0.02)
    async with two_workers(hangs("part")) as workers:
        workers.hub.deaf_to = 3
        run = await workers.a.start()
        stopped = await workers.b.supervisor.cancel(run.run_id, OWNER)
        assert stopped.status == "cancelled"
        assert workers.hub.stops >= 4
        assert stopped.stopped_after_ms >= 50


async def test_a_cancel_is_not_repeated_at_each_token() -> None:
    async with two_workers(says(*"abcdefgh")) as workers:
        workers.hub.deaf_to = 100
        run = await workers.a.start()
        stopped = await workers.b.supervisor.cancel(run.run_id, OWNER)
        assert (stopped.status, workers.hub.stops) == ("completed", 1)


async def test_a_run_that_does_not_end_in_time_is_still_running(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "CANCEL_WAIT_S", 0.02)
    gate = asyncio.Event()
    async with two_workers(deaf_until(gate)) as workers:
        run = await workers.a.start()
        await workers.a.model.began.wait()
        stopped = await workers.b.supervisor.cancel(run.run_id, OWNER)
        assert stopped.status == "running"
        assert stopped.stopped_after_ms >= 20
        gate.set()


async def test_a_cancel_tells_how_a_run_ended_that_has_ended() -> None:
    async with two_workers(says("all")) as workers:
        run = await workers.a.start()
        await workers.a.told(run)
        stopped = await workers.b.supervisor.cancel(run.run_id, OWNER)
        assert (stopped.status, stopped.stopped_after_ms) == ("completed", 0)
        assert workers.hub.stops == 0


# -- conversations ------------------------------------------------------------------------------


async def test_a_conversation_is_busy_on_every_worker() -> None:
    async with two_workers(hangs("part")) as workers:
        run = await workers.a.start()
        for _ in range(2):
            with pytest.raises(ConversationBusy):
                await workers.b.start(conversation_id=run.conversation_id)
        assert workers.b.supervisor._runs == {}
        await workers.a.cancel(run)
        again = await workers.b.start(conversation_id=run.conversation_id)
        with pytest.raises(ConversationBusy):
            await workers.a.start(conversation_id=run.conversation_id)
        await workers.a.cancel(again)


async def test_an_interruption_from_elsewhere_stores_the_part_before_it_asks() -> None:
    async with two_workers(hangs("part")) as workers:
        first = await workers.a.start(text="one")
        await workers.a.until(first, Token)
        workers.b.model.script = says("whole")
        second = await workers.b.start(
            text="two", conversation_id=first.conversation_id, if_busy="interrupt"
        )
        assert await workers.b.told(first) == ["part", "cancelled"]
        assert await workers.a.told(second) == ["whole", "final stop", "completed"]
        seen = [(each.text, each.status) for each in workers.b.model.prompts[-1].messages]
    assert seen == [("one", "completed"), ("part", "cancelled"), ("two", "completed")]


async def test_who_asks_elsewhere_as_soon_as_done_is_told_is_never_refused() -> None:
    async with two_workers(says("one")) as workers:
        run = await workers.a.start()
        for world in [workers.b, workers.a] * 10:
            await world.told(run)
            run = await world.start(conversation_id=run.conversation_id)
        await workers.a.told(run)


async def test_silence_ends_what_another_worker_says() -> None:
    async with two_workers(hangs("part")) as workers:
        run = await workers.a.start()
        await workers.a.until(run, Token)
        await workers.b.supervisor.silence(run.conversation_id, "somebody else")
        await workers.b.supervisor.silence("unknown", OWNER)
        assert (await workers.b.supervisor.find(run.run_id, OWNER)).status == "running"
        await workers.b.supervisor.silence(run.conversation_id, OWNER)
        assert await workers.b.told(run) == ["part", "cancelled"]


async def test_silence_that_nobody_hears_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "CANCEL_WAIT_S", 0.02)
    async with two_workers(hangs("part")) as workers:
        workers.hub.deaf_to = 100
        run = await workers.a.start()
        with pytest.raises(ConversationBusy):
            await workers.b.supervisor.silence(run.conversation_id, OWNER)
        with pytest.raises(ConversationBusy):
            await workers.b.start(conversation_id=run.conversation_id, if_busy="interrupt")
        await workers.a.cancel(run)


async def begun(workers: Workers) -> tuple[str, str]:
    """Where a conversation is in which a run has ended."""
    run = await workers.a.start()
    await workers.a.told(run)
    await workers.a.cancel(run)
    return OWNER, run.conversation_id


async def test_a_claim_of_a_run_that_is_long_gone_is_taken_over() -> None:
    async with two_workers(says("all")) as workers:
        place = await begun(workers)
        workers.hub.talking[place] = Talker("gone", elsewhere.BEGINNING_S + 1)
        run = await workers.b.start(conversation_id=place[1])
        assert await workers.b.told(run) == ["all", "final stop", "completed"]


async def test_a_run_that_is_just_being_begun_is_not_overlooked() -> None:
    async with two_workers(says("all")) as workers:
        place = await begun(workers)
        workers.hub.talking[place] = Talker("not opened yet", 0.5)
        with pytest.raises(ConversationBusy):
            await workers.b.start(conversation_id=place[1])
        starting = asyncio.ensure_future(
            workers.b.start(conversation_id=place[1], if_busy="interrupt")
        )
        await asyncio.wait({starting}, timeout=0.02)
        assert not starting.done()
        del workers.hub.talking[place]
        assert await workers.a.told(await starting) == ["all", "final stop", "completed"]


async def test_who_waits_for_a_conversation_and_meets_a_shutdown_is_refused() -> None:
    async with two_workers(says("all")) as workers:
        place = await begun(workers)
        workers.hub.talking[place] = Talker("not opened yet", 0.5)
        starting = asyncio.ensure_future(
            workers.b.start(conversation_id=place[1], if_busy="interrupt")
        )
        await asyncio.wait({starting}, timeout=0.02)
        await workers.b.supervisor.drain(0)
        with pytest.raises(Draining):
            await starting
        del workers.hub.talking[place]


@pytest.mark.parametrize("if_busy", ["reject", "interrupt"])
async def test_the_same_key_on_both_workers_joins_one_run(if_busy: str) -> None:
    gate = asyncio.Event()
    async with two_workers(says("first")) as workers:
        _, id_ = await begun(workers)
        workers.a.model.script = workers.b.model.script = released(gate, "once")
        runs: list[RunRecord] = await asyncio.gather(
            *(
                world.start("k", conversation_id=id_, if_busy=if_busy)
                for world in [workers.a, workers.b] * 3
            )
        )
        assert len({run.run_id for run in runs}) == 1
        gate.set()
        await workers.b.told(runs[0])
        assert workers.a.model.asked + workers.b.model.asked == 2


# -- a store that is away -----------------------------------------------------------------------


class AwayLog(FarLog):
    """``away``: what it cannot do now."""

    away = ""

    async def holder(self, owner: str, idempotency_key: str) -> RunRecord | None:
        if self.away == "holder":
            raise StoreAway
        return await super().holder(owner, idempotency_key)

    async def open(self, record: RunRecord) -> RunRecord:
        holder = await super().open(record)
        if self.away == "open":
            raise StoreAway
        return holder


@pytest.mark.parametrize("what", ["holder", "open"])
async def test_a_start_that_meets_a_store_that_is_away_leaves_nothing_behind(what: str) -> None:
    log = AwayLog()
    async with two_workers(says("all"), log) as workers:
        _, id_ = await begun(workers)
        log.away = what
        with pytest.raises(StoreAway):
            await workers.b.start("k", conversation_id=id_)
        assert workers.b.supervisor._runs == {}
        assert workers.hub.talking == {}
        log.away = ""
        run = await workers.b.start("other", conversation_id=id_)
        assert await workers.b.told(run) == ["all", "final stop", "completed"]


@pytest.mark.parametrize("log", [FarLog(), None], ids=["far", "near"])
async def test_a_worker_that_is_alone_asks_nobody(log: EventLog | None) -> None:
    near = log or MemoryEventLog(memory_bytes=2**20, retention_s=900)
    gate = asyncio.Event()
    async with World(released(gate, "all"), log=near) as world:
        run = await world.start()
        await world.supervisor.silence("unknown", OWNER)
        with pytest.raises(ConversationBusy):
            await world.start(conversation_id=run.conversation_id)
        gate.set()
        assert await world.told(run) == ["all", "final stop", "completed"]
