"""The language in which a request asks for a script: ``sim:NAME[,key=value]...``.

Pure. A spec stands anywhere in the last user message (the first match counts, it ends at white
space) or is the model's name; the message wins. Values may be percent-encoded where they are
text, because a comma or a space would end them; where a key takes several, a ``+`` stands between
them (a plus itself is ``%2B``). Whatever is not understood is refused with a sentence that says
what is known: a test with a typo must fail, not pass for the wrong reason.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

Value = int | float | str | tuple[str, ...] | None

MAX_TOKENS = 1_000_000  # chunks in one answer; at 20 bytes of text each that is 20 MB
MAX_SECONDS = 3600.0  # no test or demo waits longer than the longest run timeout (900 s)
MAX_BYTES = 64 * 1024 * 1024  # of one answer; eight times what the gateway accepts (8 MiB)
MAX_WORD = 4096  # characters of a text value
DEMO_INTERVAL_S = 0.03  # 33 tokens a second: what a mid-size hosted model shows

_SPEC = re.compile(r"(?<![A-Za-z0-9_])sim:[A-Za-z_]\S*")


class BadSpecError(ValueError):
    """The spec names something that does not exist; the message tells what does."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a script: what it takes, its bounds (inclusive), and what stands for absence."""

    kind: type[int] | type[float] | type[str]
    default: Value = None
    low: float = 0
    high: float = 0
    choices: tuple[str, ...] = ()
    many: bool = False  # several texts

    def read(self, name: str, raw: str) -> Value:
        """Parse one value. Raises ``BadSpecError`` with the bounds in its message."""
        if self.many:
            return tuple(self._text(name, part) for part in raw.split("+"))
        if self.kind is str:
            return self._text(name, raw)
        number: int | float
        try:
            number = int(raw) if self.kind is int else float(raw)
        except ValueError:
            number = math.nan
        if not self.low <= number <= self.high:  # false for NaN as well
            what = "a whole number" if self.kind is int else "a number"
            raise BadSpecError(f"{name} must be {what} from {self.low:g} to {self.high:g}")
        return number

    def _text(self, name: str, raw: str) -> str:
        text = unquote(raw)
        if self.choices and text not in self.choices:
            raise BadSpecError(f"{name} must be one of {', '.join(self.choices)}")
        if not text or not text.isprintable() or len(text) > MAX_WORD:
            raise BadSpecError(f"{name} must be 1 to {MAX_WORD} printable characters")
        return text


def _count(default: int | None, *, low: int = 0, high: int = MAX_TOKENS) -> Key:
    return Key(int, default, low, high)


def _seconds(default: float) -> Key:
    return Key(float, default, 0.0, MAX_SECONDS)


def _several(default: str) -> Key:
    return Key(str, (default,), many=True)


def _choice(*choices: str) -> Key:
    return Key(str, choices[0], choices=choices)


COMMON = {
    "interval": _seconds(0.0),  # between chunks
    "first": _seconds(0.0),  # before the first content chunk, after head and role chunk
    "head": _seconds(0.0),  # before the HTTP head
    "batch": _count(None, low=1),  # chunks a write; absent: 1 when paced, else 64 KiB writes
    "cutat": _count(None, low=1, high=MAX_BYTES),  # a write for every so many bytes
    "usage": _count(1, high=1),  # 0: never sent, even when asked for
}
_AFTER = {"after": _count(5)}

