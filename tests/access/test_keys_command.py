"""``python -m app keys`` says what happened in one line, and writes what a gateway reads."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from app.access import keys_command
from app.access.keys import KeysFile
from app.access.model import Limits
from tests.access.key_files import ID, NOW, Clock, accepts, digest, entry, text, write


class Said(NamedTuple):
    code: int | str | None
    out: str
    err: str


class Command:
    """``python -m app keys`` on one file, at a time of its own."""

    def __init__(self, file: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.file = file
        self.clock = Clock()
        self._capture = capture

    def __call__(self, *words: str) -> Said:
        return self.anywhere(*words, "--file", str(self.file))

    def anywhere(self, *words: str) -> Said:
        self._capture.readouterr()
        try:
            code: int | str | None = keys_command.run(
                words, lambda: datetime.fromtimestamp(self.clock(), UTC)
            )
        except SystemExit as stop:
            code = stop.code
        return Said(code, *self._capture.readouterr())

    def made(self, *words: str) -> str:
        """The key that it prints."""
        code, out, err = self(*words)
        assert code == 0
        assert out.count("\n") == 1
        assert out.strip() not in err
        return out.strip()

    def keys(self) -> KeysFile:
        return KeysFile(self.file, self.clock)


@pytest.fixture
def keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path / "keys.json", capsys)


def id_of(key: str) -> str:
    return key.split("_")[1]


def test_a_key_that_was_made_is_accepted_and_stands_nowhere(keys: Command) -> None:
    key = keys.made("add", "ci")
    caller = keys.keys().check(key)
    assert (caller.id, caller.limits, caller.models) == (f"key:{id_of(key)}", Limits(), None)
    assert key[20:] not in keys.file.read_text()
    assert keys.made("add", "ci") != key
    assert accepts(keys.keys(), key)


def test_every_option_reaches_the_caller(keys: Command) -> None:
    words = "--expires-in 90d --rate 60/minute --max-runs 4 --tokens-per-day 1000 --models b,a"
    key = keys.made("add", "ci", *words.split())
    caller = keys.keys().check(key)
    assert caller.expires_at == NOW + 90 * 86_400
    assert (caller.limits, caller.models) == (Limits("60/minute", 4, 1000), {"a", "b"})


@pytest.mark.parametrize("name", ["x", "n" * 100, 'Zoë 100% ✓ "q", \\ and $HOME'])
def test_a_name_is_kept_as_it_is(keys: Command, name: str) -> None:
    keys.made("add", name)
    assert json.loads(keys("list", "--json").out)[0]["name"] == name


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("45m", 2700), ("36h", 129_600), ("2w", 1_209_600), ("36500d", 3_153_600_000)],
)
def test_durations_have_units(keys: Command, text: str, seconds: int) -> None:
    key = keys.made("add", "ci", "--expires-in", text)
    assert keys.keys().check(key).expires_at == NOW + seconds


ID_TAKES = "ID: it takes the 16 letters and digits that list shows"
NAME_TAKES = "NAME: it takes 1 to 100 printable characters"
DURATION = "it takes a number with s, m, h, d or w, up to 100 years"
RATE = "--rate: it takes requests in a window, such as 120/minute or 1000/2hour"
RUNS = "--max-runs: it takes a whole number of runs at once from 1"
TOKENS = "--tokens-per-day: it takes a whole number of tokens from 1"
MODELS = "--models: it takes the name of a model"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["add", ""], NAME_TAKES),
        (["add", "n" * 101], NAME_TAKES),
        (["add", "a\nb"], NAME_TAKES),
        (["add", "\x1b]0;x\x07"], NAME_TAKES),
        (["add", "\udce9"], NAME_TAKES),
        *((["add", "x", "--expires-in", bad], f"--expires-in: {DURATION}")
          for bad in ("90", "0d", "d", "1.5d", "1 d", "1y", "36501d", "9999999999w", "1\u0661d")),
        *((["add", "x", "--rate", bad], RATE) for bad in ("60", "0/minute", "60/year", "")),
        *((["add", "x", "--max-runs", bad], RUNS) for bad in ("0", "-1", "1.5", "many", "")),
        *((["add", "x", "--tokens-per-day", bad], TOKENS) for bad in ("0", "1e3")),
        *((["add", "x", "--models", bad], MODELS) for bad in ("a,b c", "a,\u00e9")),
        (["add", "x", "--models", " , "], "--models: it takes names of models, comma separated"),
        (["revoke", "x"], ID_TAKES),
        (["revoke", f"gw_{ID}_{'s' * 43}"], ID_TAKES),
        (["revoke", "y" * 16], "ID: the file has no such key"),
        (["rotate", "y" * 16], "ID: the file has no such key"),
        (["rotate", ID, "--keep-old", "long"], f"--keep-old: {DURATION}"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_told_in_one_line_by_its_name(
    keys: Command, words: list[str], expected: str
) -> None:
    before = write(keys.file, entry()).read_text()
    assert keys(*words) == Said(2, "", f"gateway: argument {expected}\n")
    assert keys.file.read_text() == before


@pytest.mark.parametrize("words", [[], ["add"], ["make"], ["add", "x", "--expires", "3d"]])
def test_wrong_usage_is_one_line(keys: Command, words: list[str]) -> None:
    code, out, err = keys.anywhere(*words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("gateway: ")


def test_a_rotation_ends_the_old_secret_at_once(keys: Command) -> None:
    old = keys.made("add", "ci", "--rate", "60/minute")
    was = keys.keys().check(old)
    new = keys.made("rotate", id_of(old))
    assert not accepts(keys.keys(), old)
    assert not keys.keys().still_accepts(was)
    caller = keys.keys().check(new)
    assert (caller.id, caller.limits) == (was.id, was.limits)


def test_a_rotation_can_keep_the_old_secret_for_a_while(keys: Command) -> None:
    old = keys.made("add", "ci")
    new = keys.made("rotate", id_of(old), "--keep-old", "1h")
    keys.clock.now += 3599
    assert accepts(keys.keys(), old)
    assert accepts(keys.keys(), new)
    keys.clock.now += 1
    assert not accepts(keys.keys(), old)
    assert accepts(keys.keys(), new)


def test_a_second_rotation_keeps_the_last_secret_alone(keys: Command) -> None:
    first = keys.made("add", "ci")
    second = keys.made("rotate", id_of(first), "--keep-old", "1h")
    third = keys.made("rotate", id_of(first), "--keep-old", "1h")
    assert [accepts(keys.keys(), key) for key in (first, second, third)] == [False, True, True]
    fourth = keys.made("rotate", id_of(first))
    accepted = [accepts(keys.keys(), key) for key in (first, second, third, fourth)]
    assert accepted == [False, False, False, True]


def test_a_key_that_has_ended_is_not_rotated(keys: Command) -> None:
    revoked, expired = keys.made("add", "a"), keys.made("add", "b", "--expires-in", "1h")
    keys("revoke", id_of(revoked))
    keys.clock.now += 3600
    for key, state in ((revoked, "revoked"), (expired, "expired")):
        told = f"gateway: argument ID: this key is {state}: add another one\n"
        assert keys("rotate", id_of(key)) == Said(2, "", told)


def test_a_revoked_key_stays_in_the_file_and_is_refused(keys: Command) -> None:
    key, other = keys.made("add", "ci"), keys.made("add", "other")
    new = keys.made("rotate", id_of(key), "--keep-old", "1h")
    for _ in range(2):  # the second time changes nothing
        assert keys("revoke", id_of(key)) == Said(0, "", f"revoked: ci ({id_of(key)})\n")
        keys.clock.now += 60
    assert [accepts(keys.keys(), each) for each in (key, new, other)] == [False, False, True]
    kept = json.loads(keys.file.read_text())["keys"][0]
    assert (kept["id"], kept["revoked_at"]) == (id_of(key), "2027-01-15T08:00:00Z")


def test_an_id_is_never_used_again(keys: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    write(keys.file, entry(id="a" * 16, revoked_at="2026-12-01T12:00:00Z"))
    letters = iter("a" * 16 + "b" * 16)
    monkeypatch.setattr("secrets.choice", lambda _: next(letters))
    assert id_of(keys.made("add", "ci")) == "b" * 16


def test_the_list_shows_everything_but_secrets_and_hashes(keys: Command) -> None:
    ci = keys.made("add", "ci", "--expires-in", "1h", "--rate", "60/minute", "--max-runs", "4")
    old = keys.made("add", "Zoë", "--models", "a,b")
    rotated = keys.made("rotate", id_of(old), "--keep-old", "2h")
    gone = keys.made("add", "gone")
    keys("revoke", id_of(gone))
    keys.clock.now += 3600
    code, table, err = keys("list")
    assert (code, err) == (0, "")
    rows = [line.split("  ") for line in table.splitlines()]
    assert [[cell.strip() for cell in row if cell] for row in rows] == [
        ["ID", "NAME", "STATE", "CREATED", "EXPIRES", "LIMITS", "MODELS"],
        [id_of(ci), "ci", "expired", "2027-01-15T08:00:00Z", "2027-01-15T09:00:00Z",
         "rate=60/minute max_runs=4", "all"],
        [id_of(old), "Zoë", "active, old secret until 2027-01-15T10:00:00Z",
         "2027-01-15T08:00:00Z", "never", "-", "a,b"],
        [id_of(gone), "gone", "revoked", "2027-01-15T08:00:00Z", "never", "-", "all"],
    ]  # fmt: skip
    listed = keys("list", "--json").out
    first, second, third = json.loads(listed)
    assert first == {
        "id": id_of(ci),
        "name": "ci",
        "state": "expired",
        "created_at": "2027-01-15T08:00:00Z",
        "expires_at": "2027-01-15T09:00:00Z",
        "revoked_at": None,
        "limits": {"rate": "60/minute", "max_runs": 4, "tokens_per_day": None},
        "models": None,
        "previous_expires_at": None,
    }
    assert (second["name"], second["models"]) == ("Zoë", ["a", "b"])
    assert second["previous_expires_at"] == "2027-01-15T10:00:00Z"
    assert (third["state"], third["revoked_at"]) == ("revoked", "2027-01-15T08:00:00Z")
    keys.clock.now += 3600
    assert "old secret" not in keys("list").out
    for key in (ci, old, rotated, gone):
        assert key[20:] not in table + listed
        assert digest(key[20:]) not in table + listed


def test_an_empty_list_is_a_list(keys: Command) -> None:
    write(keys.file)
    assert json.loads(keys("list", "--json").out) == []
    assert keys("list").out == "ID  NAME  STATE  CREATED  EXPIRES  LIMITS  MODELS\n"


@pytest.mark.parametrize("words", [["list"], ["revoke", ID], ["rotate", ID]])
def test_a_file_that_is_not_there_is_told(keys: Command, words: list[str]) -> None:
    told = f"gateway: {keys.file} cannot be read: No such file or directory\n"
    assert keys(*words) == Said(1, "", told)
    assert not keys.file.exists()


@pytest.mark.parametrize("words", [["list"], ["add", "x"], ["revoke", ID], ["rotate", ID]])
def test_a_broken_file_is_told_and_left_alone(keys: Command, words: list[str]) -> None:
    keys.file.write_text(broken := text(entry(), entry()))
    assert keys(*words) == Said(1, "", f"gateway: {keys.file}, keys[1]: it has the id of keys[0]\n")
    assert keys.file.read_text() == broken


@pytest.mark.parametrize("where", ["environment", ".env"])
def test_the_file_is_the_gateways_own_whatever_else_is_set(
    keys: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GATEWAY_API_KEYS_FILE", raising=False)
    monkeypatch.setenv("GATEWAY_PORT", "none")
    code, _, err = keys.anywhere("list")
    assert (code, "GATEWAY_API_KEYS_FILE" in err, err.count("\n")) == (2, True, 1)
    if where == ".env":
        (tmp_path / ".env").write_text(f"GATEWAY_API_KEYS_FILE={keys.file}\nGATEWAY_NEWS=1\n")
    else:
        monkeypatch.setenv("GATEWAY_API_KEYS_FILE", f" {keys.file} ")
    key = keys.anywhere("add", "ci").out.strip()
    assert accepts(keys.keys(), key)
