"""Keys are accepted and refused as the file says."""

import hashlib
import hmac
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.access.model import ANONYMOUS, Caller, Limits
from app.errors import Unauthorized
from tests.access.key_files import (
    ID,
    KEY,
    NOW,
    OLD_KEY,
    OLD_SECRET,
    OTHER,
    OTHER_ID,
    OTHER_SECRET,
    SECRET,
    accepts,
    digest,
    entry,
    loaded,
    write,
)

NINE = "2027-01-15T09:00:00Z"  # an hour after NOW
PREVIOUS = {"sha256": digest(OLD_SECRET), "expires_at": NINE}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_key_tells_who_calls_and_what_that_caller_may(path: Path) -> None:
    limits = {"rate": "60/minute", "max_runs": 4, "tokens_per_day": None}
    keys, _ = loaded(path, entry(limits=limits, models=["a"], expires_at=NINE), OTHER)
    assert keys.check(KEY) == Caller(
        f"key:{ID}", Limits("60/minute", 4, None), {"a"}, NOW + 3600, ID, digest(SECRET)
    )
    assert keys.check(f"gw_{OTHER_ID}_{OTHER_SECRET}") == Caller(
        f"key:{OTHER_ID}", Limits(), None, math.inf, OTHER_ID, digest(OTHER_SECRET)
    )


@pytest.mark.parametrize(
    "key",
    [
        "",
        "gw_",
        SECRET,
        KEY[:-1],
        KEY[:-1] + "t",
        KEY + "s",
        KEY + "\n",
        " " + KEY,
        KEY.upper(),
        KEY.replace("gw", "GW"),
        KEY.replace("_", "-"),
        KEY.replace(ID, OTHER_ID),  # of somebody else
        KEY.replace(ID, "y" * 16),  # of nobody
        KEY.replace("s", "\u017f"),  # which casefolds to s
        KEY.replace("0", "\u0660"),  # a digit, too
        KEY.replace("s", "\ud800"),
        f"gw_{ID}_{digest(SECRET)}",
        f"gw_{ID}_{OLD_SECRET}",
        KEY * 100_000,
    ],
)
def test_anything_else_is_refused(path: Path, key: str) -> None:
    keys, _ = loaded(path, entry(), OTHER)
    assert accepts(keys, KEY)
    assert not accepts(keys, key)


def test_a_try_costs_the_same_whether_or_not_there_is_such_a_key(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, _ = loaded(path, entry(previous=PREVIOUS), OTHER)
    done: Counter[str] = Counter()

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*values: Any) -> Any:
            done[real.__name__] += 1
            return real(*values)

        return call

    monkeypatch.setattr("app.access.keys.sha256", counted(hashlib.sha256))
    monkeypatch.setattr("app.access.keys.compare_digest", counted(hmac.compare_digest))
    costs = []
    for key_id in (ID, OTHER_ID, "y" * 16):
        for secret in (SECRET, OLD_SECRET, "x" * 43):
            done.clear()
            accepts(keys, f"gw_{key_id}_{secret}")
            costs.append(dict(done))
    assert costs == [{"openssl_sha256": 1, "compare_digest": 2}] * 9


def test_who_showed_a_key_once_is_told_as_the_file_is_now(path: Path) -> None:
    keys, clock = loaded(path, entry(previous=PREVIOUS))
    write(path, entry(models=["a"], previous=PREVIOUS))
    keys.look()
    assert keys.caller(ID, digest(SECRET)) == keys.check(KEY)
    assert keys.caller(ID, digest(SECRET)).models == {"a"}
    assert keys.caller(ID, digest(OLD_SECRET)) == keys.check(OLD_KEY)
    clock.now += 3600
    for key_id, secret in ((ID, OLD_SECRET), (ID, OTHER_SECRET), (OTHER_ID, SECRET), ("", "")):
        with pytest.raises(Unauthorized):
            keys.caller(key_id, digest(secret))


def test_a_key_ends_when_it_expires(path: Path) -> None:
    keys, clock = loaded(path, entry(expires_at=NINE))
    caller = keys.check(KEY)
    clock.now += 3599.9
    assert accepts(keys, KEY)
    assert keys.still_accepts(caller)
    clock.now = NOW + 3600
    assert not accepts(keys, KEY)
    assert not keys.still_accepts(caller)


def test_a_revoked_key_is_refused(path: Path) -> None:
    keys, _ = loaded(path, entry(revoked_at=NINE, previous=PREVIOUS), OTHER)
    assert not accepts(keys, KEY)
    assert not accepts(keys, OLD_KEY)


def test_the_secret_before_a_rotation_is_taken_until_its_time_is_over(path: Path) -> None:
    keys, clock = loaded(path, entry(previous=PREVIOUS))
    old, new = keys.check(OLD_KEY), keys.check(KEY)
    assert (old.id, old.key_sha256, old.expires_at) == (new.id, digest(OLD_SECRET), NOW + 3600)
    assert (new.key_sha256, new.expires_at) == (digest(SECRET), math.inf)
    assert keys.still_accepts(old)
    assert keys.still_accepts(new)
    clock.now = NOW + 3600
    assert not accepts(keys, OLD_KEY)
    assert not keys.still_accepts(old)
    assert accepts(keys, KEY)
    assert keys.still_accepts(new)


def test_the_secret_before_a_rotation_does_not_outlive_its_key(path: Path) -> None:
    keys, clock = loaded(path, entry(expires_at="2027-01-15T08:30:00Z", previous=PREVIOUS))
    assert keys.check(OLD_KEY).expires_at == NOW + 1800
    clock.now += 1800
    assert not accepts(keys, OLD_KEY)


@pytest.mark.parametrize("caller", [Caller(ANONYMOUS), Caller("token:x"), Caller(f"key:{ID}")])
def test_a_caller_without_a_key_is_not_accepted_for_one(path: Path, caller: Caller) -> None:
    keys, _ = loaded(path, entry())
    assert not keys.still_accepts(caller)
