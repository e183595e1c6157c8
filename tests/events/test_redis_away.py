"""What a link says and does while Redis cannot be reached, and when it is back."""

import asyncio
import logging
import secrets
from collections.abc import Iterator

import pytest

from app.errors import StoreAway
from app.events import redis_link
from app.events.redis_link import Link
from tests.events.linked import linked, own, until
from tests.redis_server import RedisServer, running_redis
from tests.tcp_proxy import TcpProxy, tcp_proxy

pytestmark = pytest.mark.anyio


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """One that the test may stop."""
    with running_redis() as server:
        yield server


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[TcpProxy]:
    with tcp_proxy(redis_server.url) as proxy:
        yield proxy


async def away(link: Link) -> str:
    await until(lambda: link.trouble is not None)
    assert link.trouble is not None
    return link.trouble


async def troubled(link: Link, word: str) -> None:
    await until(lambda: link.trouble == word)


async def test_after_a_failure_nobody_asks_redis_but_the_pulse(proxy: TcpProxy) -> None:
    async with linked(own(proxy.url)) as link:
        await link.reachable()
        await link.call("PING")
        proxy.refuse()
        proxy.cut()
        await away(link)
        refused = [link.call("PING"), link.calls([("PING",)]), link.write([("PING",)])]
        for each in refused:
            with pytest.raises(StoreAway):
                each.send(None)  # at its first step: it waits for nothing
        assert link.connected_s() == 0
        proxy.accept()
        await link.reachable()
        assert await link.call("PING") == b"PONG"


async def test_the_pulse_notices_by_itself_that_redis_is_gone(server: RedisServer) -> None:
    async with linked(server.url) as link:
        await link.reachable()
        await asyncio.to_thread(server.kill)
        await away(link)
        await troubled(link, "connection refused")


async def test_a_redis_that_stands_still_is_away_until_it_answers(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_link, "CALL_S", 0.3)
    async with linked(server.url) as link:
        await link.reachable()
        with server.frozen():
            with pytest.raises(StoreAway):
                await link.call("ECHO", "late")
            assert link.trouble == "no answer"
            await until(lambda: link._failures > 2)  # the pulse's connections, which are accepted
        await link.reachable()
        assert await link.call("ECHO", "next") == b"next"


