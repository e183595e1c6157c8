from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.deploy.behind import Pair
from tests.live.servers import SimulatorProcess


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    """The model of all gateways here, as a process of its own."""
    process = SimulatorProcess(tmp_path_factory.mktemp("upstream"))
    yield process
    process.stop()


@pytest.fixture(scope="session")
def pair(upstream: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two gateways behind nginx that nothing happens to."""
    with Pair(
        upstream,
        tmp_path_factory.mktemp,
        heartbeat_seconds=0.3,
        reconnect_grace_seconds=0.3,
        trusted_proxies="127.0.0.1",
    ) as pair:
        yield pair


@pytest.fixture
def start_pair(
    upstream: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Pair]]:
    """Two gateways of the test's own, to stop and to kill, behind their nginx."""
    with ExitStack() as stack:

        def start(**settings: object) -> Pair:
            return stack.enter_context(Pair(upstream, tmp_path_factory.mktemp, **settings))

        yield start
