"""S1 to S4 and S6: what every target goes through.

S1 flat out   32 streams as fast as they go. Flatters a server that is saturated: what it is late
              with, it reads and writes in bigger pieces.
S2 paced      200 streams at 50 tokens a second, which is what a gateway's day is like: the figure
              to compare.
S3 many       1,000 streams at 2 tokens a second: memory.
S4 leaving    50 clients close after 3 tokens: how soon the model's server is told.
S6 cold start from nothing to an open port and to a first answer, and what then lies in memory.
"""

import statistics
import time
from collections.abc import Callable, Sequence

from tests.bench import procstat
from tests.bench.figures import NOISY, is_noisy
from tests.bench.load import Plan
from tests.bench.measure import Figures
from tests.bench.results import Leaving, Start
from tests.bench.servers import Bench, Running
from tests.bench.target import Target

FLAT_OUT = Plan("sim-n256-i0", streams=32, seconds=5)
PACED = Plan("sim-n100-i20", streams=200, ramp_s=2)
MANY = Plan("sim-n60-i500", streams=1000, ramp_s=5)
# Slow enough that nobody is saturated: this is about leaving, not about a backlog.
LEAVING = Plan("sim-n100-i100", streams=50, ramp_s=0.5, leave_after=3)
_LOOK_S = 0.5
MORE_RUNS = 2  # at most, for noisy ones
QUIET_LIMIT_S = 8.0  # how long a run waits for others to leave the core alone
CLOSED_LIMIT_S = 12.0  # more than the answer that the client left would have taken
IDLE_AFTER_S = 1.0  # memory settles after the first answer


def is_short(done: Sequence[Figures], runs: int) -> bool:
    """Of runs that are judged by what others did to the core meanwhile, never by their result."""
    quiet = sum(not is_noisy(run) for run in done)
    return len(done) < runs or (quiet < runs and len(done) < runs + MORE_RUNS)


def quietly(bench: Bench, measure: Callable[[], Figures]) -> Figures:
    """Once others leave the target's core alone, or have not for long enough."""
    deadline = time.monotonic() + QUIET_LIMIT_S
    while bench.cores is not None and time.monotonic() < deadline:
        before = procstat.busy_s(bench.cores.target)
        time.sleep(_LOOK_S)
        if procstat.busy_s(bench.cores.target) - before <= NOISY * _LOOK_S:
            break
    return measure()


def leaving(running: Running, plan: Plan = LEAVING) -> Leaving:
    upstream = running.bench.upstream
    upstream.reset()
    figures = running.measure(plan, **running.target.leaving)
    left = figures.left
    deadline = time.monotonic() + CLOSED_LIMIT_S
    while len(closed := upstream.stats().left) < len(left) and time.monotonic() < deadline:
        time.sleep(0.1)
    late_ms = [(closed[tag] - left[tag]) * 1000 for tag in left if tag in closed]
    return Leaving(
        left=len(left),
        closed=len(late_ms),
        p50_ms=statistics.median(late_ms) if late_ms else None,
        max_ms=max(late_ms, default=None),
        errors=figures.errors,
    )


def cold_start(bench: Bench, name: str, target: Target) -> Start:
    with bench.running(name, target) as running:
        port_s = running.port_open_s()
        answer_s = running.first_answer_s()
        time.sleep(IDLE_AFTER_S)
        idle = procstat.rss_bytes(running.process.pids())
    return Start(port_s, answer_s, idle / 2**20)
