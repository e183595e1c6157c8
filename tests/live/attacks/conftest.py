from collections.abc import Iterator

import pytest

from tests.live.attacks.world import World, attacked
from tests.live.servers import SimulatorProcess


@pytest.fixture(scope="module")
def world(simulator: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with attacked(simulator, tmp_path_factory.mktemp("attacked")) as world:
        yield world
