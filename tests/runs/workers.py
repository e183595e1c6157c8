"""Two supervisors as two workers have them: one log, one archive, and neighbours that await."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from app.access.quotas import MemoryQuotas, Quotas
from app.events.log import EventLog
from app.runs.neighbours import Household, Neighbours, Talker, Talks
from tests.runs.archive import MemoryArchive
from tests.runs.fakes import FarLog, Script, World


class Hub:
    """What workers know of each other. ``deaf_to``: so many requests to stop get lost."""

    def __init__(self) -> None:
        self.households: list[Household] = []
        self.readers: defaultdict[str, int] = defaultdict(int)
        self.talking: dict[tuple[str, str], Talker] = {}
        self.deaf_to = 0
        self.stops = 0

    def writer_of(self, run_id: str) -> Household | None:
        return next((each for each in self.households if run_id in each.running()), None)


class HubTalks:
    def __init__(self, hub: Hub) -> None:
        self._talking = hub.talking

    async def talker(self, owner: str, conversation_id: str) -> Talker | None:
        await asyncio.sleep(0)
        return self._talking.get((owner, conversation_id))

    async def claim(
        self, owner: str, conversation_id: str, run_id: str, instead_of: str | None
    ) -> Talker | None:
        await asyncio.sleep(0)
        held = self._talking.get((owner, conversation_id))
        if held is not None and held.run_id != instead_of:
            return held
        self._talking[owner, conversation_id] = Talker(run_id, 0.0)
        await asyncio.sleep(0)
        return None

    def release(self, owner: str, conversation_id: str, run_id: str) -> None:
        held = self._talking.get((owner, conversation_id))
        if held is not None and held.run_id == run_id:
            del self._talking[owner, conversation_id]


class HubNeighbours:
    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.talks: Talks = HubTalks(hub)

    def listen(self, household: Household) -> None:
        self._household = household
        self._hub.households.append(household)

    async def stop(self, run_id: str) -> bool:
        await asyncio.sleep(0)
        writer = self._hub.writer_of(run_id)
        if writer is None or writer is self._household:
            return False
        self._hub.stops += 1
        if self._hub.stops > self._hub.deaf_to:
            writer.asked_to_stop(run_id)
        return True

    def reads(self, run_id: str, yes: bool) -> None:
        self._hub.readers[run_id] += 1 if yes else -1
        if writer := self._hub.writer_of(run_id):
            self._soon(self._tell, writer, run_id)

    async def announce(self, run_id: str) -> None:
        await asyncio.sleep(0)
        if writer := self._hub.writer_of(run_id):
            writer.read_elsewhere(run_id, are_there=True)

    def look(self, run_id: str) -> bool:
        self._soon(self._tell, self._household, run_id)
        return True

    def _soon(self, call: Callable[[Household, str], None], writer: Household, run: str) -> None:
        asyncio.get_running_loop().call_soon(call, writer, run)

    def _tell(self, writer: Household, run_id: str) -> None:
        known = run_id in self._hub.readers
        writer.read_elsewhere(run_id, self._hub.readers[run_id] > 0 if known else None)


_: type[Neighbours] = HubNeighbours


class Workers:
    """``a`` makes the runs that ``b`` has to do with."""

    def __init__(self, hub: Hub, a: World, b: World) -> None:
        self.hub, self.a, self.b = hub, a, b


@asynccontextmanager
async def two_workers(
    script: Script, log: EventLog | None = None, quotas: Quotas | None = None, **more: Any
) -> AsyncIterator[Workers]:
    hub = Hub()
    shared: dict[str, Any] = {
        "log": log or FarLog(),
        "archive": MemoryArchive(),
        "quotas": quotas or MemoryQuotas(),
        **more,
    }
    async with (
        World(script, neighbours=HubNeighbours(hub), **shared) as a,
        World(script, neighbours=HubNeighbours(hub), **shared) as b,
    ):
        yield Workers(hub, a, b)
        await a.supervisor._idle.wait()  # b looks for leaks first
    assert hub.talking == {}, "a claim outlives its run"


async def eventually(condition: Callable[[], bool], bound_s: float = 5.0) -> None:
    until = time.monotonic() + bound_s
    while not condition():
        assert time.monotonic() < until, "it never came true"
        await asyncio.sleep(0.001)  # a poll, bounded above
