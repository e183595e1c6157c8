"""Requests that are refused for something other than their body."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx
import pytest

from tests.live.asking import ANSWER_S, assert_problem, client
from tests.live.servers import Gateway

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_started")]

QUESTION = {"text": "sim:tokens,n=1"}
UNKNOWN = "A" * 22


@pytest.fixture
async def http(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with asyncio.timeout(ANSWER_S), client(gateway) as opened:
        yield opened


BAD_CURSORS = [
    "1", "x", f"{UNKNOWN}", f"{UNKNOWN}.", f"{UNKNOWN}.x", f"{UNKNOWN}.-1", f"{UNKNOWN}.01",
    f"{UNKNOWN}.1.1", f"{UNKNOWN[1:]}.1", f"{UNKNOWN}.{'9' * 40}", f"{UNKNOWN} .1", "../../etc.1",
]  # fmt: skip


@pytest.mark.parametrize("value", BAD_CURSORS)
async def test_a_cursor_that_is_none_is_refused(http: httpx.AsyncClient, value: str) -> None:
    headers = {"last-event-id": value}
    for response in (
        await http.post("/chat", json=QUESTION, headers=headers),
        await http.post("/stream-chat", json=QUESTION, headers=headers),
        await http.get("/chat", params=QUESTION, headers=headers),
        await http.get(f"/runs/{UNKNOWN}/events", headers=headers),
    ):
        assert_problem(response, 400, "bad_cursor")
        assert value not in response.json()["detail"]


@pytest.mark.parametrize("after", ["x", "-1", "1.5", "+1", "1e3", "٣", "9" * 40])
async def test_a_number_to_go_on_after_that_is_none_is_refused(
    http: httpx.AsyncClient, after: str
) -> None:
    response = await http.get(f"/runs/{UNKNOWN}/events", params={"after": after})
    assert_problem(response, 400, "bad_cursor")


async def test_an_unknown_run_is_not_found_and_not_named(http: httpx.AsyncClient) -> None:
    headers = {"last-event-id": f"{UNKNOWN}.1"}
    answers = [
        await http.get(f"/runs/{UNKNOWN}"),
        await http.get("/runs/short"),
        await http.get(f"/runs/{'x' * 5000}"),
        await http.get("/runs/%00%ff%2e%2e"),
        await http.get(f"/runs/{UNKNOWN}/events"),
        await http.get(f"/runs/{UNKNOWN}/events", headers=headers),
        await http.delete(f"/runs/{UNKNOWN}"),
        await http.post(f"/runs/{UNKNOWN}/cancel"),
        await http.post("/chat", json=QUESTION, headers=headers),
        await http.get("/chat", params=QUESTION, headers=headers),
    ]
    for response in answers:
        assert_problem(response, 404, "not_found")
        assert UNKNOWN not in response.text
    bodies = [{**response.json(), "request_id": ""} for response in answers]
    assert bodies == bodies[:1] * len(answers), "nobody learns which it was"


@pytest.mark.parametrize("key", ["", "k" * 256, "tab\there", "caf\u00e9", "\u00a0"])
async def test_an_idempotency_key_that_is_none_is_refused(
    http: httpx.AsyncClient, key: str
) -> None:
    headers = {b"idempotency-key": key.encode("latin-1")}
    for path in ("/chat", "/stream-chat", "/runs"):
        response = await http.post(path, json=QUESTION, headers=headers)
        assert_problem(response, 422, "invalid_request")
    response = await http.get("/chat", params={**QUESTION, "idempotency_key": key})
    assert_problem(response, 422, "invalid_request")


BAD_QUERIES = {
    "no text": "",
    "empty text": "text=",
    "grace not a number": "text=a&grace_seconds=soon",
    "grace above 600": "text=a&grace_seconds=601",
    "grace not finite": "text=a&grace_seconds=nan",
    "on_disconnect unknown": "text=a&on_disconnect=explode",
    "include unknown": "text=a&include=everything",
    "include partly unknown": "text=a&include=reasoning,everything",
    "model with a space": "text=a&model=a%20b",
    "two texts": "text=a&text=b",
    "invalid UTF-8": "text=%ff",
    "overlong UTF-8": "text=%c0%af",
    "a surrogate in UTF-8": "text=%ed%a0%bd",
    "60,000 characters of nothing": "tex=" + "x" * 60_000,
}  # fmt: skip


@pytest.mark.parametrize("query", BAD_QUERIES.values(), ids=BAD_QUERIES)
async def test_a_query_that_is_not_valid_is_refused(http: httpx.AsyncClient, query: str) -> None:
    assert_problem(await http.get(f"/chat?{query}"), 422, "invalid_request")


async def test_include_of_a_resume_is_checked(http: httpx.AsyncClient) -> None:
    response = await http.get(f"/runs/{UNKNOWN}/events", params={"include": "everything"})
    assert response.status_code in {404, 422}


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-mode": "navigate", "sec-fetch-site": "none"},
        {"sec-fetch-mode": "navigate", "sec-fetch-site": "same-origin"},
        {"sec-purpose": "prefetch"},
        {"sec-purpose": "prefetch;prerender"},
        {"purpose": "prefetch"},
    ],
)
async def test_following_a_link_starts_nothing(
    http: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    response = await http.get("/chat", params=QUESTION, headers=headers)
    assert_problem(response, 406, "not_acceptable")


ALLOWED = {
    "/chat": {"GET", "POST"},
    "/stream-chat": {"POST"},
    "/runs": {"POST"},
    f"/runs/{UNKNOWN}": {"GET", "DELETE"},
    f"/runs/{UNKNOWN}/cancel": {"POST"},
    f"/runs/{UNKNOWN}/events": {"GET"},
    "/models": {"GET"},
    "/health": {"GET"},
    "/ready": {"GET"},
}


@pytest.mark.parametrize("path", ALLOWED)
async def test_another_method_is_refused_with_those_that_are_allowed(
    http: httpx.AsyncClient, path: str
) -> None:
    """RFC 9110 section 15.5.6: ``Allow`` lists what the resource takes, all of it."""
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"} - ALLOWED[path]:
        response = await http.request(method, path, params=QUESTION)
        assert_problem(response, 405, "method_not_allowed")
        allow = {name.strip() for name in response.headers["allow"].split(",")}
        assert allow - {"HEAD", "OPTIONS"} == ALLOWED[path], method


async def test_head_starts_nothing(http: httpx.AsyncClient) -> None:
    response = await http.head("/chat", params=QUESTION)
    assert response.status_code == 405
    assert response.headers["content-type"] == "application/problem+json"
    assert "GET" in response.headers["allow"]
    assert response.content == b""


@pytest.mark.parametrize("path", ["/nothing", "/chat/", "/chat/x", "/runs/", "/app/main.py"])
async def test_an_address_that_is_none_is_not_found(http: httpx.AsyncClient, path: str) -> None:
    for response in (await http.get(path), await http.post(path, json=QUESTION)):
        assert_problem(response, 404, "not_found")


async def test_a_request_id_is_taken_or_made(http: httpx.AsyncClient) -> None:
    for given in ("a", "Z9._-", "x" * 128):
        response = await http.get("/nothing", headers={"x-request-id": given})
        assert response.json()["request_id"] == given == response.headers["x-request-id"]
    for bad in ("", "x" * 129, "a b", "a/b", "é", '"', "a,b"):
        response = await http.get("/nothing", headers={b"x-request-id": bad.encode()})
        made = response.headers["x-request-id"]
        assert response.json()["request_id"] == made
        assert made != bad
        assert len(made) >= 16


def raw(gateway: Gateway, request: bytes) -> httpx.Response:
    """What comes back for bytes that no client library would send."""
    address = urlsplit(gateway.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(request.replace(b"HOST", address.netloc.encode()))
        received = b""
        while chunk := connection.recv(65_536):
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    headers = [tuple(line.split(": ", 1)) for line in lines]
    json.loads(body)
    return httpx.Response(int(first.split()[1]), headers=headers, content=body)  # type: ignore[arg-type]  # pairs they are


HOST = b"host: HOST\r\n"
RAW = {
    "garbage": (b"\x16\x03\x01\x02\x00 hello\r\n\r\n", 400, "invalid_request"),
    "two lengths": (
        b"POST /chat HTTP/1.1\r\n" + HOST + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab",
        400,
        "invalid_request",
    ),
    "length and chunks": (
        b"POST /chat HTTP/1.1\r\n" + HOST + b"content-length: 3\r\n"
        b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "invalid_request",
    ),
    "negative length": (
        b"POST /chat HTTP/1.1\r\n" + HOST + b"content-length: -1\r\n\r\n",
        400,
        "invalid_request",
    ),
    "broken chunk": (
        b"POST /chat HTTP/1.1\r\n" + HOST + b"content-type: application/json\r\n"
        b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        400,
        "invalid_request",
    ),
    "address too long": (
        b"GET /chat?text=" + b"a" * 70_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
        414,
        "uri_too_long",
    ),
    "headers too large": (
        b"GET /chat?text=a HTTP/1.1\r\n" + HOST + b"x: " + b"y" * 70_000 + b"\r\n\r\n",
        431,
        "headers_too_large",
    ),
    "too many headers": (
        b"GET /chat?text=a HTTP/1.1\r\n" + HOST + b"x: yyyyyyyyyyyyyyyyyyyy\r\n" * 4000 + b"\r\n",
        431,
        "headers_too_large",
    ),
}


@pytest.mark.parametrize(("request_", "status", "code"), RAW.values(), ids=RAW)
async def test_what_is_no_request_is_refused(
    gateway: Gateway, request_: bytes, status: int, code: str
) -> None:
    response = await asyncio.to_thread(raw, gateway, request_)
    assert_problem(response, status, code)
    assert response.headers["connection"] == "close"


async def test_the_longest_address_that_is_promised_is_served(gateway: Gateway) -> None:
    """The other side of 414: a question that just fits, in the one answer that is counted."""
    async with client(gateway) as http:
        response = await http.get(f"/runs/{UNKNOWN}?x={'a' * 65_000}")
    assert_problem(response, 404, "not_found")
