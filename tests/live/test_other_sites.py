"""Pages of other sites start nothing and read nothing, and allowed ones may read everything.

Written as a browser sends it; tests/live has a real one too.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from tests.live.asking import ANSWER_S, assert_problem, client
from tests.live.servers import Gateway, SimulatorProcess, running_gateway

pytestmark = pytest.mark.anyio

QUESTION = {"text": "sim:tokens,n=1"}
FRIEND = "https://chat.example.com"
EXPOSED = {"location", "content-location", "x-request-id", "retry-after"}


@pytest.fixture
async def http(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    """To a gateway that allows no origin but its own."""
    async with asyncio.timeout(ANSWER_S), client(gateway) as opened:
        yield opened


@pytest.fixture(scope="module")
def friendly(
    simulator: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    with running_gateway(
        tmp_path_factory.mktemp("gateway"),
        simulator.url,
        cors_origins=f"{FRIEND}, http://localhost:3000",
        max_body_bytes=1024,
        max_runs=1,
    ) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def open_to_all(
    simulator: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    cwd = tmp_path_factory.mktemp("gateway")
    with running_gateway(cwd, simulator.url, cors_origins="*") as gateway:
        yield gateway


FOREIGN = {
    "fetch": {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
    "fetch of an old browser": {"origin": "https://evil.example"},
    "sandboxed frame": {"origin": "null", "sec-fetch-site": "cross-site"},
    "null without more": {"origin": "null"},
    "image": {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
    "link": {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
    "image on another port": {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"},
    "another port": {"origin": "http://127.0.0.1:1", "sec-fetch-site": "same-site"},
    "our name with a tail": {"origin": "http://127.0.0.1.evil.example"},
    "our name as a user": {"origin": "http://127.0.0.1@evil.example"},
    "no origin at all": {"origin": "127.0.0.1"},
    "another scheme": {"origin": "file://"},
    "not a URL": {"origin": "http://[::1"},
    "a friend's name with a tail": {"origin": FRIEND + ".evil.example"},
    "empty": {"origin": ""},
}


@pytest.mark.usefixtures("nothing_started")
@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
async def test_another_sites_page_is_refused_before_anything_starts(
    http: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    for response in (
        await http.get("/chat", params=QUESTION, headers=headers),
        await http.post("/chat", json=QUESTION, headers=headers),
        await http.post("/chat", json=QUESTION, headers={**headers, "content-type": "text/plain"}),
        await http.post("/runs", json=QUESTION, headers=headers),
        await http.get(f"/runs/{'A' * 22}", headers=headers),
        await http.get(f"/runs/{'A' * 22}/events", headers=headers),
        await http.delete(f"/runs/{'A' * 22}", headers=headers),
        await http.get("/models", headers=headers),
        await http.get("/health", headers=headers),
        await http.get("/nothing", headers=headers),
    ):
        assert_problem(response, 403, "forbidden")
        assert "access-control-allow-origin" not in response.headers


def asked_with_hosts(gateway: Gateway, *hosts: str) -> int:
    """The status for a request with these ``Host`` lines, ``PORT`` being the gateway's."""
    address = urlsplit(gateway.url)
    lines = "".join(f"host: {host}\r\n" for host in hosts).replace("PORT", str(address.port))
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(f"GET /models HTTP/1.1\r\n{lines}connection: close\r\n\r\n".encode())
        return int(connection.recv(12, socket.MSG_WAITALL)[9:12])


@pytest.mark.parametrize(
    "hosts",
    [
        ["evil.example"],
        ["evil.example:PORT"],
        ["127.0.0.1.evil.example:PORT"],
        ["localhost.evil.example"],
        ["127.0.0.2:PORT"],
        ["0.0.0.0:PORT"],
        ["[::2]:PORT"],
        [""],
        [],
        ["localhost", "localhost"],
        ["localhost", "evil.example"],
        ["evil.example", "localhost"],
        ["localhost, evil.example"],
        ["localhost:PORT:PORT"],
        ["user@localhost"],
        ["localhost/"],
    ],
)
async def test_a_host_that_is_not_loopbacks_is_refused(gateway: Gateway, hosts: list[str]) -> None:
    """DNS rebinding makes a foreign page same-origin with us: only its ``Host`` tells."""
    assert await asyncio.to_thread(asked_with_hosts, gateway, *hosts) in {400, 403}


@pytest.mark.parametrize("host", ["localhost", "LocalHost:PORT", "127.0.0.1", "[::1]:PORT"])
async def test_loopbacks_own_names_are_answered(gateway: Gateway, host: str) -> None:
    assert await asyncio.to_thread(asked_with_hosts, gateway, host) == 200


