from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.live.leaving import GRACE_S
from tests.live.servers import SimulatorProcess
from tests.live.sharing.pairs import Pair, several, store_in
from tests.postgres import Postgres
from tests.redis_server import RedisServer

StartPair = Callable[..., Pair]


@pytest.fixture(scope="package")
def pair(
    simulator: SimulatorProcess,
    redis_server: RedisServer,
    postgres: Postgres,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Pair]:
    """Two gateways that most of these tests share, with PostgreSQL; nobody stops them."""
    store = store_in(redis_server)
    settings = {
        "redis_url": store.url,
        "database_url": postgres.database(),
        "heartbeat_seconds": 0.5,
        "reconnect_grace_seconds": GRACE_S,
    }
    cwds = [tmp_path_factory.mktemp(name) for name in ("a", "b")]
    with several(simulator, cwds, settings) as (a, b):
        yield Pair(a, b, store)
        for gateway in (a, b):
            assert "Traceback" not in gateway.output, gateway.output


@pytest.fixture
def start_pair(
    simulator: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartPair]:
    """Start two with settings of one's own, a database file between them; ended with the test."""
    with ExitStack() as stack:

        def start(redis: RedisServer, **settings: Any) -> Pair:
            cwds = [tmp_path_factory.mktemp(name) for name in ("a", "b")]
            store = store_in(redis)
            own = {"redis_url": store.url, "data_dir": cwds[0], "heartbeat_seconds": 0.5}
            a, b = stack.enter_context(several(simulator, cwds, own | settings))
            return Pair(a, b, store)

        yield start
