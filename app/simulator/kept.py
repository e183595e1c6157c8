"""The newest requests as they came, so that a test sees what was sent upstream."""

import json
from collections import deque
from typing import Any

from app.simulator.chat import Chat, parse_chat

KEPT_BYTES = 16 * 1024 * 1024  # of bodies; the newest one is kept whatever its size


class Kept:
    def __init__(self) -> None:
        self._bodies: deque[bytes] = deque()
        self._size = 0

    def add(self, body: bytes) -> None:
        """``body``: of a request that ``parse_chat`` takes."""
        self._bodies.append(body)
        self._size += len(body)
        while self._size > KEPT_BYTES and len(self._bodies) > 1:
            self._size -= len(self._bodies.popleft())

    def clear(self) -> None:
        self._bodies.clear()
        self._size = 0

    def find(self, contains: str) -> list[dict[str, Any]]:
        """Those with ``contains`` in the text of any user message, as parsed JSON, oldest first."""
        return [json.loads(body) for body in self._bodies if _says(parse_chat(body), contains)]


def _says(chat: Chat, what: str) -> bool:
    return any(message.role == "user" and what in message.text for message in chat.messages)
