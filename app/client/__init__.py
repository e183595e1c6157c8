"""The gateway's own client: what ``python -m app chat`` runs, and ``stream`` for other programs.

It knows the contract and nothing of the server's inside. The way of an answer::

    command  signals, exit codes ◄── stream  one run through lost connections ◄── link  one request
       ├──► key  who asks               └──► events  what a run tells
       └──► terminal  what is shown
"""

from app.client.command import run
from app.client.events import Done, Error, Event, Final, Retract, Start, Token, Waiting
from app.client.link import ClientError
from app.client.stream import Run, stream

__all__ = [
    "ClientError",
    "Done",
    "Error",
    "Event",
    "Final",
    "Retract",
    "Run",
    "Start",
    "Token",
    "Waiting",
    "run",
    "stream",
]
