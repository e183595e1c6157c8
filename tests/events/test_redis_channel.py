"""Messages of Redis, heard by many listeners over one connection, which stays."""

import asyncio
import random

import pytest

from app.events.redis_channel import Channel
from tests.events.linked import Ear, asked, linked, listeners, listening, own, until
from tests.redis_server import RedisServer, running_redis
from tests.tcp_proxy import tcp_proxy

pytestmark = pytest.mark.anyio


async def test_what_is_published_after_the_word_is_heard_by_its_listener_only(
    redis_server: RedisServer,
) -> None:
    async with listening(own(redis_server.url)) as (link, channel):
        one, two = Ear(), Ear()
        channel.subscribe(link.keys.worker("one"), one)
        channel.subscribe(link.keys.worker("two"), two)
        await one.told("subscribed")
        await two.told("subscribed")
        await link.call("PUBLISH", link.keys.worker("two"), b"\xff\r\n")
        await link.call("PUBLISH", link.keys.worker("one"), "a")
        await link.call("PUBLISH", link.keys.worker("one"), "b")
        await one.told("subscribed", b"a", b"b")
        await two.told("subscribed", b"\xff\r\n")


async def test_who_unsubscribed_hears_nothing_more(redis_server: RedisServer) -> None:
    async with listening(own(redis_server.url)) as (link, channel):
        name, other = link.keys.worker("one"), link.keys.worker("two")
        gone, stays = Ear(), Ear()
        channel.subscribe(name, gone)
        channel.subscribe(other, stays)
        await stays.told("subscribed")
        await gone.told("subscribed")
        await link.calls([("PUBLISH", name, "late"), ("PUBLISH", other, "here")])
        channel.unsubscribe(name)  # the message may have come already
        await stays.told("subscribed", b"here")
        await gone.told("subscribed")
        while await listeners(link, name) != [0]:
            pass


async def test_listeners_of_before_the_connection_are_heard_of_once_it_is_there(
    redis_server: RedisServer,
) -> None:
    async with linked(own(redis_server.url)) as link:
        channel, here, gone = Channel(link), Ear(), Ear()
        channel.subscribe("gone", gone)
        channel.subscribe(link.keys.worker("one"), here)
        channel.unsubscribe("gone")
        channel.unsubscribe("never there")
        task = asyncio.ensure_future(channel.run())
        await here.told("subscribed")
        assert gone.story == []
        task.cancel()
        await asyncio.wait({task})


async def test_those_of_one_moment_take_one_command() -> None:
    with running_redis() as server:
        async with listening(server.url) as (link, channel):
            first, ears = Ear(), {f"name {number}": Ear() for number in range(2000)}
            channel.subscribe("first", first)
            await first.told("subscribed")
            for name, ear in ears.items():
                channel.subscribe(name, ear)
            for ear in ears.values():
                await ear.told("subscribed")
            for name in ears:
                channel.unsubscribe(name)
            while any(await listeners(link, *ears)):
                pass
            calls = await asked(link)
            assert (calls["subscribe"], calls["unsubscribe"]) == (2, 1)


async def test_a_confirmation_is_credited_to_the_one_who_asked(redis_server: RedisServer) -> None:
    with tcp_proxy(redis_server.url) as proxy, redis_server.client() as client:
        async with listening(own(proxy.url)) as (link, channel):
            name, mark = link.keys.worker("one"), link.keys.worker("mark")
            ears = marker, old, new = Ear(), Ear(), Ear()
            channel.subscribe(mark, marker)
            await marker.told("subscribed")
            proxy.hold(requests=False)
            channel.subscribe(name, old)
            await until(lambda: client.pubsub_numsub(name)[0][1])
            proxy.hold()
            channel.unsubscribe(name)
            await until(lambda: not channel._changed)  # so the next is another command
            channel.subscribe(name, new)
            proxy.hold(replies=False)
            client.publish(mark, "the first confirmation is behind us")
            await until(lambda: len(marker.story) == 2)
            assert [len(ear.story) for ear in ears] == [2, 0, 0]
            proxy.resume()
            await new.told("subscribed")
            client.publish(name, "x")
            await new.told("subscribed", b"x")
            assert old.story == []


async def test_however_fast_names_come_and_go_the_last_word_counts(
    redis_server: RedisServer,
) -> None:
    with tcp_proxy(redis_server.url) as proxy:
        async with listening(own(proxy.url)) as (link, channel):
            names = [link.keys.worker(str(number)) for number in range(5)]
            last: dict[str, Ear | None] = dict.fromkeys(names)
            for step in range(400):
                name = random.choice(names)
                last[name] = Ear() if random.random() < 0.6 else None
                if (ear := last[name]) is not None:
                    channel.subscribe(name, ear)
                else:
                    channel.unsubscribe(name)
                if random.random() < 0.3:
                    await asyncio.sleep(random.choice((0, 0.001)))
                if step == 200:
                    proxy.cut()
            for name, ear in last.items():
                if ear is not None:
                    await link.reachable()
                    await ear.told("subscribed")
                    await link.call("PUBLISH", name, "x")
                    await ear.told("subscribed", b"x")
            wanted = [int(last[name] is not None) for name in names]
            while await listeners(link, *names) != wanted:
                pass


async def test_a_listener_that_fails_disturbs_nobody(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Ear):
        def subscribed(self) -> None:
            raise RuntimeError

        def heard(self, message: bytes) -> None:
            raise RuntimeError

        def deaf(self) -> None:
            raise RuntimeError

    with tcp_proxy(redis_server.url) as proxy:
        async with listening(own(proxy.url)) as (link, channel):
            names = [link.keys.worker(each) for each in ("broken", "ear")]
            ear = Ear()
            channel.subscribe(names[0], Broken())
            channel.subscribe(names[1], ear)
            await ear.told("subscribed")
            await link.calls([("PUBLISH", name, "x") for name in names])
            await ear.told("subscribed", b"x")
            proxy.cut()
            await ear.told("subscribed", b"x", "deaf", "subscribed")
            assert [each.exc_info is not None for each in caplog.records].count(True) == 4
