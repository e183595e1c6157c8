import math

import pytest

from tests.bench.figures import TIMES, cost_us, median, ratio, shown
from tests.bench.goals import goals, longest_s
from tests.bench.making import failed, figures, results
from tests.bench.report import report
from tests.bench.results import Leaving, Result, Results, Silence, Start
from tests.bench.scenarios import is_short


def row(markdown: str, name: str) -> list[str]:
    """The cells behind the name of the first row that begins with it."""
    line = next(line for line in markdown.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.split("|")[2:-1]]


def reached(found: Results) -> dict[str, tuple[str, bool]]:
    return {goal.what: (goal.reached, goal.met) for goal in goals(found)}


def test_the_median_is_of_the_quietest_runs() -> None:
    runs = [figures(10), figures(99, foreign=0.5), figures(12), figures(11)]
    assert median(runs, 3, cost_us) == 11


def test_a_figure_of_a_run_with_a_failed_stream_does_not_count() -> None:
    for runs in ([figures(), failed(), figures()], [figures(ok=0)]):
        value = median(runs, 3, cost_us)
        assert value is not None
        assert math.isnan(value)


def test_noise_excuses_no_wrong_token() -> None:
    noisy = figures(foreign=0.9, errors={"wrong text": 1})
    assert shown(median([figures(), noisy], 1, cost_us)) == "failed"


@pytest.mark.parametrize(
    ("over", "under", "text"),
    [(30.0, 10.0, "3.0"), (None, 10.0, "-"), (30.0, None, "-"), (30.0, math.nan, "failed")],
)
def test_a_ratio_of_what_does_not_count_does_not_count(
    over: float | None, under: float | None, text: str
) -> None:
    assert shown(ratio(over, under)) == text


def test_the_comparison_holds_costs_and_ratios() -> None:
    markdown = report(
        results(
            nginx=Result("nginx", flat_out=[figures(8)], paced=[figures(20)]),
            naive=Result("naive", flat_out=[figures(320)], paced=[figures(500)]),
            gateway=Result("gateway", flat_out=[figures(16)], paced=[figures(80)]),
        )
    )
    assert row(markdown, "gateway")[:6] == ["16.0", "2.0", "20.0", "80.0", "4.0", "6.2"]
    assert "2026-11-22 12:00 UTC, commit abc1234; 2 cores of a CPU" in markdown


def test_the_comparison_holds_manners() -> None:
    heard = Silence(head_s=0.01, signs_s=[10.0, 20.0, 30.0], heartbeat_s=10.0, complete=True)
    found = Result(
        "gateway",
        many=[figures(kib_per_stream=64.4)],
        leaving=Leaving(left=50, closed=49, p50_ms=0.71, max_ms=3.0, errors={}),
        silence={"first": heard, "head": heard},
        starts=[Start(0.5, 1.5, 100), Start(0.6, 1.6, 101), Start(0.7, 1.9, 102)],
    )
    cells = row(report(results(gateway=found)), "gateway")
    assert cells[6:] == ["64", "49/50, 0.7 ms", "every 10 s", "1.60 s"]


def test_noise_that_is_left_is_shown() -> None:
    runs = [figures(10), figures(11, foreign=0.2), figures(12, foreign=0.3)]
    found = Result("gateway", flat_out=runs, paced=[*runs, figures(10), figures(10)])
    cells = row(report(results(gateway=found)), "gateway")
    assert (cells[0], cells[3]) == ("11.0 ~", "10.0")


def test_a_failed_run_shows_as_failed_and_reaches_no_goal() -> None:
    found = results(gateway=Result("gateway", flat_out=[failed()], paced=[figures()]))
    assert row(report(found), "gateway")[0] == "failed"
    assert reached(found)["S1 CPU per token"] == ("failed", False)
    assert reached(found)["S2 CPU per token"] == ("10.0 µs", True)


def test_a_target_that_could_not_be_measured_says_why() -> None:
    markdown = report(results(litellm=Result("LiteLLM", error="cannot be installed: no such pin")))
    assert row(markdown, "LiteLLM")[0] == "not measured"
    assert "litellm: cannot be installed: no such pin" in markdown


def test_only_what_was_measured_is_a_goal() -> None:
    assert reached(results(gateway=Result("gateway"))) == {}


def test_a_heartbeat_that_fails_to_come_is_seen() -> None:
    heard = Silence(head_s=0.01, signs_s=[10.0, 30.0], heartbeat_s=10.0, complete=True)
    assert longest_s(heard) == 20.0
    found = results(gateway=Result("gateway", silence={"head": heard}))
    assert reached(found) == {
        "S5 (head held back) head": ("after 0.01 s", True),
        "S5 (head held back) longest silence": ("20.0 s", False),
    }


def test_growth_is_judged_by_what_500_streams_cost() -> None:
    growth = {500: figures(100, kib_per_stream=50), 5000: figures(120, kib_per_stream=60)}
    shown_goals = reached(results(gateway=Result("gateway", growth=growth)))
    assert list(shown_goals.values()) == [(f"1.20 {TIMES}", True), (f"1.20 {TIMES}", False)]


def test_a_noisy_run_is_repeated_but_not_for_ever() -> None:
    noisy = figures(foreign=0.5)
    assert is_short([figures()], 2)
    assert not is_short([figures(), failed()], 2)
    assert is_short([figures(), noisy, noisy], 2)
    assert not is_short([figures(), noisy, noisy, noisy], 2)
