"""What is answer, reasoning and draft in the styles that models write in."""

import json

import pytest

from app.llm.answer import answer_filter
from tests.llm.answer_reference import Said, joined, said_by

HEAD = '{"action": "Final Answer", "action_input": '


def said(text: str, *, think_tags: bool = False, react: bool = False) -> Said:
    found = answer_filter(think_tags=think_tags, react=react)
    assert found is not None
    return said_by([*found.feed(text), *found.flush()])


def test_a_plain_model_needs_no_filter() -> None:
    assert answer_filter(think_tags=False, react=False) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("a", [("token", "a")]),
        ("<think>why</think>so", [("reasoning", "why"), ("token", "so")]),
        ("<think></think>so", [("token", "so")]),
        ("a<think>b</think>c<think>", [("token", "a"), ("reasoning", "b"), ("token", "c")]),
        ("<think>a <think> b</think>c", [("reasoning", "a <think> b"), ("token", "c")]),
        ("<think>a</thin", [("reasoning", "a</thin")]),
        ("<think>a</think", [("reasoning", "a</think")]),
        *(
            (text, [("token", text)])
            for text in ("<thinking>", "a<thin", "<think", "</think>b", "<", "<<", "<Think>")
        ),
        ("<<think>a<</think>b", [("token", "<"), ("reasoning", "a<"), ("token", "b")]),
        ("<thi<think>a", [("token", "<thi"), ("reasoning", "a")]),
    ],
)
def test_what_stands_in_think_tags_is_reasoning(text: str, expected: Said) -> None:
    assert said(text, think_tags=True) == expected


@pytest.mark.parametrize(
    ("draft", "answer"),
    [
        ("Thought: hm\nFinal Answer: ", "42\nThought: Final Answer: 43"),
        ("Final Answer:\n\n\t ", "x "),
        ("not a Final Answer, FinalFinal Answer:", "x"),
        ("Final Answer:", ""),
        ("Thought: Action: search\nFinal Answer", ""),
        ('{"action": "search", "action_input": "q", "n": {"action_input": "z"}}', ""),
        ('{"action": "search"}\n```\nFinal Answer: ', "found"),
        ('{"action": "Final Answer: ', '42"'),
        ('{"action_input": "reversed", "action": "Final Answer"}', ""),
        ('{"action": "Final Answer", "why": "x", "action_input": "y"}', ""),
    ],
)
def test_text_up_to_the_marker_is_draft_and_what_follows_the_answer(
    draft: str, answer: str
) -> None:
    assert said(draft + answer, react=True) == joined([("draft", draft), ("token", answer)])


@pytest.mark.parametrize(
    "before",
    [
        HEAD,
        '{"action":"Final Answer","action_input":',
        '\n{\t"action"\r\n : "Final Answer"\n\n,  "action_input" : ',
        "Thought: I know.\nAction:\n```json\n" + HEAD,
        '{"thought": "an \\"action\\", x", "action": "Final Answer", "action_input": ',
        '{"action": "search", "action_input": 1} {{, ' + HEAD,
        '{"action": "Final Answer", "action": "Final Answer", "action_input": ',
        "Final Answer, Action: " + HEAD,
    ],
)
@pytest.mark.parametrize("after", ["}", "}\n```\nFinal Answer: no", "", ', "x": "y"}'])
def test_the_json_form_is_found_wherever_it_stands(before: str, after: str) -> None:
    expected = joined([("draft", before + '"'), ("token", "42 is it"), ("draft", '"' + after)])
    assert said(f'{before}"42 is it"{after}', react=True) == expected


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Final Answer: x",
        'a "quote" \\ / \b\f\n\r\t',
        "\u00e9 \u4f60 \U0001f600\U0001f680",
        HEAD,
    ],
)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_escapes_of_the_json_form_are_decoded(answer: str, ascii_only: bool) -> None:
    text = HEAD + json.dumps(answer, ensure_ascii=ascii_only) + "}"
    expected = joined([("draft", HEAD + '"'), ("token", answer), ("draft", '"}')])
    assert said(text, react=True) == expected


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        (r"\/\u0041\uD83D\uDE00", "/A\U0001f600"),
        (r"\ud83d", "\ufffd"),
        (r"\ude00\ud83dx\ud83d\n", "\ufffd\ufffdx\ufffd\n"),
        (r"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (r"\ud83d\u0041", "\ufffdA"),
        (r"\x \u12 \u12G4 \'", r"\x \u12 \u12G4 \'"),
        (r"\ud83d\ud", "\ufffd\\ud"),
        (r"\\u0041", r"\u0041"),
        ("raw\nline\ttab", "raw\nline\ttab"),
    ],
)
def test_a_lone_half_is_replaced_and_a_malformed_escape_taken_literally(
    written: str, answer: str
) -> None:
    expected = [("draft", HEAD + '"'), ("token", answer), ("draft", '"}')]
    assert said(f'{HEAD}"{written}"}}', react=True) == expected


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        ("a\\", "a\\"),
        (r"a\u00", r"a\u00"),
        (r"a\ud83d", "a\ufffd"),
        (r"a\ud83d\ude", "a\ufffd\\ude"),
    ],
)
def test_an_escape_that_the_end_cuts_off_comes_out(written: str, answer: str) -> None:
    assert said(f'{HEAD}"{written}', react=True) == [("draft", HEAD + '"'), ("token", answer)]


@pytest.mark.parametrize(
    "value",
    ["42", "-1.5e3", "null", '{"a": ["}", "\\"]", "\\\\"], "b": {}}', "[[1], [2, {}]]", "[]"],
)
@pytest.mark.parametrize("after", ["}", "\n}", ', "x": "y"}', " Final Answer: no"])
def test_a_value_that_is_no_string_is_the_answer_as_written(value: str, after: str) -> None:
    expected = [("draft", HEAD), ("token", value), ("draft", after)]
    assert said(HEAD + value + after, react=True) == expected


def test_a_missing_value_is_no_answer() -> None:
    assert said(HEAD + "}", react=True) == [("draft", HEAD + "}")]


def test_outside_of_think_tags_a_marker_may_be_split_by_them() -> None:
    text = "a<think>Final Answer: no</think>Final <think>b</think>Answer: c<think>d</think>e"
    assert said(text, think_tags=True, react=True) == [
        ("draft", "a"),
        ("reasoning", "Final Answer: no"),
        ("draft", "Final "),
        ("reasoning", "b"),
        ("draft", "Answer: "),
        ("token", "c"),
        ("reasoning", "d"),
        ("token", "e"),
    ]
