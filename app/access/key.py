"""An API key, ``gw_<id>_<secret>``, as the keys file has it, by the SHA-256 of its secret::

    {"version": 1, "keys": [{
        "id": "<16 of a-z 0-9>", "name": "ci", "sha256": "<64 of 0-9 a-f>",
        "created_at": "2026-11-01T12:00:00Z", "expires_at": null, "revoked_at": null,
        "limits": {"rate": "60/minute", "max_runs": 4, "tokens_per_day": null}, "models": null,
        "previous": {"sha256": "<64 of 0-9 a-f>", "expires_at": "2026-11-01T13:00:00Z"}
    }]}

SHA-256 without salt and rounds, because the secret is 256 random bits: nobody guesses those,
however fast the hash. ``python -m app keys`` writes the file.
"""

import json
import os
import re
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct
from pydantic import ValidationError

from app.settings import Settings, SettingsError

SHAPE = re.compile(r"gw_([a-z0-9]{16})_([A-Za-z0-9_-]{43})")  # 80 and 256 random bits
MAX_FILE_BYTES = 16 * 1024**2  # some 40,000 keys
# Which field of ``Settings`` says what a key's own limit takes.
LIMITS = {
    "rate": "rate_limit",
    "max_runs": "max_runs_per_caller",
    "tokens_per_day": "tokens_per_day",
}
_LONG = re.compile(r"[\w-]{33,}")  # what may be a secret or a hash in the wrong place

Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Time = Annotated[datetime, Meta(tz=True)]  # RFC 3339


class KeyLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """As ``app.access.model.Limits``, but None: what the gateway's settings say."""

    rate: str | None = None
    max_runs: int | None = None
    tokens_per_day: int | None = None


class Previous(Struct, frozen=True, forbid_unknown_fields=True):
    """The secret before the last rotation, and how long it is still taken."""

    sha256: Digest
    expires_at: Time


class Key(Struct, frozen=True, forbid_unknown_fields=True):
    """A revoked key stays in the file, so that its id never becomes somebody else's. ``models``:
    names that it may use, None: all."""

    id: Annotated[str, Meta(pattern=r"^[a-z0-9]{16}\Z")]
    name: str
    sha256: Digest
    created_at: Time
    expires_at: Time | None = None
    revoked_at: Time | None = None
    limits: KeyLimits = KeyLimits()
    models: Annotated[tuple[str, ...], Meta(min_length=1)] | None = None
    previous: Previous | None = None


class _File(Struct, forbid_unknown_fields=True):
    version: Literal[1]
    keys: list[Any]


def read_file(path: Path) -> tuple[bytes, int]:
    """Content and mode. Raises ``SettingsError`` for what is no such file, ``OSError``."""
    # O_NONBLOCK: opening a pipe would wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise SettingsError(f"{path} is no file of keys: it is not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(raw) > MAX_FILE_BYTES:
        raise SettingsError(f"{path} is too large: it takes {MAX_FILE_BYTES >> 20} MiB at most")
    return raw, stat.S_IMODE(mode)


def unreadable(path: Path, error: OSError) -> SettingsError:
    return SettingsError(f"{path} cannot be read: {error.strerror}")


def parse_keys(path: Path, raw: bytes) -> list[Key]:
    """What the file ``path`` says. Raises ``SettingsError`` with one line that names the file and
    the key's place in it, without anything that may be a hash."""
    where = ""
    places: dict[str, int] = {}  # by id
    keys = []
    try:
        entries = msgspec.convert(json.loads(raw, object_pairs_hook=_unique), _File).keys
        for place, entry in enumerate(entries):
            where = f", keys[{place}]"
            key = msgspec.convert(entry, Key)
            _check(key, places)
            places[key.id] = place
            keys.append(key)
    except (ValueError, RecursionError) as error:  # json's and msgspec's, too
        told = _LONG.sub("…", " ".join(str(error).split()))
        raise SettingsError(f"{path}{where}: {told}") from None
    return keys


def encode_keys(keys: list[Key]) -> bytes:
    """The whole file. Raises ``SettingsError`` for one that nobody would read."""
    raw = msgspec.json.format(msgspec.json.encode(_File(1, keys)), indent=2) + b"\n"
    if len(raw) > MAX_FILE_BYTES:
        raise SettingsError(f"a keys file takes {MAX_FILE_BYTES >> 20} MiB at most")
    return raw


def check_name(name: str) -> str:
    """Raises ``ValueError`` that says what a name takes: one line, because terminals show it."""
    if not (1 <= len(name) <= 100 and name.isprintable()):
        raise ValueError("it takes 1 to 100 printable characters")
    return name


def check_setting(field: str, value: object) -> Any:
    """``value`` as this field of ``Settings`` takes it. Raises ``ValueError`` that says what it
    takes."""
    try:
        return getattr(Settings.model_validate({field: value}), field)
    except ValidationError:
        raise ValueError(f"it takes {Settings.model_fields[field].description}") from None


def _check(key: Key, places: Mapping[str, int]) -> None:
    """What the types leave open. ``places``: of the keys before. Raises ``ValueError``."""
    if key.id in places:
        raise ValueError(f"it has the id of keys[{places[key.id]}]")
    place = "name"
    try:
        check_name(key.name)
        for place, field in LIMITS.items():
            if (limit := getattr(key.limits, place)) is not None:
                check_setting(field, limit)
        place = "models"
        for model in key.models or ():
            check_setting("model", model)
        for place in ("created_at", "expires_at", "revoked_at"):
            _check_time(getattr(key, place))
        place = "previous"
        if key.previous is not None:
            _check_time(key.previous.expires_at)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def _check_time(time: datetime | None) -> None:
    """Raises ``ValueError``. RFC 3339 can say times that are in the year 0 or 10000 in UTC."""
    try:
        _ = time and time.astimezone(UTC)
    except OverflowError:
        raise ValueError("it takes a time in the years 1 to 9999 of UTC") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two values for ``revoked_at``, say, the first would silently be gone."""
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise ValueError(f"{name!r} stands twice")
        made[name] = value
    return made
