from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import make_url

from app.conversations.url import database_url
from app.settings import Settings, SettingsError

SECRET = "s3cr3t"
TLS = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


def settings(**values: object) -> Settings:
    return Settings.model_validate(values)


def test_without_an_address_conversations_are_a_file_in_the_data_directory(tmp_path: Path) -> None:
    data = tmp_path / "a" / "data"
    assert database_url(settings(data_dir=data)) == f"sqlite+aiosqlite:///{data}/gateway.db"
    assert data.is_dir()
    assert data.stat().st_mode & 0o077 == 0


def test_a_relative_path_is_of_the_directory_where_the_gateway_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert database_url(settings()) == f"sqlite+aiosqlite:///{tmp_path}/data/gateway.db"
    url = database_url(settings(database_url="sqlite:///x.db"))
    assert url == f"sqlite+aiosqlite:///{tmp_path}/x.db"


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+aiosqlite"])
def test_an_address_of_sqlite_names_a_file(tmp_path: Path, scheme: str) -> None:
    path = tmp_path / "50% ?#.db"
    url = database_url(settings(database_url=f"{scheme}:///{quote(str(path))}"))
    assert make_url(url).database == str(path)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("postgres://u:p@h/d", "u:p@h/d"),
        ("postgresql://h:6000/d", "h:6000/d"),
        ("postgresql+asyncpg://u:p%40@[::1]:5432/d", "u:p%40@[::1]:5432/d"),
        ("postgres://u:p@h/d?sslmode=require", "u:p@h/d?ssl=require"),
        *((f"postgres://h/d?sslmode={mode}", f"h/d?ssl={mode}") for mode in TLS),
        ("postgresql://u@/d?host=/run/postgresql", "u@/d?host=%2Frun%2Fpostgresql"),
    ],
)
def test_an_address_of_postgresql_is_given_to_asyncpg(given: str, used: str) -> None:
    assert database_url(settings(database_url=given)) == f"postgresql+asyncpg://{used}"


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:s3cr3t@h/d",
        "u:s3cr3t@h/d",
        "postgresql:///d",
        "postgresql://u:s3cr3t@h",
        "postgresql://u:s3cr3t@h/",
        "postgresql://u:s3cr3t@h:port/d",
        "postgresql://u:s3cr3t@[::1/d",
        "postgresql://u:s3cr3t@h/d#x",
        "postgresql://u:s3cr3t@h/d?sslmode",
        "postgresql://u:s3cr3t@h/d?sslmode=requrie",
        "postgresql://u:s3cr3t@h/d?sslmode=REQUIRE",
        "postgresql://u:s3cr3t@h/d?ssl=true",
        "postgresql://u:s3cr3t@h/d?target_session_attrs=any",
        "postgresql+psycopg://u:s3cr3t@h/d",
        "sqlite://",
        "sqlite:///",
        "sqlite://file.db",
        "sqlite:///:memory:",
        "sqlite:///%00",
        "sqlite:////nowhere?mode=ro",
        "sqlite:////proc/nowhere/file.db",
        "sqlite:////",
    ],
)
def test_an_impossible_address_is_told_in_one_line_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^GATEWAY_DATABASE_URL [^\n]*takes[^\n]*$") as caught:
        database_url(settings(database_url=url))
    assert SECRET not in str(caught.value)


def test_a_data_directory_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    directory = tmp_path / "taken"
    (directory / "gateway.db").mkdir(parents=True)
    for data_dir in (file, file / "below", directory, Path("/proc")):
        with pytest.raises(SettingsError, match=r"^GATEWAY_DATA_DIR takes[^\n]*$"):
            database_url(settings(data_dir=data_dir))
