"""Leaves a model out that fails again and again: a circuit breaker (Nygard, "Release It!").

Reports are nobody's in particular, so an attempt from before may speak while the model is left out.
A success closes the breaker whenever it comes, because the model just answered. A failure counts
unless the model is left out already: late ones do not make that longer.
"""

import time
from collections.abc import Callable
from typing import Literal

FAILURES = 5  # in a row, then it is left out
OPEN_S = 30.0  # until one attempt may try it again

State = Literal["closed", "open", "half-open"]


class Breaker:
    """For one model. ``clock`` tells seconds and never goes back.

    Whoever ``admits`` let through tells how it ended by one of ``succeeded``, ``failed`` and
    ``released``, also when cancelled: a probe that tells nothing leaves the model out for ever.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0  # in a row
        self._open_until = 0.0  # means something after too many failures
        self._probing = False  # means something while half-open; the failure before cleared it

    @property
    def state(self) -> State:
        """``open``: nobody may ask; ``half-open``: one at a time."""
        if self._failures < FAILURES:
            return "closed"
        return "open" if self._clock() < self._open_until else "half-open"

    def admits(self) -> bool:
        """Whether the model may be asked now. While half-open, True once until that is told of."""
        state = self.state
        if state != "half-open":
            return state == "closed"
        if self._probing:
            return False
        self._probing = True
        return True

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self) -> None:
        if self.state == "open":
            return
        self._failures += 1
        self._probing = False
        if self._failures >= FAILURES:
            self._open_until = self._clock() + OPEN_S

    def released(self) -> None:
        """It ended without telling anything about the model: cancelled, or its caller's fault."""
        self._probing = False
