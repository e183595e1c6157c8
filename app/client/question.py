"""What is posted to get an answer, and again to get another one instead of an answer that failed.

Another answer is asked for where the conversation has the question by then, and else the question
once more: a worker may die before it has stored it. The key is always the same, so that there is no
second answer should the first one live after all.
"""

import json
import secrets
from urllib.parse import quote

from app.client.link import Link, run_gone

GRACE_S = 60  # how long a run waits for us: a tunnel, a change of network
MAX_REPEATS = 2  # of a run that failed before it began


class Question:
    """``path``, ``body`` and ``key``: of the request. ``repeats``: how often it was asked again."""

    def __init__(self, text: str, model: str | None, conversation_id: str | None) -> None:
        self._how = {"grace_seconds": GRACE_S} | ({"model": model} if model else {})
        asked = {"text": text} | ({"conversation_id": conversation_id} if conversation_id else {})
        self.path = "chat"
        self.body = json.dumps(asked | self._how).encode()
        self.key = secrets.token_urlsafe(16)
        self.repeats = 0
        self._failed_run = ""

    @property
    def may_repeat(self) -> bool:
        return self.repeats < MAX_REPEATS

    def repeat(self, failed_run: str) -> None:
        """Ask again; how, ``prepare`` finds out."""
        self.repeats += 1
        if self.path == "chat":
            self._failed_run = failed_run

    async def prepare(self, link: Link, conversation_id: str | None) -> None:
        """To be called before each request. Raises ``ClientError``."""
        if not self._failed_run:
            return
        if conversation_id:
            answer = await link.answer_of(self._failed_run, conversation_id)
            if answer is not None:
                if answer.status not in ("running", "failed") or answer.tool_calls:
                    raise run_gone()  # it said or did something that we did not see
                self.path = f"conversations/{quote(conversation_id, safe='')}/regenerate"
                self.body = json.dumps(self._how | {"parent_message_id": answer.id}).encode()
        self._failed_run = ""
