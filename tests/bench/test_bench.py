"""The benchmark on a small scale: that it measures, and that it sees what is wrong."""

import re
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench import gateway_only, scenarios, silence
from tests.bench.load import Plan
from tests.bench.making import results
from tests.bench.report import report
from tests.bench.results import Result
from tests.bench.servers import Bench, Running
from tests.bench.session import Session
from tests.bench.shapes import DONE, expected
from tests.bench.target import DIRECT, Place, Target
from tests.bench.targets import DEFAULT

HEARTBEATS = {"GATEWAY_HEARTBEAT_SECONDS": "0.4"}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with Bench.started(tmp_path_factory.mktemp("bench"), cores=None) as bench:
        yield bench


@pytest.fixture(scope="module")
def gateway(bench: Bench) -> Iterator[Running]:
    with bench.running("gateway", DEFAULT["gateway"], **HEARTBEATS) as running:
        running.first_answer_s()
        yield running


@pytest.fixture
def direct(bench: Bench) -> Iterator[Running]:
    with bench.running("direct", DIRECT) as running:
        yield running


def test_streams_flat_out_are_measured_and_every_token_is_right(gateway: Running) -> None:
    plan = Plan("sim-n20-i0", streams=4, seconds=0.3)
    run = scenarios.quietly(gateway.bench, lambda: gateway.measure(plan))
    assert run.errors == {}
    assert run.ok >= 4
    assert run.tokens == 20 * run.ok
    assert run.cpu_us_per_token > 0
    markdown = report(results(gateway=Result("gateway", flat_out=[replace(run, foreign=0.0)])))
    assert f"| gateway | {run.cpu_us_per_token:.1f} |" in markdown


def test_clients_that_leave_are_told_to_the_model(gateway: Running) -> None:
    found = scenarios.leaving(gateway, Plan("sim-n500-i20", streams=4, leave_after=3))
    assert (found.left, found.closed, found.errors) == (4, 4, {})
    assert found.max_ms is not None
    assert "| 4/4, " in report(results(gateway=Result("gateway", leaving=found)))


@pytest.mark.parametrize("fault", ["drop5", "twice5"])
@pytest.mark.parametrize("name", ["gateway", "direct"])
def test_a_wrong_token_is_seen(name: str, fault: str, request: pytest.FixtureRequest) -> None:
    running: Running = request.getfixturevalue(name)
    run = running.measure(Plan(f"sim-n20-i0-{fault}", streams=2))
    assert (run.ok, run.errors) == (0, {"wrong text": 2})
    assert "| gateway | failed |" in report(results(gateway=Result("gateway", flat_out=[run])))


def test_a_model_that_is_faster_than_its_reader_loses_nothing(bench: Bench) -> None:
    """More than the sockets hold, so that the model has to wait in the middle."""
    request = DIRECT.asking(Place(bench.folder, bench.upstream.port, 0), "sim-n60000-i0").request
    with socket.create_connection(("127.0.0.1", bench.upstream.port), timeout=20) as sock:
        sock.sendall(request("slow"))
        time.sleep(0.5)  # for the model to run ahead; too little would only make the test weaker
        body = b""
        while not body.endswith(DONE):
            body += sock.recv(2**20)
    assert b"".join(re.findall(DIRECT.token.encode(), body)) == expected("sim-n60000-i0")


def test_a_stream_that_does_not_end_has_failed(direct: Running) -> None:
    run = direct.measure(Plan("sim-n20-i60000", streams=2, limit_s=0.2))
    assert (run.ok, run.errors) == (0, {"no end within 0.2 s": 2})


def test_a_refused_stream_has_failed(gateway: Running) -> None:
    run = gateway.measure(Plan("sim-n1-i0", streams=1), text="")
    assert run.ok == 0
    assert next(iter(run.errors)).startswith("status 422: ")


