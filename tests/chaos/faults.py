"""What breaks: one kind after the other from a shuffled deck, so that none is left out for long."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.chaos.deployment import Deployment, Worker
from tests.chaos.plan import Plan

logger = logging.getLogger(__name__)

KILL = "SIGKILL a worker"
HALT = "SIGSTOP a worker"
TERMINATE = "SIGTERM a worker"
KEEP = "restart Redis, data kept"
EMPTY = "restart Redis, data lost"
DEAFEN = "CLIENT KILL TYPE pubsub"
SILENCE = "drop Redis packets of all"
SILENCE_ONE = "drop Redis packets of one"
DATABASE = "restart PostgreSQL"
RELOAD = "reload nginx"

# While one of these lasts, and one lease longer, nobody may call another one dead.
REDIS = (KEEP, EMPTY, SILENCE, SILENCE_ONE)
# Only one of a group at a time.
_GROUPS = {**dict.fromkeys((*REDIS, DEAFEN), "Redis"), DATABASE: "PostgreSQL"}
# What has no bound stays as it is.
NOT_YET = float("inf")


@dataclass(slots=True)
class Fault:
    """Times are Unix seconds. ``ended``: everything is as it was before."""

    kind: str
    began: float
    ended: float = NOT_YET


class Faults:
    def __init__(self, place: Deployment, plan: Plan) -> None:
        self.past: list[Fault] = []
        self._place = place
        self._plan = plan
        self._order = random.Random(f"faults {plan.seed}")
        self._chance = random.Random(f"victims {plan.seed}")
        self._broken: set[str] = set()
        self._deck: list[str] = []
        self._acts: dict[str, Callable[[], Awaitable[bool]]] = {
            KILL: self._kill,
            HALT: self._halt,
            TERMINATE: self._terminate,
            KEEP: lambda: self._restart_redis(KEEP),
            EMPTY: lambda: self._restart_redis(EMPTY),
            DEAFEN: self._deafen,
            SILENCE: lambda: self._drop(SILENCE, list(self._place.workers)),
            SILENCE_ONE: self._drop_one,
            DATABASE: self._restart_database,
            RELOAD: self._reload,
        }

    async def run(self, seconds: float) -> None:
        """Returns when everything runs again."""
        ends = time.monotonic() + seconds
        async with asyncio.TaskGroup() as tasks:
            while time.monotonic() + self._plan.every_s / 2 < ends:
                tasks.create_task(self._strike())
                await asyncio.sleep(self._plan.every_s)

    async def _strike(self) -> None:
        """The next of the deck that is possible just now."""
        if not self._deck:
            self._deck = sorted(self._acts)
            self._order.shuffle(self._deck)
        for kind in self._deck[::-1]:
            if _GROUPS.get(kind) in self._broken:
                continue
            self._deck.remove(kind)
            if await self._acts[kind]():
                return
            self._deck.insert(0, kind)

    # Each says whether it was possible.

    async def _kill(self) -> bool:
        worker = self._victim()
        if worker is None:
            return False
        with self._happening(KILL):
            await asyncio.to_thread(worker.kill)
            await asyncio.to_thread(worker.start)
        return True

    async def _halt(self) -> bool:
        worker = self._victim()
        if worker is None:
            return False
        with self._happening(HALT):
            worker.halt()
            try:
                await asyncio.sleep(self._plan.asleep_s)
            finally:
                worker.go_on()
        return True

    async def _terminate(self) -> bool:
        worker = self._victim()
        if worker is None:
            return False
        with self._happening(TERMINATE):
            await asyncio.to_thread(worker.terminate)
            await asyncio.to_thread(worker.start)
        return True

    async def _restart_redis(self, kind: str) -> bool:
        with self._happening(kind):
            await asyncio.to_thread(self._place.redis.stop, keep=kind == KEEP)
            await asyncio.sleep(self._chance.uniform(0, self._plan.silent_s / 2))
            await asyncio.to_thread(self._place.redis.start)
        return True

    async def _deafen(self) -> bool:
        with self._happening(DEAFEN):
            await asyncio.to_thread(self._kill_pubsub)
        return True

    def _kill_pubsub(self) -> None:
        with self._place.redis.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")

    async def _drop_one(self) -> bool:
        return await self._drop(SILENCE_ONE, [self._chance.choice(self._place.workers)])

    async def _drop(self, kind: str, workers: list[Worker]) -> bool:
        with self._happening(kind):
            for worker in workers:
                worker.proxy.hold()
            try:
                await asyncio.sleep(self._plan.silent_s)
            finally:
                for worker in workers:
                    worker.proxy.resume()
        return True

    async def _restart_database(self) -> bool:
        with self._happening(DATABASE):
            await asyncio.to_thread(self._place.postgres.stop)
            await asyncio.sleep(self._chance.uniform(0, self._plan.silent_s / 2))
            await asyncio.to_thread(self._place.postgres.start)
        return True

    async def _reload(self) -> bool:
        with self._happening(RELOAD):
            await asyncio.to_thread(self._place.nginx.reload)
        return True

    @contextmanager
    def _happening(self, kind: str) -> Iterator[None]:
        logger.info(kind)
        fault = Fault(kind, time.time())
        self.past.append(fault)
        group = _GROUPS.get(kind, kind)
        self._broken.add(group)
        try:
            yield
        finally:
            fault.ended = time.time()
            self._broken.discard(group)

    def _victim(self) -> Worker | None:
        """One that is well, and is not the last."""
        well = [worker for worker in self._place.workers if worker.is_well]
        if len(well) < 2:
            return None
        worker = self._chance.choice(well)
        worker.is_well = False
        return worker
