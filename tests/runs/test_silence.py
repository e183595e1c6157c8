"""Silence in a conversation where another worker's run is only just being begun, or never was."""

import asyncio

import pytest

from app.errors import ConversationBusy
from app.events.model import RunRecord
from app.runs import elsewhere, supervisor
from app.runs.neighbours import Talker
from tests.runs.fakes import BOUND_S, OWNER, FarLog, hangs
from tests.runs.workers import eventually, two_workers

pytestmark = pytest.mark.anyio

PLACE = (OWNER, "c" * 22)


class SlowLog(FarLog):
    """Runs are known once ``gate`` is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def open(self, record: RunRecord) -> RunRecord:
        await self.gate.wait()
        return await super().open(record)


async def test_a_run_that_is_being_begun_is_waited_for_and_stopped() -> None:
    log = SlowLog()
    async with two_workers(hangs("part"), log) as workers:
        starting = asyncio.ensure_future(workers.a.start())
        await eventually(lambda: bool(workers.hub.talking))
        [(owner, id_)] = workers.hub.talking
        silencing = asyncio.ensure_future(workers.b.supervisor.silence(id_, owner))
        await asyncio.wait({silencing}, timeout=3 * elsewhere.LOOK_AGAIN_S)
        assert not silencing.done()
        log.gate.set()
        run = await starting
        await silencing
        told = await workers.b.told(run)
        assert told[-1] == "cancelled"
        assert set(told) <= {"part", "cancelled"}
        assert workers.hub.stops >= 1


async def test_a_run_that_ends_before_it_was_known_is_waited_for_no_longer() -> None:
    async with two_workers(hangs()) as workers:
        workers.hub.talking[PLACE] = Talker("not opened", 0.5)
        silencing = asyncio.ensure_future(workers.b.supervisor.silence(PLACE[1], OWNER))
        await asyncio.wait({silencing}, timeout=0.02)
        assert not silencing.done()
        del workers.hub.talking[PLACE]
        async with asyncio.timeout(BOUND_S):
            await silencing


async def test_a_run_that_is_long_gone_is_not_waited_for() -> None:
    async with two_workers(hangs()) as workers:
        workers.hub.talking[PLACE] = Talker("gone", elsewhere.BEGINNING_S + 1)
        async with asyncio.timeout(supervisor.CANCEL_WAIT_S / 2):
            await workers.b.supervisor.silence(PLACE[1], OWNER)
        assert workers.hub.stops == 0
        del workers.hub.talking[PLACE]


async def test_a_run_that_does_not_begin_in_time_keeps_the_conversation_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "CANCEL_WAIT_S", 0.02)
    async with two_workers(hangs()) as workers:
        workers.hub.talking[PLACE] = Talker("not opened", 0.5)
        with pytest.raises(ConversationBusy):
            await workers.b.supervisor.silence(PLACE[1], OWNER)
        del workers.hub.talking[PLACE]
