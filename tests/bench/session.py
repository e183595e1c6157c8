"""One run of the benchmark: every scenario that was asked for, each with every target."""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from tests.bench import gateway_only, scenarios, silence
from tests.bench.load import Plan
from tests.bench.measure import Figures
from tests.bench.processes import BenchError
from tests.bench.results import Result, Results
from tests.bench.servers import WARM_UP, Bench, Running
from tests.bench.sharing import sharing
from tests.bench.target import DIRECT, Target

SCENARIOS = ("S1", "S2", "S3", "S4", "S5", "S6", "readers", "replay", "growth", "sharing")
logger = logging.getLogger(__name__)


class Session:
    """Fills ``results``; a target that fails says so there, is left out of what follows, and ends
    nothing else."""

    def __init__(
        self,
        bench: Bench,
        results: Results,
        targets: Mapping[str, Target],
        only: Collection[str] = SCENARIOS,
    ) -> None:
        self._bench = bench
        self._results = results
        self._targets = targets
        self._only = set(only)
        for name, target in targets.items():
            results.targets[name] = Result(target.title)

    def run(self) -> None:
        for name, target in self._targets.items():
            with self._surviving(name):
                target.install()
        if "S6" in self._only:
            self._each(self._cold_starts)
        if self._only & {"S1", "S2", "S4"}:
            self._in_turns()
        if "S3" in self._only:
            self._each(self._many)
        if self._only & {"readers", "replay", "growth"}:
            self._each(self._with_runs)
        if "sharing" in self._only:
            self._each(self._share)
        if "S5" in self._only:
            self._listen()

    def _each(self, step: Callable[[str, Target, Result], None]) -> None:
        for name, target in self._usable():
            with self._surviving(name):
                step(name, target, self._results.targets[name])

    def _usable(self) -> list[tuple[str, Target]]:
        return [
            (name, target)
            for name, target in self._targets.items()
            if target is not DIRECT and self._results.targets[name].error is None
        ]

    def _cold_starts(self, name: str, target: Target, result: Result) -> None:
        for _ in range(self._results.runs):
            result.starts.append(scenarios.cold_start(self._bench, name, target))
            logger.info("S6 %s: %s", name, result.starts[-1])

    def _in_turns(self) -> None:
        """All targets are started and take turns, so that a machine that becomes slower or faster
        does so for all of them; those that wait use nothing."""
        runs = self._results.runs
        with ExitStack() as stack:
            warm = self._all_warm(stack)
            if "direct" in self._targets:
                warm["direct"] = stack.enter_context(self._bench.running("direct", DIRECT))
            for _ in range(runs + scenarios.MORE_RUNS):
                for scenario, plan in (("S1", scenarios.FLAT_OUT), ("S2", scenarios.PACED)):
                    if scenario in self._only:
                        for name, running in warm.items():
                            self._turn(scenario, plan, name, running)
            if "S4" in self._only:
                self._each(lambda name, _, result: self._leaving(name, warm[name], result))

    def _turn(self, scenario: str, plan: Plan, name: str, running: Running) -> None:
        result = self._results.targets[name]
        done = result.flat_out if scenario == "S1" else result.paced
        if result.error is None and scenarios.is_short(done, self._results.runs):
            with self._surviving(name):
                done.append(scenarios.quietly(self._bench, lambda: running.measure(plan)))
                logger.info("%s %s: %s", scenario, name, done[-1])

    def _leaving(self, name: str, running: Running, result: Result) -> None:
        result.leaving = scenarios.leaving(running)
        logger.info("S4 %s: %s", name, result.leaving)

    def _many(self, name: str, target: Target, result: Result) -> None:
        """In new processes: memory that has grown before would hide the growth."""

        def once() -> Figures:
            with self._warm(name, target) as running:
                return running.measure(scenarios.MANY)

        self._repeat("S3", name, result.many, once)

    def _with_runs(self, name: str, target: Target, result: Result) -> None:
        if not target.has_runs:
            return
        with self._warm(name, target) as running:
            if "readers" in self._only:
                self._repeat("readers", name, result.readers, lambda: gateway_only.readers(running))
            if "replay" in self._only:
                result.replay = gateway_only.replay(running)
                logger.info("replay %s: %s", name, result.replay[-1])
        if "growth" in self._only:
            result.growth = gateway_only.growth(self._bench, name, target)
            for streams, figures in result.growth.items():
                logger.info("%d streams %s: %s", streams, name, figures)

    def _share(self, name: str, target: Target, result: Result) -> None:
        if target.has_runs:
            result.sharing = sharing(self._bench, name, target)

    def _repeat(
        self, scenario: str, name: str, done: list[Figures], measure: Callable[[], Figures]
    ) -> None:
        """Once, and again while it was noisy."""
        while scenarios.is_short(done, 1):
            done.append(scenarios.quietly(self._bench, measure))
            logger.info("%s %s: %s", scenario, name, done[-1])

    def _listen(self) -> None:
        with ExitStack() as stack:
            warm = self._all_warm(stack)
            logger.info("S5: %g s of silence, all targets at once", silence.SILENCE_S)
            for name, heard in silence.listen(warm).items():
                self._results.targets[name].silence = heard
                logger.info("S5 %s: %s", name, heard)

    def _all_warm(self, stack: ExitStack) -> dict[str, Running]:
        warm = {}
        for name, target in self._usable():
            with self._surviving(name):
                warm[name] = stack.enter_context(self._warm(name, target))
        return warm

    @contextmanager
    def _warm(self, name: str, target: Target) -> Iterator[Running]:
        with self._bench.running(name, target) as running:
            running.port_open_s()
            running.first_answer_s()
            running.measure(WARM_UP)
            yield running

    @contextmanager
    def _surviving(self, name: str) -> Iterator[None]:
        """A broken target must not cost the others' figures."""
        result = self._results.targets[name]
        try:
            yield
        except Exception as error:
            result.error = str(error) or type(error).__name__
            logger.warning("%s: %s", name, result.error, exc_info=not isinstance(error, BenchError))
