"""Answers that hold more than the answer: inline reasoning and ReAct text. Pure text, no format.

Each is content on this wire; what of it is the answer is for the reader to find out.
"""

import json
from dataclasses import dataclass

from app.simulator.texts import ANSWER, pieces


@dataclass(frozen=True, slots=True)
class Styled:
    """One answer as it is sent, and what a correct reader makes of it.

    ``aside`` is what is not the answer: reasoning without its tags, ReAct's draft with its marker.
    """

    chunks: tuple[str, ...]
    answer: str
    aside: str


_TAGGED = ("<th", "ink>", "First ", "I think. a < b ", "<", "/thi", "nk", ">", "\n\n")
_UNCLOSED = ("<", "think", ">\n", "I think, and go on thinking. </", "thin", "k")
_LOOKALIKE = ("a <thi", "n> line, <thin", "king>", " aloud, </thi", "nk> a", " < b <", "think")

# Both tags split over chunks as a tokenizer splits them.
THINK: dict[str, Styled] = {
    "closed": Styled((*_TAGGED, *pieces(ANSWER)), f"\n\n{ANSWER}", "First I think. a < b "),
    "unclosed": Styled(_UNCLOSED, "", "\nI think, and go on thinking. </think"),
    "lookalike": Styled(_LOOKALIKE, "".join(_LOOKALIKE), ""),
}

REACT_ANSWER = 'It says:\n\t"caf\u00e9", back\\slash \U0001f680.'
_THOUGHT = "Thought: I should look. Final, not yet.\nAction: none\nThought: I know the answer.\n"
_OPENED = _THOUGHT + 'Action:\n```json\n{\n  "action": "Final Answer",\n  "action_input": "'
_CLOSED = '"\n}\n```\n'


def _react(before: str, written: str, after: str) -> Styled:
    return Styled(tuple(pieces(before + written + after)), REACT_ANSWER, before + after)


REACT: dict[str, Styled] = {
    "text": _react(f"{_THOUGHT}Final Answer: ", REACT_ANSWER, ""),
    "json": _react(_OPENED, json.dumps(REACT_ANSWER)[1:-1], _CLOSED),
}
