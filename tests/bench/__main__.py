"""``python -m tests.bench``: the gateway and its peers, side by side on this machine."""

import argparse
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

import tests.bench
from tests.bench.machine import HOME, ROOT, Cores, describe, raise_file_limit
from tests.bench.report import report
from tests.bench.results import Results
from tests.bench.servers import Bench
from tests.bench.session import SCENARIOS, Session
from tests.bench.targets import DEFAULT, ON_DEMAND

logger = logging.getLogger(__name__)


def main() -> int:
    arguments = _parser().parse_args()
    chosen = {name: {**DEFAULT, **ON_DEMAND}[name] for name in arguments.targets}
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    results = Results(describe(), arguments.runs)
    raise_file_limit()
    cores = Cores.of_this_machine()
    os.sched_setaffinity(0, {cores.load})
    try:
        with Bench.started(HOME / "run", cores) as bench:
            Session(bench, results, chosen, arguments.only).run()
    except KeyboardInterrupt:
        return 130
    _write(results)
    return 0


def _parser() -> argparse.ArgumentParser:
    names = (*DEFAULT, *ON_DEMAND)
    everybody = os.environ.get("BENCH_PEERS") == "all"
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=tests.bench.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--targets",
        type=_list_of(names),
        default=names if everybody else tuple(DEFAULT),
        help=f"of {', '.join(names)}; default: {', '.join(DEFAULT)}, and all with BENCH_PEERS=all",
    )
    parser.add_argument(
        "--only", type=_list_of(SCENARIOS), default=SCENARIOS, help=f"of {', '.join(SCENARIOS)}"
    )
    parser.add_argument("--runs", type=int, default=3, help="of S1, S2 and S6 (default 3)")
    return parser


def _list_of(names: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        for name in (chosen := tuple(text.split(","))):
            if name not in names:
                raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(names)}")
        return chosen

    return parse


def _write(results: Results) -> None:
    """JSON for programs and Markdown for people, which also goes to the terminal."""
    path = HOME / "results" / time.strftime("%Y%m%d-%H%M%S")
    path.parent.mkdir(parents=True, exist_ok=True)
    markdown = report(results)
    path.with_suffix(".json").write_text(json.dumps(asdict(results), indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown)
    sys.stdout.write(markdown)
    logger.info("%s.json and .md", path.relative_to(ROOT))


if __name__ == "__main__":
    raise SystemExit(main())
