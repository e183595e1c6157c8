"""However an answer is cut into chunks, the filters make the same of it, and hold back little."""

import re
from collections.abc import Iterable
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.events.model import Event
from app.llm.answer import CLOSING, OPENING, AnswerFilter, answer_filter
from app.llm.react import MARKER
from tests.llm.answer_reference import Said, joined, of_react, of_tags, said_by

STYLES = {"tags": (True, False), "react": (False, True), "both": (True, True)}
PAIRS_UP_TO = 64  # characters: of longer scripts every single cut will do
HEAD = '{"action": "Final Answer", "action_input": '
SCRIPTS = [
    "<think>First I think. a < b </thin</think>\n\nHere <b>it</b> is.",
    "a<think>b</think>c<think>d</think>e<thinking>f</think",
    "<<think<think><</</think</think>></think>",
    "<think>unclosed <think> </thin",
    "Thought: hm FFinal Final Answer: \n 42 Final Answer: x",
    "no FinalAnswer: Final Answer; here",
    '{"action":"Final Answer","action_input":"a\\n\\"\\ud83d\\ude00"}x',
    '{"action":"Final Answer","action_input":"\\u00e9\\ud83d\\\\\\ud83dx\\q"',
    '{"action":"Final Answer","action_input":"\\ud83d\\ud83d\\u12',
    '{"action":"Final Answer","action_input":["]\\"",{"a":1}] }',
    '{"action":"Final Answer","action_input":-42}\n',
    "Thought: I know.\n```json\n" + HEAD.replace(" ", "\n  ") + '"It is\\t42."\n}\n``` bye',
    '{"a": 1, "action": "Final Answer", "action" : "Final Answer", "action_input": "x"}',
    '{"action": "search", "action_input": "q"} Final Answer: {"x": "<think>"}',
    "<think>Final Answer: no</think>Final<think>!</think> Answer: yes <thi",
    HEAD + '"a\\<think>u</think>u0041\\ud83d<think>\\ude00</think>\\ude00"}',
]  # fmt: skip
PIECES = [
    *(
        "<think>",
        "</think>",
        "<",
        "</",
        "<thi",
        "nk>",
        "think",
        ">",
        "Final Answer:",
        "Final ",
        "F",
    ),
    *(
        "Answer",
        ":",
        HEAD,
        '{"action"',
        '"action_input"',
        '"Final Answer"',
        "{",
        "}",
        "[",
        "]",
        ",",
    ),
    *(
        '"',
        "\\",
        "\\n",
        '\\"',
        "\\u",
        "\\u00e9",
        "\\ud83d",
        "\\ude00",
        "\\ud8",
        "u00",
        "4",
        "\n",
        " ",
    ),
]
marked_texts = st.lists(
    st.one_of(st.sampled_from(PIECES), st.text(st.characters(exclude_categories=["Cs"]))),
    max_size=24,
).map("".join)
openings = st.sampled_from(["", HEAD, HEAD + '"', "<think>", HEAD + "[", MARKER])


def made(style: str) -> AnswerFilter:
    think_tags, react = STYLES[style]
    found = answer_filter(think_tags=think_tags, react=react)
    assert found is not None
    return found


def through(style: str, text: str, cuts: Iterable[int] = ()) -> Said:
    answer = made(style)
    events: list[Event] = []
    for start, end in pairwise([0, *sorted(cuts), len(text)]):
        fed = answer.feed(text[start:end])
        assert all(type(one) is not type(other) for one, other in pairwise(fed))
        events += fed
    return said_by([*events, *answer.flush()])


def agrees(style: str, text: str, said: Said) -> None:
    """With the reference. Of both styles at once it knows the parts, not how they interleave."""
    if style == "tags":
        assert said == of_tags(text)
    elif style == "react":
        assert said == of_react(text)
    else:
        outside = "".join(part for kind, part in of_tags(text) if kind == "token")
        inside = [part for kind, part in of_tags(text) if kind == "reasoning"]
        assert joined(part for part in said if part[0] != "reasoning") == of_react(outside)
        assert "".join(part for kind, part in said if kind == "reasoning") == "".join(inside)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("text", SCRIPTS)
def test_every_cut_and_every_pair_of_cuts_makes_no_difference(style: str, text: str) -> None:
    whole = through(style, text)
    agrees(style, text, whole)
    assert through(style, text, range(len(text))) == whole
    for count in (1, 2) if len(text) <= PAIRS_UP_TO else (1,):
        for cuts in combinations(range(len(text) + 1), count):
            assert through(style, text, cuts) == whole, cuts


@given(st.sampled_from(sorted(STYLES)), openings, marked_texts, st.data())
def test_any_text_cut_anywhere_is_told_apart_as_the_reference_does(
    style: str, opening: str, rest: str, data: st.DataObject
) -> None:
    text = opening + rest
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=12))
    said = through(style, text, cuts)
    agrees(style, text, said)
    assert said == through(style, text) == through(style, text, range(len(text)))


def left_out(whole: Said, so_far: Said) -> tuple[str, str]:
    """Kind and text of what ``so_far`` lacks at its end: of one kind, and nothing else."""
    if so_far == whole:
        return "", ""
    kind, text = whole[-1]
    if len(so_far) < len(whole):
        assert so_far == whole[:-1]
        return kind, text
    assert so_far[:-1] == whole[:-1]
    assert so_far[-1][0] == kind
    assert text.startswith(so_far[-1][1])
    return kind, text[len(so_far[-1][1]) :]


def check_tags_held(kind: str, held: str) -> None:
    tag = CLOSING if kind == "reasoning" else OPENING
    assert tag.startswith(held)
    assert held != tag


def check_escape_held(kind: str, held: str) -> None:
    assert kind in ("", "token")
    half = r"\\(u([dD]([c-fC-F][0-9a-fA-F]?)?)?)?"
    assert re.fullmatch(rf"|\\(u[0-9a-fA-F]{{0,3}})?|\ufffd({half})?", held)


@given(openings, marked_texts)
def test_nothing_is_held_back_but_what_may_be_a_tag(opening: str, rest: str) -> None:
    text, answer = opening + rest, made("tags")
    events: list[Event] = []
    for at, char in enumerate(text):
        events += answer.feed(char)
        check_tags_held(*left_out(of_tags(text[: at + 1]), said_by(events)))


@given(openings, marked_texts)
def test_of_react_nothing_is_held_back_but_an_unfinished_escape(opening: str, rest: str) -> None:
    text, answer = opening + rest, made("react")
    events: list[Event] = []
    for at, char in enumerate(text):
        events += answer.feed(char)
        check_escape_held(*left_out(of_react(text[: at + 1]), said_by(events)))


LONG = 1_000_000  # characters; what is quadratic would run into the test's timeout


@pytest.mark.parametrize("size", [1, LONG], ids=["character by character", "in one chunk"])
@pytest.mark.parametrize(
    ("style", "text"),
    [
        ("tags", "<" * LONG),
        ("tags", "a<think></think>" * (LONG // 16)),
        ("both", "<think>a</think>F" * (LONG // 17)),
        ("react", "{" + " " * LONG),
        ("react", HEAD + '"' + r"\ud83d" * (LONG // 6)),
        ("react", HEAD + "[" * LONG),
        ("react", MARKER + " " * LONG + "x"),
    ],
    ids=["lookalikes", "empty blocks", "blocks", "white space", "lone halves", "brackets", "gap"],
)
def test_a_long_answer_costs_no_more_than_its_length(style: str, text: str, size: int) -> None:
    said = through(style, text, range(size, len(text), size))
    assert sum(len(part) for _, part in said) > LONG // 20
