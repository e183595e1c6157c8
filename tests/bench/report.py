"""Markdown out of results: the comparison, its details, the goals of the gateway. Pure."""

from collections.abc import Iterable, Sequence

from tests.bench.figures import (
    NOISY,
    TIMES,
    Pick,
    cost_us,
    gap_p99_ms,
    is_noisy,
    kib_per_stream,
    median,
    middle,
    quietest,
    ratio,
    shown,
    tokens_per_s,
    ttft_p50_ms,
    ttft_p99_ms,
)
from tests.bench.goals import goals, longest_s
from tests.bench.measure import Figures
from tests.bench.results import Leaving, Result, Results, Silence
from tests.bench.sizing import tables

_AGAINST = (f"{TIMES} nginx", "naive ÷ this")
_COMPARISON = (
    *("", "S1 µs/token", *_AGAINST, "S2 µs/token", *_AGAINST),
    *("S3 KiB/stream", "S4 calls closed", "S5 signs of life", "S6 first answer"),
)
_DETAILS = (
    *("", "S1 tokens/s", "S1 µs lowest to highest", "S1 TTFT p50, p99 ms"),
    *("S2 µs lowest to highest", "S2 TTFT p50, p99 ms", "S2 gap p99 ms"),
    *("S3 gap p99 ms", "S5 head s", "S6 port s", "S6 idle MiB"),
)


def report(results: Results) -> str:
    """``direct`` is only in the details: how fast the load itself is. Its CPU is the model's."""
    machine = results.machine
    head = (
        f"{machine.date}, commit {machine.commit}; {machine.cores} cores of {machine.cpu}, "
        f"Linux {machine.kernel}, Python {machine.python}. Medians of {results.runs}.\n"
    )
    through = {name: found for name, found in results.targets.items() if name != "direct"}
    comparison = table(
        _COMPARISON, ([found.title, *_compared(found, results)] for found in through.values())
    )
    details = table(
        _DETAILS, ([name, *_detailed(found, results)] for name, found in results.targets.items())
    )
    errors = [f"{name}: {found.error}\n" for name, found in through.items() if found.error]
    sharing = [
        table(*each)
        for found in through.values()
        if found.sharing is not None
        for each in tables(found.sharing)
    ]
    parts = [head, comparison, *errors, details, *sharing, _noise(results), _reached(results)]
    return "\n".join(part for part in parts if part)


def _reached(results: Results) -> str:
    rows = [
        (goal.what, goal.wanted, goal.reached, "yes" if goal.met else "**no**")
        for goal in goals(results)
    ]
    return table(("goal", "wanted", "reached", "met"), rows) if rows else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _compared(found: Result, results: Results) -> list[str]:
    if found == Result(found.title, found.error):  # nothing was
        return ["not measured", *["-"] * (len(_COMPARISON) - 2)]
    nginx = results.targets.get("nginx", Result(""))
    naive = results.targets.get("naive", Result(""))
    cells = []
    for runs, its, guides in (
        (found.flat_out, nginx.flat_out, naive.flat_out),
        (found.paced, nginx.paced, naive.paced),
    ):
        cost = median(runs, results.runs, cost_us)
        cells += [
            shown(cost) + _doubt(runs, results.runs),
            shown(ratio(cost, median(its, results.runs, cost_us))),
            shown(ratio(median(guides, results.runs, cost_us), cost)),
        ]
    return [
        *cells,
        shown(median(found.many, 1, kib_per_stream), 0),
        _closed(found.leaving),
        _alive(found.silence.values()),
        shown(middle([start.answer_s for start in found.starts]), 2, " s"),
    ]


def _doubt(runs: Sequence[Figures], kept: int) -> str:
    return " ~" if any(map(is_noisy, quietest(runs, kept))) else ""


def _closed(leaving: Leaving | None) -> str:
    if leaving is None:
        return "-"
    if leaving.errors:
        return "failed"
    return f"{leaving.closed}/{leaving.left}, {shown(leaving.p50_ms, 1, ' ms')}"


def _alive(variants: Iterable[Silence]) -> str:
    """Of the worse variant."""
    heard = list(variants)
    if not heard:
        return "-"
    if not all(variant.complete for variant in heard):
        return "failed"
    if not all(variant.signs_s for variant in heard):
        return "none"
    return f"every {max(map(longest_s, heard)):.0f} s"


def _detailed(found: Result, results: Results) -> list[str]:
    kept = results.runs
    return [
        shown(median(found.flat_out, kept, tokens_per_s), 0),
        _range(found.flat_out, kept),
        _two(found.flat_out, kept, ttft_p50_ms, ttft_p99_ms),
        _range(found.paced, kept),
        _two(found.paced, kept, ttft_p50_ms, ttft_p99_ms),
        shown(median(found.paced, kept, gap_p99_ms)),
        shown(median(found.many, 1, gap_p99_ms), 0),
        ", ".join(shown(variant.head_s, 2) for variant in found.silence.values()) or "-",
        shown(middle([start.port_s for start in found.starts]), 2),
        shown(middle([start.idle_mib for start in found.starts]), 0),
    ]


def _range(runs: Sequence[Figures], kept: int) -> str:
    costs = [run.cpu_us_per_token for run in quietest(runs, kept) if run.counts]
    return f"{min(costs):.1f} to {max(costs):.1f}" if costs else "-"


def _two(runs: Sequence[Figures], kept: int, one: Pick, other: Pick) -> str:
    return f"{shown(median(runs, kept, one))}, {shown(median(runs, kept, other))}" if runs else "-"


def _noise(results: Results) -> str:
    """Of the runs that count; a replay is too short for the kernel's count of a core."""
    noise = [
        run.foreign * 100
        for found in results.targets.values()
        for runs, kept in (
            (found.flat_out, results.runs),
            (found.paced, results.runs),
            (found.many, 1),
            (found.readers, 1),
            (list(found.growth.values()), len(found.growth)),
            (_shared(found), len(_shared(found))),
        )
        for run in quietest(runs, kept)
    ]
    if not noise:
        return ""
    return (
        f"Noise: while streams were measured, others used {shown(middle(noise))} % of the target's "
        f"core (median; worst {max(noise):.1f} %). "
        f"~: more than {NOISY * 100:g} % in a run that counts.\n"
    )


def _shared(found: Result) -> list[Figures]:
    return found.sharing.measured() if found.sharing else []
