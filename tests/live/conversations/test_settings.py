"""Where conversations are kept, and who may list them, as the settings say."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.asking import ask, assert_problem, get
from tests.live.conversations.talking import conversation_of, said
from tests.live.servers import Gateway, Process
from tests.live.test_settings_refusals import refusal

SECRET = "not-for-the-terminal"
POSTGRESQL = f"postgresql://me:{SECRET}@"


def refused(settings: dict[str, str], cwd: Path) -> str:
    """The one line that a start which fails leaves on the terminal."""
    process = Process("app", env=settings, cwd=cwd)
    try:
        assert process.wait() == 2
    finally:
        process.stop()
    [line] = process.lines
    return line


@pytest.mark.anyio
async def test_an_open_gateway_on_the_network_lists_nothing_and_shows_what_is_asked_by_id(
    start_gateway: Callable[..., Gateway],
) -> None:
    gateway = start_gateway(host="0.0.0.0", allow_anonymous="true")
    id_ = conversation_of(await ask(gateway, "sim:tokens,n=1"))
    for query in ("", "?limit=1", "?cursor=x", "?limit=0"):
        assert_problem(await get(gateway, f"/conversations{query}"), 403, "forbidden")
    assert len(await said(gateway, id_)) == 2


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://me:{SECRET}@h/db",
        f"me:{SECRET}@h/db",
        POSTGRESQL,
        f"{POSTGRESQL}/db",
        f"{POSTGRESQL}h",
        f"{POSTGRESQL}h/",
        f"{POSTGRESQL}h:x/db",
        f"{POSTGRESQL}[h/db",
        f"{POSTGRESQL}h/db?strange={SECRET}",
        "sqlite://",
        "sqlite:///:memory:",
    ],
)
def test_an_address_of_no_database_stops_the_start(url: str, tmp_path: Path) -> None:
    line = refused({"GATEWAY_DATABASE_URL": url}, tmp_path)
    assert "GATEWAY_DATABASE_URL" in line
    assert SECRET not in line


def a_file(path: Path) -> Path:
    path.write_text("")
    return path


def below_a_file(path: Path) -> Path:
    return a_file(path) / "data"


def with_a_directory_in_the_databases_place(path: Path) -> Path:
    (path / "gateway.db").mkdir(parents=True)
    return path


def that_nobody_may_make(_: Path) -> Path:
    return Path("/proc/data")


@pytest.mark.parametrize(
    "make", [a_file, below_a_file, with_a_directory_in_the_databases_place, that_nobody_may_make]
)
@pytest.mark.parametrize("variable", ["GATEWAY_DATA_DIR", "GATEWAY_DATABASE_URL"])
def test_a_place_that_takes_no_data_stops_the_start(
    make: Callable[[Path], Path], variable: str, tmp_path: Path
) -> None:
    place = str(make(tmp_path / "place"))
    if variable == "GATEWAY_DATABASE_URL":
        place = f"sqlite:///{place}/gateway.db"
    assert variable in refused({variable: place}, tmp_path)


def test_a_bare_uvicorn_refuses_as_well(tmp_path: Path) -> None:
    settings = {"GATEWAY_DATABASE_URL": f"{POSTGRESQL}/db"}
    assert "GATEWAY_DATABASE_URL" in refusal("uvicorn", settings, tmp_path)
