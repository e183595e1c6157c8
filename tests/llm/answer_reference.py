"""What is answer and what is not, read from a whole text with regular expressions: what the filters
of ``app.llm.answer`` are compared with."""

import re
from collections.abc import Iterable

from app.events.model import Draft, Event, Reasoning, Token

Said = list[tuple[str, str]]  # kinds and texts, neighbours of one kind joined
HEAD = r'[{,]\s*"action"\s*:\s*"Final Answer"\s*,\s*"action_input"\s*:'
SIMPLE = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def joined(parts: Iterable[tuple[str, str]]) -> Said:
    said: list[tuple[str, list[str]]] = []
    for kind, text in parts:
        if text and said and said[-1][0] == kind:
            said[-1][1].append(text)
        elif text:
            said.append((kind, [text]))
    return [(kind, "".join(texts)) for kind, texts in said]


def said_by(events: Iterable[Event]) -> Said:
    parts = []
    for event in events:
        assert isinstance(event, Token | Reasoning | Draft)
        assert event.text
        parts.append((event.name, event.text))
    return joined(parts)


def of_tags(text: str) -> Said:
    blocks = re.finditer(r"(.*?)(?:<think>(.*?)(?:</think>|\Z)|\Z)", text, re.DOTALL)
    return joined(
        part for block in blocks for part in (("token", block[1]), ("reasoning", block[2] or ""))
    )


def of_react(text: str) -> Said:
    plain = re.search("Final Answer:", text)
    head = re.search(HEAD, text)
    if plain and (not head or plain.end() < head.end()):
        answer = text[plain.end() :].lstrip()
        return joined([("draft", text.removesuffix(answer)), ("token", answer)])
    if not head:
        return joined([("draft", text)])
    value = text[head.end() :].lstrip()
    before = text.removesuffix(value)
    if value.startswith('"'):
        string = re.match(r'"((?:[^"\\]|\\.)*)', value, re.DOTALL)
        assert string
        body, rest = string[1], value[string.end() :]
        if not rest.startswith('"'):  # unclosed; a backslash at the very end may be left
            body, rest = body + rest, ""
        return joined([("draft", before + '"'), ("token", decoded(body)), ("draft", rest)])
    end = end_of_value(value)
    return joined([("draft", before), ("token", value[:end]), ("draft", value[end:])])


def decoded(body: str) -> str:
    """Escapes to UTF-16 code units, then those to characters; what is no escape stays."""

    def unescaped(match: re.Match[str]) -> str:
        if match[1]:
            return chr(int(match[1], 16))
        return SIMPLE.get(match[2], match[2])

    units = re.sub(r'\\(?:u([0-9a-fA-F]{4})|(["\\/bfnrt]))', unescaped, body)
    return units.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def end_of_value(value: str) -> int:
    depth = 0
    for token in re.finditer(r'"(?:[^"\\]|\\.)*"?|.', value, re.DOTALL):
        char = token.group()
        if char in ("[", "{"):
            depth += 1
        elif not depth and (char in (",", "]", "}") or char.isspace()):
            return token.start()
        elif char in ("]", "}"):
            depth -= 1
            if not depth:
                return token.end()
    return len(value)
