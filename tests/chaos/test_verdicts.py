"""What the chaos run concludes from what readers, the model, workers and conversations say."""

import time
from typing import Any

import pytest

from tests.chaos.excuses import Excuses
from tests.chaos.faults import DATABASE, EMPTY, HALT, KEEP, KILL, TERMINATE, Fault
from tests.chaos.load import Asked
from tests.chaos.questions import Question
from tests.chaos.verdicts import Verdicts

NOW = time.time()
QUESTION = Question("sim:tokens,n=3 mark", "mark", False, 5.0, None, 1)
TEXT = "tok0 tok1 tok2 "


def asked(status: str | None, **fields: Any) -> Asked:
    """From 100 s ago until 50 s ago."""
    made: dict[str, Any] = {
        "code": None,
        "text": TEXT,
        "began_at": NOW - 100,
        "head_at": NOW - 100,
        "done_at": NOW - 50 if status else None,
        "over_at": NOW - 50,
        "gone_at": None,
        "has_left": False,
        "lost_conversation": False,
    }
    return Asked(QUESTION, "run", "c", status, **made | fields)


def call(outcome: str, ended_ago_s: float) -> dict[str, Any]:
    return {"outcome": outcome, "ended_at": NOW - ended_ago_s}


def verdicts(*faults: Fault, calls: list[dict[str, Any]] | None = None) -> Verdicts:
    made = Verdicts(Excuses(faults), lost_within_s=25.0)
    made.calls["mark"] = calls or []
    return made


def fault(kind: str, ago_s: float, lasts_s: float = 1.0) -> Fault:
    return Fault(kind, NOW - ago_s, NOW - ago_s + lasts_s)


GONE = asked(None, gone_at=NOW - 50)
LOST = asked("failed", code="worker_lost", text="tok0 ")


@pytest.mark.parametrize(
    ("seen", "faults", "calls"),
    [
        (GONE, [fault(EMPTY, 60)], [call("finished", 70)]),
        (GONE, [fault(EMPTY, 60), fault(KILL, 70)], [call("aborted", 70)]),
        (LOST, [fault(KILL, 70)], [call("aborted", 70)]),
        (LOST, [fault(HALT, 80, 30)], [call("aborted", 50)]),
        (LOST, [fault(HALT, 80, 30)], [call("finished", 75)]),
        (LOST, [fault(KILL, 90), fault(KEEP, 70)], [call("aborted", 90)]),
        (asked("failed", code="draining"), [fault(TERMINATE, 60)], []),
    ],
)
def test_what_a_fault_explains_is_no_violation(
    seen: Asked, faults: list[Fault], calls: list[dict[str, Any]]
) -> None:
    judge = verdicts(*faults, calls=calls)
    judge.ended(seen)
    assert not judge.violations


@pytest.mark.parametrize(
    ("seen", "faults", "calls", "says"),
    [
        (GONE, [], [call("finished", 70)], "404"),
        (GONE, [fault(EMPTY, 120)], [call("finished", 70)], "404"),
        (GONE, [fault(EMPTY, 60)], [call("aborted", 50)], "404"),
        (LOST, [], [call("aborted", 70)], "its worker lived"),
        (LOST, [fault(KILL, 90)], [call("aborted", 60)], "its worker lived"),
        (LOST, [fault(HALT, 80, 10)], [call("aborted", 70)], "its worker lived"),
        (LOST, [fault(KILL, 90)], [call("aborted", 90)], "40.0 s from its worker's death"),
        (asked("failed", code="draining"), [], [], "no worker was told to go"),
        (asked(None, lost_conversation=True), [fault(KILL, 60)], [], "its conversation is gone"),
    ],
)
def test_what_no_fault_explains_is_one(
    seen: Asked, faults: list[Fault], calls: list[dict[str, Any]], says: str
) -> None:
    judge = verdicts(*faults, calls=calls)
    judge.ended(seen)
    assert [says in each.what for each in judge.violations] == [True]


def test_a_reader_that_comes_late_gets_the_ending_late() -> None:
    judge = verdicts(fault(KILL, 90), calls=[call("aborted", 90)])
    judge.ended(asked("failed", code="worker_lost", head_at=NOW - 52))
    assert not judge.violations


@pytest.mark.parametrize(
    ("runs", "is_wrong"), [(set[str](), True), ({"run"}, True), ({"run", "b"}, False)]
)
def test_a_run_makes_one_upstream_call_at_most(runs: set[str], is_wrong: bool) -> None:
    judge = verdicts(fault(KILL, 90), calls=[call("aborted", 90), call("finished", 60)])
    judge.asked_once([asked("completed")], {"mark": runs})
    assert bool(judge.violations) is is_wrong


def test_a_question_begins_a_second_run_only_where_the_first_was_lost() -> None:
    for judge, count in ((verdicts(), 1), (verdicts(fault(KILL, 90)), 0)):
        judge.asked_once([asked("completed")], {"mark": {"run", "other"}})
        assert len(judge.violations) == count


@pytest.mark.parametrize(
    ("statuses", "faults", "is_wrong"),
    [
        (["completed"] * 3, [], False),
        (["completed", "completed", "failed"], [], True),
        (["running"] * 3, [], True),
        (["failed"] * 3, [], True),
        (["completed", "completed", 404], [], True),
        (["completed", "completed", 404], [fault(EMPTY, 30)], False),
        (["completed", "completed", 404], [fault(EMPTY, 130)], True),
    ],
)
def test_all_workers_say_what_the_reader_saw(
    statuses: list[Any], faults: list[Fault], is_wrong: bool
) -> None:
    judge = verdicts(*faults)
    judge.shown("run", NOW - 100, asked("completed"), [{"status": each} for each in statuses])
    assert bool(judge.violations) is is_wrong


@pytest.mark.parametrize(
    ("seen", "status", "text", "is_wrong"),
    [
        (asked("completed"), "completed", TEXT, False),
        (asked("completed"), "completed", "tok0 tok1 ", True),
        (asked("completed"), "failed", TEXT, True),
        (asked("cancelled", text="tok0 "), "cancelled", "", True),
        (LOST, "failed", "", False),
        (LOST, "completed", TEXT, False),
        (LOST, "running", "", True),
        (LOST, "failed", "tok1 ", True),
        (asked("failed", code="worker_lost", text="tok0 " * 20), "failed", "", True),
        (GONE, "failed", "tok0 ", False),
        (GONE, "running", "tok0 ", True),
    ],
)
def test_the_conversation_holds_what_the_reader_saw(
    seen: Asked, status: str, text: str, is_wrong: bool
) -> None:
    message = {"status": status, "text": text}
    judge = verdicts()
    judge.stored(seen, message)
    assert bool(judge.violations) is is_wrong


@pytest.mark.parametrize(
    ("status", "text", "is_wrong"),
    [("failed", "", False), ("running", "", True), ("failed", "tok1 ", True)],
)
def test_a_worker_may_die_with_what_postgresql_could_not_take(
    status: str, text: str, is_wrong: bool
) -> None:
    judge = verdicts(fault(DATABASE, 60), fault(KILL, 55))
    judge.stored(asked("completed"), {"status": status, "text": text})
    assert bool(judge.violations) is is_wrong


def test_an_answer_that_is_nowhere_is_missed() -> None:
    judge = verdicts()
    judge.stored(asked("completed"), None)
    assert len(judge.violations) == 1
