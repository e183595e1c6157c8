"""A gateway whose Redis has never been there: what each endpoint says."""

import socket
from collections.abc import Iterator

import httpx
import pytest

from app.wire.native import HEARTBEAT
from tests.live.servers import PLAIN, Gateway

RUN = "u" * 22
CURSOR = {"last-event-id": f"{RUN}.3"}
QUESTION = {"text": "hi"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    cwd = tmp_path_factory.mktemp("gateway")
    process = Gateway(
        cwd, None, redis_url=f"redis://:secret@127.0.0.1:{port}", heartbeat_seconds=0.1
    )
    yield process
    process.stop()


@pytest.fixture
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=20, **PLAIN) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/chat"),
        ("POST", "/runs"),
        ("GET", "/chat?text=hi"),
        ("GET", f"/runs/{RUN}"),
        ("DELETE", f"/runs/{RUN}"),
        ("POST", f"/runs/{RUN}/cancel"),
        ("POST", "/conversations/c1/regenerate"),
        ("DELETE", "/conversations/c1"),
    ],
)
def test_what_needs_the_store_is_refused_with_a_time_to_come_back(
    client: httpx.Client, method: str, path: str
) -> None:
    body = QUESTION if method == "POST" and path in ("/chat", "/runs") else None
    response = client.request(method, path, json=body)
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")
    assert response.json()["code"] == "overloaded"


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", f"/runs/{RUN}/events"), ("GET", "/chat"), ("POST", "/chat")],
)
def test_a_resume_has_a_stream_of_heartbeats(client: httpx.Client, method: str, path: str) -> None:
    with client.stream(method, path, headers=CURSOR) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["location"] == f"/runs/{RUN}/events"
        chunks, body = response.iter_raw(), b""
        while len(body) < 3 * len(HEARTBEAT):
            body += next(chunks)
        assert body.replace(HEARTBEAT, b"") == b""


def test_ready_says_why_without_an_address(client: httpx.Client) -> None:
    response = client.get("/ready")
    assert response.status_code == 503
    assert response.json()["parts"]["store"]["status"] == "unavailable"
    detail = response.json()["parts"]["store"]["detail"]
    assert detail
    assert "127.0.0.1" not in detail
    assert "secret" not in response.text
    assert client.get("/health").status_code == 200
