"""Whose is whose: every look at a run or a conversation is its owner's alone.

Anchors: streams hijacked by their id alone (MCP SDKs), other people's chats (Open WebUI), broken
object level authorization (OWASP API1:2023).
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import pytest

from tests.live.access.people import Guarded, Person, call, chat, same_but_for_id, start
from tests.live.reading import answer, ask, opened, until
from tests.live.servers import SimulatorProcess

pytestmark = pytest.mark.anyio

NOBODY = "u" * 22  # an id that never was
CURSOR = {"last-event-id": "{run}.2"}
Request = tuple[str, str, Mapping[str, Any] | None, Mapping[str, str]]


class Ids(NamedTuple):
    run: str
    conversation: str
    message: str


# Every way to name a run or a conversation: method, address, body, headers.
WAYS: dict[str, Request] = {
    "look at a run": ("GET", "/runs/{run}", None, {}),
    "read its events": ("GET", "/runs/{run}/events", None, {}),
    "read on behind a number": ("GET", "/runs/{run}/events?after=2", None, {}),
    "read on behind an id": ("GET", "/runs/{run}/events", None, CURSOR),
    "cancel": ("POST", "/runs/{run}/cancel", None, {}),
    "delete a run": ("DELETE", "/runs/{run}", None, {}),
    "resume with POST /chat": ("POST", "/chat", {"text": "hi"}, CURSOR),
    "resume with POST /stream-chat": ("POST", "/stream-chat", {"text": "hi"}, CURSOR),
    "resume with GET /chat": ("GET", "/chat?text=hi", None, CURSOR),
    "resume where regenerated": ("POST", "/conversations/{conversation}/regenerate", {}, CURSOR),
    "show a conversation": ("GET", "/conversations/{conversation}", None, {}),
    "rename it": ("PATCH", "/conversations/{conversation}", {"title": "mine"}, {}),
    "delete it": ("DELETE", "/conversations/{conversation}", None, {}),
    "answer anew": ("POST", "/conversations/{conversation}/regenerate", {}, {}),
    "go on with it": ("POST", "/chat", {"text": "hi", "conversation_id": "{conversation}"}, {}),
    "go on by link": ("GET", "/chat?text=hi&conversation_id={conversation}", None, {}),
    "go on unread": ("POST", "/runs", {"text": "hi", "conversation_id": "{conversation}"}, {}),
    "interrupt it": (
        "POST",
        "/runs",
        {"text": "hi", "conversation_id": "{conversation}", "if_busy": "interrupt"},
        {},
    ),
    "branch at its message": (
        "POST",
        "/chat",
        {"text": "hi", "conversation_id": "{conversation}", "parent_message_id": "{message}"},
        {},
    ),
}


def filled(request: Request, ids: Ids) -> Request:
    def fill(text: str) -> str:
        for name, value in ids._asdict().items():
            text = text.replace(f"{{{name}}}", value)
        return text

    method, path, body, headers = request
    body = None if body is None else json.loads(fill(json.dumps(body)))
    return method, fill(path), body, {name: fill(value) for name, value in headers.items()}


async def owned(guarded: Guarded, who: Person, script: str) -> Ids:
    """A run of somebody's, with the conversation that it talks in."""
    begun = await start(guarded.url, who, ask(script), on_disconnect="continue")
    shown = await call(guarded.url, who, "GET", f"/conversations/{begun['conversation_id']}")
    return Ids(begun["run_id"], begun["conversation_id"], shown.json()["messages"][0]["id"])


def looking(guarded: Guarded, who: Person, run_id: str) -> Callable[[], Awaitable[str]]:
    async def look() -> str:
        shown = await call(guarded.url, who, "GET", f"/runs/{run_id}")
        return str(shown.json()["status"])

    return look


@pytest.mark.parametrize("script", ["tokens,n=3", "silent"])
@pytest.mark.parametrize("way", WAYS)
async def test_what_is_anothers_is_as_what_never_was(
    guarded: Guarded, way: str, script: str
) -> None:
    """Stream hijack by id alone: the id of a run opens nothing."""
    ids = await owned(guarded, guarded.ann, script)
    if script != "silent":
        await until(looking(guarded, guarded.ann, ids.run), "completed".__eq__, "an end")
    theirs = await call(guarded.url, guarded.bob, *filled(WAYS[way], ids))
    nobodys = Ids(NOBODY, NOBODY, NOBODY)
    never = await call(guarded.url, guarded.bob, *filled(WAYS[way], nobodys))
    assert theirs.status_code == 404, theirs.text
    assert same_but_for_id(theirs) == same_but_for_id(never)
    assert ids.run not in theirs.text

    status = await looking(guarded, guarded.ann, ids.run)()
    assert status == ("running" if script == "silent" else "completed")
    kept = await call(guarded.url, guarded.ann, "GET", f"/conversations/{ids.conversation}")
    assert (len(kept.json()["messages"]), kept.json()["title"] == "mine") == (2, False)
    await call(guarded.url, guarded.ann, "DELETE", f"/runs/{ids.run}")


@pytest.mark.parametrize("way", WAYS)
async def test_nothing_is_told_before_somebody_calls(guarded: Guarded, way: str) -> None:
    """401 for every known address, whatever the id; it says how to come back (RFC 6750)."""
    ids = await owned(guarded, guarded.ann, "tokens,n=1")
    answers = [
        await call(guarded.url, None, *filled(WAYS[way], named))
        for named in (ids, Ids(NOBODY, NOBODY, NOBODY))
    ]
    assert answers[0].status_code == 401
    assert answers[0].headers["www-authenticate"] == "Bearer"
    assert answers[0].json()["code"] == "unauthorized"
    assert same_but_for_id(answers[0]) == same_but_for_id(answers[1])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/chat"),
        ("POST", "/stream-chat"),
        ("POST", "/runs"),
        ("PATCH", f"/conversations/{NOBODY}"),
        ("POST", f"/conversations/{NOBODY}/regenerate"),
    ],
)
async def test_who_calls_is_asked_before_the_body_is_read(
    guarded: Guarded, method: str, path: str
) -> None:
    """A body that never comes: whoever waited for it would not answer."""
    headers = {"content-type": "application/json", "content-length": "1000"}
    async with opened(guarded.url, method, path, headers=headers) as stream:
        await stream.head()
        assert stream.status == 401


