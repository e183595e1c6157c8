"""A load's figures: what its clients saw, and what it cost the target's processes meanwhile."""

import asyncio
import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import uvloop

from tests.bench import procstat
from tests.bench.load import Asking, Load, Plan

_RSS_EVERY_S = 0.1


@dataclass(frozen=True)
class Figures:
    """Milliseconds as the clients saw them; None where there is nothing to say."""

    ok: int
    errors: dict[str, int]  # why streams failed, and how many
    tokens: int
    tokens_per_s: float
    tokens_per_read: float  # how far the target, or the load, lagged behind
    ttft_p50_ms: float | None
    ttft_p99_ms: float | None
    gap_p99_ms: float | None
    gap_max_ms: float | None
    cpu_us_per_token: float  # of the target, in the plan's window
    foreign: float  # share of the target's core that others used meanwhile: noise
    rss_before_mib: float
    rss_peak_mib: float
    kib_per_stream: float
    left: dict[str, float]  # of clients that left on purpose: tag, `time.monotonic()`

    @property
    def failed(self) -> int:
        return sum(self.errors.values())

    @property
    def counts(self) -> bool:
        """No figure counts from a run with a failed stream or a wrong token."""
        return self.ok > 0 and self.failed == 0

    def __str__(self) -> str:
        """One line, for the progress."""
        waits = (self.ttft_p99_ms, self.gap_p99_ms, self.gap_max_ms)
        ttft, gap, longest = ("-" if wait is None else f"{wait:.1f}" for wait in waits)
        return (
            f"{self.cpu_us_per_token:.1f} µs/token, {self.tokens_per_s:,.0f} tokens/s, "
            f"{self.kib_per_stream:.1f} KiB/stream, TTFT p99 {ttft} ms, gap p99 {gap} "
            f"max {longest} ms; {self.ok} ok, {self.failed} failed {self.errors or ''}; "
            f"noise {self.foreign:.0%}"
        )


@dataclass(frozen=True)
class _Sample:
    at: float
    cpu_s: float  # of the target
    foreign_s: float  # of everybody else on its core
    tokens: int


@dataclass(frozen=True)
class Server:
    """Whose cost is measured. ``neighbours``: our own processes on the same core, which are no
    noise; there are some on a machine with one core."""

    pids: Sequence[int]
    core: int
    neighbours: Sequence[int]


def measure(plan: Plan, asking: Asking, server: Server) -> Figures:
    with _no_garbage(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_Measurement(plan, asking, server).run())


@contextmanager
def _no_garbage() -> Iterator[None]:
    """A collection in the load would show as a gap of the target's."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class _Measurement:
    def __init__(self, plan: Plan, asking: Asking, server: Server) -> None:
        self._plan = plan
        self._load = Load(plan, asking)
        self._server = server
        self._rss_peak = self._rss_before = procstat.rss_bytes(server.pids)

    async def run(self) -> Figures:
        begins, ends = self._plan.window_s or (0.0, None)
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._watch_memory())
            loading = group.create_task(self._load.run())
            await asyncio.sleep(begins)
            before = self._sample()
            await (loading if ends is None else asyncio.sleep(ends - begins))
            after = self._sample()
            await loading
            watch.cancel()
        return self._figures(before, after, time.monotonic() - began)

    async def _watch_memory(self) -> None:
        while True:
            self._rss_peak = max(self._rss_peak, procstat.rss_bytes(self._server.pids))
            await asyncio.sleep(_RSS_EVERY_S)

    def _sample(self) -> _Sample:
        ours = [*self._server.pids, *self._server.neighbours]
        return _Sample(
            at=time.monotonic(),
            cpu_s=procstat.cpu_s(self._server.pids),
            foreign_s=procstat.busy_s(self._server.core) - procstat.cpu_s(ours),
            tokens=self._load.tally.tokens,
        )

    def _figures(self, before: _Sample, after: _Sample, wall_s: float) -> Figures:
        tally = self._load.tally
        # Tokens of one read came at the same moment.
        gaps = sorted([*tally.gaps_s, *[0.0] * (tally.tokens - tally.reads)])
        first = sorted(tally.first_s)
        tokens = after.tokens - before.tokens
        grown = self._rss_peak - self._rss_before
        return Figures(
            ok=tally.ok,
            errors=dict(tally.errors),
            tokens=tally.tokens,
            tokens_per_s=tally.tokens / wall_s,
            tokens_per_read=tally.tokens / max(1, tally.reads),
            ttft_p50_ms=percentile_ms(first, 0.5),
            ttft_p99_ms=percentile_ms(first, 0.99),
            gap_p99_ms=percentile_ms(gaps, 0.99),
            gap_max_ms=percentile_ms(gaps, 1),
            cpu_us_per_token=(after.cpu_s - before.cpu_s) * 1e6 / max(1, tokens),
            foreign=max(0.0, after.foreign_s - before.foreign_s) / (after.at - before.at),
            rss_before_mib=self._rss_before / 2**20,
            rss_peak_mib=self._rss_peak / 2**20,
            kib_per_stream=grown / 1024 / self._plan.streams,
            left=tally.left,
        )


def percentile_ms(ascending: Sequence[float], share: float) -> float | None:
    """The nearest rank of sorted seconds; None of nothing."""
    if not ascending:
        return None
    return ascending[min(len(ascending) - 1, int(share * len(ascending)))] * 1000
