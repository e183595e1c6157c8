"""Two gateways that share Redis behind nginx, which keeps nobody at one of them: readers are cut
anywhere and go on wherever nginx sends them."""

import asyncio
from collections.abc import Callable

import pytest

from app.simulator.scripts import expected_text
from tests.deploy.behind import Pair
from tests.live.reading import answer, ask, names, stats
from tests.live.servers import SimulatorProcess
from tests.live.sharing.pairs import Wanderer, assert_contiguous, store_in
from tests.redis_server import RedisServer

pytestmark = pytest.mark.anyio

RUNS = 300
AT_ONCE = 60  # more would only wait for each other
CUTS = 5  # of each reader, at least and on average
TOKENS = 120


async def test_three_hundred_runs_lose_and_double_nothing_however_their_readers_are_cut(
    start_pair: Callable[..., Pair], redis_server: RedisServer, upstream: SimulatorProcess
) -> None:
    address = store_in(redis_server).url
    pair = await asyncio.to_thread(start_pair, redis_url=address, heartbeat_seconds=0.5)
    readers = [Wanderer([pair.nginx], seed) for seed in range(RUNS)]
    prompts = [ask(f"tokens,n={TOKENS},interval={(0, 0.005, 0.02)[n % 3]}") for n in range(RUNS)]
    turn = asyncio.Semaphore(AT_ONCE)

    async def read(reader: Wanderer, prompt: str) -> None:
        async with turn:
            await reader.ask(prompt, grace_seconds=60)

    await asyncio.gather(*map(read, readers, prompts))
    for reader, prompt in zip(readers, prompts, strict=True):
        assert answer(reader.events) == expected_text(prompt)
        assert_contiguous(reader.events)
        assert names(reader.events)[-2:] == ["final", "done"]
        assert (await stats(upstream, prompt))["started"] == 1
    assert sum(reader.cuts for reader in readers) >= CUTS * RUNS
    for gateway in pair.gateways:
        assert "Traceback" not in gateway.output
