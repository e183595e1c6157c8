"""Keys files for tests, and keys that fit them."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from app.access.keys import KeysFile
from app.errors import Unauthorized

ID, OTHER_ID = "abcdefgh01234567", "z" * 16
SECRET, OLD_SECRET = "s" * 43, "-_" * 21 + "A"
KEY, OLD_KEY = f"gw_{ID}_{SECRET}", f"gw_{ID}_{OLD_SECRET}"
NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z


def digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def entry(**changes: Any) -> dict[str, Any]:
    """A key of the file, as ``KEY`` shows it."""
    return {
        "id": ID,
        "name": "ci",
        "sha256": digest(SECRET),
        "created_at": "2026-11-01T12:00:00Z",
        **changes,
    }


OTHER_SECRET = "o" * 43
OTHER_KEY = f"gw_{OTHER_ID}_{OTHER_SECRET}"
OTHER = entry(id=OTHER_ID, sha256=digest(OTHER_SECRET))


def text(*entries: Any) -> str:
    return json.dumps({"version": 1, "keys": entries})


def write(path: Path, *entries: Any) -> Path:
    """In one piece, under another inode, as whoever takes care would."""
    new = path.with_suffix(".tmp")
    new.write_text(text(*entries))
    new.chmod(0o600)
    return new.replace(path)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def loaded(path: Path, *entries: Any) -> tuple[KeysFile, Clock]:
    clock = Clock()
    return KeysFile(write(path, *entries), clock), clock


def accepts(keys: KeysFile, key: str) -> bool:
    try:
        keys.check(key)
    except Unauthorized:
        return False
    return True
