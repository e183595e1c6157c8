"""This worker's connections to Redis, while Redis answers. Its absence: test_redis_away.py."""

import asyncio
import secrets
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import StoreAway
from app.events import redis_link
from app.events.redis_link import POOL, Link, Script
from app.events.redis_wire import ErrorReply
from tests.events.linked import BOUND_S, linked, own, until
from tests.redis_server import RedisServer, running_redis
from tests.tcp_proxy import tcp_proxy

pytestmark = pytest.mark.anyio
JOIN = Script("return KEYS[1] .. ARGV[1]")


async def test_it_connects_to_nothing_before_its_pulse_beats(redis_server: RedisServer) -> None:
    with tcp_proxy(redis_server.url) as proxy:
        link = Link(proxy.url)
        assert link.trouble == "connecting"
        with pytest.raises(StoreAway):
            await link.call("PING")
        assert link.connected_s() == 0
        assert proxy.accepted == 0


async def test_commands_are_answered_in_bytes(redis_server: RedisServer) -> None:
    async with linked(own(redis_server.url)) as link:
        await link.reachable()
        key = link.keys.store + "x"
        assert await link.call("SET", key, b"\xff\r\n") == b"OK"
        assert await link.call("GET", key) == b"\xff\r\n"
        assert await link.calls([("INCR", key + "n"), ("MGET", key, "none")]) == [
            1,
            [b"\xff\r\n", None],
        ]
        assert link.trouble is None
        assert link.connected_s() > 0
        assert not link.unsettled()


async def test_a_refused_command_is_an_error_of_its_own(redis_server: RedisServer) -> None:
    async with linked(own(redis_server.url)) as link:
        await link.reachable()
        with pytest.raises(StoreAway):
            await link.call("NONSENSE")
        first, second, third = await link.write([("PING",), ("NONSENSE",), ("PING",)])
        assert (first, third) == (b"PONG", b"PONG")
        assert isinstance(second, ErrorReply)
        assert link.trouble is None


async def test_scripts_are_known_to_redis_before_anybody_asks(redis_server: RedisServer) -> None:
    async with linked(own(redis_server.url)) as link:
        await link.reachable()
        assert await link.call("SCRIPT", "EXISTS", JOIN.sha) == [1]
        assert await link.script(JOIN, ["a"], b"b") == b"ab"
        assert await link.write([JOIN.command(["c"], 1)]) == [b"c1"]


async def test_a_script_that_is_made_later_works_too(redis_server: RedisServer) -> None:
    async with linked(own(redis_server.url)) as link:
        await link.reachable()
        later = Script("return ARGV[1]")
        try:
            assert [await link.script(later, [], n) for n in (1, 2)] == [b"1", b"2"]
        finally:
            Script.known.remove(later)


async def test_scripts_that_redis_forgot_come_back_by_themselves(redis_server: RedisServer) -> None:
    async with linked(own(redis_server.url)) as link:
        await link.reachable()
        await link.call("SCRIPT", "FLUSH")
        with pytest.raises(StoreAway):
            await link.write([JOIN.command(["a"], "b")])
        assert link.trouble == "lost its scripts"
        await link.reachable()
        assert await link.write([JOIN.command(["a"], "b")]) == [b"ab"]


@pytest.mark.parametrize(("channels", "trouble"), [("&*", None), ("", "lacks a permission")])
async def test_a_user_without_channels_is_told_at_once_and_not_with_the_first_run(
    redis_server: RedisServer, channels: str, trouble: str | None
) -> None:
    user = f"user{secrets.token_hex(4)}"
    url = redis_server.url.replace("://", f"://{user}:x@")
    async with linked(own(redis_server.url)) as link, linked(own(url)) as theirs:
        await link.reachable()
        rights = ("~*", "resetchannels", *channels.split(), "+@all", "-@admin")
        await link.call("ACL", "SETUSER", user, "on", ">x", *rights)
        await until(lambda: theirs.trouble == trouble)
        await link.call("ACL", "DELUSER", user)


