"""What is asked, and the whole truth about the answer, which is known beforehand."""

import random
import secrets
from dataclasses import dataclass

from app.simulator.scripts import expected_reasoning, expected_text
from app.simulator.texts import AWKWARD, pieces

GRACE_S = 5.0  # the gateway's default
LONG_GRACE_S = 60.0
FASTEST_S, SLOWEST_S = 0.05, 0.3  # between two tokens


@dataclass(frozen=True, slots=True)
class Question:
    """``mark`` stands in ``text`` and in no other question. ``grace_s`` None: the run goes on
    without readers. ``leaves_after_s``: its reader goes away for good. ``readers``: as many follow
    it, from the first event on."""

    text: str
    mark: str
    shows_reasoning: bool
    grace_s: float | None
    leaves_after_s: float | None
    readers: int

    @property
    def answer(self) -> str:
        return expected_text(self.text)

    @property
    def reasoning(self) -> str:
        return expected_reasoning(self.text)

    def body(self, conversation_id: str | None) -> dict[str, object]:
        body: dict[str, object] = {"text": self.text}
        if self.shows_reasoning:
            body["include"] = ["reasoning"]
        if self.grace_s is None:
            body["on_disconnect"] = "continue"
        elif self.grace_s != GRACE_S:
            body["grace_seconds"] = self.grace_s
        if conversation_id is not None:
            body["conversation_id"] = conversation_id
        return body


class Questions:
    """``longest_s``: about what the longest answer takes."""

    def __init__(self, seed: int, longest_s: float) -> None:
        self._random = random.Random(f"questions {seed}")
        self._longest_s = longest_s

    def next(self) -> Question:
        chance = self._random
        mark = f"q{secrets.token_hex(10)}"
        return Question(
            text=f"{self._script(mark)} {mark}",
            mark=mark,
            shows_reasoning=chance.random() < 0.5,
            grace_s=chance.choice((GRACE_S, LONG_GRACE_S, LONG_GRACE_S, None)),
            leaves_after_s=chance.uniform(0, self._longest_s / 2)
            if chance.random() < 0.05
            else None,
            readers=2 if chance.random() < 0.2 else 1,
        )

    def _script(self, mark: str) -> str:
        chance = self._random
        takes_s = chance.uniform(1.0, self._longest_s)
        interval_s = chance.uniform(FASTEST_S, SLOWEST_S)
        kind = chance.choice(("tokens", "tokens", "tokens", "reasoning", "awkward", "plain"))
        script = f"sim:{kind}"
        if kind in ("tokens", "reasoning"):
            script += f",n={max(1, round(takes_s / interval_s))}"
        else:
            count = len(AWKWARD) if kind == "awkward" else len(list(pieces(expected_text(mark))))
            interval_s = min(SLOWEST_S, takes_s / count)
        first_s = chance.choice((0.0, 0.0, 0.5, 2.0))  # the model thinks
        return f"{script},interval={interval_s:.3f},first={first_s}"
