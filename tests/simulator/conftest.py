from collections.abc import AsyncIterator

import httpx
import pytest

from app.simulator import Simulator


@pytest.fixture(
    params=[("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})],
    ids=["asyncio", "uvloop"],
)
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """Both loops: their transports differ in when they write and how they abort."""
    return request.param


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as server:
        yield server


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    plain = httpx.AsyncHTTPTransport(
        verify=False
    )  # without the 20 ms for certificates nobody needs
    async with httpx.AsyncClient(base_url=simulator.origin, timeout=10, transport=plain) as client:
        yield client
