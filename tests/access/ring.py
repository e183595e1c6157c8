"""A keys file of a test's own, and a clock that stands still."""

import hashlib
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace

from app.access.key import Key, KeyLimits, encode_keys
from app.access.keys import KeysFile

NO_LIMITS = KeyLimits()


class Clock:
    """Unix seconds; begins now."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class Ring:
    def __init__(self, folder: Path, clock: Clock) -> None:
        self.path = folder / "keys.json"
        self.path.touch(0o600)
        self._keys: dict[str, Key] = {}
        self._write()
        self.file = KeysFile(self.path, clock)

    def add(
        self,
        *,
        limits: KeyLimits = NO_LIMITS,
        models: tuple[str, ...] | None = None,
        expires_at: float | None = None,
    ) -> str:
        """A new key."""
        key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        digest = hashlib.sha256(secret.encode()).hexdigest()
        end = None if expires_at is None else datetime.fromtimestamp(expires_at, UTC)
        made = datetime.now(UTC)
        self._keys[key_id] = Key(key_id, "test", digest, made, end, limits=limits, models=models)
        self._changed()
        return f"gw_{key_id}_{secret}"

    def revoke(self, key: str) -> None:
        self._change(key, revoked_at=datetime.now(UTC))

    def rotate(self, key: str) -> None:
        self._change(key, sha256=hashlib.sha256(b"another").hexdigest())

    def expire(self, key: str, at: float) -> None:
        self._change(key, expires_at=datetime.fromtimestamp(at, UTC))

    def limit(self, key: str, limits: KeyLimits) -> None:
        self._change(key, limits=limits)

    def _change(self, key: str, **fields: object) -> None:
        key_id = key.split("_")[1]
        self._keys[key_id] = replace(self._keys[key_id], **fields)
        self._changed()

    def _changed(self) -> None:
        self._write()
        self.file.look()

    def _write(self) -> None:
        """Under another name first: a new file is a change, however soon it comes."""
        new = self.path.with_name(f"keys-{len(list(self.path.parent.iterdir()))}")
        new.touch(0o600)
        new.write_bytes(encode_keys(list(self._keys.values())))
        new.rename(self.path)
