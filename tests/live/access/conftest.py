from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.live.access.people import Guarded, Keyring
from tests.live.leaving import GRACE_S
from tests.live.servers import Gateway, SimulatorProcess, running_gateway

StartGuarded = Callable[..., Guarded]


@pytest.fixture(scope="package")
def guarded(
    simulator: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    """One that most of these tests share, without a limit that they could meet."""
    cwd = tmp_path_factory.mktemp("guarded")
    ring = Keyring(cwd)
    ann, bob = ring.add(), ring.add()
    settings = {
        "api_keys_file": ring.path,
        "rate_limit": "100000/minute",
        "max_runs_per_caller": 1000,
        "heartbeat_seconds": 0.5,
        "reconnect_grace_seconds": GRACE_S,
    }
    with running_gateway(cwd, simulator.url, **settings) as gateway:
        yield Guarded(gateway, ring, ann, bob)
        assert "Traceback" not in gateway.output, gateway.output


@pytest.fixture
def start_guarded(
    start_gateway: Callable[..., Gateway], tmp_path_factory: pytest.TempPathFactory
) -> StartGuarded:
    """Start one with settings of one's own; ended with the test."""

    def start(**settings: Any) -> Guarded:
        ring = Keyring(tmp_path_factory.mktemp("keys"))
        ann, bob = ring.add(), ring.add()
        gateway = start_gateway(api_keys_file=ring.path, **settings)
        return Guarded(gateway, ring, ann, bob)

    return start