SCRIPTS: dict[str, dict[str, Key]] = {
    "plain": {"interval": _seconds(DEMO_INTERVAL_S)},
    "tokens": {"n": _count(100)},
    "echo": {},
    "awkward": {},
    "big": {"bytes": _count(1024 * 1024, high=MAX_BYTES)},
    "bulk": {
        "bytes": _count(7 * 1024 * 1024, high=MAX_BYTES),
        "chunk": _count(1024, low=1, high=1024 * 1024),
    },
    "reasoning": {"n": _count(20)},
    "think": {"form": _choice("closed", "unclosed", "lookalike")},  # inline tags
    "react": {"form": _choice("text", "json")},
    "tool": {
        "name": _several("get_weather"),
        "args": _several('{"city": "Paris"}'),  # one for all names, or one for each
        "order": _choice("together", "inturn"),  # each turn calls all names, or the next one
        "preamble": _count(0, high=1),  # text before the calls, in each turn that calls
        "calls": _count(1, low=1, high=64),  # parallel calls of each name in one turn
        "rounds": _count(1, low=1),  # turns that call before one answers
        "repair": _count(0),  # turns before those whose arguments are no JSON
    },
    "history": {},  # answers with what was asked: roles, lengths, beginnings, names of tools
    "chaos": {  # tokens `MODEL:0 `, `MODEL:1 `…, if it does not fail
        "n": _count(100),
        "p": Key(float, 0.33, 0.0, 1.0),  # share of the calls that fail
        "where": _choice("any", "before", "middle"),  # of the answer; half and half
        "seed": _count(0),
        "key": Key(str, "default"),  # calls are counted by it: the k-th always ends the same
    },
    "silent": {},
    "slow": {"first": _seconds(2.0)},
    "comments": {"first": _seconds(2.0)},
    "stall": _AFTER,
    "cut": {**_AFTER, "how": _choice("rst", "fin", "nohead")},
    "eof": _AFTER,
    "done_only": _AFTER,
    "noterm": _AFTER,
    "malformed": {**_AFTER, "kind": _choice("json", "shape", "utf8", "html")},
    "error": {**_AFTER, "code": Key(str, "server_error")},
    "status": {
        "code": _count(500, low=400, high=599),
        "retry_after": Key(str),
        "type": Key(str),
        "times": _count(None),
        "key": Key(str, "default"),
        "n": _count(100),
    },
    "finish": {**_AFTER, "reason": _choice("length", "content_filter")},
}


@dataclass(frozen=True, slots=True)
class Spec:
    """A script's name and the values of all its keys, defaults filled in."""

    name: str
    source: str  # as it was written, for the statistics
    values: Mapping[str, Value] = field(repr=False)

    def has(self, key: str) -> bool:
        return self.values[key] is not None

    def count(self, key: str) -> int:
        value = self.values[key]
        if not isinstance(value, int):
            raise TypeError(f"{key} of {self.source} is no count")
        return value

    def seconds(self, key: str) -> float:
        value = self.values[key]
        if not isinstance(value, float):
            raise TypeError(f"{key} of {self.source} is no duration or share")
        return value

    def share(self, key: str) -> float:
        """From 0 to 1."""
        return self.seconds(key)

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.values[key]
        if not isinstance(value, tuple):
            raise TypeError(f"{key} of {self.source} is no list")
        return value

    def text(self, key: str) -> str:
        value = self.values[key]
        if not isinstance(value, str):
            raise TypeError(f"{key} of {self.source} is no text")
        return value


def parse(source: str) -> Spec:
    """Parse one whole spec. Raises ``BadSpecError``."""
    name, *pairs = source.removeprefix("sim:").split(",")
    if name not in SCRIPTS:
        raise BadSpecError(f"unknown script {name!r}; known: {', '.join(SCRIPTS)}")
    keys = {**COMMON, **SCRIPTS[name]}
    values = {key: kind.default for key, kind in keys.items()}
    seen = set()
    for pair in pairs:
        key, equals, raw = pair.partition("=")
        if key not in keys:
            raise BadSpecError(f"unknown key {key!r} for {name}; known: {', '.join(keys)}")
        if not equals or key in seen:
            raise BadSpecError(f"{key} must be given once, as {key}=value")
        seen.add(key)
        values[key] = keys[key].read(key, raw)
    lengths = {len(value) for value in values.values() if isinstance(value, tuple)} - {1}
    if len(lengths) > 1:
        raise BadSpecError("where several keys take several values, they take equally many")
    return Spec(name, source, values)


def choose(prompt: str, model: str) -> tuple[Spec, str]:
    """The spec that a request asks for, and the user's text without it.

    Of the text, what follows the spec and one white-space character; all of it when the model's
    name or nothing at all chose. Raises ``BadSpecError``.
    """
    if match := _SPEC.search(prompt):
        return parse(match.group()), prompt[match.end() + 1 :]
    return parse(model if model.startswith("sim:") else "sim:plain"), prompt
