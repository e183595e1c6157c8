"""Each run, seen from all sides: its readers, the model, every worker, the conversation. Pure."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from tests.chaos.checks import is_part
from tests.chaos.excuses import Call, Excuses
from tests.chaos.load import Asked
from tests.chaos.records import Violation

BACK_S = 5.0  # a reader that comes back later than the ending has it by then
EARLIER_S = 120.0  # the question before, in the same conversation
UNSHARED = 60  # characters that a worker may say before Redis has them, and die

Calls = defaultdict[str, list[Call]]


class Verdicts:
    """``calls``: by mark. ``counts``: what happened and had to. ``longest_lost_s``: from a SIGKILL
    to the ending at a reader; ``longest_judged_s``: less the time in which nobody could judge."""

    def __init__(self, excuses: Excuses, lost_within_s: float) -> None:
        self.violations: list[Violation] = []
        self.calls: Calls = Calls(list)
        self.counts = Counter[str]()
        self.longest_lost_s = 0.0
        self.longest_judged_s = 0.0
        self._excuses = excuses
        self._lost_within_s = lost_within_s

    def ended(self, asked: Asked) -> None:
        """As its reader saw it."""
        calls = self.calls.get(asked.question.mark)
        call = calls[-1] if calls else None
        self.counts[f"ended: {_how(asked)}"] += 1
        if asked.gone_at is not None and not self._excuses.gone(asked, call):
            self._wrong(asked, "404 for a log that nothing lost")
        if asked.lost_conversation and not self._excuses.unwritten(
            asked.began_at - EARLIER_S, asked.over_at
        ):
            self._wrong(asked, "its conversation is gone")
        if asked.code == "draining" and not self._excuses.drained(asked):
            self._wrong(asked, "draining, though no worker was told to go")
        if asked.code == "worker_lost":
            if not self._excuses.died(asked, call):
                self._wrong(asked, f"worker_lost, though its worker lived: {_told(call)}")
            if call is not None and call["ended_at"] and asked.done_at is not None:
                self._lateness(asked, call["ended_at"], asked.done_at)

    def _lateness(self, asked: Asked, died_at: float, done_at: float) -> None:
        if not self._excuses.killed(died_at):
            return
        judged_s = done_at - self._excuses.judged_from(died_at, done_at)
        self.longest_lost_s = max(self.longest_lost_s, done_at - died_at)
        self.longest_judged_s = max(self.longest_judged_s, judged_s)
        if judged_s > self._lost_within_s and done_at - asked.head_at > BACK_S:
            self._wrong(asked, f"{judged_s:.1f} s from its worker's death to its ending")

    def asked_once(self, everybody: Sequence[Asked], runs: Mapping[str, set[str]]) -> None:
        """``runs``: ids by mark. One call for each at most."""
        for asked in {each.question.mark: each for each in everybody}.values():
            mark = asked.question.mark
            calls, known = self.calls.get(mark, []), runs.get(mark, set())
            if len(calls) > len(known) and not self._excuses.unwritten(
                asked.began_at, asked.over_at
            ):
                self._wrong(asked, f"{len(calls)} upstream calls for {len(known)} runs")
            if len(known) > 1:
                self.counts["questions that began a second run"] += 1
                if not self._excuses.twice(asked.began_at, asked.over_at):
                    self._wrong(asked, f"runs for one question: {known}")

    def shown(
        self, run_id: str, began_at: float, asked: Asked | None, answers: Sequence[dict[str, Any]]
    ) -> None:
        """``answers``: of ``GET /runs/{id}``, from every worker."""
        statuses = {answer["status"] for answer in answers} - {404}
        if 404 in (answer["status"] for answer in answers):
            self.counts["runs that a worker no longer knows"] += 1
            if not self._excuses.emptied(began_at):
                self.violations.append(Violation(f"run {run_id}: 404, and Redis was not emptied"))
        if len(statuses) > 1 or not statuses <= {"completed", "failed", "cancelled"}:
            told = [(answer["status"], answer.get("last_seq")) for answer in answers]
            reader = asked and (asked.status, asked.code)
            self.violations.append(
                Violation(f"run {run_id}: workers say {told}, its reader {reader}")
            )
        elif asked is not None and asked.status and statuses and statuses != {asked.status}:
            self._wrong(asked, f"its reader saw {asked.status}, workers say {statuses}")

    def stored(self, asked: Asked, message: dict[str, Any] | None) -> None:
        """``message``: the answer in its conversation."""
        if asked.status is None and asked.gone_at is None:
            return  # its reader left, or never got anywhere: ``shown`` looks at the run
        if message is not None and (
            message["status"] == "running"
            or not is_part(message["text"], asked.question.answer, is_whole=False)
        ):
            self._wrong(asked, f"stored as {message['status']}: {message['text'][-100:]!r}")
            return
        why = _lacks(asked, message, is_shared=not self._excuses.unshared(asked.over_at))
        if why is None:
            return
        if self._excuses.unwritten(asked.began_at, asked.over_at):
            self.counts["answers that died unwritten with PostgreSQL away"] += 1
        else:
            self._wrong(asked, why)

    def _wrong(self, asked: Asked, why: str) -> None:
        run = f"run {asked.run_id or '?'} ({asked.question.text})"
        self.violations.append(Violation(f"{run}: {why}", asked.over_at))


def _told(call: Call | None) -> str:
    return "no call" if call is None else f"{call['outcome']} at {call['ended_at']}"


def _lacks(asked: Asked, message: dict[str, Any] | None, *, is_shared: bool) -> str | None:
    """What the conversation has less than the reader. ``is_shared``: Redis had it all the time."""
    if message is None:
        return "its conversation has no answer"
    status, text = message["status"], message["text"]
    if asked.status in ("completed", "cancelled") or asked.code == "draining":
        if (status, text) != (asked.status, asked.text):
            return f"stored as {status}, {len(text)} of {len(asked.text)} characters"
    elif asked.code == "worker_lost" and is_shared:
        missing = len(asked.text) - len(text)
        if missing > UNSHARED:
            return f"{missing} of {len(asked.text)} characters are not stored"
    return None


def _how(asked: Asked) -> str:
    if asked.gone_at is not None:
        return "404, log lost with Redis"
    if asked.has_left:
        return "reader left for good"
    if asked.lost_conversation:
        return "conversation lost"
    if asked.code is not None:
        return f"{asked.status}, {asked.code}"
    return asked.status or "never"
