from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.conversations.sql import SqlStore
from tests.postgres import Postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty database is; everything that takes it runs on both."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/gateway.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.database()


@pytest.fixture
async def store(url: str) -> AsyncIterator[SqlStore]:
    opened = SqlStore(url)
    await opened.open()
    yield opened
    await opened.aclose()
