"""Changing the keys file: one process at a time, and whole or not at all, whatever dies when."""

import fcntl
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from app.access.key import Key, encode_keys, parse_keys, read_file, unreadable
from app.settings import SettingsError

LOCK_S = 10.0  # a change takes milliseconds
_LOOK_S = 0.02


def read_keys(path: Path) -> list[Key]:
    """Raises ``SettingsError``."""
    try:
        raw, _ = read_file(path)
    except OSError as error:
        raise unreadable(path, error) from None
    return parse_keys(path, raw)


def say(line: str) -> None:
    """On stderr, where it can be written: nobody loses a key because of a message."""
    stream: TextIO | None = sys.stderr  # None: it was closed before we began
    if stream is not None:
        with suppress(OSError):
            stream.write(f"{line}\n")


@contextmanager
def editing(path: Path, *, may_begin: bool = False) -> Iterator[list[Key]]:
    """The keys of the file, to be changed; it is written unless the body raises.

    A link stays one: what it points to is written. ``may_begin``: the file may be missing.
    Raises ``SettingsError``.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise SettingsError(f"{path} is a directory")
    if target.is_symlink():
        raise SettingsError(f"{path} is a link that leads round to itself")
    try:
        with _lock(target):
            keys = [] if may_begin and not target.exists() else read_keys(target)
            yield keys
            _write(target, encode_keys(keys))
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be written: {error.strerror}: {error.filename}"
        ) from None


@contextmanager
def _lock(target: Path) -> Iterator[None]:
    """On a file beside it, because the target itself is replaced, and NFS locks no directories.
    It is never removed: whoever waits for it would hold a lock that nobody else sees."""
    name = target.with_name(f".{target.name}.lock")
    with os.fdopen(os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "rb") as file:
        _give(file.fileno(), target)
        deadline = time.monotonic() + LOCK_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise SettingsError(
                        f"{target} is being written by another process, for {LOCK_S:.0f} s already"
                    ) from None
                time.sleep(_LOOK_S)
        yield


def _write(target: Path, raw: bytes) -> None:
    """Raises ``SettingsError``, ``OSError``; then the target is as it was."""
    new = target.with_name(f".{target.name}.new")  # used under the lock alone
    new.unlink(missing_ok=True)  # of a process that was killed
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            _give(file.fileno(), target)
            if target.exists():
                was = stat.S_IMODE(target.stat().st_mode)
                os.fchmod(file.fileno(), was & 0o770)
                if was & 0o007:
                    say(f"{target} was open to everybody (mode {was:04o}): closed")
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        new.replace(target)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)  # else a power cut may bring the old file back
    finally:
        os.close(directory)


def _give(descriptor: int, target: Path) -> None:
    """To the owner and group of the target, where it exists. Raises ``SettingsError``."""
    if not target.exists():
        return
    is_of, to = os.fstat(descriptor), target.stat()
    if (is_of.st_uid, is_of.st_gid) != (to.st_uid, to.st_gid):
        try:
            os.fchown(descriptor, to.st_uid, to.st_gid)
        except PermissionError:
            raise SettingsError(
                f"{target} belongs to user {to.st_uid} and group {to.st_gid}, which only they can "
                "keep: do this as that user, or as root"
            ) from None
