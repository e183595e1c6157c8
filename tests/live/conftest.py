from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from tests.live.browser import browser, chat, cut_chat, page_gateway, proxy, visitor
from tests.live.leaving import GRACE_S, open_files
from tests.live.reading import stats, until
from tests.live.servers import PLAIN, Gateway, SimulatorProcess, running_gateway

__all__ = ["browser", "chat", "cut_chat", "page_gateway", "proxy", "visitor"]  # fixtures


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    """The upstream of all live tests, as a process of its own."""
    process = SimulatorProcess(tmp_path_factory.mktemp("simulator"))
    yield process
    process.stop()


@pytest.fixture(scope="session")
def gateway(
    simulator: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway that most live tests share: clocks short, the rest as by default."""
    with running_gateway(
        tmp_path_factory.mktemp("gateway"),
        simulator.url,
        heartbeat_seconds=0.5,
        first_token_timeout_seconds=3,
        stall_timeout_seconds=1,
    ) as process:
        yield process


@pytest.fixture(scope="session")
def equipped(
    simulator: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway whose model has a tool."""
    cwd = tmp_path_factory.mktemp("equipped")
    tools = "app.llm.builtin:calculate"
    with running_gateway(cwd, simulator.url, tools=tools) as process:
        yield process


@pytest.fixture
def start_gateway(
    simulator: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Gateway]]:
    """Start a gateway with settings of one's own; ended with the test."""
    with ExitStack() as stack:

        def start(**settings: Any) -> Gateway:
            cwd = tmp_path_factory.mktemp("gateway")
            upstream = settings.pop("upstream", simulator.url)
            return stack.enter_context(running_gateway(cwd, upstream, **settings))

        yield start


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    """A simulator for ``patient`` alone, so that every connection to it can be accounted for."""
    process = SimulatorProcess(tmp_path_factory.mktemp("upstream"))
    yield process
    process.stop()


@pytest.fixture(scope="session")
def patient(
    upstream: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway whose clocks end no run of a test, and that has a short grace."""
    cwd = tmp_path_factory.mktemp("patient")
    with running_gateway(cwd, upstream.url, reconnect_grace_seconds=GRACE_S) as process:
        yield process


@pytest.fixture
async def nothing_is_left(patient: Gateway, upstream: SimulatorProcess) -> AsyncIterator[None]:
    """After the test: no reader, no upstream call, and no connection to the upstream but those
    that wait for the next call because theirs had its end. And nothing went wrong unseen."""
    port = httpx.URL(upstream.url).port or 0
    files, _ = open_files(patient.pid, port)
    lines = len(patient.lines)
    before = await stats(upstream)
    yield

    async def left() -> tuple[int, int, bool]:
        files_now, calls_now = open_files(patient.pid, port)
        seen = await stats(upstream)
        kept = before["connections"] + sum(
            seen[how] - before[how] for how in ("finished", "failed")
        )
        too_many = max(calls_now + 1, seen["connections"]) > kept  # one is the asker's
        return max(0, files_now - files), seen["open"], too_many

    await until(left, lambda seen: seen == (0, 0, False), "files, open calls, too many connections")
    assert "Traceback" not in "".join(patient.lines[lines:])


@pytest.fixture
def nothing_started(gateway: Gateway, simulator: SimulatorProcess) -> Iterator[None]:
    """After the test, one good question: had a bad one begun anything, it would show by then."""
    before = simulator.stats()["started"]
    yield
    good = httpx.get(f"{gateway.url}/chat", params={"text": "sim:tokens,n=1"}, **PLAIN)
    assert "event: final" in good.text
    assert simulator.stats()["started"] == before + 1
