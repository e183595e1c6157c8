"""Settings out of the environment, a ``.env`` file below it.

An unknown ``GATEWAY_*`` name, an impossible value and a known variable whose capability is not
built yet stop the start with one line (``SettingsError``), and so do settings that do not go
together. An empty value counts as unset, because that is what ``${VAR:-}`` of a compose file gives.
"""

import os
import re
from collections.abc import Iterator, Mapping

from pydantic import ValidationError

from app.settings import OPENAI, Settings, SettingsError, is_loopback

_PREFIX = "GATEWAY_"
# What a cluster injects for a service named "gateway" (Kubernetes, Docker links).
_INJECTED = re.compile(r"GATEWAY_(SERVICE_|PORT_).*")
_CLIENTS = frozenset({"GATEWAY_API_KEY"})  # what `python -m app chat` shows a gateway
NOT_BUILT = frozenset(
    {
        "GATEWAY_TRACE_CONTENT",
        "GATEWAY_MAX_DIALECT_BODY_BYTES",
    }
)


def load(environ: Mapping[str, str]) -> Settings:
    """Read settings out of ``environ``. Raises ``SettingsError`` with one line."""
    values: dict[str, str] = {}
    for name, value in environ.items():
        if _injected(name, value) or name in _CLIENTS:
            continue
        if name.startswith(_PREFIX) and name not in NOT_BUILT and not _is_known(name):
            raise SettingsError(f"{name} is not a setting of this gateway: see the README's table")
        if not value.strip():
            continue
        if name in NOT_BUILT:
            raise SettingsError(
                f"{name} is set, but what it switches on is not built yet: unset it"
            )
        if name.startswith(_PREFIX):
            values[name.removeprefix(_PREFIX).lower()] = value.strip()
        elif name in OPENAI:
            values[name.lower()] = value.strip()
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        field = str(error.errors()[0]["loc"][0])
        raise SettingsError(
            f"{variable(field)} is not possible as it is: "
            f"it takes {Settings.model_fields[field].description}"
        ) from None
    for why in _refusals(settings):
        raise SettingsError(why)
    return settings


def _refusals(settings: Settings) -> Iterator[str]:
    """What does not go together: what, why, and how to allow it if one must."""
    if settings.is_open and not is_loopback(settings.host) and not settings.allow_anonymous:
        yield (
            f"GATEWAY_HOST={settings.host} would let strangers in, because no keys guard this "
            "gateway: set GATEWAY_API_KEYS_FILE, or a loopback address, or "
            "GATEWAY_ALLOW_ANONYMOUS=true"
        )
    if settings.cors_origins == ("*",) and not settings.is_open:
        yield (
            "GATEWAY_CORS_ORIGINS=* lets every page use what keys and tokens guard: name the "
            "origins"
        )
    if settings.jwks_url is not None and settings.jwt_public_key_file is not None:
        yield "GATEWAY_JWKS_URL and GATEWAY_JWT_PUBLIC_KEY_FILE are two sources of keys: set one"
    if settings.takes_tokens and not (settings.jwt_issuer and settings.jwt_audience):
        yield (
            "GATEWAY_JWT_ISSUER and GATEWAY_JWT_AUDIENCE are needed with tokens: without them one "
            "that was made for another service would be taken here"
        )
    if not settings.takes_tokens and (settings.jwt_issuer or settings.jwt_audience):
        yield (
            "GATEWAY_JWT_ISSUER and GATEWAY_JWT_AUDIENCE check nothing without GATEWAY_JWKS_URL or "
            "GATEWAY_JWT_PUBLIC_KEY_FILE: set one of these"
        )
    if settings.workers > 1 and settings.redis_url is None:
        yield (
            f"GATEWAY_WORKERS={settings.workers} needs GATEWAY_REDIS_URL: without Redis one worker "
            "knows nothing of the runs of another"
        )


def environment() -> dict[str, str]:
    """The process's environment over the ``.env`` file of the working directory."""
    from dotenv import dotenv_values  # here, because only a start needs it

    try:
        file = {name: value or "" for name, value in dotenv_values(".env").items()}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f".env cannot be read: {error}") from None
    said = {name: value for name, value in os.environ.items() if value.strip() or name not in file}
    return {**file, **said}


def variable(field: str) -> str:
    """The environment variable of a field of ``Settings``."""
    return field.upper() if field.upper() in OPENAI else _PREFIX + field.upper()


def _is_known(name: str) -> bool:
    field = name.removeprefix(_PREFIX).lower()
    return field in Settings.model_fields and variable(field) == name


def _injected(name: str, value: str) -> bool:
    is_address = name == "GATEWAY_PORT" and value.startswith("tcp://")
    return is_address or bool(_INJECTED.fullmatch(name))
