"""``python -m tests.access.random_slots --rounds 10000``: runs start and end in any way, at random.
After them nobody holds a slot, and at no moment did a caller have too many.

On Redis over several workers that crash, which say nothing to Redis any more: their slots lapse.
"""

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from contextlib import suppress
from typing import Protocol

from app.access.model import Limits
from app.access.quotas import MemoryQuotas, Quotas
from app.errors import RateLimited
from tests.access.quota_workers import Worker
from tests.events.linked import own
from tests.redis_server import running_redis

CALLERS = {f"caller {number}": Limits(max_runs=number) for number in range(1, 20, 3)}
_WEIGHTS = [limits.max_runs or 0 for limits in CALLERS.values()]
AT_ONCE = 120  # more than all callers may have
LONGEST_S = 0.05  # of a run, and of the pause after a refusal
WORKERS = 4
CRASHES = 0.01  # of all runs, each of which takes its worker with it
LEASE_S, RENEW_S = 2.0, 0.2  # a machine that is busy must not lose a lease
EMPTY_S = 30.0  # until nobody may hold a slot any more


class Place:
    """A process that runs runs. ``is_dead``: what was to happen in it will not."""

    def __init__(self, quotas: Quotas) -> None:
        self.quotas = quotas
        self.is_dead = False
        self.tasks = set[asyncio.Task[None]]()


class Team(Protocol):
    """The processes that share quotas."""

    @property
    def places(self) -> list[Place]: ...

    async def start(self) -> None: ...

    async def crash(self, place: Place) -> None:
        """Another one takes its place."""

    async def stop(self) -> None: ...


class Alone:
    def __init__(self) -> None:
        self.places = [Place(MemoryQuotas())]

    async def start(self) -> None:
        pass

    async def crash(self, place: Place) -> None:
        raise NotImplementedError("nobody would be left to look")

    async def stop(self) -> None:
        pass


class Several:
    """``address``: of Redis."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._workers = [self._worker() for _ in range(WORKERS)]
        self.places = [Place(worker.quotas) for worker in self._workers]

    async def start(self) -> None:
        for worker in self._workers:
            await worker.start()

    async def crash(self, place: Place) -> None:
        at = self.places.index(place)
        await self._workers[at].crash()
        self._workers[at] = self._worker()
        await self._workers[at].start()
        self.places[at] = Place(self._workers[at].quotas)

    async def stop(self) -> None:
        for worker in self._workers:
            await worker.stop()

    def _worker(self) -> Worker:
        return Worker(self._address, lease_s=LEASE_S, renew_s=RENEW_S)


class Game:
    """``running``: who truly runs what just now."""

    def __init__(self, team: Team) -> None:
        self._team = team
        self._room = asyncio.Semaphore(AT_ONCE)
        self.running: dict[str, set[str]] = {owner: set() for owner in CALLERS}
        self.tally = Counter[str]()
        self.crashes: list[asyncio.Future[None]] = []

    async def round(self, number: int) -> None:
        """One run, which is sometimes cancelled while it waits for a slot or as it gets it."""
        async with self._room:
            ((owner, limits),) = random.choices(list(CALLERS.items()), _WEIGHTS)
            place = random.choice([each for each in self._team.places if not each.is_dead])
            run = asyncio.ensure_future(self._run(place, owner, f"run {number}", limits))
            place.tasks.add(run)
            if random.random() < 0.2:
                await asyncio.sleep(random.random() * LONGEST_S)
                run.cancel()
            await asyncio.wait({run})
            place.tasks.discard(run)
            if run.cancelled():
                self.tally["killed" if place.is_dead else "cancelled"] += 1
            else:
                run.result()

    async def _run(self, place: Place, owner: str, run_id: str, limits: Limits) -> None:
        while not await _begins(place.quotas, owner, run_id, limits):
            self.tally["refused"] += 1
            await asyncio.sleep(random.random() * LONGEST_S)
        mine = self.running[owner]
        mine.add(run_id)
        assert len(mine) <= (limits.max_runs or 0), f"{owner} runs {len(mine)}"
        try:
            self.tally[await self._life(place)] += 1
        finally:
            mine.discard(run_id)
            if not place.is_dead:
                for _ in range(random.randint(1, 2)):
                    place.quotas.end(owner, run_id)

    async def _life(self, place: Place) -> str:
        """How it ended."""
        length_s = random.random() * LONGEST_S
        if random.random() < CRASHES and self._crash(place):
            return "crashed"
        with suppress(TimeoutError):
            async with asyncio.timeout(random.choice((length_s / 2, None, None))):
                await asyncio.sleep(length_s)
            return random.choice(("completed", "failed"))
        return "timed out"

    def _crash(self, place: Place) -> bool:
        """Whatever runs there stops at once, and does not get to its end. False: there is nobody
        who could tell."""
        others = sum(not each.is_dead for each in self._team.places) - 1
        if not others or place.is_dead:
            return False
        place.is_dead = True
        for task in place.tasks - {asyncio.current_task()}:
            task.cancel()
        self.crashes.append(asyncio.ensure_future(self._team.crash(place)))
        return True


async def play(team: Team, rounds: int) -> Counter[str]:
    """How many ended how. Raises ``AssertionError`` where a caller had too many, or a slot is
    left."""
    game = Game(team)
    await team.start()
    try:
        await asyncio.gather(*(game.round(number) for number in range(rounds)))
        await asyncio.gather(*game.crashes)
        for owner, limits in CALLERS.items():
            await _empty(team, owner)
            await _whole(team, owner, limits)
    finally:
        await team.stop()
    return game.tally


async def _empty(team: Team, owner: str) -> None:
    gauge = -1
    with suppress(TimeoutError):
        async with asyncio.timeout(EMPTY_S):
            while gauge := await team.places[0].quotas.running(owner):  # noqa: ASYNC110  # Redis tells nobody
                await asyncio.sleep(0.005)
    assert gauge == 0, f"{owner} still has {gauge} slots"


async def _whole(team: Team, owner: str, limits: Limits) -> None:
    """It can have all that it may have again, and no more."""
    quotas, most = team.places[0].quotas, limits.max_runs or 0
    begun = 0
    async with asyncio.timeout(EMPTY_S):
        while begun < most:  # a new worker does not drop a lease at once
            begun += await _begins(quotas, owner, f"last {begun}", limits)
    assert not await _begins(quotas, owner, "one too many", limits)
    for number in range(most):
        quotas.end(owner, f"last {number}")
    await _empty(team, owner)


async def _begins(quotas: Quotas, owner: str, run_id: str, limits: Limits) -> bool:
    try:
        await quotas.begin(owner, run_id, limits)
    except RateLimited:
        return False
    return True


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=10_000)
    rounds: int = options.parse_args().rounds
    with running_redis() as server:
        teams: list[Team] = [Alone(), Several(own(server.url))]
        for team in teams:
            began = time.monotonic()
            tally = asyncio.run(play(team, rounds))
            took_s = time.monotonic() - began
            sys.stdout.write(f"{type(team).__name__}: {dict(tally)} in {took_s:.1f} s\n")


if __name__ == "__main__":
    main()
