"""Every setting, with unit, default and reason; ``app.environment`` reads them."""

import ipaddress
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

SIMULATOR = "simulator"
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#@,*]+")  # RFC 6454 section 6.1
_HOST = r"[\w.-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?|\*"
OPENAI = ("OPENAI_API_KEY", "OPENAI_BASE_URL")


class SettingsError(Exception):
    """The gateway cannot start like this; the text is one line for the person who starts it."""


def comma_separated(value: str) -> tuple[str, ...]:
    return tuple(part for part in (piece.strip() for piece in value.split(",")) if part)


Names = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: comma_separated(value) if isinstance(value, str) else value),
]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


@lru_cache(64)  # each request asks, always of the same few
def is_loopback(host: str) -> bool:
    """True for ``localhost`` and for addresses of 127.0.0.0/8 and ::1 (RFC 1122, RFC 4291)."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Settings(BaseModel):
    """``description`` says what a variable takes; the README's table is tested against it."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    openai_api_key: str | None = Field(
        None,
        pattern=r"^[!-~]+$",
        repr=False,
        description="the key of the model's server, in printable ASCII",
    )
    openai_base_url: str | None = Field(
        None, description="an http(s) address of an OpenAI-compatible server"
    )
    model: str = Field("gpt-4o-mini", pattern=r"^[!-~]{1,256}$", description="the name of a model")
    host: str = Field("127.0.0.1", pattern=r"^[\w.:%-]+$", description="an address to listen on")
    port: int = Field(
        8000, ge=0, le=65_535, description="a TCP port from 0 (any free one) to 65535"
    )
    workers: int = Field(
        1, ge=1, le=256, description="a whole number of processes from 1; more than 1 need Redis"
    )
    allow_anonymous: bool = Field(
        False, description="true or false: an open gateway on another address than loopback"
    )
    allowed_hosts: Names = Field(
        (), description="Host names, comma separated; default: loopback names on loopback, else any"
    )
    trusted_proxies: Names = Field(
        (), description="addresses or networks whose X-Forwarded-* count, comma separated"
    )
    cors_origins: Names = Field((), description="exact origins, comma separated, or * alone")

    api_keys_file: Path | None = Field(
        None, description="a file of hashed keys, as python -m app keys writes it"
    )
    jwks_url: str | None = Field(
        None, description="the https address of an identity provider's keys (JWKS, RFC 7517)"
    )
    jwt_public_key_file: Path | None = Field(None, description="a file with a PEM public key")
    jwt_issuer: str | None = Field(
        None, pattern=r"^[!-~]+$", description="iss of the tokens to accept (RFC 7519)"
    )
    jwt_audience: str | None = Field(
        None, pattern=r"^[!-~]+$", description="aud of the tokens to accept (RFC 7519)"
    )
    session_secret_file: Path | None = Field(
        None, description="a file with 32 bytes or more that nobody else can read"
    )
    # Of each key, token's subject or, where a key says nothing of its own. None on an open gateway.
    rate_limit: str | None = Field(
        None,
        pattern=r"^[1-9]\d{0,8}/([1-9]\d{0,3})?(second|minute|hour|day)$",
        description="requests in a window, such as 120/minute or 1000/2hour",
    )
    max_runs_per_caller: int | None = Field(
        None, ge=1, description="a whole number of runs at once from 1"
    )
    tokens_per_day: int | None = Field(None, ge=1, description="a whole number of tokens from 1")

    models_file: Path | None = Field(None, description="a TOML file that names models")
    tools: Names = Field(
        (), description="langchain-core tools as package.module:name, comma separated"
    )
    mcp_file: Path | None = Field(
        None, description="a JSON file of MCP servers, as other clients have it: mcpServers"
    )
    # Where conversations and whatever else outlives the process is kept.
    data_dir: Path = Field(Path("data"), description="a directory that the gateway may write to")
    database_url: str | None = Field(
        None,
        repr=False,
        description="postgresql://user:password@host/database, or sqlite:///path",
    )
    redis_url: str | None = Field(
        None,
        repr=False,
        description="redis://, rediss:// or unix:// address; ?prefix= sets the names of its keys",
    )
    upstream_reader: str = Field(
        "lean", pattern="^(lean|langchain)$", description="lean or langchain"
    )

    # Silence after which a comment line is sent. Below the 60 s of nginx, ALB and Heroku's 55 s.
    heartbeat_seconds: Seconds = Field(10, description="seconds above 0")
    # How long a run lives on after its last reader left: one reconnect of EventSource.
    reconnect_grace_seconds: float = Field(
        5, ge=0, le=600, allow_inf_nan=False, description="seconds from 0 to 600"
    )
    connect_timeout_seconds: Seconds = Field(10, description="seconds above 0")
    # Long, because reasoning models think before they speak.
    first_token_timeout_seconds: Seconds = Field(120, description="seconds above 0")
    stall_timeout_seconds: Seconds = Field(60, description="seconds above 0")
    run_timeout_seconds: Seconds = Field(900, description="seconds above 0")

    # A model that calls tools for ever costs for ever.
    max_iterations: int = Field(8, ge=1, le=1000, description="a whole number of turns from 1")
    # With the question. Ten questions with their answers.
    history_messages: int = Field(
        20, ge=1, le=10_000, description="a whole number of messages from 1"
    )
    max_runs: int = Field(5_000, ge=1, description="a whole number of runs from 1")
    max_readers: int = Field(20_000, ge=1, description="a whole number of readers from 1")
    max_body_bytes: Annotated[ByteSize, Field(ge=1024, le=1024**3)] = Field(
        ByteSize(4 * 1024**2),
        description="bytes from 1024 to 1GiB (a body is parsed in memory), such as 4MiB",
    )
    # Below the 10 MiB that AG-UI's client takes in one frame: final repeats the whole text.
    max_answer_bytes: Annotated[ByteSize, Field(ge=1)] = Field(
        ByteSize(8 * 1024**2), description="bytes from 1, such as 8MiB"
    )
    log_memory_bytes: Annotated[ByteSize, Field(ge=64 * 1024)] = Field(
        ByteSize(512 * 1024**2), description="bytes from 65536, such as 512MiB"
    )
    run_retention_seconds: Seconds = Field(900, description="seconds above 0")
    # Below the 30 s after which Kubernetes and the 40 s after which our compose file kill.
    drain_seconds: float = Field(
        20, ge=0, le=3600, allow_inf_nan=False, description="seconds from 0 to 3600"
    )

    @property
    def uses_simulator(self) -> bool:
        """Nobody said which model to ask, so the built-in simulator answers."""
        return self.openai_api_key is None and self.openai_base_url is None

    @property
    def takes_tokens(self) -> bool:
        return self.jwks_url is not None or self.jwt_public_key_file is not None

    @property
    def is_open(self) -> bool:
        """Nobody needs a key."""
        return self.api_keys_file is None and not self.takes_tokens

    @field_validator("openai_base_url")
    @classmethod
    def _http_address(cls, value: str | None) -> str | None:
        if value is not None:
            if not re.fullmatch(
                r"https?://[\w\[][\w:@%\[\]-]*(\.[\w:@%\[\]-]+)*(/[!-~]*)?", value, re.A
            ):
                raise ValueError("not an http(s) address")
            _ = urlsplit(value).port  # raises ValueError for one that is none
        return value

    @field_validator("cors_origins")
    @classmethod
    def _exact_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not (_ORIGIN.fullmatch(origin) or value == ("*",)):
                raise ValueError("not an exact origin")
            _ = urlsplit(origin).port  # raises ValueError for one that is none
        return tuple(origin.lower() for origin in value)

    @field_validator("allowed_hosts")
    @classmethod
    def _without_ports(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if not re.fullmatch(_HOST, host):
                raise ValueError("not a host name")
        return tuple(re.sub(r":\d+$", "", host.lower()) for host in value)

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in value:
            ipaddress.ip_network(proxy, strict=False)
        return value

    @model_validator(mode="before")
    @classmethod
    def _default_model(cls, values: dict[str, Any]) -> dict[str, Any]:
        if not any(values.get(name.lower()) for name in OPENAI):
            return {"model": SIMULATOR, **values}
        return values
