"""How long an ending waits for Redis: not for ever, and not by a clock that stood still."""

import asyncio
import time
from typing import Any

import pytest

from app.events import redis_patience
from app.events.log import Fenced
from app.events.redis_keys import LEASE_S
from app.events.redis_patience import Patience

pytestmark = pytest.mark.anyio

BOUND_S = 10
SHORT_S = 0.05


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who heard of Redis long ago waits no longer than this."""
    monkeypatch.setattr(redis_patience, "AWAKE_S", SHORT_S)


class Waiting:
    """For an ending. ``contact_s``: Redis was last heard of so long ago."""

    def __init__(self, patience: Patience, contact_s: float) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Any] = loop.create_future()
        self.task = asyncio.ensure_future(patience.wait(self.ended, loop.time() - contact_s))

    async def begun(self) -> bool:
        """It waits now."""
        await asyncio.sleep(0)
        return not self.task.done()

    async def lasts(self) -> bool:
        """It goes on for longer than the short wait."""
        await asyncio.wait({self.task}, timeout=3 * SHORT_S)
        return not self.task.done()

    async def outcome(self) -> bool:
        async with asyncio.timeout(BOUND_S):
            return await self.task


async def test_who_heard_of_redis_long_ago_gives_up() -> None:
    assert await Waiting(Patience(), 2 * LEASE_S).outcome() is False


async def test_who_heard_of_redis_just_now_waits_for_a_lease() -> None:
    one = Waiting(Patience(), LEASE_S / 2)
    assert await one.lasts()
    one.ended.set_result(None)
    assert await one.outcome() is True


async def test_who_heard_of_redis_long_ago_waits_for_a_moment_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_patience, "AWAKE_S", 60)
    one = Waiting(Patience(), 2 * LEASE_S)
    assert await one.lasts()
    one.ended.set_result(None)
    assert await one.outcome() is True


async def test_who_slept_through_its_time_waits_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_patience, "LATE_S", 2 * SHORT_S)
    one = Waiting(Patience(), 2 * LEASE_S)
    assert await one.begun()
    time.sleep(4 * SHORT_S)  # noqa: ASYNC251  # the whole process stands still
    monkeypatch.setattr(redis_patience, "AWAKE_S", 60)
    assert await one.lasts()
    one.ended.set_result(None)
    assert await one.outcome() is True


async def test_who_slept_and_may_be_thought_dead_waits_for_a_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_patience, "TICK_S", 0.01)
    monkeypatch.setattr(redis_patience, "SLEPT_S", 2 * SHORT_S)
    patience = Patience()
    one = Waiting(patience, 2 * LEASE_S)
    assert await one.begun()
    time.sleep(4 * SHORT_S)  # noqa: ASYNC251  # the whole process stands still
    assert await one.lasts()
    other = Waiting(patience, 2 * LEASE_S)
    assert await other.lasts()
    patience.at_most(0)
    assert await one.outcome() is False
    assert await other.outcome() is False


async def test_less_patience_is_for_those_who_wait_already_and_for_those_who_come() -> None:
    patience = Patience()
    early = Waiting(patience, 0)
    assert await early.begun()
    patience.at_most(0)
    assert await early.outcome() is False
    assert await Waiting(patience, 0).outcome() is False


async def test_patience_may_end_in_the_moment_in_which_a_wait_ends() -> None:
    patience = Patience()
    one = Waiting(patience, 2 * LEASE_S)
    assert await one.begun()
    (waiting,) = patience._waiting
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end() -> None:
        try:
            patience.at_most(0)
        except RuntimeError as error:
            ended.set_exception(error)
        else:
            ended.set_result(None)

    asyncio.get_running_loop().call_at(waiting.when() or 0, end)
    assert await one.outcome() is False
    await ended


async def test_a_limit_makes_no_wait_longer() -> None:
    patience = Patience()
    one = Waiting(patience, 2 * LEASE_S)
    assert await one.begun()
    patience.at_most(60)
    assert await one.outcome() is False


@pytest.mark.parametrize("is_early", [True, False])
async def test_who_is_fenced_is_told(is_early: bool) -> None:
    one = Waiting(Patience(), 0)
    if not is_early:
        assert await one.begun()
    one.ended.set_exception(Fenced())
    with pytest.raises(Fenced):
        await one.outcome()


async def test_an_ending_that_comes_in_the_moment_when_patience_ends_has_come() -> None:
    patience = Patience()
    one = Waiting(patience, 0)
    assert await one.begun()
    patience.at_most(0)
    asyncio.get_running_loop().call_soon(one.ended.set_result, None)
    assert await one.outcome() is True


async def test_who_is_cancelled_leaves_the_ending_to_others() -> None:
    one = Waiting(Patience(), 0)
    assert await one.begun()
    one.task.cancel()
    await asyncio.wait({one.task})
    assert not one.ended.done()
