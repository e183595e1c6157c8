"""Calls that fail by chance, the same ones each time."""

import httpx
import pytest

from app.simulator import Simulator
from app.simulator.ask import Ask
from app.simulator.scripts import play
from app.simulator.spec import parse
from app.simulator.steps import Drop, End, Refuse, Role, Step
from tests.simulator.reading import PATH, chat, read

pytestmark = pytest.mark.anyio


def outcomes(source: str, count: int = 1000) -> list[list[Step]]:
    spec = parse(source)
    return [list(play(Ask(spec, "", attempt=k, model="a"))) for k in range(1, count + 1)]


def ended_well(steps: list[Step]) -> bool:
    return steps[-1] == End()


def failed_before(steps: list[Step]) -> bool:
    return isinstance(steps[0], Refuse | Drop)


def test_the_asked_for_share_fails_half_before_the_head_and_half_in_the_middle() -> None:
    calls = outcomes("sim:chaos,n=5,seed=1")

    bad = [steps for steps in calls if not ended_well(steps)]
    assert 270 < len(bad) < 390
    assert 0.4 < sum(map(failed_before, bad)) / len(bad) < 0.6
    ways = {tuple(step for step in steps if not isinstance(step, str | Role)) for steps in bad}
    assert len(ways) == 5
    for steps in bad:
        words = [step for step in steps if isinstance(step, str)]
        assert words == [f"a:{k} " for k in range(len(words))]
        assert failed_before(steps) or 1 <= len(words) < 5


def test_a_seed_makes_the_same_failures_again_and_another_makes_others() -> None:
    assert outcomes("sim:chaos,seed=7", 50) == outcomes("sim:chaos,seed=7", 50)
    assert outcomes("sim:chaos,seed=7", 50) != outcomes("sim:chaos,seed=8", 50)


@pytest.mark.parametrize("where", ["before", "middle"])
def test_where_it_fails_can_be_chosen(where: str) -> None:
    calls = outcomes(f"sim:chaos,p=1,where={where}", 50)
    assert {failed_before(steps) for steps in calls} == {where == "before"}


async def test_the_text_tells_which_model_answered(client: httpx.AsyncClient) -> None:
    assert (await read(client, "sim:chaos,p=0,n=2", model="b")).texts == ["b:0 ", "b:1 "]


async def test_calls_are_counted_by_key(client: httpx.AsyncClient, simulator: Simulator) -> None:
    prompt = "sim:chaos,p=0.5,n=3,where=middle"

    async def run(key: str) -> list[bool]:
        for _ in range(12):
            await read(client, f"{prompt},key={key} #{key}#")
        kept = simulator.stats.view(f"#{key}#").calls
        return [call.outcome == "finished" for call in kept]

    first = await run("one")
    assert first == await run("two") == [ended_well(steps) for steps in outcomes(prompt, 12)]
    assert len(set(first)) == 2


async def test_a_call_that_fails_before_the_head_has_none(client: httpx.AsyncClient) -> None:
    seen: set[int] = set()
    for _ in range(12):
        try:
            answer = await client.post(PATH, json=chat("sim:chaos,p=1,where=before"))
            seen.add(answer.status_code)
        except httpx.RemoteProtocolError:
            seen.add(0)
    assert seen == {0, 500}
