"""What happened, for people. Pure."""

from collections import Counter
from collections.abc import Iterator, Sequence

from tests.chaos.faults import Fault
from tests.chaos.load import Load
from tests.chaos.records import Violation
from tests.chaos.verdicts import Verdicts

SHOWN = 60  # violations
RECENT_S = 30.0
LOST = """\
  404: Redis came back empty, and nobody was there to write the log again. The run had ended, so
  that its own worker alone still had it; or its worker was dead, or stopped, within one lease."""


def table(load: Load, faults: Sequence[Fault], verdicts: Verdicts, took_s: float) -> str:
    return "\n".join(
        [*_rows(load, faults, verdicts, took_s), *_violations(load, faults, verdicts), ""]
    )


def violations(load: Load, verdicts: Verdicts) -> list[Violation]:
    return [*load.violations, *verdicts.violations]


def _rows(load: Load, faults: Sequence[Fault], verdicts: Verdicts, took_s: float) -> Iterator[str]:
    plan, counts = load.plan, load.counts
    yield f"seed {plan.seed}: {plan.streams} streams, faults for {plan.seconds:g} of {took_s:.0f} s"
    yield from _part("faults", Counter(fault.kind for fault in faults))
    runs = len({asked.run_id for asked in load.asked if asked.run_id})
    lost = len(violations(load, verdicts))
    yield from _part(
        "readers",
        {
            "runs": runs,
            "readers": len(load.asked),
            "events": counts["events"],
            "resumes": counts["resumes"],
            "connections lost, or cut by ourselves": counts["cuts"],
            **{name: counts[name] for name in sorted(counts) if name.startswith("answered ")},
        },
    )
    yield from _part("endings, as readers saw them", _named(verdicts.counts, "ended: "))
    if any(asked.gone_at is not None for asked in load.asked):
        yield LOST
    others = {name: n for name, n in verdicts.counts.items() if not name.startswith("ended: ")}
    yield from _part(
        "afterwards",
        {
            **others,
            "s from a SIGKILL to the ending at a reader, longest": round(
                verdicts.longest_lost_s, 1
            ),
            "the same without the times in which Redis was away": round(
                verdicts.longest_judged_s, 1
            ),
            "violations (lost, doubled, wrong, left over)": lost,
        },
    )


def _named(counts: Counter[str], prefix: str) -> dict[str, float]:
    return {
        name.removeprefix(prefix): count
        for name, count in counts.most_common()
        if name.startswith(prefix)
    }


def _part(title: str, rows: "Counter[str] | dict[str, float]") -> Iterator[str]:
    yield ""
    yield f"{title}:"
    for name, count in rows.items():
        yield f"  {name:<60} {count:>9}"


def _violations(load: Load, faults: Sequence[Fault], verdicts: Verdicts) -> Iterator[str]:
    """Each with the faults before it."""
    found = violations(load, verdicts)
    if found:
        yield ""
        yield "violations:"
    for violation in found[:SHOWN]:
        yield f"  {violation.what}"
        if violation.at is not None:
            yield f"    after {_before(violation.at, faults)}"
    if len(found) > SHOWN:
        yield f"  and {len(found) - SHOWN} more"


def _before(at: float, faults: Sequence[Fault]) -> str:
    recent = (fault for fault in faults if fault.began <= at <= fault.ended + RECENT_S)
    return ", ".join(
        f"{fault.kind} ({at - fault.began:.1f} s to {at - fault.ended:.1f} s ago)"
        for fault in recent
    )
