"""Only the final answer is told, whatever a model writes around it, in real streams that are cut
anywhere."""

from collections.abc import Iterator
from itertools import accumulate

import pytest

from app.simulator import expected_reasoning, expected_style, expected_text
from tests.live.asking import Answer, Event, ask, client, marker
from tests.live.servers import Gateway, SimulatorProcess
from tests.live.several import gateway_with, messages_of, told

pytestmark = pytest.mark.anyio

MODELS = """
[[models]]
name = "plain"
base_url = "{0}"

[[models]]
name = "field"
base_url = "{0}"
reasoning = "field"

[[models]]
name = "tags"
base_url = "{0}"
reasoning = "tags"

[[models]]
name = "react"
base_url = "{0}"
answer = "react"
"""
# Model, script, the answer, and the event of the rest with its text.
STYLED = {
    "closed": ("tags", "think,form=closed", "reasoning"),
    "unclosed": ("tags", "think,form=unclosed", "reasoning"),
    "lookalike": ("tags", "think,form=lookalike", "reasoning"),
    "react": ("react", "react,form=text", "draft"),
    "react as json": ("react", "react,form=json", "draft"),
}
CUTS = ["", "batch=1", *(f"cutat={size}" for size in (1, 2, 3, 7, 64, 1000))]
INCLUDE = {"reasoning": "reasoning", "draft": "drafts"}


@pytest.fixture(scope="module")
def styled(
    simulator: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    cwd = tmp_path_factory.mktemp("styled")
    with gateway_with(cwd, MODELS.format(simulator.url)) as gateway:
        yield gateway


def rest_of(answer: Answer, event: str) -> str:
    return "".join(data["text"] for data in told(answer, event))


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(("model", "script", "rest"), STYLED.values(), ids=STYLED)
async def test_the_answer_is_told_alone_and_the_rest_to_those_who_ask_for_it(
    styled: Gateway, model: str, script: str, rest: str, cut: str
) -> None:
    expected = expected_style(f"sim:{script}")
    prompt = ",".join(filter(None, (f"sim:{script}", cut)))

    bare = await ask(styled, prompt, model=model)
    assert set(bare.names) <= {"start", "token", "final", "done"}
    assert bare.text == bare.one("final")["text"] == expected.answer
    whole = await ask(styled, prompt, model=model, include=[INCLUDE[rest]])
    assert set(whole.names) <= {"start", "token", rest, "final", "done"}
    assert whole.text == whole.one("final")["text"] == expected.answer
    assert rest_of(whole, rest) == expected.aside


@pytest.mark.parametrize("name", STYLED)
async def test_it_is_the_same_when_each_character_comes_alone(styled: Gateway, name: str) -> None:
    model, script, rest = STYLED[name]
    expected = expected_style(f"sim:{script}")
    written = expected_text(f"sim:{script}")

    answer = await ask(styled, f"sim:echo {written}", model=model, include=[INCLUDE[rest]])

    assert answer.text == answer.one("final")["text"] == expected.answer
    assert rest_of(answer, rest) == expected.aside


@pytest.mark.parametrize("cut", CUTS)
async def test_reasoning_in_a_field_of_its_own_is_told_to_those_who_ask_for_it(
    styled: Gateway, cut: str
) -> None:
    prompt = ",".join(filter(None, ("sim:reasoning,n=5", cut)))
    bare = await ask(styled, prompt, model="field")
    whole = await ask(styled, prompt, model="field", include=["reasoning"])

    assert set(bare.names) == {"start", "token", "final", "done"}
    assert bare.text == whole.text == bare.one("final")["text"] == expected_text(prompt)
    assert rest_of(whole, "reasoning") == expected_reasoning(prompt)
    assert whole.names.index("reasoning") < whole.names.index("token")


async def test_what_was_not_asked_for_is_in_the_log_and_the_conversation(styled: Gateway) -> None:
    question = f"sim:think {marker()}"
    answer = await ask(styled, question, model="tags")
    async with client(styled) as http:
        replayed = await http.get(
            f"/runs/{answer.run_id}/events", params={"include": "reasoning,drafts"}
        )

    expected = expected_style("sim:think")
    whole = Answer(replayed.headers, replayed.content)
    assert rest_of(whole, "reasoning") == expected.aside
    numbers = [int(event.id.rpartition(".")[2]) for event in whole.events]
    assert numbers == [*range(1, len(numbers) + 1)]
    _, kept = messages_of(styled, answer.one("start")["conversation_id"])
    assert (kept["text"], kept["reasoning"]) == (expected.answer, expected.aside)


async def test_a_model_that_says_to_show_none_is_passed_on_as_it_is(styled: Gateway) -> None:
    for script in ("sim:think", "sim:react,form=json"):
        answer = await ask(styled, script, model="plain", include=["reasoning", "drafts"])
        assert answer.text == answer.one("final")["text"] == expected_text(script)
        assert set(answer.names) == {"start", "token", "final", "done"}


@pytest.mark.parametrize("name", STYLED)
async def test_a_resume_in_the_middle_gives_the_same_text(styled: Gateway, name: str) -> None:
    model, script, _ = STYLED[name]
    answer = await ask(styled, f"sim:{script}", model=model)
    events = answer.events

    async with client(styled) as http:
        for at, seen in enumerate(accumulate(map(_text, events))):
            headers = {"last-event-id": events[at].id}
            rest = await http.post("/chat", json={"text": "ignored"}, headers=headers)
            resumed = Answer(rest.headers, rest.content)
            assert resumed.events == events[at + 1 :]
            assert seen + resumed.text == answer.one("final")["text"]


def _text(event: Event) -> str:
    return str(event.data["text"]) if event.name == "token" else ""
