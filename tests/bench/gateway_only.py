"""What only a gateway with runs can do: many readers of one run, replay, thousands of streams.

readers  1,000 readers of one run, at 40 tokens a second. CPU per token and reader, of 4 s in which
         all are connected, so that the cost of their requests is not in it.
replay   a finished run of 10,000 events to one reader, request included.
growth   CPU per token and memory per stream at 500 and at 5,000 open streams, one token a second
         each, of 18 s in which all are open.
"""

import contextlib
import http.client
import json
import time
from collections.abc import Sequence
from typing import Any

from tests.bench.load import Asking, Plan
from tests.bench.measure import Figures
from tests.bench.processes import BenchError
from tests.bench.servers import WARM_UP, Bench, Running
from tests.bench.target import Target

# The model waits until all readers are there.
READERS = Plan("sim-n240-i25-first4000", streams=1000, ramp_s=2.0, window_s=(5.0, 9.0))
REPLAY = Plan("sim-n10000-i0", streams=1)
REPLAYS = 5
GROWTH = {
    streams: Plan("sim-n45-i1000", streams, ramp_s=20, window_s=(25, 43)) for streams in (500, 5000)
}
# Above the 5,000 of `GATEWAY_MAX_RUNS`: those that just end count too.
MANY_RUNS = {"GATEWAY_MAX_RUNS": "10000"}
RUN_LIMIT_S = 60.0


def readers(running: Running, plan: Plan = READERS, writer: Running | None = None) -> Figures:
    """``writer``: the gateway that makes the run, where it is another one."""
    run_id = start_run(writer or running, plan.model)
    return running.measure_asking(plan, following(running, [run_id]))


def replay(running: Running, plan: Plan = REPLAY) -> list[Figures]:
    run_id = start_run(running, plan.model)
    deadline = time.monotonic() + RUN_LIMIT_S
    while (status := _call(running, "GET", f"/runs/{run_id}")["status"]) != "completed":
        if time.monotonic() > deadline:
            raise BenchError(f"the run to replay is {status} after {RUN_LIMIT_S:g} s")
        time.sleep(0.05)
    return [running.measure_asking(plan, following(running, [run_id])) for _ in range(REPLAYS)]


def growth(bench: Bench, name: str, target: Target) -> dict[int, Figures]:
    """Each number of streams in a process of its own: memory once grown would hide the growth."""
    figures = {}
    for streams, plan in GROWTH.items():
        with bench.running(name, target, **MANY_RUNS) as running:
            running.first_answer_s()
            running.measure(WARM_UP)
            figures[streams] = running.measure(plan)
    return figures


def start_run(running: Running, model: str) -> str:
    """It goes on while nobody reads it."""
    body = {"model": model, "text": "say it", "on_disconnect": "continue"}
    run_id: str = _call(running, "POST", "/runs", body)["run_id"]
    return run_id


def following(running: Running, run_ids: Sequence[str]) -> Asking:
    """Each stream follows one run, in turn."""
    asking = running.target.asking(running.place, "")

    def request(tag: str) -> bytes:
        number = int(tag[1:].partition(".")[0])  # as `Load` counts its streams
        run_id = run_ids[number % len(run_ids)]
        return (
            f"GET /runs/{run_id}/events HTTP/1.1\r\nhost: 127.0.0.1:{asking.port}\r\n\r\n".encode()
        )

    return Asking(asking.port, request, asking.token)


def _call(running: Running, method: str, path: str, body: object = None) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", running.place.port)
    with contextlib.closing(connection):
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"content-type": "application/json"})
        response = connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
    if response.status >= 300:
        raise BenchError(f"{method} {path}: {response.status} {answer}")
    return answer
