"""A model that fails again and again is left out, and comes back."""

import asyncio

import pytest

from app.errors import (
    UpstreamAuth,
    UpstreamBroken,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamStalled,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.events.model import Token
from app.llm import asking as asking_module
from app.llm import clocks
from app.llm import model as model_module
from app.llm.breaker import FAILURES, OPEN_S, Breaker
from app.llm.turn import Turn
from app.llm.upstream import UpstreamFailure
from tests.llm.asking import BOUND_S, Attempt, fails, hangs, says
from tests.llm.models import DOWN, REJECTED, Clock, World

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(model_module, "Breaker", lambda: Breaker(clock))
    return clock


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking_module, "BACKOFF_BASE_S", 0)


def left_out(world: World, name: str) -> None:
    """``name`` has failed too often."""
    breaker = world.model._breakers[name]
    for _ in range(FAILURES):
        breaker.failed()
    assert breaker.state == "open"


async def test_a_model_that_failed_five_times_in_a_row_is_not_asked_for_30_seconds(
    clock: Clock,
) -> None:
    world = World("a", "b")
    world.plays["a"] = fails(DOWN)
    for _ in range(FAILURES):
        await world.answer()
    assert world.newly_asked() == ["a", "b"] * FAILURES
    clock.now += OPEN_S - 0.1
    await world.answer()
    assert world.newly_asked() == ["b"]
    clock.now += 0.1
    await world.answer()
    await world.answer()
    assert world.newly_asked() == ["a", "b", "b"], "one probe, which failed"
    clock.now += OPEN_S
    world.plays["a"] = says("again")
    await world.answer()
    await world.answer()
    assert world.newly_asked() == ["a", "a"]


async def test_retries_end_once_they_leave_the_model_out_and_its_own_error_is_told() -> None:
    world = World("a")
    world.plays["a"] = fails(UpstreamFailure(UpstreamRateLimited(), again=True))
    await world.fails_with(UpstreamRateLimited)
    await world.fails_with(UpstreamRateLimited)
    assert len(world.newly_asked()) == FAILURES
    await world.fails_with(UpstreamUnavailable)
    assert world.newly_asked() == []


async def test_where_all_are_left_out_it_is_told_at_once() -> None:
    world = World("a", "b")
    left_out(world, "a")
    left_out(world, "b")
    await world.fails_with(UpstreamUnavailable)
    assert world.newly_asked() == []


async def test_a_rejected_request_says_nothing_about_its_model() -> None:
    world = World("a")
    world.plays["a"] = fails(REJECTED)
    for _ in range(FAILURES + 1):
        await world.fails_with(UpstreamRejected)
    assert len(world.newly_asked()) == FAILURES + 1


@pytest.mark.parametrize(
    ("play", "error"),
    [
        (hangs, UpstreamTimeout),
        (says("x", reason=None), UpstreamBroken),
        (says("x", reason=None, then=DOWN), UpstreamUnavailable),
        (fails(UpstreamFailure(UpstreamAuth())), UpstreamAuth),
    ],
)
async def test_silence_and_broken_answers_count_as_failures(
    play: Attempt, error: type[UpstreamError]
) -> None:
    world = World("a", first_token_s=0.02)
    world.plays["a"] = play
    for _ in range(FAILURES):
        await world.fails_with(error)
    await world.fails_with(UpstreamUnavailable)
    assert len(world.newly_asked()) == FAILURES


async def test_a_stall_counts_as_a_failure() -> None:
    async def stalls(turn: Turn) -> None:
        await says("x", reason=None)(turn)
        await hangs(turn)

    world = World("a", stall_s=0.02)
    world.plays["a"] = stalls
    for _ in range(FAILURES):
        await world.fails_with(UpstreamStalled)
    assert world.model._breakers["a"].state == "open"


@pytest.mark.parametrize("how", ["hangs", "breaks", "is cancelled"])
async def test_a_whole_answer_is_a_success_whatever_its_trailer_does(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, how: str
) -> None:
    monkeypatch.setattr(clocks, "TRAILER_S", 60 if how == "is cancelled" else 0.02)
    world = World("a")
    said = asyncio.Event()

    async def whole(turn: Turn) -> None:
        await says("x")(turn)
        said.set()
        if how == "breaks":
            raise DOWN
        await hangs(turn)

    world.plays["a"] = whole
    left_out(world, "a")
    clock.now += OPEN_S
    if how == "is cancelled":
        asked = asyncio.ensure_future(world.answer())
        await said.wait()
        asked.cancel()
        await asyncio.wait({asked})
    else:
        await world.answer()
    assert world.model._breakers["a"].state == "closed"


async def test_a_probe_that_was_cancelled_is_given_back(clock: Clock) -> None:
    world = World("a")
    left_out(world, "a")
    clock.now += OPEN_S
    began = asyncio.Event()

    async def never(turn: Turn) -> None:
        began.set()
        await hangs(turn)

    world.plays["a"] = never
    probe = asyncio.ensure_future(world.answer())
    async with asyncio.timeout(BOUND_S):
        await began.wait()
    await world.fails_with(UpstreamUnavailable)
    assert world.newly_asked() == ["a"], "one probe at a time"
    probe.cancel()
    await asyncio.wait({probe})
    world.plays["a"] = says("ok")
    _, events = await world.answer()
    assert events == [Token("ok")]


async def test_without_a_models_file_no_model_is_left_out() -> None:
    world = World("a")
    world.model._breakers = {}
    world.plays["a"] = fails(DOWN)
    for _ in range(FAILURES + 1):
        await world.fails_with(UpstreamUnavailable)
    assert len(world.newly_asked()) == FAILURES + 1
