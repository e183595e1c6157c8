"""What Redis keeps, and for how long."""

import asyncio

import pytest

from tests.live.asking import assert_problem, get, marker
from tests.live.conversations.talking import call
from tests.live.reading import answer, ask, chat, followed, names, until
from tests.live.servers import Gateway
from tests.live.sharing.conftest import StartPair
from tests.live.sharing.pairs import Pair, cancel, ending, look, quiet, start
from tests.live.test_resume import WAYS
from tests.redis_server import RedisServer

pytestmark = pytest.mark.anyio

RETENTION_S = 1.5


async def status(gateway: Gateway, run_id: str) -> int:
    return (await get(gateway, f"/runs/{run_id}")).status_code


async def test_what_has_expired_is_gone_and_a_long_silence_is_no_end(
    start_pair: StartPair, redis_server: RedisServer
) -> None:
    pair = await asyncio.to_thread(start_pair, redis_server, run_retention_seconds=RETENTION_S)
    key, prompt = {"idempotency-key": marker()}, ask("tokens,n=3")
    expired = await start(pair.a, prompt, headers=key)
    silent = await start(pair.a, ask("tokens,n=3,first=4"))
    async with followed(pair.b.url, expired) as on_b, followed(pair.b.url, silent) as reader:
        assert names(await on_b.rest())[-1] == "done"
        for gateway in (pair.b, pair.a):
            await until(
                lambda gateway=gateway: status(gateway, expired),  # type: ignore[misc]  # no type for a default
                lambda code: code == 404,
                "it expires",
            )
            for way, resume in WAYS.items():
                async with resume(gateway.url, f"{expired}.2") as stream:
                    assert (await stream.problem())["code"] == "not_found", way
                    assert stream.status == 404
            assert_problem(await call(gateway, "DELETE", f"/runs/{expired}"), 404, "not_found")
        again = await start(pair.b, prompt, headers=key)
        assert again != expired, "a key lives as long as its run's log"

        for gateway in (pair.a, pair.b):
            assert (await look(gateway, silent))["status"] == "running"
        async with followed(pair.b.url, silent) as late:
            assert await late.rest() == (events := await reader.rest())
        assert answer(events) == "tok0 tok1 tok2 "
    await until(lambda: status(pair.b, silent), lambda code: code == 404, "it expires too")
    await until(lambda: asyncio.to_thread(names_in, pair), lambda found: not found, "nothing left")


def names_in(pair: Pair) -> list[str]:
    """What is kept of runs. Who read them and where they talked expires later."""
    with pair.store.redis.client() as redis:
        found = [name.decode() for name in redis.scan_iter(f"{pair.store.prefix}:{{*", count=1000)]
    return [name for name in found if name.endswith((":run", ":log")) or "{key:" in name]


async def test_all_keys_have_an_expiry_once_everything_has_ended(pair: Pair) -> None:
    """However a run ended, whoever read it, and where two had wanted the same key or place."""
    key = {"idempotency-key": marker()}
    prompts = [ask(script) for script in ("tokens,n=3", "eof,after=1", "silent", "stall,after=2")]
    runs = [await start(pair.a, prompt) for prompt in prompts]
    same = ask("tokens,n=2")
    await asyncio.gather(*(start(each, same, headers=key) for each in (pair.a, pair.b) * 5))
    async with chat(pair.a.url, ask("silent")) as stream:
        await stream.events(1)  # and leave
    for run_id in runs:
        async with followed(pair.b.url, run_id) as stream:
            await stream.events(1)
            await cancel(pair.b, run_id)
            await stream.rest()
        await ending(pair.b, run_id)
    await quiet(pair.store)
