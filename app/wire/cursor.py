"""Cursors: ``<run_id>.<seq>``, the id of the last event that a reader has seen. Pure.

An id is self-sufficient, because fetch-event-source posts the same body again and sends nothing
but its last id with it.
"""

import re
from typing import NamedTuple

from app.errors import BadCursor

# 128 random bits make 22 characters of base64url; the whole id stays under 64 bytes.
_CURSOR = re.compile(r"([A-Za-z0-9_-]{22,44})\.(0|[1-9][0-9]{0,17})")
_SEQ = re.compile(r"0|[1-9][0-9]{0,17}")


class Cursor(NamedTuple):
    run_id: str
    seq: int


def parse_cursor(value: str) -> Cursor:
    """The cursor of a ``Last-Event-ID``. Raises ``BadCursor``."""
    match = _CURSOR.fullmatch(value)
    if match is None:
        raise BadCursor
    return Cursor(match[1], int(match[2]))


def parse_seq(value: str) -> int:
    """The number in ``?after=``. Raises ``BadCursor``."""
    if not _SEQ.fullmatch(value):
        raise BadCursor
    return int(value)
