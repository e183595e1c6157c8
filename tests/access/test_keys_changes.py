"""A change of the keys file is noticed, and a bad one changes nothing."""

import asyncio
import logging
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.access import keys as module
from app.access.keys import KeysFile
from tests.access.key_files import (
    KEY,
    OTHER,
    OTHER_KEY,
    SECRET,
    accepts,
    digest,
    entry,
    loaded,
    write,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.mark.parametrize(
    "entries",
    [
        [OTHER],
        [entry(revoked_at="2027-01-15T08:00:00Z")],
        [entry(expires_at="2027-01-15T08:00:00Z")],
        [entry(sha256="0" * 64)],
        [],
    ],
)
def test_a_change_of_the_file_ends_what_was_accepted(path: Path, entries: list[Any]) -> None:
    keys, _ = loaded(path, entry())
    caller = keys.check(KEY)
    write(path, *entries)
    assert keys.still_accepts(caller)
    keys.look()
    assert not keys.still_accepts(caller)
    assert not accepts(keys, KEY)


def test_a_switch_of_links_as_a_cluster_does_it_is_noticed(tmp_path: Path) -> None:
    for version, entries in (("1", [entry()]), ("2", [OTHER])):
        (tmp_path / version).mkdir()
        write(tmp_path / version / "keys.json", *entries)
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "keys.json").symlink_to("..data/keys.json")
    keys = KeysFile(tmp_path / "keys.json")
    (tmp_path / "..data_tmp").symlink_to("2")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    keys.look()
    assert not accepts(keys, KEY)
    assert accepts(keys, OTHER_KEY)


def test_a_change_in_place_of_the_same_size_and_age_is_noticed(path: Path) -> None:
    keys, _ = loaded(path, entry())
    before = path.stat()
    path.write_text(path.read_text().replace(digest(SECRET), "0" * 64))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    keys.look()
    assert not accepts(keys, KEY)


def messages(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """Since the last look at them, with the levels."""
    told = [(record.levelno, record.getMessage()) for record in caplog.records]
    caplog.clear()
    assert not any(digest(SECRET)[:20] in line or SECRET in line for _, line in told)
    return told


def test_a_broken_file_leaves_the_keys_that_were_and_is_told_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    keys, _ = loaded(path, entry())
    for broken in (entry(sha256=SECRET), entry(sha256=SECRET), {"x": digest(SECRET)}):
        write(path, broken)
        keys.look()
        keys.look()
        ((level, told),) = messages(caplog)
        assert level == logging.WARNING
        assert told.startswith(f"{path}, keys[0]: ")
        assert told.endswith("; the keys that it had stay in force")
        assert accepts(keys, KEY)
        assert keys.trouble == "the file is broken"
    write(path, entry(), OTHER)
    keys.look()
    keys.look()
    assert messages(caplog) == [(logging.INFO, f"{path} has changed, keys: 2")]
    assert keys.trouble is None


def test_a_file_that_is_opened_to_everybody_is_not_read(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys, _ = loaded(path, entry())
    write(path, OTHER).chmod(0o666)
    keys.look()
    assert accepts(keys, KEY)
    assert "mode 0666" in caplog.text
    path.chmod(0o600)
    keys.look()
    assert not accepts(keys, KEY)


def test_a_missing_file_leaves_the_keys_that_were_and_is_told_each_time_it_goes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mount").mkdir()
    path = tmp_path / "mount" / "keys.json"
    keys, _ = loaded(path, entry())
    for _ in range(2):
        (tmp_path / "mount").rename(tmp_path / "away")
        keys.look()
        keys.look()
        ((level, told),) = messages(caplog)
        assert level == logging.WARNING
        assert told.startswith(f"{path} cannot be read: No such file")
        assert accepts(keys, KEY)
        assert keys.trouble == "the file cannot be read"
        (tmp_path / "away").rename(tmp_path / "mount")
        keys.look()
        assert keys.trouble is None


def descriptors() -> set[str]:
    return {each.name for each in Path("/proc/self/fd").iterdir()}


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(descriptors()) + 64, hard))
    taken = []
    try:
        while True:
            try:
                taken.append(os.open("/", os.O_RDONLY))
            except OSError:
                break
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_change_that_could_not_be_read_at_first_is_read_later(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys, _ = loaded(path, entry())
    write(path, OTHER)
    with no_descriptors_left():
        keys.look()
        keys.look()
    ((_, told),) = messages(caplog)
    assert "Too many open files" in told
    keys.look()
    assert not accepts(keys, KEY)


def test_a_file_that_is_none_costs_no_descriptors(path: Path) -> None:
    keys, _ = loaded(path, entry())
    path.unlink()
    before = descriptors()
    for _ in range(3):
        path.mkdir()
        keys.look()
        path.rmdir()
    assert descriptors() == before


@pytest.mark.anyio
async def test_changes_are_noticed_until_the_look_out_is_cancelled(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    keys, _ = loaded(path, entry())
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(keys.run())
        for entries in ([OTHER], [entry()]):
            wanted = entries == [entry()]
            write(path, *entries)
            while accepts(keys, KEY) != wanted:  # noqa: ASYNC110  # a thread's doing, bounded above
                await asyncio.sleep(0.01)
        looking.cancel()
