"""The keys file is written whole or not at all, and stays whose it was."""

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from app.access import keys_edit
from app.access.keys_edit import editing, read_keys
from app.settings import SettingsError
from tests.access.key_files import ID, OTHER_ID, entry, write


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def revoke_all(path: Path) -> None:
    with editing(path) as keys:
        keys.clear()


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_a_file_that_begins_is_its_makers_alone(path: Path) -> None:
    with editing(path, may_begin=True) as keys:
        assert keys == []
    assert mode(path) == 0o600
    assert read_keys(path) == []


@pytest.mark.parametrize("was", [0o600, 0o400, 0o640, 0o440, 0o660])
def test_the_mode_stays(path: Path, was: int, capsys: pytest.CaptureFixture[str]) -> None:
    write(path, entry()).chmod(was)
    revoke_all(path)
    assert mode(path) == was
    assert capsys.readouterr().err == ""


def test_a_file_that_was_open_to_everybody_is_closed(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(path, entry()).chmod(0o664)
    revoke_all(path)
    assert mode(path) == 0o660
    assert capsys.readouterr().err == f"{path} was open to everybody (mode 0664): closed\n"


def test_owner_and_group_stay(path: Path) -> None:
    write(path, entry())
    if os.geteuid() == 0:  # else nobody else can own it anyway
        os.chown(path, 1, 2)
    before = path.stat()
    revoke_all(path)
    for each in (path, path.with_name(".keys.json.lock")):
        assert (each.stat().st_uid, each.stat().st_gid) == (before.st_uid, before.st_gid)


def test_links_stay_and_what_they_point_to_is_written(tmp_path: Path, path: Path) -> None:
    (tmp_path / "1").mkdir()
    target = write(tmp_path / "1" / "keys.json", entry())
    (tmp_path / "..data").symlink_to("1")
    path.symlink_to("..data/keys.json")
    revoke_all(path)
    assert path.readlink() == Path("..data/keys.json")
    assert read_keys(target) == []


def test_a_body_that_raises_changes_nothing(path: Path) -> None:
    before = write(path, entry()).read_bytes()
    with pytest.raises(IndexError), editing(path) as keys:
        del keys[0], keys[0]
    assert path.read_bytes() == before


@pytest.mark.parametrize("breaks", ["fsync", "fchmod", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    path: Path, monkeypatch: pytest.MonkeyPatch, breaks: str
) -> None:
    before = write(path, entry()).read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "there")

    monkeypatch.setattr(os, breaks, full)
    with pytest.raises(SettingsError) as caught:
        revoke_all(path)
    assert str(caught.value) == f"{path} cannot be written: No space left on device: there"
    assert path.read_bytes() == before
    assert {each.name for each in path.parent.iterdir()} == {"keys.json", ".keys.json.lock"}


def test_everything_is_on_the_disk_before_it_is_said_to_be_done(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(path, entry())
    steps: list[object] = []

    def fsync(descriptor: int, real: Callable[[int], None] = os.fsync) -> None:
        steps.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor)

    def replace(old: Path, new: Path, real: Callable[[Path, Path], None] = os.replace) -> None:
        steps.append((old, new))
        real(old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    revoke_all(path)
    new = path.with_name(".keys.json.new")
    assert steps == [new, (new, path), path.parent]


@pytest.mark.parametrize(
    ("directory", "why"), [("/nowhere", "No such file or directory"), ("/sys", "")]
)
def test_a_directory_that_cannot_be_written_is_told(directory: str, why: str) -> None:
    file = Path(directory, "keys.json")
    with pytest.raises(SettingsError) as caught, editing(file, may_begin=True):
        pytest.fail("nothing may begin here")
    assert str(caught.value).startswith(f"{file} cannot be written: {why}")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["/", ".", "/etc"])
def test_a_directory_is_no_file_of_keys(name: str) -> None:
    with pytest.raises(SettingsError, match="is a directory"), editing(Path(name), may_begin=True):
        pytest.fail("nothing may begin here")


def test_another_process_that_writes_for_ever_is_not_waited_for_so_long(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_edit, "LOCK_S", 0.05)
    write(path, entry())
    with path.with_name(".keys.json.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SettingsError, match="being written by another process"):
            revoke_all(path)
    revoke_all(path)


def test_a_lock_or_a_new_file_that_somebody_linked_elsewhere_is_not_followed(path: Path) -> None:
    write(path, entry(), entry(id=OTHER_ID))
    elsewhere = path.with_name("elsewhere")
    elsewhere.write_text("kept")
    path.with_name(".keys.json.new").symlink_to(elsewhere)
    with editing(path) as keys:
        del keys[1]
    assert [key.id for key in read_keys(path)] == [ID]
    assert not path.is_symlink()
    lock = path.with_name(".keys.json.lock")
    lock.unlink()
    lock.symlink_to(elsewhere)
    with pytest.raises(SettingsError, match="symbolic links"):
        revoke_all(path)
    assert elsewhere.read_text() == "kept"


def test_a_file_that_only_its_owner_can_keep_is_left_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = write(path, entry()).read_bytes()

    def not_permitted(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    def another(descriptor: int, real: Callable[..., os.stat_result] = os.fstat) -> os.stat_result:
        found = list(real(descriptor))
        found[4] += 1  # st_uid
        return os.stat_result(found)

    monkeypatch.setattr(os, "fchown", not_permitted)
    monkeypatch.setattr(os, "fstat", another)
    with pytest.raises(SettingsError, match="do this as that user, or as root"):
        revoke_all(path)
    assert path.read_bytes() == before
