"""The goals that the gateway was built to, and whether this run reached them. Pure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from tests.bench.figures import (
    TIMES,
    Number,
    cost_us,
    cpu_ms,
    gap_p99_ms,
    kib_per_stream,
    median,
    middle,
    ratio,
    shown,
    ttft_p99_ms,
)
from tests.bench.measure import Figures
from tests.bench.results import Result, Results, Silence
from tests.bench.silence import SILENCE_S
from tests.bench.sizing import remote_against_all, remote_in_crowd

AT_ONCE_S = 0.5  # for a head, and for a heartbeat to be late
_NOTHING = Result("not measured")


@dataclass(frozen=True)
class Goal:
    what: str
    wanted: str
    reached: str
    met: bool


def goals(results: Results) -> list[Goal]:
    """Only those that were measured."""
    gateway = results.targets.get("gateway", _NOTHING)
    return [
        *_costs(results),
        *_speed(results, gateway),
        *_many(results, gateway),
        *_leaving(gateway),
        *_silence(gateway),
        *_starts(results, gateway),
        *_runs(gateway),
        *_sharing(gateway),
    ]


def _at_most(what: str, value: Number, limit: float, unit: str, digits: int = 1) -> Iterator[Goal]:
    if value is not None:
        wanted = f"at most {limit:g} {unit}"
        yield Goal(what, wanted, shown(value, digits, f" {unit}"), value <= limit)


def _at_least(what: str, value: Number, limit: float) -> Iterator[Goal]:
    if value is not None:
        wanted = f"at least {limit:g} {TIMES}"
        yield Goal(what, wanted, shown(value, 2, f" {TIMES}"), value >= limit)


def _costs(results: Results) -> Iterator[Goal]:
    yield from _cost(results, "S1", lambda found: found.flat_out, _Limits(16, 2.2, 18, 1))
    yield from _cost(results, "S2", lambda found: found.paced, _Limits(95, 4.2, 5.5, 0.75))


@dataclass(frozen=True)
class _Limits:
    """Of the CPU per token: in µs, then against that of others."""

    us: float
    nginx: float
    naive: float
    portkey: float


def _cost(
    results: Results, scenario: str, runs: Callable[[Result], list[Figures]], limits: _Limits
) -> Iterator[Goal]:
    gateway, nginx, naive, portkey = (
        median(runs(results.targets.get(name, _NOTHING)), results.runs, cost_us)
        for name in ("gateway", "nginx", "naive", "portkey")
    )
    yield from _at_most(f"{scenario} CPU per token", gateway, limits.us, "µs")
    against = ratio(gateway, nginx)
    yield from _at_most(f"{scenario} against nginx", against, limits.nginx, TIMES, 2)
    yield from _at_least(f"{scenario} less than naive", ratio(naive, gateway), limits.naive)
    against = ratio(gateway, portkey)
    yield from _at_most(f"{scenario} against Portkey", against, limits.portkey, TIMES, 2)


def _speed(results: Results, gateway: Result) -> Iterator[Goal]:
    kept = results.runs
    yield from _at_most("S1 TTFT p99", median(gateway.flat_out, kept, ttft_p99_ms), 150, "ms")
    yield from _at_most("S2 TTFT p99", median(gateway.paced, kept, ttft_p99_ms), 50, "ms")
    yield from _at_most("S2 gap p99", median(gateway.paced, kept, gap_p99_ms), 25, "ms")


def _many(results: Results, gateway: Result) -> Iterator[Goal]:
    for run in gateway.many:
        yield from _at_most("S3 failed streams", run.failed, 0, "streams", 0)
    memory = median(gateway.many, 1, kib_per_stream)
    naive = median(results.targets.get("naive", _NOTHING).many, 1, kib_per_stream)
    yield from _at_most("S3 memory per stream", memory, 64, "KiB")
    yield from _at_least("S3 less memory than naive", ratio(naive, memory), 3.5)
    yield from _at_most("S3 gap p99", median(gateway.many, 1, gap_p99_ms), 520, "ms")


def _leaving(gateway: Result) -> Iterator[Goal]:
    if leaving := gateway.leaving:
        reached = f"{leaving.closed} of {leaving.left}"
        met = reached == "50 of 50" and not leaving.errors
        yield Goal("S4 calls closed", "50 of 50", reached, met)
        yield from _at_most("S4 p50", leaving.p50_ms, 2, "ms")
        yield from _at_most("S4 max", leaving.max_ms, 15, "ms")


def _silence(gateway: Result) -> Iterator[Goal]:
    for variant, heard in gateway.silence.items():
        name = f"S5 ({variant} held back)"
        head = "none" if heard.head_s is None else f"after {heard.head_s:.2f} s"
        met = heard.complete and heard.head_s is not None and heard.head_s <= AT_ONCE_S
        yield Goal(f"{name} head", "at once", head, met)
        limit_s = (heard.heartbeat_s or 0) + AT_ONCE_S
        yield from _at_most(f"{name} longest silence", longest_s(heard), limit_s, "s")


def longest_s(heard: Silence) -> float:
    moments = [0.0, *heard.signs_s, SILENCE_S]
    return max(later - sooner for sooner, later in pairwise(moments))


def _starts(results: Results, gateway: Result) -> Iterator[Goal]:
    naive = results.targets.get("naive", _NOTHING)
    answer = middle([start.answer_s for start in gateway.starts])
    port = middle([start.port_s for start in gateway.starts])
    idle = middle([start.idle_mib for start in gateway.starts])
    slow = middle([start.answer_s for start in naive.starts])
    yield from _at_most("S6 port open", port, 0.8, "s", 2)
    yield from _at_most("S6 first answer", answer, 1.7, "s", 2)
    yield from _at_most("S6 first answer, against naive", ratio(answer, slow), 1, TIMES, 2)
    yield from _at_most("S6 idle memory", idle, 130, "MiB", 0)


def _runs(gateway: Result) -> Iterator[Goal]:
    cost = median(gateway.readers, 1, cost_us)
    yield from _at_most("1,000 readers, CPU per token and reader", cost, 12, "µs")
    replay = median(gateway.replay, len(gateway.replay), cpu_ms)
    yield from _at_most("replay of 10,000 events, CPU", replay, 30, "ms")
    few, many = ([run] if (run := gateway.growth.get(n)) else [] for n in (500, 5000))
    cost = ratio(median(many, 1, cost_us), median(few, 1, cost_us))
    yield from _at_most("5,000 streams, CPU per token, against 500", cost, 1.3, TIMES, 2)
    memory = ratio(median(many, 1, kib_per_stream), median(few, 1, kib_per_stream))
    yield from _at_most("5,000 streams, memory per stream, against 500", memory, 1.1, TIMES, 2)


def _sharing(gateway: Result) -> Iterator[Goal]:
    if sharing := gateway.sharing:
        whole, crowd = remote_against_all(sharing), remote_in_crowd(sharing)
        yield from _at_most("remote reader, against making and reading", whole, 1.5, TIMES, 2)
        yield from _at_most("1,000 remote readers, against local ones", crowd, 1.5, TIMES, 2)
