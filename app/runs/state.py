"""The life of a run as one table. The impossible raises."""

from enum import StrEnum

from app.events.model import (
    Done,
    Draft,
    Error,
    Event,
    Final,
    Reasoning,
    Retract,
    Start,
    Token,
    ToolCall,
    ToolResult,
)


class State(StrEnum):
    NEW = "new"
    RUNNING = "running"
    ANSWERED = "answered"  # final is out, done is not
    BROKEN = "broken"  # error is out, done is not
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


_NEXT: dict[tuple[State, type[Event]], State] = {
    (State.NEW, Start): State.RUNNING,
    (State.RUNNING, Token): State.RUNNING,
    (State.RUNNING, Reasoning): State.RUNNING,
    (State.RUNNING, Draft): State.RUNNING,
    (State.RUNNING, Retract): State.RUNNING,
    (State.RUNNING, ToolCall): State.RUNNING,
    (State.RUNNING, ToolResult): State.RUNNING,
    (State.RUNNING, Final): State.ANSWERED,
    (State.RUNNING, Error): State.BROKEN,
    (State.RUNNING, Done): State.CANCELLED,
    (State.ANSWERED, Done): State.COMPLETED,
    (State.BROKEN, Done): State.FAILED,
}


def advance(state: State, event: Event) -> State:
    """The state after ``event``. Raises ``RuntimeError`` where the contract allows none."""
    after = _NEXT.get((state, type(event)))
    if after is None or (isinstance(event, Done) and event.status != after):
        raise RuntimeError(f"{event} is impossible once a run is {state}")
    return after
