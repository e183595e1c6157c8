"""How runnables fail, run out of time and are cancelled."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from app.errors import Internal
from app.simulator import Simulator, View
from tests.llm.agents import BOUND_S, CALL, Ran, agent, ended, openai_model, text_of
from tests.llm.looping import weather

pytestmark = pytest.mark.anyio

BURST = 10


def in_thread(model: ChatOpenAI) -> Runnable[Any, Any]:
    def ask(asked: dict[str, Any]) -> Any:
        return model.invoke(asked["messages"])

    return RunnableLambda(ask)


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as server:
        yield server


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ("sim:status,code=401", "upstream_auth"),
        ("sim:status,code=429", "upstream_rate_limited"),
        ("sim:status,code=400", "upstream_rejected"),
        ("sim:status,code=503", "upstream_unavailable"),
        ("sim:cut,how=nohead", "upstream_unavailable"),
        ("sim:cut,how=rst", "upstream_broken"),
        ("sim:cut,how=fin", "upstream_broken"),
        ("sim:error,after=2", "upstream_unavailable"),
        ("sim:malformed,kind=json", "upstream_broken"),
    ],
)
@pytest.mark.parametrize("where", ["alone", "agent", "thread"])
async def test_an_upstream_s_failure_gets_its_code(
    simulator: Simulator, asked: str, code: str, where: str
) -> None:
    model = openai_model(simulator)
    made = {"alone": model, "agent": agent(model, weather), "thread": in_thread(model)}
    await Ran(made[where], asked).fails_with(code)


async def test_a_mistake_of_its_own_code_is_internal() -> None:
    def broken(_: Any) -> None:
        raise ValueError("secret")

    await Ran(RunnableLambda(broken)).fails_with(Internal)


async def test_one_that_cancels_itself_is_internal() -> None:
    async def broken(_: Any) -> None:
        raise asyncio.CancelledError

    await Ran(RunnableLambda(broken)).fails_with(Internal)


@pytest.mark.parametrize("where", ["loop", "thread"])
async def test_more_calls_than_a_turn_may_make_fail_the_run(
    simulator: Simulator, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.llm.turn.MAX_CALLS", 2)
    bound = openai_model(simulator).bind_tools([weather])

    async def ask(asked: dict[str, Any]) -> Any:
        return await bound.ainvoke(asked["messages"])

    made = ask if where == "loop" else lambda asked: bound.invoke(asked["messages"])
    await Ran(RunnableLambda(made), f"{CALL},calls=3").fails_with("answer_too_large")


# -- clocks and cancels -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "code"), [("sim:silent", "upstream_timeout"), ("sim:stall", "upstream_stalled")]
)
async def test_the_clocks_hold_for_its_models(simulator: Simulator, asked: str, code: str) -> None:
    made = agent(openai_model(simulator), weather)
    await Ran(made, asked, first_token_s=0.3, stall_s=0.3).fails_with(code)
    await simulator.until(lambda view: view.open == 0)


async def test_the_clocks_rest_while_no_model_speaks(simulator: Simulator) -> None:
    """Before the first model is asked, and while tools run."""

    @tool
    async def weather(city: str) -> str:
        """The weather in a city."""
        await asyncio.sleep(0.5)
        return "late"

    inner = agent(openai_model(simulator), weather)

    async def late(asked: dict[str, Any]) -> Any:
        await asyncio.sleep(0.5)
        return await inner.ainvoke(asked)

    events = await ended(Ran(RunnableLambda(late), CALL, first_token_s=0.4, stall_s=0.4))
    assert text_of(events) == "The tool says: late"


async def cancelled(until: Awaitable[object], *ran: Ran) -> None:
    """All of ``ran``, ``until`` something has happened, each after a few passes of the loop."""
    chance = random.Random(7)
    async with asyncio.timeout(BOUND_S):
        asked = [asyncio.ensure_future(one.answer()) for one in ran]
        await until
        for each in asked:
            for _ in range(chance.randrange(5)):
                await asyncio.sleep(0)
            each.cancel()
        await asyncio.wait(asked)
    assert all(each.cancelled() for each in asked)


def all_answer(view: View) -> bool:
    return view.open == BURST and all(call.bytes_sent for call in view.calls)


@pytest.mark.parametrize(
    "asked", ["sim:silent", "sim:stall,after=3", "sim:tokens,n=1000000,interval=0.0005"]
)
async def test_cancelling_closes_the_model_s_connection_every_time(
    simulator: Simulator, asked: str
) -> None:
    made = agent(openai_model(simulator), weather)
    for _ in range(5):
        await cancelled(simulator.until(all_answer), *(Ran(made, asked) for _ in range(BURST)))
        await simulator.until(lambda view: view.open == 0, timeout_s=2)
        simulator.stats.reset()


async def test_cancelling_ends_a_model_in_a_thread_with_its_next_token(
    simulator: Simulator,
) -> None:
    ran = Ran(in_thread(openai_model(simulator)), "sim:tokens,n=1000000,interval=0.005")
    await cancelled(ran.queue.take(), ran)
    await simulator.until(lambda view: view.open == 0, timeout_s=2)


async def test_cancelling_ends_a_tool(simulator: Simulator) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    @tool
    async def weather(city: str) -> str:
        """The weather in a city."""
        began.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()
        return ""

    await cancelled(began.wait(), Ran(agent(openai_model(simulator), weather), CALL))
    assert ended.is_set()
