"""One whole run: set up, break, wait, look."""

import asyncio
import logging
import time
from pathlib import Path
from typing import NamedTuple

from tests.chaos.aftermath import look
from tests.chaos.deployment import Deployment, running
from tests.chaos.excuses import Excuses
from tests.chaos.faults import Faults
from tests.chaos.load import Load
from tests.chaos.plan import Plan
from tests.chaos.records import Violation
from tests.chaos.table import table, violations
from tests.chaos.verdicts import Verdicts

logger = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """``table`` holds the violations too, as far as there is room."""

    table: str
    violations: list[Violation]


def run(plan: Plan, logs: Path | None = None) -> Outcome:
    """``logs``: a directory for what the workers say."""
    with running(plan) as place:
        outcome = asyncio.run(_run(place, plan))
        for number, worker in enumerate(place.workers if logs else ()):
            (Path(logs or "") / f"worker-{number}.log").write_text(worker.said)
        return outcome


async def _run(place: Deployment, plan: Plan) -> Outcome:
    began = time.monotonic()
    load = Load(place.url, plan)
    faults = Faults(place, plan)
    people = asyncio.create_task(load.run(), name="people")
    try:
        await faults.run(plan.seconds)
        logger.info("everything runs again; readers read to the end")
        load.is_stopping = True
        done, _ = await asyncio.wait({people}, timeout=plan.longest_s + plan.settle_s)
        for task in done:
            task.result()  # a bug of ours, if there was one
        for record in load.reading:
            run = f"run {record.run_id or '?'} ({record.question.text})"
            what = f"{run}: no ending for a reader: {list(record.notes)}"
            load.violations.append(Violation(what))
    finally:
        people.cancel()
        await asyncio.wait({people})
    logger.info("a look at what is left")
    verdicts = Verdicts(Excuses(faults.past), plan.lost_within_s)
    await look(place, load, verdicts)
    shown = table(load, faults.past, verdicts, time.monotonic() - began)
    return Outcome(shown, violations(load, verdicts))
