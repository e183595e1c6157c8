"""A keys file that cannot be used stops the start with one line: file, key, what is wrong."""

import json
import os
import re
from pathlib import Path

import pytest

from app.access.key import MAX_FILE_BYTES, encode_keys, parse_keys
from app.access.keys import KeysFile
from app.settings import SettingsError
from tests.access.key_files import ID, OTHER_ID, SECRET, digest, entry, text, write

HASH = digest(SECRET)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def refusal(path: Path) -> str:
    """Without the file's name."""
    with pytest.raises(SettingsError) as caught:
        KeysFile(path)
    told = str(caught.value)
    assert told.isprintable()  # one line, too
    assert told.startswith(str(path))
    return told.removeprefix(str(path))


LATE, EARLY = "9999-12-31T23:59:59-05:00", "0001-01-01T00:00:00+05:00"  # of another year in UTC
PATTERN = "Expected `str` matching regex"
# What the file says, and how its refusal begins.
REFUSED = {
    "": ": Expecting value: line 1",
    "{": ": Expecting property name",
    "[" * 100_000: ": maximum recursion depth",
    "[]": ": Expected `object`, got `array`",
    "{}": ": Object missing required field `version`",
    '{"version": 1}': ": Object missing required field `keys`",
    '{"version": 2, "keys": []}': ": Invalid enum value 2 - at `$.version`",
    '{"version": 1, "keys": {}}': ": Expected `array`, got `object` - at `$.keys`",
    '{"version": 1, "keys": [], "key": 1}': ": Object contains unknown field `key`",
    '{"version": 1, "keys": [], "keys": []}': ": 'keys' stands twice",
    '{"version": 1, "keys": [], "n": 1' + "0" * 5000 + "}": ": Exceeds the limit",
    text(3): ", keys[0]: Expected `object`, got `int`",
    text(entry(), {}): ", keys[1]: Object missing required field `id`",
    text(entry(), entry()): ", keys[1]: it has the id of keys[0]",
    text(entry(), entry(id=OTHER_ID), entry()): ", keys[2]: it has the id of keys[0]",
    text(entry(nmae=1)): ", keys[0]: Object contains unknown field `nmae`",
    text(entry(**{HASH: 1})): ", keys[0]: Object contains unknown field `…`",
    text(entry(**{"\ud800": 1})): ", keys[0]: 'utf-8' codec can't encode",
    text(entry(id=3)): ", keys[0]: Expected `str`, got `int` - at `$.id`",
    text(entry(id=ID.upper())): f", keys[0]: {PATTERN} '^[a-z0-9]{{16}}\\\\Z' - at `$.id`",
    text(entry(id=ID + "\n")): f", keys[0]: {PATTERN}",
    text(entry(id=ID + "a")): f", keys[0]: {PATTERN}",
    text(entry(sha256=HASH.upper())): f", keys[0]: {PATTERN}",
    text(entry(sha256=HASH[1:])): f", keys[0]: {PATTERN} '^[0-9a-f]{{64}}\\\\Z' - at `$.sha256`",
    text(entry(sha256=HASH + "\n")): f", keys[0]: {PATTERN}",
    text(entry(sha256=None)): ", keys[0]: Expected `str`, got `null` - at `$.sha256`",
    text(entry(name="")): ", keys[0]: name: it takes 1 to 100 printable characters",
    text(entry(name="n" * 101)): ", keys[0]: name: it takes",
    text(entry(name="a\nb")): ", keys[0]: name: it takes",
    text(entry(name="\x1b[2J")): ", keys[0]: name: it takes",
    text(entry(name="\u202e")): ", keys[0]: name: it takes",
    text(entry(name="\ud800")): ", keys[0]: name: it takes",
    text(entry(created_at=HASH)): ", keys[0]: Invalid RFC3339 encoded datetime - at `$.created_at",
    text(entry(created_at=3)): ", keys[0]: Expected `datetime`, got `int`",
    text(entry(expires_at="2026-11-01T12:00:00")): ", keys[0]: Expected `datetime` with a timezone",
    text(entry(revoked_at=True)): ", keys[0]: Expected `datetime | null`, got `bool`",
    text(entry(expires_at=LATE)): ", keys[0]: expires_at: it takes a time in the years 1 to 9999",
    text(entry(created_at=EARLY)): ", keys[0]: created_at: it takes a time in the years 1 to 9999",
    text(entry(revoked_at=LATE)): ", keys[0]: revoked_at: it takes a time in the years 1 to 9999",
    text(entry(previous={"sha256": HASH, "expires_at": LATE})): ", keys[0]: previous: it takes a t",
    text(entry(limits=None)): ", keys[0]: Expected `object`, got `null` - at `$.limits`",
    text(entry(limits={"runs": 1})): ", keys[0]: Object contains unknown field `runs`",
    text(entry(limits={"max_runs": "4"})): ", keys[0]: Expected `int | null`, got `str`",
    text(entry(limits={"max_runs": 4.0})): ", keys[0]: Expected `int | null`, got `float`",
    text(entry(limits={"max_runs": True})): ", keys[0]: Expected `int | null`, got `bool`",
    text(entry(limits={"max_runs": float("nan")})): ", keys[0]: Expected `int | null`, got `float`",
    text(entry(limits={"max_runs": 0})): ", keys[0]: max_runs: it takes a whole number of runs",
    text(entry(limits={"tokens_per_day": -1})): ", keys[0]: tokens_per_day: it takes a whole",
    text(entry(limits={"rate": "60"})): ", keys[0]: rate: it takes requests in a window, such as",
    text(entry(limits={"rate": "60/minute\n"})): ", keys[0]: rate: it takes",
    text(entry(models="a")): ", keys[0]: Expected `array | null`, got `str` - at `$.models`",
    text(entry(models=[])): ", keys[0]: Expected `array` of length >= 1 - at `$.models`",
    text(entry(models=["a", "b c"])): ", keys[0]: models: it takes the name of a model",
    text(entry(previous={"sha256": HASH})): ", keys[0]: Object missing required field `expires_at`",
    text(entry(previous=HASH)): ", keys[0]: Expected `object | null`, got `str` - at `$.previous`",
    text(entry()).replace('"name"', '"id": "x", "name"'): ": 'id' stands twice",
}


