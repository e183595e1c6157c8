"""What it costs that callers show keys. ``python -m tests.bench.access [one] [many] [short]``.

Two gateways, one open and one with 10,000 keys, take short turns, so that a machine that becomes
slower does so for both. Of each the cheapest quarter of its turns counts: what others do to a turn
only adds. The goals: with keys at most 3 % dearer, and a key checked in under 30 µs.

one    one stream of 10,000 tokens.
many   200 streams of 100 tokens at once.
short  answers of 20 tokens, each with its request: the most that a caller's limits can cost.
"""

import logging
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from app.access.key import Key, encode_keys
from app.access.keys import KeysFile
from app.errors import Unauthorized
from tests.bench.load import Plan
from tests.bench.machine import Cores, raise_file_limit
from tests.bench.measure import Figures
from tests.bench.processes import BenchError
from tests.bench.servers import WARM_UP, Bench, Running
from tests.bench.target import Target
from tests.bench.targets import DEFAULT

KEYS = 10_000
TURNS = 40
CHECKS = 20_000
# Limits that nobody meets: they are counted as any others.
LIMITS = {"GATEWAY_RATE_LIMIT": "100000000/minute", "GATEWAY_MAX_RUNS_PER_CALLER": "100000"}
PLANS = {
    "one": Plan("sim-n10000-i0", streams=1),
    "many": Plan("sim-n100-i0", streams=200),
    "short": Plan("sim-n20-i0", streams=8, seconds=0.3),
}
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compared:
    """CPU per token in µs."""

    open_us: float
    guarded_us: float

    @property
    def dearer(self) -> float:
        """A share: 0.03 is 3 %."""
        return self.guarded_us / self.open_us - 1


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    plans = {name: PLANS[name] for name in sys.argv[1:] or PLANS}
    raise_file_limit()
    cores = Cores.of_this_machine()
    os.sched_setaffinity(0, {cores.load})
    with tempfile.TemporaryDirectory() as folder, Bench.started(Path(folder), cores) as bench:
        file, key = write_keys(bench.folder / "keys.json", KEYS)
        logger.info("a key is checked in %.2f µs, one that is none in %.2f", *checking(file, key))
        for name, found in compare(bench, DEFAULT["gateway"], file, key, plans).items():
            logger.info(
                "%-5s open %.2f µs a token, with keys %.2f: %+.1f %%",
                name,
                found.open_us,
                found.guarded_us,
                found.dearer * 100,
            )
    return 0


def compare(
    bench: Bench,
    target: Target,
    file: Path,
    key: str,
    plans: dict[str, Plan],
    turns: int = TURNS,
) -> dict[str, Compared]:
    """By plan. Raises ``BenchError`` where a stream fails."""
    guarded = replace(
        target,
        headers={**target.headers, "authorization": f"Bearer {key}"},
        env={**target.env, **LIMITS, "GATEWAY_API_KEYS_FILE": str(file)},
    )
    with ExitStack() as stack:
        gateways = [
            stack.enter_context(bench.running(name, each))
            for name, each in (("open", target), ("guarded", guarded))
        ]
        for gateway in gateways:
            gateway.port_open_s()
            gateway.first_answer_s()
            gateway.measure(WARM_UP)
        return {name: _compared(gateways, plan, turns) for name, plan in plans.items()}


def _compared(gateways: Sequence[Running], plan: Plan, turns: int) -> Compared:
    """Who goes first changes with each turn."""
    spent: list[list[float]] = [[], []]  # of the open one, of the guarded one
    for turn in range(turns):
        for which in (0, 1) if turn % 2 else (1, 0):
            spent[which].append(_cpu_us(gateways[which], plan))
    cheapest = (sorted(each)[: max(1, turns // 4)] for each in spent)
    return Compared(*map(statistics.mean, cheapest))


def _cpu_us(gateway: Running, plan: Plan) -> float:
    figures: Figures = gateway.measure(plan)
    if not figures.counts:
        raise BenchError(f"{plan.model}: {figures.errors}")
    return figures.cpu_us_per_token


def write_keys(path: Path, count: int) -> tuple[Path, str]:
    """A file of so many keys, and one of them."""
    now = datetime.now(UTC)
    secret = secrets.token_urlsafe(32)
    ids = [secrets.token_hex(8) for _ in range(count)]
    digest = sha256(secret.encode()).hexdigest()
    path.write_bytes(encode_keys([Key(each, each, digest, now) for each in ids]))
    path.chmod(0o600)
    return path, f"gw_{ids[count // 2]}_{secret}"


def checking(path: Path, key: str, checks: int = CHECKS) -> tuple[float, float]:
    """CPU in µs of a check of that key, and of one whose id nobody has."""
    keys = KeysFile(path)

    def refused() -> None:
        with suppress(Unauthorized):
            keys.check(f"gw_{'0' * 16}_{key[-43:]}")

    return _each_us(lambda: keys.check(key), checks), _each_us(refused, checks)


def _each_us(call: Callable[[], object], times: int) -> float:
    """The best of five rounds: what others on the machine do to it is no cost of ours."""
    rounds = []
    for _ in range(5):
        began = time.process_time()
        for _ in range(times // 5):
            call()
        rounds.append((time.process_time() - began) / (times // 5) * 1e6)
    return min(rounds)


if __name__ == "__main__":
    raise SystemExit(main())
