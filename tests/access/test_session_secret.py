"""The secret of sessions: read, made, or refused with one line."""

import multiprocessing
import re
import secrets
import stat
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from app.access.session_secret import MAX_BYTES, session_secret
from app.settings import Settings, SettingsError

BOUND_S = 30.0
GOOD = "1f0c5a9be27d3846" + "a81e60d2c94b7f35"  # 32 bytes, all digits twice
BYTES = b"\n\xff" + secrets.token_bytes(32) + b"\n"  # line ends that belong to it
PROCESSES = 8


def settings_of(**values: Path) -> Settings:
    return Settings.model_validate(values)


def given(folder: Path, content: bytes, mode: int = 0o600) -> Settings:
    path = folder / "given"
    path.touch()
    path.chmod(mode)
    path.write_bytes(content)
    return settings_of(session_secret_file=path, data_dir=folder / "unused")


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (GOOD.encode(), GOOD.encode()),
        (f"{GOOD}\n".encode(), GOOD.encode()),
        (f" {GOOD}\r\n".encode(), GOOD.encode()),
        (BYTES, BYTES),
    ],
    ids=["text", "with a line end", "with Windows' line end", "bytes"],
)
def test_the_file_that_was_named_is_read(content: bytes, secret: bytes, tmp_path: Path) -> None:
    settings = given(tmp_path, content, 0o440)
    assert session_secret(settings) == secret
    assert not settings.data_dir.exists()


def test_one_is_made_for_us_alone_and_found_again(tmp_path: Path) -> None:
    settings = settings_of(data_dir=tmp_path / "new" / "data")
    secret = session_secret(settings)
    assert re.fullmatch(rb"[0-9a-f]{64}", secret)
    assert session_secret(settings) == secret
    [path] = settings.data_dir.iterdir()
    assert path.name == "session_secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(settings.data_dir.stat().st_mode) == 0o700
    assert session_secret(settings_of(data_dir=tmp_path / "another")) != secret


def make(folder: Path, barrier: Barrier) -> bytes:
    barrier.wait(BOUND_S)
    return session_secret(settings_of(data_dir=folder))


def test_processes_that_start_at_once_agree(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager, context.Pool(PROCESSES) as pool:
        barrier = manager.Barrier(PROCESSES)
        for number in range(10):
            folder = tmp_path / str(number)
            found = pool.starmap(make, [(folder, barrier)] * PROCESSES, chunksize=1)
            assert len(set(found)) == 1
            assert [path.name for path in folder.iterdir()] == ["session_secret"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "shorter than 32 bytes"),
        (GOOD[:-1].encode(), "shorter than 32 bytes"),
        (GOOD[:-1].encode() + b"\n\n\n", "shorter than 32 bytes"),
        (GOOD.encode() * (MAX_BYTES // 32 + 1), "longer than 4096 bytes"),
        (b"x" * 64, "few different bytes"),
        (b"abcabcde" * 8, "few different bytes"),
        (b"hunter42" * 8, "follows a pattern"),
        (GOOD[:16].encode() * 2, "follows a pattern"),
        (GOOD[:16].encode() * 2 + GOOD[:7].encode(), "follows a pattern"),
        (bytes(range(65, 65 + 40)), "follows a pattern"),
        (b"please-ChangeMe-before-you-go-live", "word of examples"),
        (b"my-super-secret-key-for-this-gateway", "word of examples"),
    ],
)
def test_what_others_could_guess_is_refused(content: bytes, why: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refusal:
        session_secret(given(tmp_path, content))
    line = str(refusal.value)
    assert line.startswith(f"GATEWAY_SESSION_SECRET_FILE: {tmp_path / 'given'} ")
    assert why in line
    assert "openssl rand -hex 32" in line
    assert "\n" not in line
    assert len(content) < 8 or content.decode("latin-1")[:8] not in line


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o644, 0o666])
def test_what_others_can_open_is_refused(mode: int, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="open to everybody") as refusal:
        session_secret(given(tmp_path, GOOD.encode(), mode))
    assert "chmod o= it" in str(refusal.value)


def test_the_one_that_we_made_is_looked_at_like_any_other(tmp_path: Path) -> None:
    settings = settings_of(data_dir=tmp_path)
    session_secret(settings)
    (tmp_path / "session_secret").chmod(0o644)
    with pytest.raises(SettingsError, match=r"^GATEWAY_DATA_DIR: .*open to everybody"):
        session_secret(settings)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "nowhere", "cannot be read"), (tmp_path, "is no file")):
        with pytest.raises(SettingsError, match=why):
            session_secret(settings_of(session_secret_file=path))


def test_what_cannot_be_made_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="set GATEWAY_SESSION_SECRET_FILE"):
        session_secret(settings_of(data_dir=tmp_path / "file" / "data"))


def test_random_secrets_of_all_kinds_are_taken(tmp_path: Path) -> None:
    for make_one in (secrets.token_bytes, secrets.token_hex, secrets.token_urlsafe):
        for _ in range(300):
            one = make_one(32)
            content = one if isinstance(one, bytes) else one.encode()
            assert len(session_secret(given(tmp_path, content))) >= 32
