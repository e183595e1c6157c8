"""Figures and results made up for tests."""

from dataclasses import replace
from typing import Any

from tests.bench.machine import Machine
from tests.bench.measure import Figures
from tests.bench.results import RedisUse, Result, Results, Sharing

_FIGURES = Figures(
    ok=1,
    errors={},
    tokens=1000,
    tokens_per_s=500.0,
    tokens_per_read=1.0,
    ttft_p50_ms=1.0,
    ttft_p99_ms=2.0,
    gap_p99_ms=20.0,
    gap_max_ms=21.0,
    cpu_us_per_token=10.0,
    foreign=0.0,
    rss_before_mib=100.0,
    rss_peak_mib=101.0,
    kib_per_stream=50.0,
    left={},
)
_MACHINE = Machine("2026-11-22 12:00 UTC", "a CPU", 2, "6.1", "3.11.7", "abc1234")


def figures(cpu_us_per_token: float = 10.0, **fields: Any) -> Figures:
    return replace(_FIGURES, cpu_us_per_token=cpu_us_per_token, **fields)


def failed(cpu_us_per_token: float = 1.0) -> Figures:
    return figures(cpu_us_per_token, errors={"wrong text": 1})


def results(runs: int = 3, **targets: Result) -> Results:
    return Results(_MACHINE, runs, targets)


def sharing(**fields: Any) -> Sharing:
    use = RedisUse(
        cpu_us=17.7,
        commands={"evalsha": 0.9, "xadd": 0.9, "get": 0.02},
        bytes_in=250.0,
        bytes_out=20.0,
        log_bytes=48.0,
        memory_bytes=62.0,
    )
    found = Sharing(
        alone={load: figures(90) for load in ("S1", "S2", "local")},
        writer={
            load: figures(cost)
            for load, cost in (
                ("S1", 99),
                ("S2", 99),
                ("local", 120),
                ("unread", 80),
                ("remote", 77),
            )
        },
        redis=dict.fromkeys(("S1", "S2", "local", "remote"), use),
        remote=figures(60),
        crowd={"local": figures(5), "remote": figures(6)},
    )
    return replace(found, **fields)
