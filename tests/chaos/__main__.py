"""``python -m tests.chaos``: prints the table; 1 if anything was wrong."""

import argparse
import logging
import secrets
import sys
from pathlib import Path

import tests.chaos
from tests.chaos.plan import Plan
from tests.chaos.run import run

logger = logging.getLogger(__name__)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=tests.chaos.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    usual = Plan(0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    for name, kind, what in (
        ("seconds", float, "of faults"),
        ("streams", int, "at any time"),
        ("every", float, "seconds from one fault to the next"),
        ("asleep", float, "seconds that a worker is stopped"),
        ("silent", float, "seconds that packets are dropped"),
        ("longest", float, "seconds that an answer takes"),
    ):
        default = getattr(usual, name if hasattr(usual, name) else f"{name}_s")
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"{what} ({default:g})")
    parser.add_argument("--logs", type=Path, help="a directory for what the workers say")
    given = parser.parse_args()
    plan = Plan(
        given.seed,
        seconds=given.seconds,
        streams=given.streams,
        every_s=given.every,
        asleep_s=given.asleep,
        silent_s=given.silent,
        longest_s=given.longest,
    )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells of each request
    logger.info("seed %d", plan.seed)
    outcome = run(plan, given.logs)
    sys.stdout.write(outcome.table)
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    raise SystemExit(main())
