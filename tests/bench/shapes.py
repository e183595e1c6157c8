"""What the mock model answers: the name of the model says it, and every frame is baked once.

``sim-n256-i20``: 256 tokens, one each 20 ms (``i0``: as fast as the socket takes them).
Further flags: ``first40000`` sends the head at once and the first chunk after 40 s, ``head40000``
not even the head. ``drop5`` leaves token 5 out and ``twice5`` sends it twice: proof that the
check of the tokens sees it.

Token number k is ``tok<k> `` in UTF-8, so that what a reader got can be told byte for byte.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"  # with the end of the chunked body
_FLAG = re.compile(r"-([a-z]+)(\d+)")


def flags(model: str) -> dict[str, int]:
    return {name: int(value) for name, value in _FLAG.findall(model)}


def expected(model: str) -> bytes:
    """The text that a reader of a right answer has."""
    return b"".join(b"tok%d " % k for k in range(flags(model)["n"]))


@dataclass(frozen=True, slots=True)
class Shape:
    """``frames``: the role, the tokens, the finish reason; each an HTTP chunk with one event."""

    frames: tuple[bytes, ...]
    usage: bytes  # sent before DONE when the request asks for it
    interval_s: float  # between two tokens; 0: none
    first_s: float  # of silence between head and first chunk
    head_s: float  # of silence before the head


def shape(model: str) -> Shape:
    said = flags(model)
    numbers = [k for k in range(said["n"]) if k != said.get("drop")]
    if "twice" in said:
        numbers.insert(said["twice"], said["twice"])
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": "", "refusal": None}]
    deltas += [{"content": f"tok{k} "} for k in numbers]
    usage = {"prompt_tokens": 8, "completion_tokens": said["n"], "total_tokens": said["n"] + 8}
    return Shape(
        frames=(
            *(_frame(model, [_choice(delta)]) for delta in deltas),
            _frame(model, [_choice({}, "stop")]),
        ),
        usage=_frame(model, [], usage),
        interval_s=said.get("i", 0) / 1000,
        first_s=said.get("first", 0) / 1000,
        head_s=said.get("head", 0) / 1000,
    )


def _choice(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def _frame(model: str, choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> bytes:
    """With all the fields that OpenAI sends: parsing them is part of what a gateway costs."""
    event = {
        "id": "chatcmpl-sim0000000000000000000000",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": model,
        "service_tier": "default",
        "system_fingerprint": "fp_sim0000000",
        "choices": choices,
        "usage": usage,
    }
    data = b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)
