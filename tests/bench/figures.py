"""Arithmetic of the report. Pure.

A figure that does not count, because a stream of its run failed or had a wrong token, is NaN: what
is computed from it does not count either, and no goal is reached with it. None is what was not
measured.
"""

import math
import statistics
from collections.abc import Callable, Sequence

from tests.bench.measure import Figures

TIMES = "\N{MULTIPLICATION SIGN}"
# Share of the target's core that others used: such a run is repeated. At full speed the kernel's
# own threads use a tenth.
NOISY = 0.15
Number = float | None
Pick = Callable[[Figures], Number]


def quietest(runs: Sequence[Figures], kept: int) -> Sequence[Figures]:
    """Where more were run because some were noisy."""
    return sorted(runs, key=lambda run: run.foreign)[:kept]


def is_noisy(run: Figures) -> bool:
    return run.foreign > NOISY


def median(runs: Sequence[Figures], kept: int, pick: Pick) -> Number:
    """NaN when any run failed, a noisy one too: noise excuses no wrong token."""
    if not runs:
        return None
    if not all(run.counts for run in runs):
        return math.nan
    return middle([pick(run) for run in quietest(runs, kept)])


def middle(values: Sequence[Number]) -> Number:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def ratio(over: Number, under: Number) -> Number:
    return None if over is None or under is None else over / under


def shown(value: Number, digits: int = 1, unit: str = "") -> str:
    if value is None:
        return "-"
    return "failed" if math.isnan(value) else f"{value:,.{digits}f}{unit}"


def cost_us(run: Figures) -> Number:
    return run.cpu_us_per_token


def cpu_ms(run: Figures) -> Number:
    return run.cpu_us_per_token * run.tokens / 1000


def ttft_p50_ms(run: Figures) -> Number:
    return run.ttft_p50_ms


def ttft_p99_ms(run: Figures) -> Number:
    return run.ttft_p99_ms


def gap_p99_ms(run: Figures) -> Number:
    return run.gap_p99_ms


def kib_per_stream(run: Figures) -> Number:
    return run.kib_per_stream


def tokens_per_s(run: Figures) -> Number:
    return run.tokens_per_s
