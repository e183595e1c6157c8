"""Two gateways with one Redis: a caller is the same one at both, and so are its limits."""

from collections.abc import Iterator

import pytest

from app.access.key import KeyLimits
from tests.live.access import people
from tests.live.access.people import Guarded, Keyring, call, joined
from tests.live.access.test_sessions import signed_in, status
from tests.live.reading import ask, until
from tests.live.servers import Gateway, SimulatorProcess
from tests.live.sharing.pairs import several, store_in
from tests.redis_server import RedisServer

pytestmark = pytest.mark.anyio

Both = tuple[Guarded, Gateway]


@pytest.fixture(scope="module")
def both(
    simulator: SimulatorProcess,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Both]:
    cwds = [tmp_path_factory.mktemp(name) for name in ("a", "b")]
    ring = Keyring(cwds[0])
    ann, bob = ring.add(), ring.add()
    settings = {
        "redis_url": store_in(redis_server).url,
        "api_keys_file": ring.path,
        "data_dir": cwds[0],
    }
    with several(simulator, cwds, settings) as (a, b):
        yield Guarded(a, ring, ann, bob), b
        for gateway in (a, b):
            assert "Traceback" not in gateway.output, gateway.output


async def test_a_session_is_good_at_both_and_ends_at_both(both: Both) -> None:
    here, there = both
    cookie = await signed_in(here.url, here.ann)
    assert await status(there.url, cookie) == 200
    assert await status(here.url, cookie, "DELETE") == 204

    async def elsewhere() -> int:
        return await status(there.url, cookie)

    await until(elsewhere, (401).__eq__, "signed out there, too")


async def test_limits_are_of_the_caller_and_not_of_a_worker(both: Both) -> None:
    here, there = both
    who = await joined(here, limits=KeyLimits(rate="6/hour", max_runs=2))
    await until(lambda: people.status(there.url, who), (200).__eq__, "the new key")
    question = {"text": ask("silent")}
    begun = [await call(at.url, who, "POST", "/runs", question) for at in (here.gateway, there)]
    assert [each.status_code for each in begun] == [201, 201]
    third = await call(here.url, who, "POST", "/runs", question)
    assert third.status_code == 429
    assert "2 runs at once" in third.json()["detail"]
    path = f"/runs/{begun[0].json()['run_id']}"
    assert (await call(there.url, who, "DELETE", path)).status_code == 200
    assert (await call(there.url, who, "POST", "/runs", question)).status_code == 201
    statuses = [
        (await call(at.url, who, "GET", "/models")).status_code
        for at in (here.gateway, there, here.gateway)
    ]
    assert statuses == [200, 200, 429]
