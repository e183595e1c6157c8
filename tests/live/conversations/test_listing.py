"""``GET /conversations``: the caller's own, last used first, a page at a time."""

import asyncio
import base64
from typing import Any

import pytest

from tests.live.asking import ask, assert_problem, get
from tests.live.conversations.talking import call, conversation_of
from tests.live.servers import Gateway

pytestmark = pytest.mark.anyio


async def listed(gateway: Gateway, query: str = "") -> dict[str, Any]:
    response = await get(gateway, f"/conversations{query}")
    assert response.status_code == 200, response.text
    assert response.headers["cache-control"] == "no-store"
    shown: dict[str, Any] = response.json()
    assert set(shown) == {"items", "next_cursor"}
    return shown


async def listed_ids(gateway: Gateway, query: str = "") -> tuple[list[str], str | None]:
    shown = await listed(gateway, query)
    return [item["id"] for item in shown["items"]], shown["next_cursor"]


async def test_the_conversation_that_was_used_last_stands_first(gateway: Gateway) -> None:
    first = conversation_of(await ask(gateway, "sim:tokens,n=1 one"))
    second = conversation_of(await ask(gateway, "sim:tokens,n=1 two"))
    ids, _ = await listed_ids(gateway)
    assert ids[:2] == [second, first]
    await ask(gateway, "sim:tokens,n=1 more", conversation_id=first)
    items = (await listed(gateway, "?limit=2"))["items"]
    assert [item["id"] for item in items] == [first, second]
    assert all(set(item) == {"id", "title", "created_at", "updated_at"} for item in items)
    assert items[0]["title"] == "sim:tokens,n=1 one"
    await call(gateway, "PATCH", f"/conversations/{second}", {"title": "new"})
    items = (await listed(gateway, "?limit=2"))["items"]
    assert [item["title"] for item in items] == ["sim:tokens,n=1 one", "new"]


async def test_pages_hold_fifty_at_most_and_lead_to_all_of_them_once(gateway: Gateway) -> None:
    new = await asyncio.gather(*(ask(gateway, "sim:tokens,n=0") for _ in range(52)))
    ids, cursor = await listed_ids(gateway, "?limit=1000")
    assert len(ids) == 50
    assert (await listed_ids(gateway))[0] == ids
    seen = list(ids)
    while cursor is not None:
        await ask(gateway, "sim:tokens,n=0")  # a newer one moves no page
        ids, cursor = await listed_ids(gateway, f"?limit=17&cursor={cursor}")
        assert len(ids) == 17 or cursor is None
        seen += ids
    assert len(seen) == len(set(seen))
    assert set(seen) >= {conversation_of(answer) for answer in new}


async def test_the_last_page_says_that_it_is_the_last(gateway: Gateway) -> None:
    await ask(gateway, "sim:tokens,n=0")
    ids, cursor = await listed_ids(gateway, "?limit=1")
    count = 1
    while cursor is not None:
        ids, cursor = await listed_ids(gateway, f"?cursor={cursor}")
        assert ids, "a page behind the last one"
        count += len(ids)
    assert count > 1


@pytest.mark.parametrize("limit", ["0", "-1", "1.5", "", "x", "1e2", "%D9%A3", "9" * 400])
async def test_a_limit_that_is_none_is_refused(gateway: Gateway, limit: str) -> None:
    assert_problem(await get(gateway, f"/conversations?limit={limit}"), 422, "invalid_request")


def packed(json: bytes) -> str:
    return base64.urlsafe_b64encode(json).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "%00",
        "%F0%9F%98%80",
        packed(b"\xff"),
        packed(b"1"),
        packed(b"{}"),
        packed(b"[1]"),
        packed(b'["x", "y"]'),
        packed(b'[1, "a", "b"]'),
        packed(b'[NaN, "a"]'),
        packed(b'[1e999, "a"]'),
        packed(b"[1" + b"0" * 400 + b', "a"]'),
        packed(b'[1, {"a": 1}]'),
        packed(b'[null, "a"]'),
        packed(b'[1, "\\ud800"]'),
        packed(b"[" * 2000),
    ],
)
async def test_a_cursor_that_is_none_is_refused(gateway: Gateway, cursor: str) -> None:
    response = await get(gateway, f"/conversations?cursor={cursor}")
    assert_problem(response, 400, "bad_cursor")


async def test_an_empty_cursor_is_the_first_page(gateway: Gateway) -> None:
    await ask(gateway, "sim:tokens,n=0")
    assert await listed(gateway, "?cursor=") == await listed(gateway)
