"""The whole table of a run's life: what it allows, and that it allows nothing else."""

import itertools

import pytest

from app.events.model import (
    Done,
    Draft,
    Ending,
    Error,
    Event,
    Final,
    Reasoning,
    Retract,
    Start,
    Token,
    ToolCall,
    ToolResult,
    Usage,
)
from app.runs.state import State, advance

USAGE = Usage(0, 0, 0, estimated=True)
START = Start("r", "c", "m", 1, "q", 1000)
SAID: list[Event] = [
    Token("a"),
    Reasoning("b"),
    Draft("c"),
    Retract("a"),
    ToolCall("i", "t", "{}"),
    ToolResult("i", "t", "x", is_error=False),
]
FINAL = Final("a", "stop", USAGE, "m")
ERROR = Error("internal", "m", retryable=False, request_id="q")


def done(status: Ending) -> Done:
    return Done(status, USAGE, 1.0, frees_key=False)


COMPLETED, FAILED, CANCELLED = done("completed"), done("failed"), done("cancelled")
EVENTS: list[Event] = [START, *SAID, FINAL, ERROR, COMPLETED, FAILED, CANCELLED]
ALLOWED: dict[tuple[State, Event], State] = {
    (State.NEW, START): State.RUNNING,
    **{(State.RUNNING, event): State.RUNNING for event in SAID},
    (State.RUNNING, FINAL): State.ANSWERED,
    (State.RUNNING, ERROR): State.BROKEN,
    (State.RUNNING, CANCELLED): State.CANCELLED,
    (State.ANSWERED, COMPLETED): State.COMPLETED,
    (State.BROKEN, FAILED): State.FAILED,
}
IMPOSSIBLE = [pair for pair in itertools.product(State, EVENTS) if pair not in ALLOWED]


def told(value: object) -> str:
    status = f" {value.status}" if isinstance(value, Done) else ""
    return f"{value.name}{status}" if isinstance(value, Event) else str(value)


@pytest.mark.parametrize(("state", "event"), ALLOWED, ids=told)
def test_what_the_contract_allows_leads_on(state: State, event: Event) -> None:
    assert advance(state, event) is ALLOWED[state, event]


@pytest.mark.parametrize(("state", "event"), IMPOSSIBLE, ids=told)
def test_the_impossible_raises(state: State, event: Event) -> None:
    with pytest.raises(RuntimeError, match="impossible"):
        advance(state, event)


def test_every_event_and_every_state_has_its_place_in_the_table() -> None:
    assert {type(event) for event in EVENTS} == set(Event.__subclasses__())
    assert {state for state, _ in ALLOWED} | set(ALLOWED.values()) == set(State)


def test_every_story_that_the_table_allows_ends_with_done_and_only_there() -> None:
    stories: list[tuple[State, list[Event]]] = [(State.NEW, [])]
    for _ in range(6):
        grown = []
        for state, story in stories:
            onward = [(after, [*story, e]) for (s, e), after in ALLOWED.items() if s is state]
            if not onward:
                assert isinstance(story[-1], Done)
            assert not any(isinstance(event, Done) for event in story[:-1])
            grown += onward
        stories = grown
    assert stories
