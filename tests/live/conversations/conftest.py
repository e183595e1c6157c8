from collections.abc import Iterator

import pytest

from tests.live.servers import Gateway, SimulatorProcess, running_gateway
from tests.postgres import Postgres

BOTH = ["sqlite", "postgresql"]


@pytest.fixture(params=BOTH)
def database(request: pytest.FixtureRequest) -> dict[str, str]:
    """Settings of a gateway: the file that it makes by itself, or a new PostgreSQL database."""
    return settings_of(request)


@pytest.fixture(params=BOTH, scope="session")
def gateway(
    request: pytest.FixtureRequest,
    simulator: SimulatorProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    """One that these tests share for each kind of database."""
    cwd = tmp_path_factory.mktemp("gateway")
    with running_gateway(cwd, simulator.url, **settings_of(request)) as process:
        yield process
        assert "Traceback" not in process.output


def settings_of(request: pytest.FixtureRequest) -> dict[str, str]:
    if request.param == "sqlite":
        return {}
    server: Postgres = request.getfixturevalue("postgres")
    return {"database_url": server.database()}