@pytest.mark.parametrize("path", ["/", "/docs", "/app.js", "/docs/swagger-ui.css"])
async def test_the_pages_own_files_are_public(http: httpx.AsyncClient, path: str) -> None:
    for headers in ({}, *FOREIGN.values()):
        assert (await http.get(path, headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "URL", "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"},
        {"origin": "URL"},
        {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"},
        {"sec-fetch-site": "none", "sec-fetch-mode": "cors"},
        {},
    ],
)
async def test_our_own_page_is_answered_without_a_word_of_cors(
    http: httpx.AsyncClient, gateway: Gateway, headers: dict[str, str]
) -> None:
    headers = {name: value.replace("URL", gateway.url) for name, value in headers.items()}
    response = await http.post("/chat", json=QUESTION, headers=headers)
    assert response.status_code == 200
    assert not [name for name in response.headers if name.startswith("access-control-")]


def assert_readable(response: httpx.Response, origin: str) -> None:
    headers = response.headers
    assert headers["access-control-allow-origin"] == origin
    assert headers.get("access-control-allow-credentials") == (None if origin == "*" else "true")
    exposed = headers["access-control-expose-headers"].lower().replace(" ", "").split(",")
    assert set(exposed) >= EXPOSED
    if origin != "*":
        assert "origin" in headers["vary"].lower(), "a cache must not give it to another origin"


@pytest.mark.parametrize("origin", [FRIEND, "http://localhost:3000"])
async def test_an_allowed_page_can_read_answers_and_refusals(
    friendly: Gateway, origin: str
) -> None:
    headers = {"origin": origin, "sec-fetch-site": "cross-site"}
    json = {"content-type": "application/json"}
    async with asyncio.timeout(ANSWER_S), client(friendly, headers=headers) as http:
        answers = [
            await http.post("/chat", json=QUESTION),
            await http.get("/models"),
            await http.get("/nothing"),
            await http.put("/chat"),
            await http.get("/chat"),
            await http.post("/chat", content=b"a"),
            await http.post("/chat", content=b"a" * 2000, headers=json),
            await http.get("/chat", headers={"last-event-id": "x"}),
        ]
        running = await http.post("/runs", json={"text": "sim:silent"})
        answers += [running, await http.post("/chat", json=QUESTION)]
        await http.delete(running.headers["location"])

    statuses = [200, 200, 404, 405, 422, 415, 413, 400, 201, 503]
    assert [response.status_code for response in answers] == statuses
    for response in answers:
        assert_readable(response, origin)


@pytest.mark.parametrize("origin", ["https://evil.example", "http://chat.example.com", "null"])
async def test_a_page_that_is_not_allowed_is_refused_beside_those_that_are(
    friendly: Gateway, origin: str
) -> None:
    asks = {"origin": origin, "access-control-request-method": "POST"}
    async with asyncio.timeout(ANSWER_S), client(friendly) as http:
        answer = await http.post("/chat", json=QUESTION, headers={"origin": origin})
        preflight = await http.options("/chat", headers=asks)
    assert_problem(answer, 403, "forbidden")
    assert preflight.status_code >= 400
    for response in (answer, preflight):
        assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH"])
async def test_a_preflight_allows_what_our_endpoints_take(friendly: Gateway, method: str) -> None:
    wanted = "content-type, idempotency-key, last-event-id, x-request-id, authorization"
    asks = {
        "origin": FRIEND,
        "access-control-request-method": method,
        "access-control-request-headers": wanted,
        "sec-fetch-site": "cross-site",
    }
    async with asyncio.timeout(ANSWER_S), client(friendly) as http:
        response = await http.options("/chat", headers=asks)
    assert response.status_code in {200, 204}
    assert response.headers["access-control-allow-origin"] == FRIEND
    assert response.headers["access-control-allow-credentials"] == "true"
    assert method in response.headers["access-control-allow-methods"]
    allowed = response.headers["access-control-allow-headers"].lower().replace(" ", "").split(",")
    assert set(wanted.split(", ")) <= set(allowed)


async def test_a_star_allows_every_page_but_never_with_credentials(open_to_all: Gateway) -> None:
    for origin in ("https://any.example", "null"):
        headers = {"origin": origin, "sec-fetch-site": "cross-site", "cookie": "a=b"}
        asks = {**headers, "access-control-request-method": "POST"}
        async with asyncio.timeout(ANSWER_S), client(open_to_all) as http:
            answer = await http.post("/chat", json=QUESTION, headers=headers)
            refusal = await http.get("/nothing", headers=headers)
            preflight = await http.options("/chat", headers=asks)
        assert [answer.status_code, refusal.status_code] == [200, 404]
        assert preflight.status_code in {200, 204}
        for response in (answer, refusal, preflight):
            assert response.headers["access-control-allow-origin"] == "*"
            assert "access-control-allow-credentials" not in response.headers
