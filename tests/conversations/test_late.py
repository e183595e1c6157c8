"""A store that is opened after the gateway, or not at all."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.conversations import late
from app.conversations.late import LateStore
from app.conversations.sql import SqlStore
from app.conversations.store import Unavailable
from app.settings import SettingsError

pytestmark = pytest.mark.anyio
BOUND_S = 10


class Opened(SqlStore):
    """``fails``: with what, one after the other, before it opens once ``may_open``."""

    def __init__(self, path: Path, *fails: Exception) -> None:
        super().__init__(f"sqlite+aiosqlite:///{path}/gateway.db")
        self.fails = list(fails)
        self.may_open = asyncio.Event()

    async def open(self) -> None:
        if self.fails:
            raise self.fails.pop(0)
        await self.may_open.wait()
        await super().open()


@asynccontextmanager
async def running(build: Callable[[], SqlStore]) -> AsyncIterator[LateStore]:
    store = LateStore(build)
    await store.load()
    task = asyncio.ensure_future(store.run())
    try:
        async with asyncio.timeout(BOUND_S):
            yield store
    finally:
        task.cancel()
        await asyncio.wait({task})
        await store.aclose()


async def test_who_comes_while_it_is_opened_waits_for_it(tmp_path: Path) -> None:
    made = Opened(tmp_path)
    async with running(lambda: made) as store:
        asked = asyncio.ensure_future(store.page("me", None, 1))
        await asyncio.sleep(0)
        assert store.trouble == "opening"
        made.may_open.set()
        assert await asked == []
        assert store.trouble is None


async def test_who_comes_while_a_first_try_takes_too_long_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late, "OPENING_WAIT_S", 0.01)
    made = Opened(tmp_path)
    async with running(lambda: made) as store:
        with pytest.raises(Unavailable, match="opening"):
            await store.page("me", None, 1)


async def test_after_a_try_that_failed_nobody_waits_and_it_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late, "OPENING_WAIT_S", 10 * BOUND_S)
    monkeypatch.setattr(late, "RETRY_S", (0.0, 0.0))
    made = Opened(tmp_path, Unavailable("away"), Unavailable("away"))
    async with running(lambda: made) as store:
        with pytest.raises(Unavailable, match="away"):
            await store.page("me", None, 1)
        made.may_open.set()
        while store.trouble is not None:  # noqa: ASYNC110  nothing tells it; bounded above
            await asyncio.sleep(0.01)
        assert await store.page("me", None, 1) == []


@pytest.mark.parametrize("error", [SettingsError("no use"), ValueError("a bug")])
async def test_a_store_that_cannot_be_opened_ever_is_broken_and_takes_nothing_with_it(
    tmp_path: Path, error: Exception
) -> None:
    made = Opened(tmp_path, error)
    store = LateStore(lambda: made)
    await store.load()
    async with asyncio.timeout(BOUND_S):
        await store.run()
    assert store.trouble == "broken"
    with pytest.raises(Unavailable, match="broken"):
        await store.find("c", "me")
    await store.aclose()


async def test_a_store_that_cannot_be_made_is_broken() -> None:
    def build() -> SqlStore:
        raise ImportError("not installed")

    async with running(build) as store:
        assert store.trouble == "broken"
        with pytest.raises(Unavailable, match="broken"):
            await store.delete("c", "me")
