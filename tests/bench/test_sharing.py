"""What sharing costs: measured on a small scale, and how it is shown."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.bench import session
from tests.bench.figures import TIMES
from tests.bench.goals import goals
from tests.bench.load import Plan
from tests.bench.making import failed, figures, results, sharing
from tests.bench.redis_account import use
from tests.bench.report import report
from tests.bench.results import Result, Sharing
from tests.bench.servers import Bench
from tests.bench.sharing import Plans
from tests.bench.sharing import sharing as measure
from tests.bench.sizing import remote_against_all, remote_against_reading, remote_in_crowd
from tests.bench.targets import DEFAULT

INFO: Mapping[str, Any] = {
    "used_cpu_user": 1.0,
    "used_cpu_sys": 2.0,
    "total_net_input_bytes": 1000,
    "total_net_output_bytes": 100,
    "used_memory": 5000,
    "mem_clients_normal": 700,
    "cmdstat_info": {"calls": 3, "usec": 9},
    "cmdstat_ping": {"calls": 7, "usec": 9},
    "cmdstat_xadd": {"calls": 10, "usec": 9},
}
PLANS = Plans(
    flat_out=Plan("sim-n20-i0", streams=4),
    paced=Plan("sim-n20-i10", streams=4),
    apart=Plan("sim-n20-i10-first200", streams=4, limit_s=20),
    begin_s=0.05,
    crowd=Plan("sim-n20-i10-first300", streams=5, window_s=(0.3, 0.4)),
)


def markdown(found: Sharing) -> str:
    return report(results(gateway=Result("gateway", sharing=found)))


def test_each_load_is_measured_and_every_token_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "sharing", partial(measure, plans=PLANS))
    filled = results(gateway=Result("gateway"))
    with Bench.started(tmp_path, cores=None) as bench:
        session.Session(bench, filled, {"gateway": DEFAULT["gateway"]}, {"sharing"}).run()
    found = filled.targets["gateway"].sharing
    assert found is not None, filled.targets["gateway"].error
    assert {(run.ok, run.tokens) for run in found.alone.values()} == {(4, 80)}
    assert {(run.ok, run.tokens) for run in (*found.writer.values(), found.remote)} == {(4, 80)}
    assert {(run.ok, run.tokens) for run in found.crowd.values()} == {(5, 100)}
    assert all(run.cpu_us_per_token > 0 for run in found.measured())
    for spent in found.redis.values():
        assert spent.cpu_us > 0
        assert spent.log_bytes > len("tok10 ")
        assert spent.bytes_in > len("tok10 ")
        assert spent.commands["xadd"] <= 1.5  # for each token, and for start, final and done
    # Whoever reads on another worker is sent by Redis what the writer sent to it.
    assert found.redis["remote"].bytes_out > found.redis["local"].bytes_out
    assert "subscribe" in found.redis["remote"].commands
    assert "subscribe" not in found.redis["local"].commands
    assert "failed" not in report(filled)


def test_redis_is_asked_before_and_after_and_our_own_commands_do_not_count() -> None:
    after = {
        **INFO,
        "used_cpu_user": 1.5,
        "used_cpu_sys": 2.25,
        "total_net_input_bytes": 3000,
        "total_net_output_bytes": 200,
        "used_memory": 9000,
        "mem_clients_normal": 2700,
        "cmdstat_info": {"calls": 4, "usec": 9},
        "cmdstat_xadd": {"calls": 60, "usec": 9},
        "cmdstat_evalsha": {"calls": 20, "usec": 9},
    }
    found = use(INFO, after, log_bytes=500, tokens=100)
    assert found.cpu_us == 7500
    assert found.commands == {"xadd": 0.5, "evalsha": 0.2}
    assert (found.bytes_in, found.bytes_out) == (20, 1)
    assert (found.log_bytes, found.memory_bytes) == (5, 20)


def test_a_remote_reader_is_compared_with_a_local_one_in_three_ways() -> None:
    found = sharing()
    assert remote_against_all(found) == 60 / 120
    assert remote_against_reading(found) == 60 / (120 - 80)
    assert remote_in_crowd(found) == 6 / 5


def test_where_noise_is_larger_than_the_cost_of_reading_nothing_is_compared_with_it() -> None:
    found = sharing()
    noisy = replace(found, writer={**found.writer, "unread": figures(121)})
    assert remote_against_reading(noisy) is None


@pytest.mark.parametrize("load", ["local", "unread"])
def test_a_wrong_token_spoils_what_is_compared_with_it(load: str) -> None:
    found = sharing()
    wrong = replace(found, writer={**found.writer, load: failed()})
    value = remote_against_reading(wrong)
    assert value is not None
    assert math.isnan(value)


def test_the_report_holds_what_sharing_costs() -> None:
    text = markdown(sharing())
    assert "| bytes in Redis, all | 62 | 62 | 62 | 62 |" in text
    assert "| calls of scripts a second, for 1,000 tokens/s | 900 | 900 | 900 | 900 |" in text
    assert "those in scripts too, for 1,000 tokens/s | 1,820 |" in text
    assert "| the writer's worker, CPU µs without Redis | 90.0 | 90.0 | 90.0 | - |" in text
    assert "| the writer's worker, CPU µs with Redis | 99.0 | 99.0 | 120.0 | 77.0 |" in text
    assert "without readers) | 40.0 | 60.0 | 1.50 |" in text
    assert "sharing" not in report(results(gateway=Result("gateway")))


def test_what_redis_used_for_a_load_with_a_wrong_token_does_not_count() -> None:
    found = sharing()
    wrong = replace(found, writer={**found.writer, "S1": failed()})
    assert "| bytes in Redis, all | failed | 62 | 62 | 62 |" in markdown(wrong)


def test_noise_while_sharing_was_measured_is_shown() -> None:
    text = markdown(sharing(remote=figures(60, foreign=0.5)))
    assert "| 120.0 | 60.0 ~ | 0.50 |" in text
    assert "worst 50.0 %" in text


def test_a_remote_reader_must_not_cost_more_than_one_and_a_half_local_ones() -> None:
    found = sharing(remote=figures(181))
    reached = [
        (goal.reached, goal.met) for goal in goals(results(gateway=Result("", sharing=found)))
    ]
    assert reached == [(f"1.51 {TIMES}", False), (f"1.20 {TIMES}", True)]
