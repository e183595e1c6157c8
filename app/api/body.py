"""What a caller may ask for: the body of ``POST /chat``, ``/stream-chat`` and ``/runs``, that of
``POST /conversations/{id}/regenerate``, and the query of ``GET /chat``, which is the first put into
an address."""

import hashlib
import json
import re
from collections.abc import Collection
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import parse_qsl

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.access.model import Caller
from app.api.deps import Gateway
from app.api.problems import invalid
from app.errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType
from app.events.model import Include
from app.llm.catalogue import ModelEntry
from app.llm.text import repaired
from app.llm.turn import estimated_tokens
from app.runs.request import Request as RunRequest
from app.settings import comma_separated

MAX_TEXT = 200_000  # characters
MAX_GRACE_S = 600
MAX_STOPS = 16  # OpenAI takes 4, others more
MAX_TOOLS = 128  # as OpenAI
_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_JSON = re.compile(r"application/(json|[a-z0-9.+-]+\+json)\s*(;.*)?", re.IGNORECASE)

Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
Id = Annotated[str, Field(max_length=200)]
Stop = Annotated[str, Field(min_length=1, max_length=1000)]
Tool = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]  # as OpenAI; a refusal repeats it


class AnswerBody(BaseModel):
    """How an answer is to be made. Unknown fields and lone surrogates are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )

    conversation_id: Id | None = Field(None, description="none: begin one")
    parent_message_id: Id | None = Field(
        None,
        description="branch there: behind an answer, or beside a question that was edited; "
        "to make an answer anew: which one",
    )
    if_busy: Literal["reject", "interrupt"] = "reject"
    model: Annotated[str, Field(pattern=r"^[!-~]{1,256}$")] | None = None
    tools: list[Tool] | None = Field(
        None, max_length=MAX_TOOLS, description="names; default: all that the model may use"
    )
    include: list[Include] = Field([], max_length=10)
    on_disconnect: Literal["cancel", "continue"] = "cancel"
    grace_seconds: float | None = Field(None, ge=0, le=MAX_GRACE_S)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    max_tokens: int | None = Field(None, ge=1, le=10_000_000)
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)

    @property
    def question(self) -> str | None:
        return None

    def request(self, parts: Gateway, caller: Caller, idempotency_key: str | None) -> RunRequest:
        """Raises ``InvalidRequest`` for a model or a tool that the gateway does not have, or not
        for this caller."""
        entry = self._entry(parts, caller)
        tools = parts.tools_of(entry)
        if self.tools is not None:
            if strange := set(self.tools).difference(tools):
                raise InvalidRequest(
                    f"tools: {', '.join(sorted(strange))}: {entry.name} has no such tool here"
                )
            tools = tuple(name for name in tools if name in self.tools)
        window = entry.context_window
        if window is not None and estimated_tokens(self.question or "") > window:
            raise InvalidRequest(f"text: {entry.name} takes {window} tokens")
        parameters = self.model_dump(
            include={"temperature", "top_p", "max_tokens", "stop", "seed"}, exclude_none=True
        )
        grace_s = self.grace_seconds
        if grace_s is None:
            grace_s = parts.settings.reconnect_grace_seconds
        return RunRequest(
            text=self.question,
            entry=entry,
            include=frozenset(self.include),
            grace_s=None if self.on_disconnect == "continue" else grace_s,
            fingerprint=self._fingerprint() if idempotency_key else "",  # nobody else asks for it
            idempotency_key=idempotency_key,
            conversation_id=self.conversation_id,
            parent_message_id=self.parent_message_id,
            if_busy=self.if_busy,
            parameters=parameters,
            tools=tools,
            limits=caller.limits,
        )

    def _entry(self, parts: Gateway, caller: Caller) -> ModelEntry:
        """A model that the caller may not use is as one that is not there. Its fallbacks are not
        the caller's choice."""
        if self.model is None:
            entry = parts.default_of(caller)
        else:
            entry = parts.catalogue.find(self.model) if caller.may_use(self.model) else None
        if entry is None:
            raise InvalidRequest("model: there is no model of that name: see GET /models")
        return entry

    def _fingerprint(self) -> str:
        """Of the body as parsed, with defaults, ``query`` as ``text``."""
        same = self.model_dump(exclude={"text", "query"}) | {"text": self.question}
        return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()


class ChatBody(AnswerBody):
    """Exactly one of ``text`` and ``query``."""

    text: Text | None = None
    query: Text | None = Field(None, description="the same as text")

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        if (self.text is None) == (self.query is None):
            raise ValueError("exactly one of text and query is needed")
        if self.parent_message_id is not None and self.conversation_id is None:
            raise ValueError("parent_message_id needs a conversation_id")
        return self

    @property
    def question(self) -> str:
        return self.text or self.query or ""


Body = TypeVar("Body", bound=BaseModel)


async def json_body(request: Request, kind: type[Body], max_bytes: int) -> Body:
    """Raises ``UnsupportedMediaType``, ``PayloadTooLarge``, ``InvalidRequest``."""
    if not _JSON.fullmatch(request.headers.get("content-type", "").strip()):
        raise UnsupportedMediaType
    if int(request.headers.get("content-length", 0)) > max_bytes:  # the server checked the digits
        raise PayloadTooLarge
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > max_bytes:
            raise PayloadTooLarge
    try:
        body = kind.model_validate_json(bytes(raw), strict=True)
    except ValidationError as error:
        raise invalid(error) from None
    json.loads(raw.decode(), object_pairs_hook=_refuse_doubles)  # pydantic takes the last one
    return body


def _refuse_doubles(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise InvalidRequest("a field stands twice in the body")


# The query of GET /chat. Unknown fields are ignored there, as links carry tracking marks.
QUERY_FIELDS = (
    "text",
    "conversation_id",
    "model",
    "idempotency_key",
    "include",
    "grace_seconds",
    "on_disconnect",
)


def chat_query(request: Request) -> tuple[ChatBody, str | None]:
    """The body that a query stands for, and its idempotency key. Raises ``InvalidRequest``."""
    known = query(request, QUERY_FIELDS)
    key = known.pop("idempotency_key", None)
    fields: dict[str, Any] = {**known, "include": list(comma_separated(known.get("include", "")))}
    try:
        return ChatBody.model_validate(fields), key
    except ValidationError as error:
        raise invalid(error) from None


def query(request: Request, known: Collection[str]) -> dict[str, str]:
    """The known fields of the query; others are ignored. Refused: invalid UTF-8, and a field that
    stands twice with two values (``include`` adds up)."""
    raw: bytes = request.scope["query_string"]
    fields: dict[str, str] = {}
    for name, value in parse_qsl(
        raw.decode("latin-1"), keep_blank_values=True, errors="surrogateescape"
    ):
        if name not in known:
            continue
        if repaired(value) != value:
            raise InvalidRequest(f"{name} is not valid UTF-8")
        if name == "include" and name in fields:
            fields[name] += f",{value}"
        elif fields.setdefault(name, value) != value:
            raise InvalidRequest(f"{name} stands twice in the query")
    return fields


def idempotency_key(value: str | None) -> str | None:
    """Raises ``InvalidRequest`` unless it is 1 to 255 printable ASCII characters."""
    if value is not None and not _KEY.fullmatch(value):
        raise InvalidRequest("Idempotency-Key takes 1 to 255 printable ASCII characters")
    return value
