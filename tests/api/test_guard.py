"""Who may ask at all, where keys guard the gateway; and what every answer's head gets."""

from collections.abc import Mapping

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from app.api.guard import Guard, RequestId
from app.environment import load
from app.settings import Settings

pytestmark = pytest.mark.anyio

GUARDED = load({"GATEWAY_API_KEYS_FILE": "keys.json"})
OPEN = load({})
COOKIE = {"cookie": "other=1; gateway_session=value"}
WRITES = ["POST", "DELETE", "PATCH"]


async def answered(scope: Scope, receive: Receive, send: Send) -> None:
    """An endpoint."""
    scope["state"]["quota"] = [("RateLimit", '"requests";r=1;t=2')]
    await PlainTextResponse("ok")(scope, receive, send)


async def ask(
    settings: Settings,
    method: str,
    headers: Mapping[str, str],
    *,
    scheme: str = "http",
    address: str = "localhost",
) -> httpx.Response:
    app = RequestId(Guard(answered, settings=settings, is_public=lambda path: path == "/"))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url=f"{scheme}://{address}") as http:
        return await http.request(method, "/chat", headers=headers)


@pytest.mark.parametrize("method", WRITES)
async def test_a_cookie_alone_writes_nothing(method: str) -> None:
    refused = await ask(GUARDED, method, COOKIE)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    tls = {"cookie": "__Host-gateway_session=value"}
    assert (await ask(GUARDED, method, tls, scheme="https")).status_code == 403


@pytest.mark.parametrize("method", WRITES)
@pytest.mark.parametrize(
    "more",
    [
        {"origin": "http://localhost"},
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
        {"authorization": "Bearer key"},
        {"x-api-key": "key"},
        {"authorization": "Basic x"},  # whoever asks for the caller says 401
        {"cookie": "other=1"},
        {"cookie": "gateway_session="},
    ],
    ids=str,
)
async def test_whoever_says_where_it_is_or_shows_a_key_writes(
    method: str, more: dict[str, str]
) -> None:
    assert (await ask(GUARDED, method, COOKIE | more)).status_code == 200


async def test_a_cookie_alone_reads() -> None:
    for method in ("GET", "HEAD"):
        assert (await ask(GUARDED, method, COOKIE)).status_code == 200


async def test_where_no_cookie_is_a_credential_none_is_looked_at() -> None:
    assert (await ask(OPEN, "POST", COOKIE)).status_code == 200


@pytest.mark.parametrize("origin", ["null", "http://evil.example", "http://localhost.evil.example"])
async def test_a_cookie_of_another_origin_is_refused(origin: str) -> None:
    for method in ("GET", *WRITES):
        assert (await ask(GUARDED, method, COOKIE | {"origin": origin})).status_code == 403


async def test_a_guarded_gateway_answers_at_every_address_and_an_open_one_on_loopback() -> None:
    there = {"host": "127.0.0.1"}
    settings = {"host": "0.0.0.0", "allowed_hosts": ("127.0.0.1",)}
    guarded = GUARDED.model_copy(update=settings)
    opened = OPEN.model_copy(update=settings)
    for given, status in ((guarded, 200), (opened, 403)):
        answer = await ask(given, "GET", there, address="192.0.2.1:8000")
        assert answer.status_code == status


async def test_limits_are_told_in_the_head() -> None:
    answer = await ask(GUARDED, "GET", {})
    assert answer.headers["ratelimit"] == '"requests";r=1;t=2'
