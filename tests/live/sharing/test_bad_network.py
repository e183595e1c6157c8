"""Between a worker and Redis the network does what networks do: nothing is lost or doubled."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from app.simulator.scripts import expected_text
from app.wire.parse import parse
from tests.live.asking import get
from tests.live.leaving import ENDLESS, ended
from tests.live.reading import HEARTBEAT, Stream, answer, ask, chat, followed, payload, until
from tests.live.servers import Gateway, SimulatorProcess, running_gateway
from tests.live.sharing.pairs import Pair, assert_contiguous, cancel, ending, quiet, start, store_in
from tests.redis_server import RedisServer
from tests.tcp_proxy import TcpProxy, tcp_proxy

pytestmark = pytest.mark.anyio

PROMPT = "tokens,n=100,interval=0.04"
# Longer than a call waits for its answer.
HELD_S = 2.5

Trouble = Callable[[TcpProxy, Stream], Any]


@pytest.fixture(scope="module")
def proxies(redis_server: RedisServer) -> Iterator[tuple[TcpProxy, TcpProxy]]:
    """In front of Redis, for each gateway."""
    with tcp_proxy(redis_server.url) as a, tcp_proxy(redis_server.url) as b:
        yield a, b


@pytest.fixture(scope="module")
def pair(
    proxies: tuple[TcpProxy, TcpProxy],
    redis_server: RedisServer,
    simulator: SimulatorProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Pair]:
    store, data = store_in(redis_server), tmp_path_factory.mktemp("data")
    with ExitStack() as stack:

        def start_behind(proxy: TcpProxy) -> Gateway:
            return stack.enter_context(
                running_gateway(
                    tmp_path_factory.mktemp("gateway"),
                    simulator.url,
                    redis_url=f"{proxy.url}?prefix={store.prefix}",
                    data_dir=data,
                    heartbeat_seconds=0.5,
                )
            )

        pair = Pair(start_behind(proxies[0]), start_behind(proxies[1]), store)
        yield pair
        for gateway in (pair.a, pair.b):
            assert "Traceback" not in gateway.output, gateway.output


async def replies_lost(proxy: TcpProxy, stream: Stream) -> None:
    """What is asked is done, but the answers do not come; then their connections are lost."""
    proxy.hold(requests=False)
    await stream.events(round(HELD_S / 0.04))
    proxy.cut()
    proxy.resume()


async def requests_late(proxy: TcpProxy, stream: Stream) -> None:
    """They arrive when their worker has long since asked again on another connection."""
    proxy.hold(replies=False)
    await stream.events(round(HELD_S / 0.04))
    proxy.resume()


async def cut_again_and_again(proxy: TcpProxy, stream: Stream) -> None:
    for _ in range(15):
        proxy.cut()
        await stream.events(5)


async def packets_lost(proxy: TcpProxy, stream: Stream) -> None:
    proxy.hold()
    await stream.events(round(HELD_S / 0.04))
    proxy.resume()


TROUBLES = [replies_lost, requests_late, cut_again_and_again, packets_lost]


async def exact(writer: Gateway, reader: Gateway, trouble: Callable[[Stream], Any]) -> None:
    """Read a run on both while there is trouble."""
    prompt = ask(PROMPT)
    async with chat(writer.url, prompt) as here:
        async with followed(reader.url, await here.run_id()) as there:
            await asyncio.gather(here.events(5), there.events(5))
            await trouble(here)
            await asyncio.gather(here.rest(), there.rest())
        reads = [parse(b"".join(each.writes).replace(HEARTBEAT, b"")) for each in (here, there)]
    assert reads[0] == reads[1]
    assert_contiguous(reads[1])
    assert answer(reads[1]) == payload(reads[1][-2])["text"] == expected_text(prompt)


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_every_token_comes_once_whatever_happens_to_one_workers_connections(
    pair: Pair, proxies: tuple[TcpProxy, TcpProxy], trouble: Trouble
) -> None:
    """To a worker that makes a run, and that reads one."""

    async def none(stream: Stream) -> None:
        await stream.events(1)

    await asyncio.gather(
        exact(pair.a, pair.b, partial(trouble, proxies[0])), exact(pair.b, pair.a, none)
    )
    await until(lambda: ready(pair), lambda seen: seen == [True, True], "both are ready again")
    await quiet(pair.store)


async def ready(pair: Pair) -> list[bool]:
    return [(await get(gateway, "/ready")).status_code == 200 for gateway in (pair.a, pair.b)]


async def test_a_request_to_stop_that_gets_lost_is_said_again(
    pair: Pair, proxies: tuple[TcpProxy, TcpProxy], simulator: SimulatorProcess
) -> None:
    """Nobody hears what is published while the run's worker has no connection."""
    prompt = ask(ENDLESS)
    run_id = await start(pair.a, prompt)
    async with followed(pair.b.url, run_id) as stream:
        await stream.events(3)
        proxies[0].refuse()
        proxies[0].cut()
        stopping = asyncio.ensure_future(cancel(pair.b, run_id))
        await until(lambda: ready(pair), lambda seen: seen == [False, True], "A is cut off")
        proxies[0].accept()
        status, told = await stopping
        assert (status, told["status"]) == (200, "cancelled")
        assert (await ended(simulator, prompt))[0]["outcome"] == "aborted"
        await stream.rest()
    assert (await ending(pair.a, run_id))["status"] == "cancelled"
