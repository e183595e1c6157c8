"""When a failing model is left out, and how it comes back."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from app.llm.breaker import FAILURES, OPEN_S, Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(clock)
    for _ in range(FAILURES):
        assert breaker.admits()
        breaker.failed()
    return breaker


def test_the_numbers_are_the_issue_s() -> None:
    assert (FAILURES, OPEN_S) == (5, 30)


def test_five_failures_in_a_row_leave_the_model_out_for_30_seconds() -> None:
    clock = Clock()
    breaker = opened(clock)
    assert not breaker.admits()
    clock.now += 29.9
    assert (breaker.state, breaker.admits()) == ("open", False)
    clock.now += 0.1
    assert (breaker.state, breaker.admits()) == ("half-open", True)


def test_a_success_in_between_begins_the_row_anew() -> None:
    breaker = Breaker(Clock())
    for _ in range(3):
        for _ in range(FAILURES - 1):
            breaker.failed()
        breaker.succeeded()
    assert breaker.state == "closed"


def test_while_half_open_one_probe_is_out_at_a_time() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += OPEN_S
    assert [breaker.admits() for _ in range(3)] == [True, False, False]
    clock.now += 10 * OPEN_S
    assert not breaker.admits()


def test_a_probe_that_succeeds_lets_everybody_in() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += OPEN_S
    assert breaker.admits()
    breaker.succeeded()
    assert all(breaker.admits() for _ in range(3))


def test_a_probe_that_fails_leaves_the_model_out_for_another_30_seconds() -> None:
    clock = Clock()
    breaker = opened(clock)
    for _ in range(3):
        clock.now += OPEN_S
        assert breaker.admits()
        breaker.failed()
        clock.now += OPEN_S - 0.1
        assert not breaker.admits()
        clock.now += 0.1


def test_a_cancelled_probe_gives_its_place_to_the_next() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += OPEN_S
    assert breaker.admits()
    breaker.released()
    assert (breaker.state, breaker.admits()) == ("half-open", True)


def test_attempts_that_told_nothing_do_not_interrupt_the_row() -> None:
    breaker = Breaker(Clock())
    for _ in range(FAILURES):
        assert breaker.admits()
        breaker.released()
        assert breaker.admits()
        breaker.failed()
    assert breaker.state == "open"


def test_late_failures_of_attempts_from_before_do_not_prolong_it() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += OPEN_S - 1
    breaker.failed()
    clock.now += 1
    assert breaker.admits()


def test_a_late_success_of_an_attempt_from_before_closes_it() -> None:
    breaker = opened(Clock())
    breaker.succeeded()
    assert (breaker.state, breaker.admits()) == ("closed", True)


class AgainstItsHistory(RuleBasedStateMachine):
    """The breaker keeps three numbers; the reference keeps everything and looks back."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.breaker = Breaker(self.clock)
        self.history: list[tuple[str, float]] = []

    @rule()
    def ask(self) -> None:
        state, admitted = self.state(), self.breaker.admits()
        assert admitted == (state == "closed" or (state == "half-open" and not self.is_probe_out()))
        if admitted and state == "half-open":
            self.history.append(("probe", self.clock.now))

    @rule()
    def succeed(self) -> None:
        self.breaker.succeeded()
        self.history.append(("success", self.clock.now))

    @rule()
    def fail(self) -> None:
        self.breaker.failed()
        self.history.append(("failure", self.clock.now))

    @rule()
    def release(self) -> None:
        self.breaker.released()
        self.history.append(("release", self.clock.now))

    @rule(seconds=st.sampled_from([1, 14, 29, 30, 31]))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @invariant()
    def says_what_its_history_says(self) -> None:
        assert self.breaker.state == self.state()

    def state(self) -> str:
        row: list[float] = []
        for what, when in self.history:
            if what == "success":
                row = []
            elif what == "failure":
                row.append(when)
        if len(row) < FAILURES:
            return "closed"
        opened = row[FAILURES - 1]
        for when in row[FAILURES:]:
            if when >= opened + OPEN_S:
                opened = when
        return "open" if self.clock.now < opened + OPEN_S else "half-open"

    def is_probe_out(self) -> bool:
        """Every report ends it, because nobody knows whose it is."""
        return self.history[-1][0] == "probe"


TestAgainstItsHistory = AgainstItsHistory.TestCase
