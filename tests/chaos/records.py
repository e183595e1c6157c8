"""What one reader got of one run: exactly what came, and how often it had to come back."""

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.chaos.questions import Question

NOTES = 12


class Violation(NamedTuple):
    """``at``: Unix seconds, when the reader saw it; None: at the end."""

    what: str
    at: float | None = None


class Heard(NamedTuple):
    """``at``: Unix seconds."""

    seq: int
    name: str
    data: dict[str, Any]
    at: float


@dataclass(slots=True, eq=False)
class Record:
    """Times are Unix seconds. ``went_on_at``: when it last got the head of a stream.
    ``longest_away_s``: without a stream, from the last byte of one to the head of the next.
    ``refused``: by status. ``gone_at``: a resume got 404. ``has_left``: for good, as it meant to.
    ``lost_conversation``: the one to go on with was not there. ``trouble``: what no good gateway
    does. ``notes``: what became of its last requests."""

    question: Question
    conversation_id: str | None = None
    run_id: str = ""
    heard: list[Heard] = field(default_factory=list)
    began_at: float = field(default_factory=time.time)
    went_on_at: float = 0.0
    longest_away_s: float = 0.0
    resumes: int = 0
    cuts: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    gone_at: float | None = None
    has_left: bool = False
    lost_conversation: bool = False
    trouble: list[str] = field(default_factory=list)
    notes: deque[str] = field(default_factory=lambda: deque(maxlen=NOTES))

    @property
    def done(self) -> Heard | None:
        return next((heard for heard in self.heard if heard.name == "done"), None)

    @property
    def status(self) -> str | None:
        return None if self.done is None else str(self.done.data["status"])

    @property
    def code(self) -> str | None:
        """Of the error, if there was one."""
        found = [heard.data["code"] for heard in self.heard if heard.name == "error"]
        return str(found[0]) if found else None

    @property
    def is_over(self) -> bool:
        """There is nothing more to be had."""
        over = self.done or self.gone_at or self.has_left or self.lost_conversation
        return bool(over or self.trouble)

    def note(self, what: str) -> None:
        self.notes.append(f"{time.time() - self.began_at:.1f} s: {what}")

    def text(self, name: str = "token") -> str:
        return "".join(heard.data["text"] for heard in self.heard if heard.name == name)
