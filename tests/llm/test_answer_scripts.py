"""The filters on what the simulator says, in the pieces in which it says it."""

import pytest

from app.llm.answer import answer_filter
from app.simulator import expected_chunks, expected_style
from tests.llm.answer_reference import said_by


@pytest.mark.parametrize(
    "script",
    [
        *(f"sim:think,form={form}" for form in ("closed", "unclosed", "lookalike")),
        *(f"sim:react,form={form}" for form in ("text", "json")),
    ],
)
def test_the_answer_is_told_from_the_rest(script: str) -> None:
    found = answer_filter(think_tags="think" in script, react="react" in script)
    assert found is not None
    events = [event for piece in expected_chunks(script) for event in found.feed(piece)]
    said = said_by([*events, *found.flush()])

    expected = expected_style(script)
    assert "".join(text for kind, text in said if kind == "token") == expected.answer
    assert "".join(text for kind, text in said if kind != "token") == expected.aside
    assert len(events) > 4 or not expected.answer
