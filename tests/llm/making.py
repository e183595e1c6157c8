"""What a turn is made of, for tests of what asks models."""

from typing import Any

from app.conversations.model import Message, Role
from app.llm.catalogue import ModelEntry
from app.llm.turn import Prompt


def entry(name: str = "m", **more: Any) -> ModelEntry:
    """An entry whose clocks end no test."""
    values: dict[str, Any] = {
        "upstream_model": name,
        "base_url": None,
        "api_key": None,
        "connect_s": 10.0,
        "first_token_s": 60.0,
        "stall_s": 60.0,
    }
    return ModelEntry(name=name, **(values | more))


def message(text: str, role: Role = "user", **more: Any) -> Message:
    values: dict[str, Any] = {
        "id": f"id of {text[:20]}",
        "conversation_id": "c",
        "parent_id": None,
        "status": "completed",
        "created_at": 1.5,
        "run_id": "r",
    }
    return Message(role=role, text=text, **(values | more))


def prompt(text: str = "hi", **more: Any) -> Prompt:
    """One question, of nobody's conversation."""
    asked = more.pop("entry", None) or entry()
    return Prompt(asked, (message(text),), **more)
