"""Quotas in memory: the contract, and that what is over is forgotten."""

import pytest

from app.access.quotas import DAY_S, MemoryQuotas, Quotas
from tests.access.quotas_contract import BOTH, Clock, QuotasContract, spend
from tests.access.random_slots import Alone, play

pytestmark = pytest.mark.anyio
ROUNDS = 500


class TestInMemory(QuotasContract):
    @pytest.fixture
    def quotas(self, clock: Clock) -> Quotas:
        return MemoryQuotas(clock)


async def test_callers_with_nothing_running_and_an_old_day_are_forgotten() -> None:
    clock = Clock()
    quotas = MemoryQuotas(clock)
    for number in range(100):
        await spend(quotas, 5, f"{number}")
        await quotas.begin(f"{number}", "a", BOTH)
        quotas.end(f"{number}", "a")
    clock.now += DAY_S
    await quotas.begin("me", "b", BOTH)
    assert _kept(quotas) == {"me", "b"}
    quotas.end("me", "b")
    assert _kept(quotas) == set()


async def test_no_slot_is_left_after_random_starts_cancels_and_timeouts() -> None:
    tally = await play(Alone(), ROUNDS)
    assert tally.keys() >= {"refused", "completed", "cancelled", "timed out", "failed"}


def _kept(quotas: MemoryQuotas) -> set[str]:
    return {*quotas._slots, *quotas._counted, *quotas._tokens}
