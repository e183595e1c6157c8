"""Messages of Redis when the connection that hears them is lost, and when it is silent."""

import asyncio

import pytest

from app.events import redis_channel
from tests.events.linked import Ear, asked, listeners, listening, own, until
from tests.redis_server import RedisServer, running_redis
from tests.tcp_proxy import tcp_proxy

pytestmark = pytest.mark.anyio


async def test_a_lost_connection_is_told_and_replaced() -> None:
    with running_redis() as server:
        async with listening(server.url) as (link, channel):
            ears = {f"name {number}": Ear() for number in range(100)}
            for name, ear in ears.items():
                channel.subscribe(name, ear)
            for ear in ears.values():
                await ear.told("subscribed")
            await link.call("CLIENT", "KILL", "TYPE", "pubsub")
            for ear in ears.values():
                await ear.told("subscribed", "deaf", "subscribed")
            assert link.trouble is None
            await link.call("PUBLISH", "name 7", "x")
            await ears["name 7"].told("subscribed", "deaf", "subscribed", b"x")


async def test_changes_while_the_connection_is_lost_count(redis_server: RedisServer) -> None:
    with tcp_proxy(redis_server.url) as proxy:
        async with listening(own(proxy.url)) as (link, channel):
            gone, stays, new = Ear(), Ear(), Ear()
            names = [link.keys.worker(each) for each in ("gone", "stays", "new")]
            channel.subscribe(names[0], gone)
            channel.subscribe(names[1], stays)
            await gone.told("subscribed")
            await stays.told("subscribed")
            proxy.refuse()
            proxy.cut()
            await stays.told("subscribed", "deaf")
            await gone.told("subscribed", "deaf")
            channel.unsubscribe(names[0])
            channel.subscribe(names[2], new)
            proxy.accept()
            await stays.told("subscribed", "deaf", "subscribed")
            await new.told("subscribed")
            assert await listeners(link, *names) == [0, 1, 1]
            assert gone.story == ["subscribed", "deaf"]


async def test_changes_in_the_moment_of_the_loss_confuse_nobody(redis_server: RedisServer) -> None:
    with tcp_proxy(redis_server.url) as proxy:
        async with listening(own(proxy.url)) as (link, channel):
            names = [link.keys.worker(str(number)) for number in range(40)]
            ears = {name: Ear() for name in names}
            for name, ear in ears.items():
                channel.subscribe(name, ear)
            for ear in ears.values():
                await ear.told("subscribed")
            proxy.cut()
            while len(ears[names[0]].story) == 1:
                ears[names[1]] = Ear()
                channel.subscribe(names[1], ears[names[1]])
                await asyncio.sleep(0)  # each pass of the loop, until it is lost
            for ear in ears.values():
                await ear.last_told("subscribed")
            await link.reachable()
            await link.calls([("PUBLISH", name, name) for name in names])
            for name, ear in ears.items():
                await ear.last_told(name.encode())


async def test_who_is_told_of_the_loss_may_take_others_off(redis_server: RedisServer) -> None:
    class Leaving(Ear):
        def deaf(self) -> None:
            super().deaf()
            for name in names:
                channel.unsubscribe(name)

    with tcp_proxy(redis_server.url) as proxy:
        async with listening(own(proxy.url)) as (link, channel):
            names = [link.keys.worker(str(number)) for number in range(3)]
            ears = [Leaving() for _ in names]
            for name, ear in zip(names, ears, strict=True):
                channel.subscribe(name, ear)
            for ear in ears:
                await ear.told("subscribed")
            proxy.cut()
            await until(lambda: any(len(ear.story) == 2 for ear in ears))
            assert sum(len(ear.story) for ear in ears) == 4


async def test_a_connection_that_is_dead_without_a_word_is_replaced(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_channel, "PING_S", 0.3)
    with tcp_proxy(redis_server.url) as proxy:
        async with listening(own(proxy.url)) as (link, channel):
            ear = Ear()
            channel.subscribe(link.keys.worker("one"), ear)
            await ear.told("subscribed")
            proxy.hold(requests=False)
            await ear.told("subscribed", "deaf")
            proxy.resume()
            await ear.told("subscribed", "deaf", "subscribed")


@pytest.mark.parametrize("count", [0, 1])
async def test_silence_alone_is_no_reason_for_a_new_connection(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(redis_channel, "PING_S", 0.3)
    with running_redis() as server:
        async with listening(server.url) as (link, channel):
            ear = Ear()
            if count:
                channel.subscribe("one", ear)
                await ear.told("subscribed")
            ids = []
            for _ in range(3):
                before = (await asked(link))["ping"]
                while (await asked(link))["ping"] == before:
                    pass
                listed = (await link.call("CLIENT", "LIST")).decode().splitlines()
                ids.append([line.split(" ")[0] for line in listed])
            assert ids[1] == ids[2]
            assert ear.story == ["subscribed"] * count