@pytest.mark.parametrize("path", ["/models", "/conversations", "/chat?text=hi", "/session"])
async def test_addresses_without_an_id_ask_too(guarded: Guarded, path: str) -> None:
    assert (await call(guarded.url, None, "GET", path)).status_code == 401
    wrong = Person("", f"gw_{'a' * 16}_{'b' * 43}")
    assert (await call(guarded.url, wrong, "GET", path)).status_code == 401


@pytest.mark.parametrize("path", ["/health", "/ready", "/", "/docs", "/openapi.json"])
async def test_some_things_are_for_everybody(guarded: Guarded, path: str) -> None:
    assert (await call(guarded.url, None, "GET", path)).status_code == 200


async def test_a_key_is_taken_from_either_header_and_from_no_address(guarded: Guarded) -> None:
    key = guarded.ann.key
    for path, headers, status in [
        ("/models", {"x-api-key": key}, 200),
        ("/models", {"x-api-key": key, **guarded.ann.headers}, 200),
        ("/models", {"x-api-key": guarded.bob.key, **guarded.ann.headers}, 401),
        (f"/models?api_key={key}&key={key}&access_token={key}", {}, 401),
    ]:
        found = await call(guarded.url, None, "GET", path, headers=headers)
        assert found.status_code == status, (path, headers)


async def test_a_list_has_ones_own_conversations_only(guarded: Guarded) -> None:
    """Other people's chats: the same question from both."""
    begun = {
        who: await start(guarded.url, who, "sim:tokens,n=1") for who in (guarded.ann, guarded.bob)
    }
    for who, other in ((guarded.ann, guarded.bob), (guarded.bob, guarded.ann)):
        listed = await call(guarded.url, who, "GET", "/conversations")
        ids = [each["id"] for each in listed.json()["items"]]
        assert begun[who]["conversation_id"] in ids
        assert begun[other]["conversation_id"] not in ids


async def test_a_cursor_of_a_list_opens_nobody_elses(guarded: Guarded) -> None:
    for _ in range(2):
        await start(guarded.url, guarded.ann, "sim:tokens,n=1")
    cursor = (await call(guarded.url, guarded.ann, "GET", "/conversations?limit=1")).json()[
        "next_cursor"
    ]
    path = f"/conversations?cursor={cursor}"
    anns = (await call(guarded.url, guarded.ann, "GET", path)).json()["items"]
    bobs = (await call(guarded.url, guarded.bob, "GET", path)).json()["items"]
    assert anns
    assert not {each["id"] for each in anns} & {each["id"] for each in bobs}


async def test_the_same_idempotency_key_of_two_callers_is_two_keys(
    guarded: Guarded, simulator: SimulatorProcess
) -> None:
    headers = {"idempotency-key": ask("")}
    question = {"text": ask("tokens,n=2")}

    async def asked(who: Person, body: Mapping[str, Any]) -> tuple[int, str]:
        begun = await call(guarded.url, who, "POST", "/runs", body, headers)
        return begun.status_code, begun.json().get("run_id", "")

    status, run_id = await asked(guarded.ann, question)
    assert (status, run_id) == await asked(guarded.ann, question)
    assert (await asked(guarded.bob, {"text": ask("tokens,n=1")}))[0] == 201, "no conflict"
    assert (await asked(guarded.ann, {"text": "another"}))[0] == 422
    other = {"idempotency-key": ask("")}
    runs = [
        (await call(guarded.url, who, "POST", "/runs", question, other)).json()["run_id"]
        for who in (guarded.ann, guarded.bob)
    ]
    assert len({run_id, *runs}) == 3


async def test_a_stream_is_the_callers_who_asked(guarded: Guarded) -> None:
    """Both at once, with the same words: none gets a frame of the other's."""
    question = ask("tokens,n=30,interval=0.01")
    answers = await asyncio.gather(
        *(chat(guarded.url, who, question) for who in (guarded.ann, guarded.bob) * 3)
    )
    runs = {each.headers["content-location"].removeprefix("/runs/") for each in answers}
    assert len(runs) == len(answers)
    for each in answers:
        run_id = each.headers["content-location"].removeprefix("/runs/")
        ids = [line for line in each.text.split("\n") if line.startswith("id: ")]
        assert all(line.startswith(f"id: {run_id}.") for line in ids)


async def test_an_owner_reads_on_and_cancels_with_its_key(guarded: Guarded) -> None:
    headers = guarded.ann.headers
    text = {"text": ask("tokens,n=10000,interval=0.02")}
    async with opened(guarded.url, "POST", "/chat", text, headers) as stream:
        seen = await stream.events(5)
        run_id = await stream.run_id()
    cursor = {**headers, "last-event-id": seen[-1].id}
    async with opened(guarded.url, "GET", f"/runs/{run_id}/events", headers=cursor) as stream:
        more = await stream.events(5)
        assert answer(seen + more) == "".join(f"tok{n} " for n in range(9))
        stopped = await call(guarded.url, guarded.ann, "DELETE", f"/runs/{run_id}")
        assert stopped.json()["status"] == "cancelled"
        assert (await stream.rest())[-1].event == "done"
