"""What a model sees of a conversation, and that OpenAI's API would take it."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage
from langchain_openai.chat_models.base import _convert_message_to_dict

from app.conversations.model import Message, Step
from app.events.model import ToolCall, ToolResult
from app.llm.history import (
    CUT,
    MESSAGE_TOKENS,
    NO_RESULT,
    _tokens,
    langchain_messages,
    room_for_prompt,
)
from tests.llm.making import message


def user(text: str) -> Message:
    return message(text)


def answer(text: str, *steps: Step, **more: Any) -> Message:
    return message(text, "assistant", steps=steps, **more)


def step(*ids: str, text: str = "", result: str = "r", arguments: str = "{}") -> Step:
    """One turn that called ``f`` under each id."""
    return Step(
        text,
        tuple(ToolCall(call_id, "f", arguments) for call_id in ids),
        tuple(ToolResult(call_id, "f", result, is_error=False) for call_id in ids),
    )


def seen(
    *messages: Message, steps: tuple[Step, ...] = (), newest: int = 20, room: int | None = None
) -> list[BaseMessage]:
    return langchain_messages(messages, steps, newest=newest, room=room)


def short(messages: list[BaseMessage]) -> list[str]:
    return [f"{one.type}:{one.text}" for one in messages]


def wire(messages: list[BaseMessage]) -> list[dict[str, Any]]:
    return [_convert_message_to_dict(one) for one in messages]


def check(messages: list[dict[str, Any]]) -> None:
    """As OpenAI does. Raises ``AssertionError``."""
    awaited: list[str] = []
    for at, one in enumerate(messages):
        json.dumps(one, ensure_ascii=False, allow_nan=False).encode()
        if one["role"] == "tool":
            assert one["tool_call_id"] in awaited, f"message {at} follows no call of that id"
            awaited.remove(one["tool_call_id"])
            assert isinstance(one["content"], str)
            continue
        assert not awaited, f"the calls {awaited} before message {at} have no result"
        assert one["role"] == ("user" if at == 0 else one["role"])
        if one["role"] == "user":
            assert one["content"]
            continue
        calls = one.get("tool_calls", [])
        assert one["content"] or calls, f"message {at} says nothing"
        awaited = [call["id"] for call in calls]
        for call in calls:
            assert re.fullmatch("[a-zA-Z0-9_-]{1,64}", call["function"]["name"])
            told = json.loads(call["function"]["arguments"], parse_constant=pytest.fail)
            assert isinstance(told, dict)
    assert not awaited


# -- any conversation ---------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
WRITTEN = st.one_of(
    TEXTS,
    st.sampled_from(['{"a": NaN}', '{"a": "\\ud800"}', '{"a":' * 5000, "7", "null", '{"x": 1}']),
)


@st.composite
def made_steps(draw: st.DrawFn, max_size: int = 3) -> tuple[Step, ...]:
    """With results in any order, as far as they came, and ids that other steps have too."""
    steps = []
    for _ in range(draw(st.integers(0, max_size))):
        ids = draw(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4, unique=True))
        calls = tuple(ToolCall(call_id, draw(TEXTS), draw(WRITTEN)) for call_id in ids)
        came = draw(st.permutations(ids))[: draw(st.integers(0, len(ids)))]
        results = tuple(ToolResult(one, "f", draw(TEXTS), draw(st.booleans())) for one in came)
        steps.append(Step(draw(TEXTS), calls, results))
    return tuple(steps)


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """The newest part of a branch: it may begin with an answer, and ends with the question."""
    before = [
        user(draw(TEXTS) or "q") if is_user else answer(draw(TEXTS), *draw(made_steps()))
        for is_user in draw(st.lists(st.booleans(), max_size=12))
    ]
    return [*before, user("the question")]


@settings(deadline=None)
@given(
    conversations(),
    made_steps(),
    st.integers(1, 25),
    st.none() | st.integers(0, 2000),
)
def test_what_is_sent_is_what_openai_takes(
    messages: list[Message], now: tuple[Step, ...], newest: int, room: int | None
) -> None:
    sent = seen(*messages, steps=now, newest=newest, room=room)
    check(wire(sent))
    at = len(sent) - 1
    while sent[at].type != "human":
        at -= 1
    assert sent[at].text == "the question"
    assert at < newest
    if room is not None and at > 0:
        assert _tokens(sent) <= room
    if room is None:
        assert len(sent) - at - 1 == sum(1 + len(one.calls) for one in now)


@settings(deadline=None)
@given(conversations(), st.integers(1, 25))
def test_as_much_is_sent_as_fits(messages: list[Message], newest: int) -> None:
    """One question more would be too many messages."""
    sent = seen(*messages, newest=newest)
    while messages[0].role != "user":
        del messages[0]
    everything = seen(*messages, newest=10**6)
    if len(sent) > 1 and everything[-len(sent) :] != sent:  # the last exchange without its calls
        assert [one.type for one in sent[1:-1]].count("human") == 0
        assert not any(isinstance(one, AIMessage) and one.tool_calls for one in sent)
        sent = sent[-1:]
    assert everything[len(everything) - len(sent) :] == sent
    more = len(sent) + 1
    while more <= len(everything) and everything[-more].type != "human":
        more += 1
    assert more > newest or more > len(everything)


# -- which messages -----------------------------------------------------------------------------


def test_questions_and_answers_keep_their_order() -> None:
    assert short(seen(user("q1"), answer("a1"), user("q2"))) == ["human:q1", "ai:a1", "human:q2"]


def test_the_question_counts_among_the_newest() -> None:
    talk = [user("q1"), answer("a1"), user("q2"), answer("a2"), user("q3")]
    assert short(seen(*talk, newest=5))[0] == "human:q1"
    assert short(seen(*talk, newest=4)) == ["human:q2", "ai:a2", "human:q3"]
    assert short(seen(*talk, newest=2)) == ["human:q3"]
    assert short(seen(*talk, newest=1)) == ["human:q3"]


def test_calls_and_results_count_and_are_never_split() -> None:
    talk = [user("q1"), answer("a1", step("a", "b")), user("q2")]
    assert len(seen(*talk, newest=6)) == 6
    assert short(seen(*talk, newest=5)) == ["human:q1", "ai:a1", "human:q2"]
    assert short(seen(*talk, newest=2)) == ["human:q2"]


def test_an_answer_with_more_calls_than_fit_is_remembered_without_them() -> None:
    calls = step(*(f"c{number}" for number in range(17)), text="I look.", result="r" * 400)
    talk = [user("q0"), answer("a0"), user("q1"), answer("a1", calls, calls), user("q2")]
    remembered = ["human:q1", "ai:a1", "human:q2"]
    assert short(seen(*talk)) == remembered
    assert short(seen(*talk, newest=3)) == remembered
    assert short(seen(*talk, newest=2)) == ["human:q2"]
    bound = _tokens(seen(*talk))
    assert short(seen(*talk, newest=100, room=bound)) == remembered
    assert short(seen(*talk, room=bound - 1)) == ["human:q2"]
    assert short(seen(*talk[:3], answer("", calls, calls), user("q2"))) == ["human:q1", "human:q2"]


def test_an_answer_whose_question_is_out_of_reach_is_left_out() -> None:
    """As when an answer is made anew: its question ends a branch that begins anywhere."""
    assert short(seen(answer("a0"), user("q1"), answer("a1"), user("q2"))) == [
        "human:q1",
        "ai:a1",
        "human:q2",
    ]


def test_an_answer_without_a_word_is_left_out_and_a_partial_one_is_not() -> None:
    talk = [
        user("q1"),
        answer("", status="cancelled"),
        user("q2"),
        answer("par", status="failed"),
        user("q3"),
    ]
    assert short(seen(*talk)) == ["human:q1", "human:q2", "ai:par", "human:q3"]


def test_a_call_without_a_result_gets_one_that_says_so() -> None:
    cut = Step("I look.", (ToolCall("a", "f", "{}"), ToolCall("b", "f", "{}")), ())
    *_, question, first, second, third, _ = seen(user("q"), answer("", cut), user("q2"))
    assert isinstance(first, AIMessage)
    assert (question.text, first.text) == ("q", "I look.")
    assert [second.text, third.text] == [NO_RESULT, NO_RESULT]


def test_results_follow_in_the_order_of_their_calls() -> None:
    calls = (ToolCall("a", "f", "{}"), ToolCall("b", "f", "{}"))
    results = (ToolResult("b", "f", "B", is_error=False), ToolResult("a", "f", "A", is_error=True))
    sent = wire(seen(user("q"), steps=(Step("", calls, results),)))
    assert [one.get("tool_call_id") for one in sent[2:]] == ["a", "b"]
    assert [one["content"] for one in sent] == ["q", None, "A", "B"]


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("", {}),
        ('{"a": [1, "\\u00e9"]}', {"a": [1, "é"]}),
        ("oops", {"invalid": "oops"}),
        ("[1]", {"invalid": "[1]"}),
        ('{"a": NaN}', {"invalid": '{"a": NaN}'}),
        ('{"a": "\\ud83d"}', {"invalid": '{"a": "\\ud83d"}'}),
        ('{"a":' * 9_999, {"invalid": '{"a":' * 9_999}),
    ],
)
def test_arguments_go_back_as_an_object_whatever_the_model_wrote(
    written: str, sent: dict[str, Any]
) -> None:
    told = wire(seen(user("q"), steps=(step("a", arguments=written),)))[1]
    assert json.loads(told["tool_calls"][0]["function"]["arguments"]) == sent


@pytest.mark.parametrize(
    ("called", "sent"),
    [("functions.f g", "functions_f_g"), ("", "unknown"), ("x" * 99, "x" * 64), ("a-B_9", "a-B_9")],
)
def test_a_name_goes_back_as_one_that_servers_take(called: str, sent: str) -> None:
    told = wire(seen(user("q"), steps=(Step("", (ToolCall("a", called, "{}"),)),)))[1]
    assert told["tool_calls"][0]["function"]["name"] == sent


# -- the context window -------------------------------------------------------------------------


def test_the_answer_and_the_tools_take_their_part_of_the_window() -> None:
    assert room_for_prompt(None, 5, ()) is None
    assert room_for_prompt(1000, None, ()) == 750
    assert room_for_prompt(1000, 100, ()) == 900
    assert room_for_prompt(1000, 5000, ()) == 0
    tools = [{"name": "x" * 388}]
    assert room_for_prompt(1000, 100, tools) == 900 - 101


def test_what_does_not_fit_into_the_window_is_left_out_by_whole_questions() -> None:
    talk = [user("1" * 400), answer("a"), user("2" * 400), answer("b"), user("3" * 400)]
    both = _tokens(seen(*talk[2:]))
    assert len(seen(*talk, room=both)) == 3
    assert len(seen(*talk, room=both - 1)) == 1
    assert len(seen(*talk, room=0)) == 1


def test_the_present_run_s_oldest_steps_go_first_and_whole() -> None:
    steps = tuple(step("a", text=f"t{at}", result="r" * 400) for at in range(3))
    two = _tokens(seen(user("q"), steps=steps[1:]))
    assert short(seen(user("q0"), user("q"), steps=steps, room=two))[:2] == ["human:q", "ai:t1"]
    assert len(seen(user("q"), steps=steps, room=two)) == 5
    assert short(seen(user("q"), steps=steps, room=two - 1))[1] == "ai:t2"


def test_the_last_step_s_long_results_are_cut_and_its_short_ones_are_not() -> None:
    calls = (ToolCall("a", "f", "{}"), ToolCall("b", "f", "{}"))
    results = (
        ToolResult("a", "f", "é" * 4000, is_error=False),
        ToolResult("b", "f", "short", is_error=False),
    )
    sent = seen(user("q"), steps=(Step("", calls, results),), room=500)
    assert _tokens(sent) <= 500
    assert sent[2].text.startswith("ééé")
    assert sent[2].text.endswith(CUT)
    assert sent[3].text == "short"
    nothing = seen(user("q"), steps=(Step("", calls, results),), room=0)
    assert [one.text for one in nothing[2:]] == [CUT, "short"]


def test_each_message_costs_a_little_more_than_its_text() -> None:
    assert _tokens(seen(user("x" * 8))) == 2 + MESSAGE_TOKENS
