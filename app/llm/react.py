"""Find the answer in ReAct text, ``Thought: … Final Answer: …``, and in its JSON form, as a
structured chat agent of LangChain's writes it. Pure.

The JSON form is ``{"action": "Final Answer", "action_input": "…"}``, of which the decoded string is
the answer; of a value that is no string it is the JSON as written. All else is draft.

1. The first marker decides for the rest of the turn, text or JSON, wherever it stands: in a tool's
   input too, because broken JSON around it must not cost the answer.
2. In the JSON form ``action_input`` must follow ``action`` at once; other keys may stand before and
   after. In another order the object is draft: waiting for ``action`` would hold the answer back.
3. What is no JSON is taken as it is: a backslash that begins no escape is a backslash, a line break
   inside a string is a line break. What follows the value is draft.
"""

import json
import re
from collections.abc import Callable, Sequence
from itertools import accumulate

from app.events.model import Draft, Event, Token
from app.llm.said import Said
from app.llm.text import repaired

MARKER = "Final Answer:"

# The JSON form up to the value; white space may stand between the parts. It begins with a comma
# here where keys stand before it, else with the brace.
_PARTS = (",", '"action"', ":", '"Final Answer"', ",", '"action_input"', ":")
_HEAD = "".join(_PARTS)
_GAPS = frozenset(accumulate(map(len, _PARTS)))
_SECOND_COMMA = _HEAD.index(",", 1)
_OVERLAP = len(',"action')  # what follows the second comma may also be the beginning of another

_BEGINNING = re.compile("[F{,]")
_HEX, _HIGH, _LOW = "[0-9a-fA-F]", "[dD][89abAB]", "[dD][c-fC-F]"
_STRING = re.compile(
    rf"""(?P<plain> [^"\\]+ )
    | (?P<end> " )
    | (?P<unfinished> \\ (?: u (?: {_HEX}{{0,3}}
        | {_HIGH}{_HEX}{{2}} (?: \\ (?: u (?: [dD] (?: [c-fC-F] {_HEX}? )? )? )? )? ) )? \Z )
    | (?P<escape> \\ (?: ["\\/bfnrt] | u{_HIGH}{_HEX}{{2}}\\u{_LOW}{_HEX}{{2}} | u{_HEX}{{4}} ) )
    | (?P<backslash> \\ )""",
    re.VERBOSE,
)
_IN_STRING = re.compile(r'"|\\.?', re.DOTALL)
_OUTSIDE_STRINGS = re.compile(r'[\[\]{}",\s]')


class React:
    """An ``AnswerFilter`` (``app.llm.answer``), a stage at a time: each takes what it can from a
    position on and tells where it stopped.

    Nothing is held back for a marker, because markers are draft themselves; inside a JSON string
    an unfinished escape is, of at most eleven characters: a surrogate pair but for the last one.
    """

    __slots__ = ("_depth", "_escaped", "_head_at", "_held", "_marker_at", "_quoted", "_stage")

    def __init__(self) -> None:
        self._stage: _Stage = React._search  # not bound to self, which would be a cycle
        self._marker_at = self._head_at = 0  # characters of MARKER, of _HEAD that have matched
        self._held = ""
        self._depth = 0  # brackets open in a value that is no string
        self._quoted = self._escaped = False  # inside a string of such a value

    def feed(self, text: str) -> Sequence[Event]:
        if self._stage is React._answer:
            return (Token(text),) if text else ()
        said = Said()
        self.put(text, said)
        return said.events()

    def flush(self) -> Sequence[Event]:
        said = Said()
        self.end(said)
        return said.events()

    def put(self, text: str, said: Said) -> None:
        if self._held:
            text, self._held = self._held + text, ""
        at = 0
        while at < len(text):
            at = self._stage(self, text, at, said)

    def end(self, said: Said) -> None:
        """An escape that never ended is text, but for a whole half of a pair."""
        held, self._held = self._held, ""
        half = len(r"\ud83d")
        said.add(Token, "\ufffd" + held[half:] if len(held) >= half else held)

    # -- stages -----------------------------------------------------------------------------

    def _search(self, text: str, start: int, said: Said) -> int:
        at = start
        while at < len(text) and self._stage is React._search:
            if not self._marker_at and not self._head_at:
                begin = _BEGINNING.search(text, at)
                if begin is None:
                    at = len(text)
                    break
                at = begin.start()
            self._step(text[at])
            at += 1
        said.add(Draft, text[start:at])
        return at

    def _step(self, char: str) -> None:
        """One more character for both markers."""
        if char == MARKER[self._marker_at]:
            self._marker_at += 1
        else:
            self._marker_at = int(char == MARKER[0])  # stands nowhere else in it
        self._head_at = _further(self._head_at, char)
        if self._marker_at == len(MARKER):
            self._stage = React._before_answer
        elif self._head_at == len(_HEAD):
            self._stage = React._before_value

    def _before_answer(self, text: str, at: int, said: Said) -> int:
        return self._skip_white(text, at, said, React._answer)

    def _answer(self, text: str, at: int, said: Said) -> int:
        said.add(Token, text[at:])
        return len(text)

    def _before_value(self, text: str, at: int, said: Said) -> int:
        at = self._skip_white(text, at, said, React._value)
        if text.startswith('"', at):
            said.add(Draft, '"')
            self._stage = React._string
            at += 1
        return at

    def _skip_white(self, text: str, start: int, said: Said, then: "_Stage") -> int:
        at = start
        while at < len(text) and text[at].isspace():
            at += 1
        said.add(Draft, text[start:at])
        if at < len(text):
            self._stage = then
        return at

    def _string(self, text: str, at: int, said: Said) -> int:
        """The value as a string: what it says."""
        while match := _STRING.match(text, at):
            part, kind = match.group(), match.lastgroup
            if kind == "end":
                self._stage = React._rest
                break
            at = match.end()
            if kind == "unfinished":
                self._held = part
            elif kind == "escape":
                said.add(Token, repaired(json.loads(f'"{part}"')))
            else:
                said.add(Token, part)
        return at

    def _value(self, text: str, start: int, said: Said) -> int:
        """The value as anything else: its JSON as written, up to the end of it."""
        at = start + self._escaped
        self._escaped = False
        while match := (_IN_STRING if self._quoted else _OUTSIDE_STRINGS).search(text, at):
            part, at = match.group(), match.end()
            if self._quoted:
                self._quoted = part != '"'
                self._escaped = part == "\\"  # what it escapes is not here yet
            elif part == '"':
                self._quoted = True
            elif part in "[{":
                self._depth += 1
            elif not self._depth or (self._depth == 1 and part in "]}"):
                at = at if self._depth else match.start()
                self._stage = React._rest
                break
            elif part in "]}":
                self._depth -= 1
        else:
            at = len(text)
        said.add(Token, text[start:at])
        return at

    def _rest(self, text: str, at: int, said: Said) -> int:
        said.add(Draft, text[at:])
        return len(text)


_Stage = Callable[[React, str, int, Said], int]


def _further(at: int, char: str) -> int:
    """How much of ``_HEAD`` has matched with one more character, when ``at`` had before."""
    while True:
        if char == _HEAD[at] or (not at and char == "{"):
            return at + 1
        if at in _GAPS and char.isspace():
            return at
        if not at:
            return 0
        at = at - _SECOND_COMMA if _SECOND_COMMA < at <= _SECOND_COMMA + _OVERLAP else 0