@pytest.mark.parametrize(("said", "expected"), REFUSED.items(), ids=range(len(REFUSED)))
def test_a_mistake_is_told_with_its_place_and_without_any_hash(
    path: Path, said: str, expected: str
) -> None:
    path.touch(0o600)
    path.write_text(said)
    told = refusal(path)
    assert told.startswith(expected)
    assert not re.search(r"(?i)[0-9a-f]{20}|s{20}", told)


def test_a_file_that_is_not_utf_8_is_told(path: Path) -> None:
    path.touch(0o600)
    path.write_bytes(text(entry(name="caf#")).encode().replace(b"#", b"\xe9"))
    assert refusal(path).startswith(": 'utf-8' codec can't decode byte 0xe9")


def test_a_missing_file_is_told(path: Path) -> None:
    assert refusal(path) == " cannot be read: No such file or directory"


def test_what_is_not_a_file_is_told_and_never_waited_for(path: Path) -> None:
    path.mkdir()
    assert refusal(path) == " is no file of keys: it is not a regular file"
    path.rmdir()
    os.mkfifo(path, 0o600)
    assert refusal(path) == " is no file of keys: it is not a regular file"


def test_a_file_that_is_too_large_is_not_read(path: Path) -> None:
    path.touch(0o600)
    os.truncate(path, MAX_FILE_BYTES + 1)
    assert refusal(path) == " is too large: it takes 16 MiB at most"
    os.truncate(path, MAX_FILE_BYTES)
    assert "too large" not in refusal(path)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o601, 0o646])
def test_a_file_that_is_open_to_everybody_is_refused_with_the_way_out(
    path: Path, mode: int
) -> None:
    write(path, entry()).chmod(mode)
    told = refusal(path)
    assert told.startswith(f" is open to everybody on this machine (mode {mode:04o}), who could")
    assert "chmod 640" in told


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440, 0o660])
def test_what_the_group_may_do_is_the_owners_choice(path: Path, mode: int) -> None:
    write(path, entry()).chmod(mode)
    KeysFile(path)


def test_what_is_written_is_what_is_read(path: Path) -> None:
    whole = entry(
        name="Zoë 100% ✓",
        expires_at="2027-11-01T12:00:00+02:00",
        revoked_at="2026-12-01T12:00:00.500000Z",
        limits={"rate": "60/minute", "max_runs": 4, "tokens_per_day": 10**12},
        models=["a", "org/model:8b"],
        previous={"sha256": HASH, "expires_at": "2026-12-01T12:00:00Z"},
    )
    keys = parse_keys(path, text(whole, entry(id=OTHER_ID)).encode())
    assert parse_keys(path, encode_keys(keys)) == keys
    written = json.loads(encode_keys(keys))["keys"][0]
    assert written == whole


def test_a_file_that_nobody_would_read_is_not_written(path: Path) -> None:
    (key,) = parse_keys(path, text(entry()).encode())
    with pytest.raises(SettingsError, match="16 MiB at most"):
        encode_keys([key] * 50_000)
