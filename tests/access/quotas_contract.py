"""What all Quotas must do. Subclassed once per backend, never skipped silently.

What one worker gives back, or counts, others may see a moment later: so tests wait for it.
"""

import asyncio

import pytest

from app.access.model import Limits
from app.access.quotas import DAY_S, Quotas
from app.errors import RateLimited

BOUND_S = 20  # for one test
TWO = Limits(max_runs=2)
DAILY = Limits(tokens_per_day=100)
BOTH = Limits(max_runs=2, tokens_per_day=100)


class Clock:
    """Stands still unless it is told. Noon of some day."""

    def __init__(self) -> None:
        self.now = 20_000.5 * DAY_S

    def __call__(self) -> float:
        return self.now


async def runs(quotas: Quotas, count: int, owner: str = "me") -> None:
    """Until so many slots are taken."""
    while await quotas.running(owner) != count:  # noqa: ASYNC110  # nothing tells
        await asyncio.sleep(0.002)


async def left(quotas: Quotas, tokens: int, owner: str = "me") -> None:
    """Until so many of 100 tokens are."""
    while (await quotas.standing(owner, DAILY))[0].remaining != tokens:  # noqa: ASYNC110  # too
        await asyncio.sleep(0.002)


async def refused(quotas: Quotas, run_id: str, limits: Limits, owner: str = "me") -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        await quotas.begin(owner, run_id, limits)
    return caught.value


async def spend(quotas: Quotas, tokens: int, owner: str = "me") -> None:
    """In a run that ends."""
    await quotas.begin(owner, f"spends {tokens}", DAILY)
    quotas.count(owner, f"spends {tokens}", tokens)
    quotas.end(owner, f"spends {tokens}")


