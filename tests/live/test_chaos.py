"""Many runs at once while a third of the calls upstream fail, before or in the middle of an answer,
and one upstream dies for good half-way. ``CHAOS_SECONDS`` makes it longer."""

import asyncio
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.asking import Answer, ask, marker
from tests.live.servers import Gateway, SimulatorProcess
from tests.live.several import gateway_with, run_of

pytestmark = pytest.mark.anyio

CHAOS_S = float(os.environ.get("CHAOS_SECONDS", "8"))
AT_ONCE = 24
TOKENS = 30
MODELS = """
[[models]]
name = "dying"
model = "sim:chaos,n={tokens},p=0.33,interval=0.01,key=dying"
base_url = "{dying}"
fallbacks = ["weak", "sound"]

[[models]]
name = "weak"
model = "sim:chaos,n={tokens},p=0.33,interval=0.01,key=weak"
base_url = "{sound}"
fallbacks = ["sound"]

[[models]]
name = "sound"
model = "sim:tokens,n={tokens},interval=0.01"
base_url = "{sound}"
"""


@pytest.fixture
def dying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    process = SimulatorProcess(tmp_path_factory.mktemp("dying"))
    yield process
    process.stop()


@pytest.fixture
def shaken(
    simulator: SimulatorProcess, dying: SimulatorProcess, tmp_path: Path
) -> Iterator[Gateway]:
    models = MODELS.format(tokens=TOKENS, dying=dying.url, sound=simulator.url)
    with gateway_with(tmp_path, models) as gateway:
        yield gateway


def speaker(answer: Answer) -> str | None:
    """The one model that all tokens come from, from the first one on and without a gap."""
    words = re.findall(r"(\S+) ", answer.text)
    assert "".join(f"{word} " for word in words) == answer.text
    if not words:
        return None
    if words[0] == "tok0":
        assert words == [f"tok{k}" for k in range(len(words))]
        return "sound"
    model: str = words[0].removesuffix(":0")
    assert words == [f"{model}:{k}" for k in range(len(words))]
    return model.rpartition("key=")[2]


async def asked(gateway: Gateway, model: str) -> str:
    """One run, checked; how it ended and who spoke."""
    answer = await ask(gateway, marker(), model=model)
    names = answer.names
    assert names[0] == "start"
    assert names[-1] == "done"
    assert set(names[1:-2]) <= {"token"}
    assert names[-2] in ("final", "error")
    said_by = speaker(answer)
    run = await asyncio.to_thread(run_of, gateway, answer.run_id)
    assert said_by is not None, f"no fallback answered: {names}, {run}"
    assert run["answered_by"] == said_by
    status = answer.one("done")["status"]
    if names[-2] == "final":
        assert answer.one("final")["text"] == answer.text
        assert answer.one("final")["model"] == said_by
        assert names.count("token") == TOKENS
        assert status == "completed"
    else:
        assert answer.one("error")["code"] in ("upstream_broken", "upstream_unavailable")
        assert names.count("token") <= TOKENS  # all, where only the finish reason is missing
        assert status == "failed"
    return f"{model}: {status} by {said_by}"


@pytest.mark.timeout(CHAOS_S + 120)
async def test_every_run_has_one_ending_and_one_models_text(
    shaken: Gateway, dying: SimulatorProcess
) -> None:
    ends_at = time.monotonic() + CHAOS_S
    seen: Counter[str] = Counter()

    async def keep_asking(model: str) -> None:
        while time.monotonic() < ends_at:
            seen[await asked(shaken, model)] += 1

    async with asyncio.TaskGroup() as tasks:
        for number in range(AT_ONCE):
            tasks.create_task(keep_asking("dying" if number % 2 else "weak"))
        await asyncio.sleep(CHAOS_S / 2)  # not to synchronise: it dies in the midst of them
        dying.stop()

    print(dict(seen))  # noqa: T201  # shown with -s: what happened in the time
    assert {f"{name}: completed by {name}" for name in ("dying", "weak")} <= seen.keys()
    assert {f"{name}: failed by {name}" for name in ("dying", "weak")} <= seen.keys()
    assert seen["dying: completed by weak"] + seen["dying: completed by sound"] > 0
    assert not any("failed by sound" in how for how in seen)
    assert "Traceback" not in shaken.output
    answer = await ask(shaken, marker(), model="dying")
    assert speaker(answer) in ("weak", "sound")
