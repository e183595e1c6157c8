"""The secret that signs session cookies: a file of the operator's, or one that we make.

Whoever has it can sign in as anybody, so a weak one is refused, and so is one that others can read.
"""

import os
import secrets
import tempfile
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from app.settings import Settings, SettingsError

MIN_BYTES = 32  # as long as the signature: RFC 2104 section 3 discourages less
MAX_BYTES = 4096  # what is longer is another file
_MIN_DISTINCT = 8  # 32 random hex digits have fewer once in 28 million times
# Words of examples and of tutorials.
_WORDS = ("changeme", "change-me", "change_me", "secret", "password", "example", "insecure")
_FILE = "session_secret"
_MAKE = "make one with: openssl rand -hex 32"


def session_secret(settings: Settings) -> bytes:
    """That of ``settings.session_secret_file``, else the one in ``settings.data_dir``, which is
    made where it is missing: 32 random bytes in hex, for us alone.

    Processes that start at once agree on one. Raises ``SettingsError`` with one line.
    """
    if settings.session_secret_file is not None:
        return _read(settings.session_secret_file, "GATEWAY_SESSION_SECRET_FILE")
    path = settings.data_dir / _FILE
    try:
        if not path.exists():
            _make(path)
    except OSError as error:
        raise SettingsError(
            f"GATEWAY_DATA_DIR: {path} cannot be made ({error.strerror}), and without it no "
            "session can be signed: set GATEWAY_SESSION_SECRET_FILE"
        ) from None
    return _read(path, "GATEWAY_DATA_DIR")


def _make(path: Path) -> None:
    """Whole or not at all: a link to a file that is written already. Whoever comes second finds
    the first one's."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = f".{_FILE}-"
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=name, buffering=0) as file:  # 0600
        file.write(secrets.token_hex(32).encode() + b"\n")
        os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(file.name, path)


def _read(path: Path, variable: str) -> bytes:
    """Text without the line end that editors add, anything else as it is."""
    try:
        mode = path.stat().st_mode
        raw = path.read_bytes() if path.is_file() else None
    except OSError as error:
        raise SettingsError(f"{variable}: {path} cannot be read: {error.strerror}") from None
    if raw is None:
        raise SettingsError(f"{variable}: {path} is no file: {_MAKE}")
    if mode & 0o007:
        raise SettingsError(
            f"{variable}: {path} is open to everybody on this machine, who could sign in as "
            "anybody with it: chmod o= it"
        )
    secret = raw.strip() if raw.isascii() else raw
    if why := _weakness(secret):
        raise SettingsError(
            f"{variable}: {path} {why}, so that others could guess it and sign in as anybody: "
            f"{_MAKE}"
        )
    return secret


def _weakness(secret: bytes) -> str | None:
    if len(secret) < MIN_BYTES:
        return f"is shorter than {MIN_BYTES} bytes"
    if len(secret) > MAX_BYTES:
        return f"is longer than {MAX_BYTES} bytes"
    if len(set(secret)) < _MIN_DISTINCT:
        return "has few different bytes"
    steps = {later - earlier for earlier, later in pairwise(secret)}
    if len(steps) < _MIN_DISTINCT or _repeats(secret):
        return "follows a pattern"
    lower = secret.lower()
    if any(word.encode() in lower for word in _WORDS):
        return "has a word of examples in it"
    return None


def _repeats(secret: bytes) -> bool:
    """Its first half, or less, comes again and again: typed to be long enough."""
    return any(secret[n:] == secret[:-n] for n in range(1, len(secret) // 2 + 1))
