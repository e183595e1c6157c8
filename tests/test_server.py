"""What the server makes of its settings before a request comes."""

import resource

import pytest
from starlette.types import Receive, Scope, Send

from app.environment import load
from app.server import OWN_FILES, SPARE_CONNECTIONS, max_connections, prepare

pytestmark = pytest.mark.anyio


async def seen(peer: str, headers: list[tuple[bytes, bytes]], *trusted: str) -> tuple[str, str]:
    """Client and scheme of a request from ``peer``, as the application sees them."""
    found: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(scope)

    config = prepare(app, load({"GATEWAY_TRUSTED_PROXIES": ",".join(trusted)}))  # type: ignore[arg-type]  # any application
    config.load()
    scope = {"type": "http", "client": (peer, 1), "scheme": "http", "headers": headers}
    await config.loaded_app(scope, None, None)
    return found[0]["client"][0], found[0]["scheme"]


def forwarded(*addresses: str, scheme: str = "https") -> list[tuple[bytes, bytes]]:
    lines = [(b"x-forwarded-for", address.encode()) for address in addresses]
    return [*lines, (b"x-forwarded-proto", scheme.encode())]


@pytest.mark.parametrize("trusted", [(), ("10.0.0.1",), ("10.0.0.0/8", "::1")])
async def test_a_stranger_is_who_it_is_whatever_it_says(trusted: tuple[str, ...]) -> None:
    for said in ("10.0.0.1", "127.0.0.1", "198.51.100.7"):
        assert await seen("192.0.2.1", forwarded(said), *trusted) == ("192.0.2.1", "http")


PROXY = "10.0.0.1"
SAID: dict[str, tuple[list[tuple[bytes, bytes]], str]] = {
    "one hop": (forwarded("198.51.100.7"), "198.51.100.7"),
    "what the client said before": (forwarded("1.1.1.1, 198.51.100.7"), "198.51.100.7"),
    "our own address in it": (forwarded("10.0.0.9, 198.51.100.7"), "198.51.100.7"),
    "two proxies": (forwarded("1.1.1.1, 198.51.100.7, 10.0.0.2"), "198.51.100.7"),
    "in two lines": (forwarded("1.1.1.1", "198.51.100.7"), "198.51.100.7"),
    "with a port": (forwarded("198.51.100.7:4711"), "198.51.100.7"),
    "IPv6": (forwarded("[2001:db8::7]:4711"), "2001:db8::7"),
    "junk before": (forwarded("<script>, 198.51.100.7"), "198.51.100.7"),
    "nothing": (forwarded(""), PROXY),
    "no line at all": (forwarded(), PROXY),
}


@pytest.mark.parametrize(("headers", "client"), SAID.values(), ids=SAID)
async def test_a_trusted_proxy_tells_who_asked(
    headers: list[tuple[bytes, bytes]], client: str
) -> None:
    for trusted in ("10.0.0.0/8", "10.1.2.3/8"):
        assert await seen(PROXY, headers, trusted) == (client, "https")


@pytest.mark.parametrize("scheme", ["", "ftp", "https, http", "HTTPS\x00", "javascript"])
async def test_a_scheme_that_is_none_changes_nothing(scheme: str) -> None:
    said = forwarded("198.51.100.7", scheme=scheme)
    assert (await seen(PROXY, said, PROXY))[1] == "http"


def test_no_more_connections_are_taken_than_there_are_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = load({"GATEWAY_MAX_READERS": "10"})
    try:
        assert max_connections(few) == 10 + SPARE_CONNECTIONS
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
        assert max_connections(few) == 512, "the rest is for what the answers need"
        assert max_connections(load({"GATEWAY_MAX_RUNS": "100"})) == 1024 - 100 - OWN_FILES
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
