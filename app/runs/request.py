"""What a caller asks of a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from app.access.model import Limits
from app.events.model import Include
from app.llm.catalogue import ModelEntry


@dataclass(frozen=True, slots=True)
class Request:
    """``text`` None: answer a question of the conversation anew. ``conversation_id`` None: begin
    one. ``parent_message_id``: branch there, None: go on where it stands. ``tools``: their names.
    ``grace_s`` None: the run goes on without readers. ``fingerprint``: of the body, as parsed.
    ``limits``: the caller's."""

    text: str | None
    entry: ModelEntry
    include: frozenset[Include]
    grace_s: float | None
    fingerprint: str = ""
    idempotency_key: str | None = None
    conversation_id: str | None = None
    parent_message_id: str | None = None
    if_busy: Literal["reject", "interrupt"] = "reject"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
