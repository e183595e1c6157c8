"""What the code below LangChain tells about one request upstream, past LangChain."""

from contextvars import ContextVar


class Attempt:
    """``head_seen``: the upstream answered with a 200, so a break after it is the answer's."""

    head_seen = False


ATTEMPT: ContextVar[Attempt] = ContextVar("ATTEMPT")


def note_head() -> None:
    if attempt := ATTEMPT.get(None):
        attempt.head_seen = True
