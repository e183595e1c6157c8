"""Requests that two programs could read in two ways, through nginx: a body is never a request to
the gateway behind it, and nobody gets another's answer on the connection that the two share."""

import asyncio
import re

import pytest

from tests.deploy.behind import Deaf, Pair
from tests.live.raw import BODIES, LAST, REFUSED, exchange, statuses
from tests.live.reading import ask, chat, client, stats
from tests.live.servers import SimulatorProcess
from tests.nginx import running_nginx

pytestmark = pytest.mark.anyio

# nginx waits for the whole of a body, unless it is asked for.
WAYS = {name: [sent] for name, sent in REFUSED.items()}
WAYS |= {
    name: sent if b"100-continue" in sent[0] else [b"".join(sent)] for name, sent in BODIES.items()
}
# To nginx these bodies end before what hides there, which is a request of its own then. It says so
# to the gateway in plain words, and each gets its answer.
ENDED = {
    "a size in a line without CR",
    "an extension in a line without CR",
    "a length behind the chunks",
}


@pytest.mark.parametrize("name", WAYS)
async def test_nginx_and_the_gateway_see_the_same_requests(
    pair: Pair, upstream: SimulatorProcess, name: str
) -> None:
    prompt = ask("tokens,n=1")
    path = f"/chat?on_disconnect=continue&text={prompt.replace(' ', '%20')}"
    hidden = f"GET {path} HTTP/1.1\r\nHost: HOST\r\n\r\n".encode()
    *before, last = WAYS[name]
    parts = [*before, last + LAST]
    answers = await asyncio.to_thread(exchange, pair.nginx.url, *parts, hidden=hidden)

    async with client(pair.nginx.url) as http:
        for number in range(4):  # each gateway, with the connection that nginx keeps to it
            given = {"x-request-id": f"mine-{number}"}
            response = await http.get("/models", headers=given)
            assert response.status_code == 200
            assert response.headers["x-request-id"] == given["x-request-id"]
    async with chat(pair.nginx.url, ask("tokens,n=1")) as stream:
        await stream.until("done")
    started = (await stats(upstream, prompt))["started"]
    assert started == answers.count(b"event: done") == (name in ENDED)
    said = [status for status in statuses(answers) if status != 100]
    assert len(said) <= 2 + started


PATHS = [
    "//runs/x",
    "/runs/../models",
    "/runs/%2e%2e/models",
    "/runs%2Fx",
    "/%00",
    "/a//b/./c?d=%2F&e",
]


async def test_a_path_goes_on_as_it_came() -> None:
    async with Deaf().listening() as deaf:
        with running_nginx([deaf.port]) as nginx:
            for path in PATHS:
                sent = f"GET {path} HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n".encode()
                await asyncio.to_thread(exchange, nginx.url, sent)
    asked = {re.split(rb"[ ]", request)[1].decode() for request in deaf.taken}
    assert asked <= set(PATHS)
    assert len(asked) >= len(PATHS) - 2, "nginx refuses some by itself"


async def test_no_path_means_something_else_behind_the_balancer(pair: Pair) -> None:
    for path in PATHS:
        sent = f"GET {path} HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n".encode()
        straight = await asyncio.to_thread(exchange, pair.gateways[0].url, sent)
        through = await asyncio.to_thread(exchange, pair.nginx.url, sent)
        assert statuses(straight) == [404], path
        assert statuses(through) in ([404], [400]), path


async def test_browsers_are_told_to_stay_with_tls(pair: Pair) -> None:
    """Not for localhost, whose other ports are other people's."""
    tls = f"https://127.0.0.1:{pair.nginx.tls_port}"
    async with client(tls) as http:
        named = await http.get("/health", headers={"host": "chat.example.com"})
        own = await http.get("/health", headers={"host": "localhost"})
        large = {"host": "chat.example.com", "content-type": "application/json"}
        refused = await http.post("/chat", headers=large, content=b" " * 5 * 2**20)
    async with client(pair.nginx.url) as http:
        plain = await http.get("/health", headers={"host": "chat.example.com"})

    assert named.headers["strict-transport-security"] == "max-age=31536000"
    assert refused.status_code == 413
    assert refused.headers["strict-transport-security"] == "max-age=31536000"
    assert refused.headers["x-content-type-options"] == "nosniff"
    assert "strict-transport-security" not in own.headers
    assert "strict-transport-security" not in plain.headers
    assert named.headers["server"] == "nginx", "without its version"
