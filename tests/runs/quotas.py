"""Quotas behind a network, which also know better: who has a slot, and what was counted."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from app.access.model import Limits
from app.access.quotas import MemoryQuotas, Quotas
from app.access.requests import Standing
from app.errors import RateLimited


class FarQuotas:
    """Every call that may wait does, before and after it takes effect.

    ``held``: runs that have a slot, by caller. ``most``: so many at once. ``counted``: tokens by
    run. ``living``: how many runs of a caller are not over, the one that asks for a slot among
    them.
    """

    def __init__(self, living: Callable[[str], int] | None = None) -> None:
        self.near = MemoryQuotas()
        self.held: defaultdict[str, set[str]] = defaultdict(set)
        self.most = Counter[str]()
        self.counted = Counter[str]()
        self.refused = 0
        self._living = living

    async def begin(self, owner: str, run_id: str, limits: Limits) -> None:
        await asyncio.sleep(0)
        try:
            await self.near.begin(owner, run_id, limits)
        except RateLimited:
            self.refused += 1
            living = self._living(owner) if self._living else len(self.held[owner]) + 1
            assert living > (limits.max_runs or 0), "refused where there is room"
            raise
        self.held[owner].add(run_id)
        self.most[owner] = max(self.most[owner], len(self.held[owner]))
        await asyncio.sleep(0)

    def count(self, owner: str, run_id: str, tokens: int) -> None:
        self.near.count(owner, run_id, tokens)
        self.counted[run_id] += tokens

    def end(self, owner: str, run_id: str) -> None:
        self.near.end(owner, run_id)
        self.held[owner].discard(run_id)

    async def standing(self, owner: str, limits: Limits) -> Sequence[Standing]:
        await asyncio.sleep(0)
        return await self.near.standing(owner, limits)

    async def running(self, owner: str) -> int:
        return await self.near.running(owner)


_: type[Quotas] = FarQuotas


async def passes(number: int) -> None:
    """Of the loop."""
    for _ in range(number):
        await asyncio.sleep(0)
