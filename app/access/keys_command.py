"""``python -m app keys``: make, list, revoke and rotate API keys; a gateway notices within seconds.

A key is shown once, alone on stdout, so that ``KEY=$(python -m app keys add ci)`` works; all other
words go to stderr. Exit codes: 0, 1 for a file that cannot be used, 2 for wrong arguments.
"""

import argparse
import json
import math
import os
import re
import secrets
import string
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn, TextIO

import msgspec
from msgspec.structs import replace

from app.access.key import LIMITS, Key, KeyLimits, Previous, check_name, check_setting
from app.access.keys_edit import editing, read_keys, say
from app.environment import environment
from app.settings import SettingsError, comma_separated

VARIABLE = "GATEWAY_API_KEYS_FILE"
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_HEAD = ("ID", "NAME", "STATE", "CREATED", "EXPIRES", "LIMITS", "MODELS")
_LONGEST_S = 36_500 * 86_400


def run(words: Sequence[str], clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> int:
    """``words``: what stands behind ``keys``. Answers the exit code."""
    arguments = _parser().parse_args(words)
    arguments.now = clock().replace(microsecond=0)
    try:
        arguments.file = arguments.file or _named_file()
        arguments.do(arguments)
    except _BadArgument as error:
        say(f"gateway: argument {error}")
        return 2
    except SettingsError as error:
        say(f"gateway: {error}")
        return 1
    return 0


class _BadArgument(Exception):
    """Begins with the argument's name."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage."""
        self.exit(2, f"gateway: {' '.join(message.split())}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m app keys", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(metavar="add|list|revoke|rotate", required=True)

    def command(do: Callable[[argparse.Namespace], None], does: str) -> argparse.ArgumentParser:
        made = commands.add_parser(
            do.__name__.strip("_"), help=does, description=does, allow_abbrev=False
        )
        made.add_argument("--file", type=Path, help=f"the keys file; default: {VARIABLE}")
        made.set_defaults(do=do)
        return made

    add = command(_add, "make a key and print it, once")
    add.add_argument("name", metavar="NAME", type=_taking(check_name), help="whose it is")
    add.add_argument(
        "--expires-in", type=_taking(_duration), metavar="90d", help="default: it never expires"
    )
    for limit, field in LIMITS.items():
        add.add_argument(
            f"--{limit.replace('_', '-')}",
            metavar={"rate": "60/minute"}.get(limit, "N"),
            type=_taking(partial(check_setting, field)),
            help="default: what the gateway's settings say",
        )
    add.add_argument("--models", metavar="a,b", type=_taking(_models), help="default: all")
    listing = command(_list, "show the keys, without their secrets")
    listing.add_argument("--json", action="store_true", help="as a JSON array")
    revoke = command(_revoke, "end a key for good, and the streams and sessions that it opened")
    rotate = command(_rotate, "give a key another secret and print it, once")
    for each in (revoke, rotate):
        each.add_argument("id", metavar="ID", type=_taking(_id), help="as list shows it")
    rotate.add_argument(
        "--keep-old",
        type=_taking(_duration),
        metavar="1h",
        help="how long the present secret is taken as well; default: not at all",
    )
    return parser


def _add(arguments: argparse.Namespace) -> None:
    _stdout()
    secret, now = secrets.token_urlsafe(32), arguments.now
    with editing(arguments.file, may_begin=True) as keys:
        key = Key(
            id=_unused_id(keys),
            name=arguments.name,
            sha256=sha256(secret.encode()).hexdigest(),
            created_at=now,
            expires_at=arguments.expires_in and now + arguments.expires_in,
            limits=KeyLimits(**{limit: getattr(arguments, limit) for limit in LIMITS}),
            models=arguments.models,
        )
        keys.append(key)
    _show(key, secret, "added to", arguments.file)


def _list(arguments: argparse.Namespace) -> None:
    keys = read_keys(arguments.file)
    if arguments.json:
        _print(json.dumps([_described(key, arguments.now) for key in keys], indent=2))
        return
    rows = [_HEAD, *(_row(key, arguments.now) for key in keys)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (map(str.ljust, row, widths) for row in rows)
    _print("\n".join("  ".join(line).rstrip() for line in lines))


def _revoke(arguments: argparse.Namespace) -> None:
    with editing(arguments.file) as keys:
        place = _place(keys, arguments.id)
        was = keys[place]
        keys[place] = replace(was, revoked_at=was.revoked_at or arguments.now, previous=None)
    say(f"revoked: {was.name} ({was.id})")


def _rotate(arguments: argparse.Namespace) -> None:
    _stdout()
    secret, now = secrets.token_urlsafe(32), arguments.now
    with editing(arguments.file) as keys:
        place = _place(keys, arguments.id)
        was = keys[place]
        if (state := _state(was, now)) != "active":
            raise _BadArgument(f"ID: this key is {state}: add another one")
        previous = arguments.keep_old and Previous(was.sha256, now + arguments.keep_old)
        key = replace(was, sha256=sha256(secret.encode()).hexdigest(), previous=previous)
        keys[place] = key
    _show(key, secret, "rotated in", arguments.file)


def _show(key: Key, secret: str, done: str, file: Path) -> None:
    say(f"{key.name} ({key.id}) {done} {file}; the key is shown only now:")
    try:
        _print(f"gw_{key.id}_{secret}")
    except SettingsError as error:
        raise SettingsError(f"{error}, so nobody saw the new secret: rotate {key.id}") from None


def _unused_id(keys: Sequence[Key]) -> str:
    used = {key.id for key in keys}
    while True:
        made = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(16))
        if made not in used:
            return made


def _place(keys: Sequence[Key], key_id: str) -> int:
    for place, key in enumerate(keys):
        if key.id == key_id:
            return place
    raise _BadArgument("ID: the file has no such key")


def _state(key: Key, now: datetime) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= now else "active"


def _described(key: Key, now: datetime) -> dict[str, Any]:
    """All but the hashes."""
    made: dict[str, Any] = msgspec.to_builtins(key) | {"state": _state(key, now)}
    del made["sha256"]
    previous = made.pop("previous")
    return made | {"previous_expires_at": previous and previous["expires_at"]}


def _row(key: Key, now: datetime) -> tuple[str, ...]:
    limits = [
        f"{limit}={value}" for limit in LIMITS if (value := getattr(key.limits, limit)) is not None
    ]
    state = _state(key, now)
    if state == "active" and key.previous is not None and key.previous.expires_at > now:
        state += f", old secret until {_time(key.previous.expires_at)}"
    return (
        key.id,
        key.name,
        state,
        _time(key.created_at),
        "never" if key.expires_at is None else _time(key.expires_at),
        " ".join(limits) or "-",
        "all" if key.models is None else ",".join(key.models),
    )


def _time(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _taking(check: Callable[[str], Any]) -> Callable[[str], Any]:
    """For ``type=``: argparse passes on the words of no other error."""

    def checked(text: str) -> Any:
        try:
            return check(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return checked


def _duration(text: str) -> timedelta:
    number = re.fullmatch(r"([1-9]\d{0,9})([smhdw])", text, re.ASCII)
    seconds = int(number[1]) * _UNITS_S[number[2]] if number else math.inf
    if seconds > _LONGEST_S:
        raise ValueError("it takes a number with s, m, h, d or w, up to 100 years")
    return timedelta(seconds=seconds)


def _models(text: str) -> tuple[str, ...]:
    names = comma_separated(text)
    if not names:
        raise ValueError("it takes names of models, comma separated")
    return tuple(check_setting("model", name) for name in names)


def _id(text: str) -> str:
    if not re.fullmatch("[a-z0-9]{16}", text):
        raise ValueError("it takes the 16 letters and digits that list shows")
    return text


def _named_file() -> Path:
    """Raises ``_BadArgument``, ``SettingsError``. No other setting counts."""
    if name := environment().get(VARIABLE, "").strip():
        return Path(name)
    raise _BadArgument(f"--file: it takes the keys file, unless {VARIABLE} names it")


def _stdout() -> TextIO:
    """Raises ``SettingsError``: asked before a key is made that nobody could see."""
    stream: TextIO | None = sys.stdout
    if stream is None:
        raise SettingsError("stdout is closed, and nothing else shows what this prints")
    return stream


def _print(line: str) -> None:
    """On stdout. Raises ``SettingsError``."""
    stream = _stdout()
    try:
        encoding = stream.encoding
        stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()
    except OSError as error:
        with Path(os.devnull).open("w") as nothing:  # or the exit would try it once more
            os.dup2(nothing.fileno(), stream.fileno())
        raise SettingsError(f"stdout cannot be written: {error.strerror}") from None
