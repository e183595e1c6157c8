"""Twenty seconds of what ``make chaos`` does in five minutes; only nobody outlasts a lease."""

import os
import sys

import pytest

from tests.chaos.plan import Plan
from tests.chaos.run import run

# Its order lets Redis break before a worker dies, so that nobody waits for two leases at the end.
SEED = int(os.environ.get("CHAOS_SEED", "457"))
# Seconds. Calls to Redis end after 2 s without an answer. Bounds are those of a busy machine.
SHORT = Plan(
    SEED,
    seconds=20.0,
    streams=40,
    every_s=2.0,
    asleep_s=3.0,
    silent_s=2.5,
    longest_s=8.0,
    drain_s=4.0,
    lost_within_s=60.0,
)


@pytest.mark.timeout(300)
def test_whatever_breaks_each_answer_is_whole_or_has_one_honest_ending() -> None:
    outcome = run(SHORT)
    sys.stdout.write(outcome.table)  # shown with a failure: what happened, and the seed
    assert not outcome.violations
