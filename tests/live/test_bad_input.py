"""Bodies that cannot be served: each with its status, a problem, and no call to the model."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.live.asking import ANSWER_S, Answer, ask, assert_problem, client
from tests.live.servers import Gateway

pytestmark = pytest.mark.anyio

MAX_BODY = 4 * 1024 * 1024
JSON = {"content-type": "application/json"}
STARTING = ["/chat", "/stream-chat", "/runs"]


@pytest.fixture
async def http(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with asyncio.timeout(ANSWER_S), client(gateway) as opened:
        yield opened


BODIES: dict[str, bytes | Any] = {
    "no text": {},
    "null text": {"text": None},
    "both text and query": {"text": "a", "query": "a"},
    "empty text": {"text": ""},
    "empty query": {"query": ""},
    "200,001 characters": {"text": "x" * 200_001},
    "200,001 Chinese characters": {"text": "字" * 200_001},
    "unknown field": {"text": "a", "messages": []},
    "field of the query alone": {"text": "a", "idempotency_key": "k"},
    "text is a number": {"text": 1},
    "text is a list": {"text": ["a"]},
    "number as text": {"text": "a", "temperature": "1"},
    "true as number": {"text": "a", "max_tokens": True},
    "fraction as whole number": {"text": "a", "max_tokens": 1.5},
    "include is a text": {"text": "a", "include": "reasoning"},
    "include unknown": {"text": "a", "include": ["everything"]},
    "on_disconnect unknown": {"text": "a", "on_disconnect": "explode"},
    "if_busy unknown": {"text": "a", "if_busy": "wait"},
    "grace below 0": {"text": "a", "grace_seconds": -1},
    "grace above 600": {"text": "a", "grace_seconds": 601},
    "temperature above 2": {"text": "a", "temperature": 2.1},
    "top_p above 1": {"text": "a", "top_p": 1.1},
    "max_tokens 0": {"text": "a", "max_tokens": 0},
    "seed too large": {"text": "a", "seed": 2**64},
    "empty stop": {"text": "a", "stop": ""},
    "model with a space": {"text": "a", "model": "a b"},
    "model with a line end": {"text": "a", "model": "a\n"},
    "model not ASCII": {"text": "a", "model": "modèle"},
    "model empty": {"text": "a", "model": ""},
    "model too long": {"text": "a", "model": "m" * 257},
    "unknown tool": {"text": "a", "tools": ["rm"]},
    "a list": [],
    "a text": "a",
    "null": b"null",
    "nothing": b"",
    "not JSON": b"text=a",
    "JSON cut short": b'{"text":"a"',
    "two documents": b'{"text":"a"}{"text":"b"}',
    "trailing comma": b'{"text":"a",}',
    "NaN": b'{"text":"a","temperature":NaN}',
    "Infinity": b'{"text":"a","temperature":Infinity}',
    "1e999": b'{"text":"a","temperature":1e999}',
    "huge number": b'{"text":"a","seed":' + b"9" * 5000 + b"}",
    "deep list": b'{"text":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep object": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep and open": b"[" * 1_000_000,
    "duplicate keys": b'{"text":"a","text":"b"}',
    "duplicate keys, escaped": b'{"text":"a","\\u0074ext":"b"}',
    "invalid UTF-8": b'{"text":"\xff"}',
    "overlong UTF-8": b'{"text":"\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"text":"\xed\xa0\xbd"}',
    "UTF-16": '{"text":"a"}'.encode("utf-16"),
    "lone high surrogate": b'{"text":"\\ud83d"}',
    "lone low surrogate": b'{"text":"a \\ude00 b"}',
    "halves the wrong way round": b'{"text":"\\ude00\\ud83d"}',
    "surrogate in a stop": b'{"text":"a","stop":["\\ud83d"]}',
    "control character": b'{"text":"a\nb"}',
}


@pytest.mark.usefixtures("nothing_started")
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_a_body_that_is_not_valid_is_refused(http: httpx.AsyncClient, body: Any) -> None:
    for path in STARTING:
        if isinstance(body, bytes):
            response = await http.post(path, content=body, headers=JSON)
        else:
            response = await http.post(path, json=body)
        assert_problem(response, 422, "invalid_request")


@pytest.mark.usefixtures("nothing_started")
@pytest.mark.parametrize("more", [{}, {"parent_message_id": "x"}])
async def test_a_conversation_is_not_found(http: httpx.AsyncClient, more: dict[str, str]) -> None:
    for path in STARTING:
        body = {"text": "a", "conversation_id": "abc-secret", **more}
        response = await http.post(path, json=body)
        assert_problem(response, 404, "not_found")
        assert "abc-secret" not in response.text


@pytest.mark.usefixtures("nothing_started")
async def test_a_message_to_branch_at_needs_its_conversation(http: httpx.AsyncClient) -> None:
    for path in STARTING:
        response = await http.post(path, json={"text": "a", "parent_message_id": "x"})
        assert_problem(response, 422, "invalid_request")


@pytest.mark.usefixtures("nothing_started")
async def test_a_conversation_of_a_link_is_not_found(http: httpx.AsyncClient) -> None:
    response = await http.get("/chat", params={"text": "a", "conversation_id": "abc"})
    assert_problem(response, 404, "not_found")


async def test_200_000_characters_of_any_size_are_taken(gateway: Gateway) -> None:
    for character in ("x", "字", "🚀"):
        answer = await ask(gateway, character * 200_000, model="sim:tokens,n=1")
        assert answer.names[-2:] == ["final", "done"]


async def test_a_pair_of_surrogate_escapes_is_one_character(http: httpx.AsyncClient) -> None:
    response = await http.post(
        "/chat", content=b'{"query":"sim:echo \\ud83d\\ude80"}', headers=JSON
    )
    assert Answer(response.headers, response.content).text == "🚀"


@pytest.mark.usefixtures("nothing_started")
@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/json",
        "application/jsonp",
        "application/json/x",
        "application/json, text/plain",
    ],
)
async def test_a_body_that_is_not_called_json_is_refused(
    http: httpx.AsyncClient, content_type: str | None
) -> None:
    """``text/plain`` and the forms are what another site's page can send unasked."""
    headers = {} if content_type is None else {"content-type": content_type}
    for path in STARTING:
        response = await http.post(path, content=b'{"text":"a"}', headers=headers)
        assert_problem(response, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "Application/JSON", "application/x+json"]
)
async def test_json_by_its_other_names_is_taken(http: httpx.AsyncClient, content_type: str) -> None:
    response = await http.post(
        "/chat", content=b'{"text":"sim:tokens,n=1"}', headers={"content-type": content_type}
    )
    assert response.status_code == 200


@pytest.mark.usefixtures("nothing_started")
async def test_a_body_over_the_limit_is_refused(http: httpx.AsyncClient) -> None:
    padded = b'{"text":"a"' + b" " * MAX_BODY + b"}"

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(padded), 65_536):
            yield padded[start : start + 65_536]

    for path in STARTING:
        assert_problem(
            await http.post(path, content=padded, headers=JSON), 413, "payload_too_large"
        )
        assert_problem(
            await http.post(path, content=chunks(), headers=JSON), 413, "payload_too_large"
        )


async def test_a_body_of_just_the_limit_is_taken(http: httpx.AsyncClient) -> None:
    body = b'{"text":"sim:tokens,n=1"}'.ljust(MAX_BODY)

    async def chunks() -> AsyncIterator[bytes]:
        yield body

    assert (await http.post("/chat", content=body, headers=JSON)).status_code == 200
    assert (await http.post("/chat", content=chunks(), headers=JSON)).status_code == 200
