"""A TOML file (1.0) that tells on which line a value stands, which ``tomllib`` does not."""

import re
import tomllib
from pathlib import Path
from typing import Any

from app.settings import SettingsError

_AT = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")

Place = tuple[int | str, ...]  # keys and indexes, from the outside in


class TomlFile:
    """``data``: what ``tomllib`` makes of it. Raises ``SettingsError`` with one line for a file
    that cannot be read or is not TOML."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text = self._read()
        try:
            self.data: dict[str, Any] = tomllib.loads(self._text)
        except ValueError as error:
            at = _AT.search(str(error))
            line = int(at[1]) if at and at[1] else self._text.count("\n") + 1
            raise self._error(line, f"not TOML: {_AT.sub('', str(error))}") from None
        except RecursionError:
            raise self._error(self._too_deep(), "it takes values less deep in each other") from None

    def refused(self, place: Place, expected: str) -> SettingsError:
        """The error about ``place``, or about the innermost table around it that is there."""
        return self._error(self._line(place), expected)

    def _error(self, line: int, expected: str) -> SettingsError:
        return SettingsError(f"{self._path}:{line}: {expected}")

    def _read(self) -> str:
        try:
            raw = self._path.read_bytes()
        except OSError as error:
            raise SettingsError(f"{self._path} cannot be read: {error.strerror}") from None
        try:
            return raw.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            raise self._error(line, "not TOML: it takes UTF-8") from None

    def _too_deep(self) -> int:
        """The first line with which the file is too deep to be read."""
        lines = self._text.split("\n")
        for count in range(1, len(lines)):
            try:
                tomllib.loads("\n".join(lines[:count]))
            except RecursionError:
                return count
            except ValueError:  # ends in the middle of a value
                continue
        return len(lines)

    def _line(self, place: Place) -> int:
        """It begins after the longest beginning of the file that is TOML without it."""
        while not _has(self.data, place):
            place = place[:-1]
        lines = self._text.split("\n")
        without = 0
        for count in range(1, len(lines) + 1):
            try:
                beginning = tomllib.loads("\n".join(lines[:count]))
            except (ValueError, RecursionError):  # ends in the middle of a value
                continue
            if _has(beginning, place):
                break
            without = count
        return without + 1


def _has(data: Any, place: Place) -> bool:
    for part in place:
        try:
            data = data[part]
        except (LookupError, TypeError):
            return False
    return True
