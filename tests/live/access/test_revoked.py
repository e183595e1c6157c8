"""A key that ends takes its live streams with it, and nothing else."""

import asyncio
from collections.abc import Callable

import pytest

from app.wire.parse import Event
from tests.live.access.people import Guarded, Person, call, joined, status
from tests.live.reading import Stream, answer, ask, names, opened, payload, until

pytestmark = pytest.mark.anyio

SLOWLY = "tokens,n=10000,interval=0.05"
ZERO = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0, "estimated": True}
WITHIN_S = 60.0  # contract section 7

ENDS: dict[str, Callable[[Guarded], object]] = {
    "revoked": lambda guarded: guarded.ring.revoke(guarded.ann),
    "rotated": lambda guarded: guarded.ring.rotate(guarded.ann),
}


@pytest.fixture
async def alone(guarded: Guarded) -> Guarded:
    """With two callers of the test's own."""
    return guarded._replace(ann=await joined(guarded), bob=await joined(guarded))


async def until_done(stream: Stream) -> list[Event]:
    async with asyncio.timeout(WITHIN_S):
        return await stream.until("done")


async def is_refused(guarded: Guarded, who: Person) -> None:
    await until(lambda: status(guarded.url, who), (401).__eq__, "401")


def assert_refused(end: list[Event], cursor: str, request_id: str) -> None:
    """``error`` and ``done`` without ids: the cursor stays where it was."""
    error, done = end
    assert names(end) == ["error", "done"]
    assert payload(error) == {
        "code": "unauthorized",
        "message": "A key or token that is valid here is needed.",
        "retryable": False,
        "request_id": request_id,
    }
    assert payload(done) == {"status": "failed", "usage": ZERO}
    assert {error.id, done.id} == {cursor}


@pytest.mark.parametrize("how", ENDS)
async def test_its_streams_end_and_nobody_elses(alone: Guarded, how: str) -> None:
    ann, bob = alone.ann.headers, alone.bob.headers
    body = {"text": ask(SLOWLY)}
    async with (
        opened(alone.url, "POST", "/chat", body, ann) as stream,
        opened(alone.url, "POST", "/chat", {"text": ask(SLOWLY)}, bob) as others,
    ):
        await stream.events(3)
        await others.events(3)
        request_id = (await stream.head())["x-request-id"]
        run_id = await stream.run_id()
        ENDS[how](alone)
        await is_refused(alone, alone.ann)
        seen = await until_done(stream)
        assert_refused(seen[-2:], seen[-3].id, request_id)
        assert "id:" not in b"".join(stream.writes)[-400:].decode().split("event: error")[1]
        assert await stream.rest() == [], "the body has its proper end"

        back = {**ann, "last-event-id": seen[-1].id}
        for method, path in (("GET", f"/runs/{run_id}/events"), ("POST", "/chat")):
            resumed = await call(alone.url, None, method, path, headers=back)
            assert resumed.status_code == 401
        more = await others.events(30)
        assert answer(more).startswith("tok")
        assert "error" not in names(more)


@pytest.mark.parametrize(
    ("on_disconnect", "ending"), [("cancel", "cancelled"), ("continue", "running")]
)
async def test_its_reader_counts_as_having_left(
    alone: Guarded, on_disconnect: str, ending: str
) -> None:
    """Rotated, so that the owner can still look."""
    body = {"text": ask(SLOWLY), "on_disconnect": on_disconnect}
    async with opened(alone.url, "POST", "/chat", body, alone.ann.headers) as stream:
        await stream.events(3)
        run_id = await stream.run_id()
        owner = alone.ring.rotate(alone.ann)
        await until_done(stream)

        async def how() -> str:
            shown = await call(alone.url, owner, "GET", f"/runs/{run_id}")
            return str(shown.json()["status"])

        await until(how, ending.__eq__, ending)
    if ending == "running":
        await call(alone.url, owner, "DELETE", f"/runs/{run_id}")
    path = f"/runs/{run_id}/events"
    async with opened(alone.url, "GET", path, headers=owner.headers) as stream:
        kept = await stream.rest()
    assert (names(kept)[-1], payload(kept[-1])["status"]) == ("done", "cancelled")
    assert "error" not in names(kept), "what the reader was told is not in the log"


async def test_silence_and_a_session_are_no_refuge(alone: Guarded) -> None:
    """A stream without a byte from its model, read with a cookie."""
    begun = await call(alone.url, alone.ann, "POST", "/session")
    cookie = {"cookie": begun.headers["set-cookie"].partition(";")[0]}
    path = f"/chat?text={ask('silent')}".replace(" ", "+")
    async with opened(alone.url, "GET", path, headers=cookie) as stream:
        (start,) = await stream.events(1)
        alone.ring.revoke(alone.ann)
        end = await until_done(stream)
        assert_refused(end, start.id, (await stream.head())["x-request-id"])
    resumed = await call(alone.url, None, "GET", "/chat?text=hi", headers=cookie)
    assert resumed.status_code == 401


async def test_a_key_that_expires_ends_them_too(guarded: Guarded) -> None:
    brief = await joined(guarded, lasts_s=8)
    body = {"text": ask(SLOWLY)}
    async with opened(guarded.url, "POST", "/chat", body, brief.headers) as stream:
        seen = await until_done(stream)
        assert names(seen[-2:]) == ["error", "done"]
        assert payload(seen[-2])["code"] == "unauthorized"
    assert await status(guarded.url, brief) == 401