@pytest.mark.parametrize("way", ["calls", "write"])
async def test_what_timed_out_may_have_been_done_and_its_connection_is_not_used_again(
    proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(redis_link, "CALL_S", 0.3)
    async with linked(own(proxy.url)) as link:
        await link.reachable()
        ask = getattr(link, way)
        await ask([("PING",)])
        counter = link.keys.store + "n"
        proxy.hold(requests=False)
        with pytest.raises(StoreAway):
            await ask([("INCR", counter)])
        proxy.resume()
        await link.reachable()
        assert await ask([("GET", counter)]) == [b"1"]


async def test_an_old_connections_failure_is_no_news_after_the_return(
    proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with linked(own(proxy.url)) as link:
        await link.reachable()
        await link.write([("PING",)])
        proxy.hold(requests=False)
        late = asyncio.ensure_future(link.call("BLPOP", link.keys.store + "x", 0))
        await until(lambda: proxy.held)
        link._fail("for a test")
        proxy.resume()
        await link.reachable()
        with pytest.raises(StoreAway):
            await late
        assert link.trouble is None


async def test_killed_connections_are_replaced(server: RedisServer) -> None:
    returns = []
    async with linked(server.url) as link:
        link.on_return(lambda: returns.append(link.trouble))
        await link.reachable()
        await asyncio.gather(*(link.call("PING") for _ in range(5)), link.write([("PING",)]))
        with server.client() as client:
            client.execute_command("CLIENT KILL TYPE normal SKIPME yes")
        await until(lambda: len(returns) == 2)
        assert await link.write([("PING",)]) == [b"PONG"]
        assert set(await asyncio.gather(*(link.call("PING") for _ in range(5)))) == {b"PONG"}
        assert link.trouble is None
        assert returns == [None, None]


@pytest.mark.parametrize("keep", [True, False])
async def test_a_restart_is_told_and_so_is_that_everything_is_lost(
    server: RedisServer, keep: bool
) -> None:
    returns = []
    async with linked(server.url) as link:
        link.on_return(lambda: returns.append(link.unsettled()))
        await link.reachable()
        await link.call("SET", "here", "yes")
        await asyncio.to_thread(server.stop, keep=keep)
        await away(link)
        await asyncio.to_thread(server.start)
        await link.reachable()
        assert returns == [False, True], "it may have forgotten something either way"
        assert link.unsettled()
        assert await link.call("GET", "here") == (b"yes" if keep else None)


async def test_data_that_is_suddenly_gone_is_told_as_well(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_link, "PULSE_S", 0.01)
    monkeypatch.setattr(redis_link, "SETTLE_S", 0.2)
    returns = []
    async with linked(server.url) as link, linked(server.url) as other:
        link.on_return(lambda: returns.append(link.unsettled()))
        await link.reachable()
        await other.reachable()
        server.flush()
        await until(lambda: len(returns) == 2 and other.unsettled())
        assert returns == [False, True]
        await until(lambda: not link.unsettled())


async def test_a_callback_that_fails_disturbs_nobody(
    proxy: TcpProxy, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError

    returns = []
    async with linked(own(proxy.url)) as link:
        link.on_return(fail)
        link.on_return(lambda: returns.append(1))
        await link.reachable()
        proxy.cut()
        await until(lambda: len(returns) == 2)
        assert [each.exc_info is not None for each in caplog.records].count(True) == 2


async def test_each_trouble_has_its_word_and_no_secret_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    with running_redis(requirepass="hunter2") as server, server.client() as client:
        at = f"127.0.0.1:{server.port}"
        for secret, word in (("", "asks for a password"), (":swordfish@", "refused the password")):
            async with linked(f"redis://{secret}{at}") as link:
                await troubled(link, word)
        async with linked(f"redis://:hunter2@{at}") as link:
            for bad, good, word in (
                ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "read-only replica"),
                ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "out of memory"),
            ):
                await link.reachable()
                client.execute_command(*bad.split())
                with pytest.raises(StoreAway):
                    await link.call("SET", "a", "b")
                assert link.trouble == word
                client.execute_command(*good.split())
            await link.reachable()
    async with linked("redis://no-such-host.invalid") as link:
        await troubled(link, "cannot be reached")
    for told in ("swordfish", "hunter2", "127.0.0.1", str(server.port), "no-such-host"):
        assert told not in caplog.text


async def test_a_full_house_and_another_protocol_are_named() -> None:
    with running_redis(maxclients="1") as server, server.client() as client:
        client.ping()
        async with linked(server.url) as link:
            await troubled(link, "too many clients")

    async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    other = await asyncio.start_server(http, "127.0.0.1", 0)
    async with other, linked(f"redis://127.0.0.1:{other.sockets[0].getsockname()[1]}") as link:
        await troubled(link, "speaks another protocol")


async def test_a_redis_that_loads_its_data_is_waited_for(server: RedisServer) -> None:
    with server.client() as client, client.pipeline() as many:
        for number in range(60):
            many.set(str(number), secrets.token_bytes(1024))
        many.execute()
    await asyncio.to_thread(server.stop, keep=True)
    seen = set()
    async with linked(server.url) as link:
        server.set("key-load-delay", "50000")  # µs for each
        server.set("loading-process-events-interval-bytes", "1024")
        start = asyncio.ensure_future(asyncio.to_thread(server.start))
        while link.trouble:
            seen.add(link.trouble)
            await asyncio.sleep(0)
        await start
        assert await link.call("DBSIZE") == 61
    assert "loading its data" in seen
