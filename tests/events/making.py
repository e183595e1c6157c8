"""Records and events as runs make them, for tests of what stores and moves them."""

import secrets

from app.events.log import EventLog
from app.events.model import Done, Ending, Entry, Final, RunRecord, Start, Usage

USAGE = Usage(1, 2, 3, estimated=True)


def record(
    key: str | None = None,
    *,
    owner: str = "me",
    fingerprint: str = "same",
    grace_s: float | None = 5.0,
) -> RunRecord:
    return RunRecord(
        run_id=secrets.token_urlsafe(16),
        owner=owner,
        model="m",
        conversation_id="c" * 22,
        created_at=1.5,
        request_id="req",
        include=frozenset(),
        grace_s=grace_s,
        idempotency_key=key,
        fingerprint=fingerprint,
        answer_id=secrets.token_urlsafe(16),
    )


def start(run: RunRecord) -> Start:
    return Start(run.run_id, run.conversation_id, run.model, 10_000, run.request_id, 1000)


def final(text: str) -> Final:
    return Final(text, "stop", USAGE, "m")


def done(status: Ending = "completed", *, frees_key: bool = False) -> Done:
    return Done(status, USAGE, 2.5, frees_key)


async def read_to_end(log: EventLog, run_id: str, after: int = 0) -> list[Entry]:
    """All entries up to ``Done``. The caller bounds the wait."""
    reader, entries = log.read(run_id, after), list[Entry]()
    while not entries or type(entries[-1].event) is not Done:
        entries += await reader.read(60)
    return entries
