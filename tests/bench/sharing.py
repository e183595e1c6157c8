"""What it costs that workers share runs through Redis: the writer, Redis, and readers elsewhere.

Three gateways: one without Redis, and two with it. Whatever is measured has the target's core; the
neighbour, which makes the runs of remote readers, is on the other one with Redis, model and load.
CPU is that of one process, whoever else was busy.

S1, S2   as everywhere, of the gateway without Redis and of one with it. S2 fills a core by itself,
         and a server that is late is cheap: what Redis costs the writer shows better in `local`.
local    200 runs with one reader each, at 25 tokens a second, made and read by the same gateway,
         with and without Redis. All that it does for them is in it, requests too.
unread   the same runs, read by nobody until they have ended.
remote   the same runs, made by the neighbour. At 50 tokens a second it would fill the core that it
         shares.
crowd    1,000 readers of one run, as `readers`: made by the same gateway, and by the neighbour.
"""

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

from tests.bench import procstat, scenarios
from tests.bench.gateway_only import READERS, following, readers, start_run
from tests.bench.load import Plan
from tests.bench.machine import Cores
from tests.bench.measure import Figures
from tests.bench.processes import BenchError
from tests.bench.redis_account import Account
from tests.bench.results import Sharing
from tests.bench.servers import WARM_UP, Bench, Running
from tests.bench.target import Target
from tests.redis_server import running_redis

SETTLE_S = 0.5  # after the model's last word: runs end, and Redis gets it
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plans:
    flat_out: Plan
    paced: Plan
    apart: Plan  # the model waits until all runs have begun and have their readers
    begin_s: float  # over which the runs of `apart` begin
    crowd: Plan


PLANS = Plans(
    flat_out=scenarios.FLAT_OUT,
    paced=scenarios.PACED,
    apart=Plan("sim-n100-i40-first3000", streams=200, ramp_s=0.9),
    begin_s=2.0,
    crowd=READERS,
)


def sharing(bench: Bench, name: str, target: Target, plans: Plans = PLANS) -> Sharing:
    beside = Bench(bench.folder, _beside(bench.cores), bench.upstream)
    with running_redis() as server, ExitStack() as stack:
        shared = {"GATEWAY_REDIS_URL": server.url}
        gateways = [
            stack.enter_context(bench.running(f"{name}-alone", target)),
            stack.enter_context(bench.running(f"{name}-here", target, **shared)),
            stack.enter_context(beside.running(f"{name}-there", target, **shared)),
        ]
        for gateway in gateways:
            gateway.port_open_s()
            gateway.first_answer_s()
            gateway.measure(WARM_UP)
        account = stack.enter_context(Account.of(server))
        return _Measurement(bench, plans, account, *gateways).run()


def _beside(cores: Cores | None) -> Cores | None:
    return None if cores is None else Cores(cores.load, cores.load)


class _Measurement:
    def __init__(
        self,
        bench: Bench,
        plans: Plans,
        account: Account,
        alone: Running,
        here: Running,
        there: Running,
    ) -> None:
        self._bench = bench
        self._plans = plans
        self._account = account
        self._alone = alone
        self._here = here
        self._there = there
        self._writer: dict[str, Figures] = {}

    def run(self) -> Sharing:
        plans, here, writer = self._plans, self._here, self._writer
        alone = {}
        for load, plan in (("S1", plans.flat_out), ("S2", plans.paced)):
            alone[load] = self._quietly(f"{load} without Redis", partial(self._alone.measure, plan))
            writer[load] = self._accounted(load, partial(here.measure, plan))
        alone["local"] = self._quietly("local without Redis", partial(self._local, self._alone))
        writer["local"] = self._accounted("local", partial(self._local, here))
        writer["unread"] = self._quietly("unread", self._unread)
        remote = self._accounted("remote", self._remote)
        crowd = {
            where: self._quietly(f"crowd {where}", partial(readers, here, plans.crowd, made_by))
            for where, made_by in (("local", here), ("remote", self._there))
        }
        return Sharing(alone, writer, self._account.uses, remote, crowd)

    def _quietly(self, what: str, measure: Callable[[], Figures]) -> Figures:
        figures = scenarios.quietly(self._bench, measure)
        logger.info("sharing, %s: %s", what, figures)
        return figures

    def _accounted(self, load: str, measure: Callable[[], Figures]) -> Figures:
        """With Redis's side of it."""
        return self._quietly(load, lambda: self._account.during(load, measure))

    def _local(self, gateway: Running) -> Figures:
        spent = _Spent(gateway)
        return spent.by(self._read(gateway, made_by=gateway))

    def _unread(self) -> Figures:
        """That every token was made is looked at once the cost is known."""
        upstream = self._bench.upstream
        upstream.reset()
        spent = _Spent(self._here)
        run_ids = self._begin(self._here)
        deadline = time.monotonic() + self._plans.apart.limit_s
        while upstream.stats().finished < len(run_ids):
            if time.monotonic() > deadline:
                raise BenchError(f"runs that nobody reads have not ended: {upstream.stats()}")
            time.sleep(0.05)
        time.sleep(SETTLE_S)
        spent.end()
        asking = following(self._here, run_ids)
        return spent.by(self._here.measure_asking(self._plans.apart, asking))

    def _remote(self) -> Figures:
        here, there = _Spent(self._here), _Spent(self._there)
        figures = here.by(self._read(self._here, made_by=self._there))
        us = there.by(figures).cpu_us_per_token
        self._writer["remote"] = replace(figures, cpu_us_per_token=us)
        return figures

    def _read(self, gateway: Running, made_by: Running) -> Figures:
        asking = following(gateway, self._begin(made_by))
        figures = gateway.measure_asking(self._plans.apart, asking)
        time.sleep(SETTLE_S)
        return figures

    def _begin(self, gateway: Running) -> list[str]:
        """Not all at once: they would tick together."""
        plan, begin_s = self._plans.apart, self._plans.begin_s
        run_ids = []
        began = time.monotonic()
        for number in range(plan.streams):
            time.sleep(max(0.0, began + begin_s * number / plan.streams - time.monotonic()))
            run_ids.append(start_run(gateway, plan.model))
        return run_ids


class _Spent:
    """What a gateway uses from now on."""

    def __init__(self, gateway: Running) -> None:
        cores = gateway.bench.cores
        self._core = 0 if cores is None else cores.target
        self._pids = gateway.process.pids()
        self._began = self._now()
        self._ended: _Moment | None = None

    def end(self) -> None:
        """Until now; else until it is asked for."""
        self._ended = self._now()

    def by(self, figures: Figures) -> Figures:
        """With this cost."""
        began, ended = self._began, self._ended or self._now()
        cpu_s, busy_s = ended.cpu_s - began.cpu_s, ended.busy_s - began.busy_s
        return replace(
            figures,
            cpu_us_per_token=cpu_s * 1e6 / max(1, figures.tokens),
            foreign=max(0.0, busy_s - cpu_s) / (ended.at - began.at),
        )

    def _now(self) -> "_Moment":
        cpu_s = procstat.cpu_s(self._pids)
        return _Moment(time.monotonic(), cpu_s, procstat.busy_s(self._core))


@dataclass(frozen=True)
class _Moment:
    at: float
    cpu_s: float  # of the gateway
    busy_s: float  # of the target's core, whoever used it