def test_a_target_that_is_gone_has_failed(bench: Bench) -> None:
    with bench.running("gone", Target("ends at once", ("true",))) as running:
        run = running.measure(Plan("sim-n1-i0", streams=2))
    assert (run.ok, run.errors) == (0, {"no connection: ConnectionRefusedError": 2})


def test_cpu_can_be_that_of_a_window(direct: Running) -> None:
    """Of a window without a token in it: what was used before and after must not count."""
    whole = direct.measure(Plan("sim-n1000-i0-first300", streams=4))
    part = direct.measure(Plan("sim-n1000-i0-first300", streams=4, window_s=(0.1, 0.2)))
    assert whole.tokens == part.tokens == 4000
    assert part.cpu_us_per_token < whole.cpu_us_per_token * whole.tokens


def test_silence_is_listened_to(gateway: Running) -> None:
    heard = silence.listen({"gateway": gateway}, silence_s=3.0)["gateway"]
    for variant in silence.VARIANTS:
        assert heard[variant].complete
        assert heard[variant].heartbeat_s == 0.4
        assert heard[variant].signs_s
        assert heard[variant].head_s is not None


def test_readers_of_one_run_are_checked(gateway: Running) -> None:
    plan = Plan("sim-n10-i20-first300", streams=5, window_s=(0.3, 0.4))
    run = gateway_only.readers(gateway, plan)
    assert (run.ok, run.errors, run.tokens) == (5, {}, 50)


def test_a_replay_is_checked(gateway: Running) -> None:
    runs = gateway_only.replay(gateway, Plan("sim-n100-i0", streams=1))
    assert {(run.ok, run.tokens) for run in runs} == {(1, 100)}


def test_a_target_that_cannot_start_says_so_and_ends_nothing_else(bench: Bench) -> None:
    found = results(1)
    targets = {
        "missing": Target("not installed", ("no-such-program",)),
        "broken": Target("ends at once", (sys.executable, "-c", "exit('out of luck')")),
        "direct": DIRECT,
    }
    Session(bench, found, targets, {"S6"}).run()
    assert found.targets["missing"].error == "no-such-program is not installed"
    assert found.targets["broken"].error == "ended with code 1: out of luck"
    assert found.targets["direct"].error is None


def test_a_session_fills_the_report(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenarios, "FLAT_OUT", Plan("sim-n20-i0", streams=4))
    monkeypatch.setattr(scenarios, "PACED", Plan("sim-n5-i10", streams=4))
    found = results(1)
    targets = {"gateway": DEFAULT["gateway"], "direct": DIRECT}
    Session(bench, found, targets, {"S1", "S2", "S4"}).run()
    gateway, direct = found.targets["gateway"], found.targets["direct"]
    assert (gateway.error, direct.error) == (None, None)
    for runs in (gateway.flat_out, gateway.paced, direct.flat_out, direct.paced):
        assert runs
        assert all(run.counts for run in runs)
    assert gateway.leaving is not None
    assert gateway.leaving.closed == 50
    markdown = report(found)
    assert "failed" not in markdown
    assert "| S4 calls closed | 50 of 50 | 50 of 50 | yes |" in markdown


def test_what_was_started_ends_with_its_children(tmp_path: Path) -> None:
    with Bench.started(tmp_path, cores=None) as bench:
        script = "sh -c 'trap \"\" TERM; echo $$ >child; sleep 600' & wait"
        with bench.running("stubborn", Target("has a child", ("sh", "-c", script))) as running:
            child = tmp_path / "stubborn" / "child"
            while not (child.exists() and child.read_text()):
                running.process.check()
            pids = [bench.upstream.process.pid, *running.process.pids()]
    assert len(pids) >= 3
    deadline = time.monotonic() + 5
    while left := [pid for pid in pids if lives(pid)]:
        assert time.monotonic() < deadline, f"{left} still run"
        time.sleep(0.01)  # a poll of other processes, bounded above


def lives(pid: int) -> bool:
    """Zombies, whose parent is not ours, do not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"
