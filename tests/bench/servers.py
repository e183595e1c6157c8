"""Running the mock model and, one after the other, the targets in front of it."""

import contextlib
import http.client
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from tests.bench.load import Asking, Plan
from tests.bench.machine import ROOT, Cores
from tests.bench.measure import Figures, Server, measure
from tests.bench.processes import BenchError, Process, free_port
from tests.bench.target import DIRECT, Place, Target
from tests.bench.upstream import Stats

START_S = 90.0  # the slowest peer imports for 10 s on a quiet machine
WARM_UP = Plan("sim-n64-i0", streams=8, seconds=0.5)
_FIRST_ANSWER = Plan("sim-n1-i0", streams=1, limit_s=30)


class Upstream:
    """The mock model's own account of its streams."""

    def __init__(self, port: int, process: Process) -> None:
        self.port = port
        self.process = process

    def stats(self) -> Stats:
        return msgspec.json.decode(self._ask("/stats"), type=Stats)

    def reset(self) -> None:
        self._ask("/reset")

    def _ask(self, path: str) -> bytes:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port)) as connection:
            connection.request("GET", path)
            return connection.getresponse().read()


class Running:
    """A started target. Times are seconds from its start."""

    def __init__(self, target: Target, place: Place, process: Process, bench: "Bench") -> None:
        self.target = target
        self.place = place
        self.process = process
        self.bench = bench

    def port_open_s(self) -> float:
        return self.process.wait_for_port(self.place.port, START_S)

    def first_answer_s(self) -> float:
        """Until a whole answer was there; a refusal on the way is asked again."""
        while (passed := time.monotonic() - self.process.started_at) < START_S:
            self.process.check()
            figures = self.measure(_FIRST_ANSWER)
            if figures.counts:
                return time.monotonic() - self.process.started_at
        raise BenchError(f"no answer in {passed:.0f} s: {figures.errors}")

    def measure(self, plan: Plan, **fields: Any) -> Figures:
        """``fields`` are added to the body of each request."""
        return self.measure_asking(plan, self.target.asking(self.place, plan.model, **fields))

    def measure_asking(self, plan: Plan, asking: Asking) -> Figures:
        cores = self.bench.cores
        one_core = cores is None or cores.target == cores.load
        neighbours = [os.getpid(), self.bench.upstream.process.pid] if one_core else []
        core = 0 if cores is None else cores.target
        return measure(plan, asking, Server(self.process.pids(), core, neighbours))


class Bench:
    """``cores``: None pins nothing, for tests, which share their process with others."""

    def __init__(self, folder: Path, cores: Cores | None, upstream: Upstream) -> None:
        self.folder = folder
        self.cores = cores
        self.upstream = upstream

    @classmethod
    @contextmanager
    def started(cls, folder: Path, cores: Cores | None) -> Iterator["Bench"]:
        """The mock model runs as long as the block. Logs and what targets need go to ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        process = Process(
            [sys.executable, "-m", "tests.bench.upstream", str(port)],
            folder / "upstream.log",
            core=cores.load if cores else None,
            cwd=folder,
            env={"PYTHONPATH": str(ROOT)},
        )
        try:
            process.wait_for_port(port, START_S)
            yield cls(folder, cores, Upstream(port, process))
        finally:
            process.stop()

    @contextmanager
    def running(self, name: str, target: Target, **env: str) -> Iterator[Running]:
        """The target, started anew and ended with the block. ``env``: settings for this once."""
        if target is DIRECT:
            place = Place(self.folder, self.upstream.port, self.upstream.port)
            yield Running(target, place, self.upstream.process, self)
            return
        place = Place(self.folder / name, free_port(), self.upstream.port)
        target.lay_out(place)
        process = Process(
            [place.fill(part) for part in target.command],
            self.folder / f"{name}.log",
            core=self.cores.target if self.cores else None,
            cwd=place.folder,
            env={key: place.fill(value) for key, value in {**target.env, **env}.items()},
        )
        try:
            yield Running(target, place, process, self)
        finally:
            process.stop()
