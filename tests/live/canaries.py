"""Words that stand nowhere by chance, put where a secret or a private text can stand."""

import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

PIECE = 24  # characters of a secret by which a part of it is found, too


class Canaries:
    """Made when they are first asked for, by what they stand for."""

    def __init__(self) -> None:
        self._words: dict[str, str] = {}

    def __call__(self, what: str) -> str:
        """Letters and digits, the same in every encoding."""
        return self._words.setdefault(what, f"canary{secrets.token_hex(12)}")

    def know(self, what: str, secret: str) -> str:
        """One that somebody else has made."""
        return self._words.setdefault(what, secret)

    def found_in(self, written: Mapping[str, str]) -> list[str]:
        """What stands where it must not. ``written``: texts by where they stand."""
        return [
            f"{what} in {where}"
            for where, text in written.items()
            for what, word in self._words.items()
            if any(piece in text for piece in _pieces(word))
        ]


def files(folder: Path, *known: str) -> dict[str, str]:
    """Everything in a folder but what stands below these names of it."""
    return {
        str(path): path.read_text(errors="replace")
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] not in known
    }


def _pieces(word: str) -> Iterator[str]:
    """The whole word, its beginning apart, which may be public: ``gw_<id>_``, a token's header."""
    yield word
    for start in range(PIECE, len(word) - PIECE + 1, PIECE):
        yield word[start : start + PIECE]
