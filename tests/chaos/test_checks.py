"""What the chaos run calls right and wrong: a checker that finds nothing proves nothing."""

from typing import Any

import pytest

from tests.chaos.checks import disagreement, wrong_with
from tests.chaos.questions import Question
from tests.chaos.records import Heard, Record

TEXT = "tok0 tok1 tok2 "
TOKENS = [("token", {"text": f"tok{k} "}) for k in range(3)]
START = ("start", {"conversation_id": "c"})
FINAL = ("final", {"text": TEXT})
LOST = ("error", {"code": "worker_lost"})
Told = tuple[str, dict[str, Any]]


def done(status: str) -> Told:
    return "done", {"status": status}


def record(
    *events: Told, numbers: list[int] | None = None, grace_s: float | None = 5.0, **fields: Any
) -> Record:
    """Of a reader of a run with three tokens; numbered from 1 on."""
    script = fields.pop("script", "sim:tokens,n=3")
    shows = fields.pop("shows_reasoning", False)
    question = Question(f"{script} mark", "mark", shows, grace_s, None, 1)
    numbers = numbers or list(range(1, len(events) + 1))
    heard = [Heard(seq, *event, 0.0) for seq, event in zip(numbers, events, strict=True)]
    return Record(question, "c", "run", heard, **fields)


WHOLE = (START, *TOKENS, FINAL, done("completed"))


@pytest.mark.parametrize(
    "right",
    [
        record(*WHOLE),
        record(START, done("cancelled"), grace_s=0.0),
        record(START, *TOKENS[:2], LOST, done("failed"), numbers=[1, 2, 3, 1_000_000, 1_000_001]),
        record(START, LOST, done("failed"), numbers=[1, 1_000_000, 1_000_001]),
        record(START, TOKENS[0], done("cancelled"), longest_away_s=5.0),
        record(START, *TOKENS[:2], has_left=True),
        record(
            START,
            ("token", {"text": "Here"}),
            LOST,
            done("failed"),
            numbers=[1, 22, 1_000_000, 1_000_001],
            script="sim:reasoning,n=20",
        ),
    ],
)
def test_what_a_good_gateway_may_tell_is_right(right: Record) -> None:
    assert not list(wrong_with(right))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (record(*WHOLE, numbers=[1, 2, 3, 3, 5, 6]), "number 3 after 3"),
        (record(*WHOLE, numbers=[1, 2, 4, 5, 6, 7]), "some are missing"),
        (record(*WHOLE, numbers=[1, 2, 3, 4, 1_000_000, 1_000_001]), "some are missing"),
        (record(*WHOLE[1:]), "the first event is token"),
        (record(START, TOKENS[0], TOKENS[0], *WHOLE[2:]), "the text is not"),
        (record(START, TOKENS[1], done("cancelled"), grace_s=0.0), "the text is not"),
        (record(START, *TOKENS[:2], FINAL, done("completed")), "the text is not"),
        (record(START, *TOKENS, ("final", {"text": "tok0 "}), done("completed")), "final is not"),
        (record(START, *TOKENS, done("completed")), "completed behind token"),
        (record(*WHOLE, done("completed")), "2 events are done"),
        (record(*WHOLE, LOST), "done is not the last"),
        (record(START, LOST, LOST, done("failed")), "2 events are error"),
        (record(START, done("failed")), "failed behind start"),
        (record(START, ("error", {"code": "internal"}), done("failed")), "failed with internal"),
        (record(START, FINAL, done("cancelled"), grace_s=0.0), "cancelled behind final"),
        (record(START, done("cancelled"), longest_away_s=3.0), "away for 3.0 s"),
        (record(START, done("cancelled"), grace_s=None, longest_away_s=99.0), "grace is None"),
        (record(START, ("retract", {"text": ""}), has_left=True), "nobody makes here: retract"),
        (record(START, trouble=["answered 400"]), "answered 400"),
        (
            record(
                START,
                ("reasoning", {"text": "why1 "}),
                script="sim:reasoning,n=20",
                shows_reasoning=True,
            ),
            "the reasoning is another",
        ),
    ],
)
def test_what_is_lost_doubled_or_wrong_is_found(wrong: Record, says: str) -> None:
    assert any(says in each for each in wrong_with(wrong)), list(wrong_with(wrong))


def test_half_of_a_character_at_the_end_of_a_part_is_no_other_text() -> None:
    script = "sim:awkward"
    whole = record(script=script).question.answer
    pair = whole.index("pair ") + len("pair ")
    part = [START, ("token", {"text": whole[:pair] + "\ufffd"}), LOST, done("failed")]
    assert not list(wrong_with(record(*part, script=script)))
    part[1] = ("token", {"text": whole[:pair] + "x"})
    assert list(wrong_with(record(*part, script=script)))


def test_two_readers_of_a_run_have_the_same_events() -> None:
    part = record(START, *TOKENS[:2], LOST, done("failed"), numbers=[1, 2, 3, 1_000_000, 1_000_001])
    less = record(START, *TOKENS[:1], LOST, done("failed"), numbers=[1, 2, 1_000_000, 1_000_001])
    assert not list(disagreement([part, less]))
    other = record(*WHOLE)
    assert not list(disagreement([other, record(*WHOLE[:3], has_left=True)]))
    assert list(disagreement([other, record(START, TOKENS[0], LOST, done("failed"))]))