async def test_however_many_call_there_are_few_connections() -> None:
    with running_redis() as server, tcp_proxy(server.url) as proxy:
        async with linked(proxy.url) as link:
            await link.reachable()
            numbers = await asyncio.gather(
                *(link.call("INCR", "n") for _ in range(300)),
                *(link.write([("PING",)]) for _ in range(10)),
            )
            assert sorted(numbers[:300]) == list(range(1, 301))
            assert proxy.connections == proxy.accepted == POOL + 2  # the writer's and the pulse's


@pytest.mark.parametrize("way", ["calls", "write"])
async def test_who_is_cancelled_leaves_no_answer_to_the_next(
    redis_server: RedisServer, way: str
) -> None:
    with tcp_proxy(redis_server.url) as proxy:
        async with linked(own(proxy.url)) as link:
            await link.reachable()
            ask = getattr(link, way)
            await ask([("PING",)])
            before = proxy.accepted
            proxy.hold(requests=False)
            task = asyncio.ensure_future(ask([("ECHO", "mine")]))
            await until(lambda: proxy.held)
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()
            proxy.resume()
            assert await ask([("ECHO", "next")]) == [b"next"]
            assert link.trouble is None
            assert proxy.accepted == before + 1


async def test_who_is_cancelled_waiting_for_a_turn_takes_nobodys(
    redis_server: RedisServer,
) -> None:
    with tcp_proxy(redis_server.url) as proxy:
        async with linked(own(proxy.url)) as link:
            await link.reachable()
            await link.write([("PING",)])
            proxy.hold(requests=False)
            first, second, third = (
                asyncio.ensure_future(link.write([("ECHO", name)])) for name in ("1", "2", "3")
            )
            await until(lambda: proxy.held)
            second.cancel()
            await asyncio.wait({second})
            proxy.resume()
            assert [await first, await third] == [[b"1"], [b"3"]]


async def test_time_in_which_the_process_stood_still_is_not_counted(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_link, "PULSE_S", 60.0)
    monkeypatch.setattr(redis_link, "BREAK_S", 0.05)
    async with linked(own(redis_server.url)) as link:
        await link.reachable()
        began = link.last_contact
        await until(lambda: link.connected_s() == 0)
        await link.call("PING")
        assert link.trouble is None
        assert link.connected_s() < link.last_contact - began


async def test_a_unix_socket_serves_as_well(redis_server: RedisServer) -> None:
    async with linked(own(f"unix://{redis_server.home}/socket")) as link:
        await link.reachable()
        assert await link.call("PING") == b"PONG"


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server's address with TLS, and the certificate that it shows."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=x"
    )
    name = ("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate)
    subprocess.run([*make.split(), *name], check=True, capture_output=True, timeout=BOUND_S)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    options = {"tls-port": port, "tls-cert-file": str(certificate), "tls-key-file": str(key)}
    with running_redis(**options, **{"tls-auth-clients": "no"}):
        yield f"rediss://127.0.0.1:{port}", certificate


async def test_tls_serves_as_well_and_looks_at_certificates(tls: tuple[str, Path]) -> None:
    url, certificate = tls
    async with linked(f"{url}?ssl_ca_certs={certificate}") as link:
        await link.reachable()
        assert await link.call("ECHO", b"x" * 1_000_000) == b"x" * 1_000_000
    async with linked(url) as stranger:
        await until(lambda: stranger.trouble == "TLS failed")


@pytest.mark.parametrize(
    "url",
    [
        "http://secret@host",
        "redis://:secret@host:port",
        "redis://:sec/ret@host",
        "redis://:secret@host?socket_timeout=secret",
        "redis://:secret@host?nonsense=1",
        "redis://:secret@host?prefix={secret}",
        "rediss://:secret@host?ssl_nonsense=secret",
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"Redis|prefix") as caught:
        Link(url)
    shown = f"{caught.value} {caught.value.__cause__}"
    assert not any(part in shown for part in ("sec", "host", "nonsense"))
