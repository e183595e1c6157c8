"""An OpenAI-compatible model server that follows a script: demo, tests and benchmarks.

It is real HTTP/1.1 over TCP and can misbehave at the byte level, which is why it is written on
asyncio and httptools and on nothing of the gateway. The way of an answer::

    protocol  bytes ──► routes  request ──► chat, spec  what is asked for
                                              │
    player  timers, ◄── streamed, whole ◄── scripts  steps of the answer (pure)
       │    socket      writes and sleeps (pure)
       └──► stats, kept  who got how much and left early, and what was asked

``spec`` tells the language of scripts, e.g. ``sim:tokens,n=200,interval=0.02`` in a prompt.
"""

from app.simulator.scripts import (
    expected_chunks,
    expected_reasoning,
    expected_style,
    expected_text,
)
from app.simulator.server import Simulator
from app.simulator.stats import Call, Outcome, View
from app.simulator.texts import AWKWARD, SECRET

__all__ = [
    "AWKWARD",
    "SECRET",
    "Call",
    "Outcome",
    "Simulator",
    "View",
    "expected_chunks",
    "expected_reasoning",
    "expected_style",
    "expected_text",
]
