"""What the simulator saw: counters and the newest calls. One instance per server, one loop.

``finished``: we were through, down to the kernel's socket buffer. ``aborted``: the peer closed
before. ``failed``: the script broke the answer on purpose, or the server was stopped.
``started = open + finished + aborted + failed`` always holds, except that ``open`` still counts
calls that began before a reset; their endings are counted nowhere.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum

KEPT_CALLS = 10_000  # newest calls that are remembered; about 5 MB
PROMPT_CHARS = 200  # of the last user message that are remembered, and searched by `contains`


class Outcome(StrEnum):
    OPEN = "open"
    FINISHED = "finished"
    ABORTED = "aborted"
    FAILED = "failed"


@dataclass(slots=True)
class Call:
    """One accepted request for a completion. Times are ``time.time()``."""

    id: str
    model: str
    prompt: str
    spec: str
    stream: bool
    started_at: float
    ended_at: float | None = None
    outcome: Outcome = Outcome.OPEN
    tokens_sent: int = 0
    bytes_sent: int = 0  # of HTTP, head and framing included


@dataclass(frozen=True, slots=True)
class View:
    """A moment's numbers; what ``GET /stats`` answers."""

    open: int
    connections: int  # TCP, whoever asks included
    started: int
    finished: int
    aborted: int
    failed: int
    rejected: int  # completion requests that were not understood; they are no calls
    calls: list[Call]  # oldest first


class Stats:
    def __init__(self) -> None:
        self.connections = 0
        self.attempts: Counter[str] = Counter()  # calls of scripts with `key=` so far, by it
        self._running: dict[str, Call] = {}
        self._waiting: list[tuple[Callable[[View], bool], asyncio.Future[None]]] = []
        self.reset()

    def reset(self) -> None:
        """Back to zero; calls that are running go on, but count no more."""
        self.rejected = 0
        self._outcomes: Counter[Outcome] = Counter()
        self._started = 0
        self._calls: deque[Call] = deque(maxlen=KEPT_CALLS)
        self._ours: set[str] = set()  # ids of running calls that began since the reset
        self.attempts.clear()

    def begin(self, call_id: str, model: str, prompt: str, spec: str, *, stream: bool) -> Call:
        call = Call(call_id, model, prompt[:PROMPT_CHARS], spec, stream, time.time())
        self._started += 1
        self._running[call_id] = call
        self._ours.add(call_id)
        self._calls.append(call)
        self.changed()
        return call

    def sent(self, call: Call, *, size: int, tokens: int) -> None:
        call.bytes_sent += size
        call.tokens_sent += tokens
        self.changed()

    def end(self, call: Call, outcome: Outcome) -> None:
        """Idempotent: the first outcome stands."""
        if self._running.pop(call.id, None) is None:
            return
        call.outcome = outcome
        call.ended_at = time.time()
        if call.id in self._ours:
            self._ours.discard(call.id)
            self._outcomes[outcome] += 1
        self.changed()

    def view(self, contains: str = "") -> View:
        """All numbers; with ``contains`` only of kept calls with that in prompt or model."""
        calls = list(self._calls)
        outcomes, started, running = self._outcomes, self._started, len(self._running)
        if contains:
            calls = [call for call in calls if contains in call.prompt or contains in call.model]
            outcomes = Counter(call.outcome for call in calls)
            started, running = len(calls), outcomes[Outcome.OPEN]
        return View(
            open=running,
            connections=self.connections,
            started=started,
            finished=outcomes[Outcome.FINISHED],
            aborted=outcomes[Outcome.ABORTED],
            failed=outcomes[Outcome.FAILED],
            rejected=self.rejected,
            calls=calls,
        )

    def as_json(self, contains: str = "") -> dict[str, object]:
        return asdict(self.view(contains))

    def changed(self) -> None:
        """Wake those in ``until`` whose condition now holds. Costs nothing when nobody waits."""
        if not self._waiting:
            return
        view = self.view()
        for condition, future in self._waiting:
            if not future.done() and condition(view):
                future.set_result(None)

    async def until(self, condition: Callable[[View], bool], *, timeout_s: float = 5.0) -> View:
        """The first moment at which a condition holds, now included.

        For tests in the same process and loop. Raises ``TimeoutError`` with the numbers.
        """
        if not condition(self.view()):
            entry = (condition, asyncio.get_running_loop().create_future())
            self._waiting.append(entry)
            try:
                async with asyncio.timeout(timeout_s):
                    await entry[1]
            except TimeoutError:
                raise TimeoutError(f"it never came: {self.view()}") from None
            finally:
                self._waiting.remove(entry)
        return self.view()
