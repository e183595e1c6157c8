"""Runnables that are no agents: models among other things, code, several models at once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_openai import ChatOpenAI

from app.events.model import Draft, Token
from app.simulator import Simulator
from app.simulator.texts import PREAMBLE
from tests.llm.agents import CALL, Ran, ended, openai_model, text_of
from tests.llm.looping import only, weather

pytestmark = pytest.mark.anyio


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as server:
        yield server


SAYS_TOK = "tok0 tok1 tok2 "


def from_prompt(model: ChatOpenAI) -> Runnable[Any, Any]:
    return ChatPromptTemplate([("system", "Be kind."), ("placeholder", "{messages}")]) | model


@pytest.mark.parametrize(
    "make",
    [
        lambda model: model,
        from_prompt,
        lambda model: model | RunnableLambda(lambda said: said.text),
        lambda model: model.with_retry(),
        lambda model: model.with_fallbacks([model]),
        lambda model: model.with_config(tags=["x"]),
    ],
)
async def test_a_model_among_other_things_is_heard_once(
    simulator: Simulator, make: Callable[[ChatOpenAI], Runnable[Any, Any]]
) -> None:
    events = await ended(Ran(make(openai_model(simulator)), "sim:tokens,n=3"))
    assert events == [Token("tok0 "), Token("tok1 "), Token("tok2 ")]


async def test_a_model_that_does_not_stream_is_heard_at_its_end(simulator: Simulator) -> None:
    model = openai_model(simulator, disable_streaming=True)
    ran = Ran(model, "sim:finish,reason=length,after=3")
    assert await ran.answer() == "length"
    assert text_of(await ran.events()) == SAYS_TOK
    assert not ran.reply.usage().estimated


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (AIMessage("from code"), "from code"),
        (AIMessage([{"type": "text", "text": "in parts"}]), "in parts"),
        ("text", "text"),
        ("half \ud83d", "half \ufffd"),
        ({"messages": [HumanMessage("hi"), AIMessage("last")]}, "last"),
        ({"messages": [HumanMessage("hi")]}, ""),
        ({"other": 1}, ""),
        (None, ""),
    ],
)
async def test_where_no_model_spoke_the_answer_is_what_came_out(told: Any, text: str) -> None:
    ran = Ran(RunnableLambda(lambda _: told))
    events = await ended(ran)
    assert text_of(events) == text
    assert all(type(event.text) is str for event in only(Token, events))
    assert ran.reply.usage().estimated


async def test_what_a_model_tagged_nostream_says_is_not_heard(simulator: Simulator) -> None:
    async def ask(asked: dict[str, Any]) -> AIMessage:
        quiet = openai_model(simulator).with_config(tags=["nostream"])
        await quiet.ainvoke("sim:echo quiet")
        said = await openai_model(simulator).ainvoke("sim:echo loud")
        return AIMessage(said.text)

    assert text_of(await ended(Ran(RunnableLambda(ask)))) == "loud"


async def test_models_that_speak_at_once_are_not_mixed(simulator: Simulator) -> None:
    async def ask(asked: dict[str, Any]) -> None:
        model = openai_model(simulator)
        await asyncio.gather(
            model.ainvoke("sim:tokens,n=50,interval=0.001"),
            model.bind_tools([weather]).ainvoke(f"{CALL},interval=0.001"),
        )

    events = await ended(Ran(RunnableLambda(ask)))
    tokens = "".join(event.text for event in only(Token, events))
    drafts = "".join(event.text for event in only(Draft, events))
    said = "".join(f"tok{k} " for k in range(50))
    assert {tokens, drafts} == {said, PREAMBLE}
    assert text_of(events) in (said, "")  # the one that called a tool may have been the first


async def test_a_model_without_a_server_is_heard(simulator: Simulator) -> None:
    events = await ended(Ran(FakeListChatModel(responses=["abc"])))
    assert text_of(events) == "abc"


async def test_what_comes_out_goes_through_the_filter_to_its_end() -> None:
    ran = Ran(RunnableLambda(lambda _: "<think>why</think>a <th"), reasoning="tags")
    assert text_of(await ended(ran)) == "a <th"
