"""The scripts that are about a conversation with tools. Pure."""

import json
from collections.abc import Iterator

from app.simulator import texts
from app.simulator.ask import Ask
from app.simulator.steps import End, Role, Step, ToolPart

QUOTED_RESULT = 200  # characters of a tool's result that an answer repeats
_FRAGMENT = 5  # characters of arguments in a chunk


def tool(ask: Ask) -> Iterator[Step]:
    """Turns that call, then one that answers with what the last calls gave."""
    spec = ask.spec
    if ask.results and ask.rounds >= spec.count("repair") + spec.count("rounds"):
        results = (texts.shortened(result, QUOTED_RESULT) for result in ask.results)
        yield Role()
        yield from texts.pieces(f"The tool says: {'; '.join(results)}")
        yield End()
        return
    preamble = spec.count("preamble")
    yield Role("" if preamble else None)
    if preamble:
        yield from texts.pieces(texts.PREAMBLE)
    for index, (name, arguments) in enumerate(_calls(ask)):
        yield ToolPart(index, "", f"call_{ask.messages}_{index}", name)
        for start in range(0, len(arguments), _FRAGMENT):
            yield ToolPart(index, arguments[start : start + _FRAGMENT])
    yield End("tool_calls")


def _calls(ask: Ask) -> list[tuple[str, str]]:
    """Names and arguments of this turn's calls."""
    spec, repair = ask.spec, ask.spec.count("repair")
    names, arguments = spec.texts("name"), spec.texts("args")
    count = max(len(names), len(arguments))
    pairs = [(names[k % len(names)], arguments[k % len(arguments)]) for k in range(count)]
    if spec.text("order") == "inturn":
        pairs = [pairs[max(0, ask.rounds - repair) % count]]
    if ask.rounds < repair or (repair and not ask.results):  # not before an error was told
        pairs = [(name, f"{written} is no JSON") for name, written in pairs]
    return [pair for pair in pairs for _ in range(spec.count("calls"))]


def history(ask: Ask) -> Iterator[Step]:
    """The request as compact JSON."""
    yield Role()
    yield from texts.pieces(json.dumps(ask.heard, ensure_ascii=False, separators=(",", ":")))
    yield End()