class QuotasContract:
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def quotas(self, clock: Clock) -> Quotas:
        raise NotImplementedError("each backend provides its own quotas")

    async def test_nothing_is_kept_of_a_caller_without_limits(self, quotas: Quotas) -> None:
        async with asyncio.timeout(BOUND_S):
            for number in range(50):
                await quotas.begin("me", f"{number}", Limits(rate="1/day"))
                quotas.count("me", f"{number}", 1000)
            assert await quotas.running("me") == 0
            assert list(await quotas.standing("me", Limits())) == []
            await left(quotas, 100)
            quotas.end("me", "0")

    async def test_a_caller_has_so_many_runs_at_once_and_no_more(self, quotas: Quotas) -> None:
        async with asyncio.timeout(BOUND_S):
            await quotas.begin("me", "a", TWO)
            await quotas.begin("me", "b", TWO)
            refusal = await refused(quotas, "c", TWO)
            assert "limit of 2 runs at once" in refusal.detail
            assert refusal.retry_after_s in (1, 2)
            assert await quotas.running("me") == 2

    async def test_one_run_is_said_in_the_singular(self, quotas: Quotas) -> None:
        async with asyncio.timeout(BOUND_S):
            await quotas.begin("me", "a", Limits(max_runs=1))
            refusal = await refused(quotas, "b", Limits(max_runs=1))
            assert "limit of 1 run at once" in refusal.detail

    async def test_a_slot_that_is_given_back_can_be_taken_again(self, quotas: Quotas) -> None:
        async with asyncio.timeout(BOUND_S):
            for number in range(20):
                await quotas.begin("me", f"{number}", TWO)
                quotas.end("me", f"{number}")
                await runs(quotas, 0)

    async def test_a_run_takes_one_slot_however_often_it_begins(self, quotas: Quotas) -> None:
        async with asyncio.timeout(BOUND_S):
            for _ in range(3):
                await quotas.begin("me", "a", TWO)
            assert await quotas.running("me") == 1
            await quotas.begin("me", "b", TWO)
            await quotas.begin("me", "b", TWO)
            quotas.end("me", "a")
            await runs(quotas, 1)

    async def test_an_end_gives_back_once_and_only_its_own(self, quotas: Quotas) -> None:
        async with asyncio.timeout(BOUND_S):
            await quotas.begin("me", "a", TWO)
            await quotas.begin("me", "b", TWO)
            for run_id in ("a", "a", "never begun"):
                quotas.end("me", run_id)
            quotas.end("nobody", "b")
            await runs(quotas, 1)
            await quotas.begin("me", "c", TWO)
            await refused(quotas, "d", TWO)

    async def test_a_refused_run_holds_nothing(self, quotas: Quotas) -> None:
        async with asyncio.timeout(BOUND_S):
            await quotas.begin("me", "a", TWO)
            await quotas.begin("me", "b", TWO)
            for _ in range(5):
                await refused(quotas, "c", TWO)
            quotas.end("me", "c")
            quotas.end("me", "a")
            await runs(quotas, 1)
            await quotas.begin("me", "c", TWO)

    async def test_callers_do_not_share_anything(self, quotas: Quotas) -> None:
        async with asyncio.timeout(BOUND_S):
            await quotas.begin("me", "a", TWO)
            await quotas.begin("me", "b", TWO)
            await quotas.begin("you", "c", TWO)
            await spend(quotas, 100)
            await left(quotas, 0)
            await quotas.begin("you", "d", BOTH)
            assert await quotas.running("you") == 2

    async def test_of_many_that_begin_at_once_only_so_many_do(self, quotas: Quotas) -> None:
        async with asyncio.timeout(BOUND_S):
            tries = (quotas.begin("me", f"{number}", TWO) for number in range(30))
            results = await asyncio.gather(*tries, return_exceptions=True)
            assert results.count(None) == 2
            assert sum(isinstance(result, RateLimited) for result in results) == 28
            assert await quotas.running("me") == 2

    async def test_a_day_has_so_many_tokens(self, quotas: Quotas, clock: Clock) -> None:
        async with asyncio.timeout(BOUND_S):
            await spend(quotas, 99)
            await left(quotas, 1)
            await spend(quotas, 1)
            await left(quotas, 0)
            clock.now += DAY_S / 2 - 90.5
            refusal = await refused(quotas, "a", BOTH)
            assert "limit of 100 tokens per day" in refusal.detail
            assert refusal.retry_after_s == 91
            assert await quotas.running("me") == 0, "what is refused takes no slot"

    async def test_midnight_brings_new_tokens(self, quotas: Quotas, clock: Clock) -> None:
        async with asyncio.timeout(BOUND_S):
            await spend(quotas, 150)
            await left(quotas, 0)
            clock.now += DAY_S / 2 - 0.001
            assert (await refused(quotas, "a", DAILY)).retry_after_s == 1
            clock.now += 0.001
            await quotas.begin("me", "a", DAILY)
            await left(quotas, 100)

    async def test_tokens_are_of_the_day_on_which_they_are_counted(
        self, quotas: Quotas, clock: Clock
    ) -> None:
        async with asyncio.timeout(BOUND_S):
            await quotas.begin("me", "a", DAILY)
            quotas.count("me", "a", 60)
            clock.now += DAY_S
            quotas.count("me", "a", 30)
            quotas.end("me", "a")
            await left(quotas, 70)
            clock.now += DAY_S
            await left(quotas, 100)

    async def test_estimates_are_set_right_at_the_end(self, quotas: Quotas) -> None:
        async with asyncio.timeout(BOUND_S):
            await quotas.begin("me", "a", DAILY)
            quotas.count("me", "a", 120)
            quotas.count("me", "a", -50)
            quotas.end("me", "a")
            await left(quotas, 30)

    async def test_a_run_goes_on_when_the_days_tokens_are_spent(self, quotas: Quotas) -> None:
        async with asyncio.timeout(BOUND_S):
            await quotas.begin("me", "a", BOTH)
            quotas.count("me", "a", 500)
            await quotas.begin("me", "a", BOTH)
            assert await quotas.running("me") == 1
            quotas.count("me", "a", -450)
            quotas.end("me", "a")
            await left(quotas, 50)

    async def test_only_runs_that_were_begun_count_and_until_they_end(self, quotas: Quotas) -> None:
        async with asyncio.timeout(BOUND_S):
            quotas.count("me", "never begun", 10)
            await quotas.begin("me", "a", TWO)
            quotas.count("me", "a", 10)
            await spend(quotas, 5)
            quotas.count("me", "spends 5", 10)
            await left(quotas, 95)

    async def test_a_standing_says_what_is_left(self, quotas: Quotas, clock: Clock) -> None:
        async with asyncio.timeout(BOUND_S):
            await spend(quotas, 30)
            await left(quotas, 70)
            await quotas.begin("me", "a", BOTH)
            at_once, daily = await quotas.standing("me", BOTH)
            assert (at_once.policy.name, at_once.policy.quota) == ("runs", 2)
            assert (at_once.remaining, at_once.policy.window_s, at_once.resets_s) == (1, None, None)
            assert (daily.policy.name, daily.policy.quota) == ("tokens", 100)
            assert (daily.remaining, daily.policy.window_s) == (70, DAY_S)
            assert daily.resets_s == DAY_S / 2
            assert [one.policy.name for one in await quotas.standing("me", TWO)] == ["runs"]

    async def test_a_standing_is_never_below_nothing_or_above_all(self, quotas: Quotas) -> None:
        async with asyncio.timeout(BOUND_S):
            for run_id in ("a", "b"):
                await quotas.begin("me", run_id, TWO)
            tight = Limits(max_runs=1)
            assert (await quotas.standing("me", tight))[0].remaining == 0
            await spend(quotas, 300)
            await left(quotas, 0)
            await quotas.begin("you", "c", DAILY)
            quotas.count("you", "c", -10)
            quotas.end("you", "c")
            await left(quotas, 100, "you")
