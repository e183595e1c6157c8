"""The API keys of ``GATEWAY_API_KEYS_FILE``, and every change of it.

The file must be closed to everybody else on the machine (mode ``& 0o007``). What its group may do
is its owner's choice: a cluster shares a mounted secret that way (Kubernetes: ``fsGroup``).
"""

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import NamedTuple

from app.access.key import SHAPE, Key, parse_keys, read_file, unreadable
from app.access.model import Caller, Limits
from app.errors import Unauthorized
from app.settings import SettingsError

LOOK_S = 1.0  # how often a change is looked for; all workers are to notice it within 5 s

logger = logging.getLogger(__name__)


class _Secret(NamedTuple):
    sha256: bytes
    caller: Caller  # who shows it, until it expires


_NONE = _Secret(os.urandom(32), Caller("", expires_at=-math.inf))
_UNKNOWN = (_NONE, _NONE)  # what the secret of an unknown id is compared with


class KeysFile:
    """Raises ``SettingsError`` for a file that is missing, unreadable, malformed or open to
    everybody. ``clock``: Unix seconds. ``trouble``: why its changes are not known, in a word or two
    without its path; None if they are."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._away: str | None = None  # why the file cannot be read, once it has been logged
        self.trouble: str | None = None
        self._broken: str | None = None  # the same, of the content that was read last
        try:
            self._stamp = _stamp(path)
            self._secrets = self._load()
        except OSError as error:
            raise unreadable(path, error) from None

    def check(self, key: str) -> Caller:
        """Who shows this key. A limit that the key does not have of its own is None.

        Raises ``Unauthorized``, after the same work whether there is such an id or not.
        """
        shape = SHAPE.fullmatch(key)
        if shape is None:
            raise Unauthorized
        current, previous = self._secrets.get(shape[1], _UNKNOWN)
        digest = sha256(shape[2].encode()).digest()
        # Both are compared, always.
        is_current = compare_digest(digest, current.sha256)
        is_previous = compare_digest(digest, previous.sha256)
        caller = current.caller if is_current else previous.caller
        if not (is_current or is_previous) or caller.expires_at <= self._clock():
            raise Unauthorized
        return caller

    def caller(self, key_id: str, key_sha256: str) -> Caller:
        """Whose key it is, as the file has it now. Raises ``Unauthorized`` where that secret has
        expired, or been revoked or rotated away."""
        for secret in self._secrets.get(key_id, _UNKNOWN):
            if secret.caller.key_sha256 == key_sha256 and secret.caller.expires_at > self._clock():
                return secret.caller
        raise Unauthorized

    def still_accepts(self, caller: Caller) -> bool:
        """Whether the secret that ``caller`` showed is still taken. False for one without a key."""
        if caller.key_id is None or caller.key_sha256 is None:
            return False
        try:
            self.caller(caller.key_id, caller.key_sha256)
        except Unauthorized:
            return False
        return True

    def look(self) -> None:
        """Read the file anew if it has changed. Where it cannot be read, or is none, what it said
        before stays in force, and the log says so once."""
        try:
            stamp = _stamp(self._path)
            if stamp == self._stamp:
                self.trouble, self._away = self._broken, None
                return
            secrets = self._load()
        except OSError as error:  # looked at again each time: it may pass without a change
            why = str(unreadable(self._path, error))
            if why != self._away:
                logger.warning("%s; the keys that it had stay in force", why)
            self._away, self.trouble = why, "the file cannot be read"
        except SettingsError as error:
            self._stamp, self._away = stamp, None
            self.trouble = self._broken = "the file is broken"
            logger.warning("%s; the keys that it had stay in force", error)
        else:
            self._stamp, self._away, self._secrets = stamp, None, secrets
            self.trouble = self._broken = None
            logger.info("%s has changed, keys: %d", self._path, len(secrets))

    async def run(self) -> None:
        """Look until cancelled; in a thread, because the file may be on a network."""
        while True:
            await asyncio.sleep(LOOK_S)
            await asyncio.to_thread(self.look)

    def _load(self) -> Mapping[str, tuple[_Secret, _Secret]]:
        """By key id. Raises ``SettingsError``, ``OSError``."""
        raw, mode = read_file(self._path)
        if mode & 0o007:
            raise SettingsError(
                f"{self._path} is open to everybody on this machine (mode {mode:04o}), who could "
                "make keys or see whose there are: chmod 640 it, or set a Kubernetes secret's "
                "defaultMode to 0440"
            )
        keys = parse_keys(self._path, raw)
        return {key.id: _secrets(key) for key in keys if key.revoked_at is None}


def _secrets(key: Key) -> tuple[_Secret, _Secret]:
    """The current and the previous one."""
    limits = Limits(key.limits.rate, key.limits.max_runs, key.limits.tokens_per_day)
    models = None if key.models is None else frozenset(key.models)
    end = math.inf if key.expires_at is None else key.expires_at.timestamp()

    def secret(digest: str, expires_at: float) -> _Secret:
        caller = Caller(f"key:{key.id}", limits, models, expires_at, key.id, digest)
        return _Secret(bytes.fromhex(digest), caller)

    if key.previous is None:
        return secret(key.sha256, end), _NONE
    previous_end = min(end, key.previous.expires_at.timestamp())
    return secret(key.sha256, end), secret(key.previous.sha256, previous_end)


def _stamp(path: Path) -> tuple[int, ...]:
    """Changes with the file, behind links too, and with its mode. Raises ``OSError``."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
