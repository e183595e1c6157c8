"""What people write is for the gateway's user alone, in the files that SQLite makes."""

from pathlib import Path

import pytest

from app.conversations.sql import SqlStore
from tests.conversations.making import ask

pytestmark = pytest.mark.anyio


async def modes(path: Path) -> set[int]:
    """Of the files of a store that is in use."""
    store = SqlStore(f"sqlite+aiosqlite:///{path}")
    await store.open()
    try:
        await store.write([ask()])
        return modes_now(path.resolve())  # noqa: ASYNC240  a test's own, and nobody waits
    finally:
        await store.aclose()


def modes_now(path: Path) -> set[int]:
    files = (path.with_name(path.name + end) for end in ("", "-wal", "-shm"))
    return {file.stat().st_mode & 0o777 for file in files}


@pytest.mark.parametrize("linked", [False, True])
async def test_a_database_is_made_for_its_user_alone(tmp_path: Path, linked: bool) -> None:
    path = tmp_path / "gateway.db"
    if linked:
        (tmp_path / "elsewhere").mkdir()
        path.symlink_to("elsewhere/real.db")
    assert await modes(path) == {0o600}


async def test_a_database_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    path.touch()
    path.chmod(0o640)
    assert await modes(path) == {0o640}
