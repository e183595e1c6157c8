"""``GATEWAY_MCP_FILE``: which MCP servers there are, in the JSON that other clients use too::

    {"mcpServers": {
        "files": {"command": "npx", "args": ["-y", "some-server", "/data"], "env": {"LEVEL": "1"}},
        "search": {"url": "https://example.com/mcp", "headers": {"Authorization": "Bearer ${KEY}"}}
    }}

``${NAME}`` and ``${NAME:-default}`` stand for environment variables, in every text but the names.
What else such files hold is for other clients, and passed over.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from app.settings import SettingsError

NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")  # the first half of its tools' names, which have 64
_STDIO = {"stdio"}
_HTTP = {"http", "streamable-http", "streamable_http", "streamableHttp"}
# What httpx and h11 send: RFC 9110's token, and its field-value without obs-text.
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"(?:[!-~](?:[\t -~]*[!-~])?)?")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


class StdioServer(Struct, frozen=True):
    """A process of ours. ``env`` comes on top of a few harmless variables (``PATH``, ``HOME``)."""

    command: str
    args: tuple[str, ...]
    env: dict[str, str]
    cwd: str | None


class HttpServer(Struct, frozen=True):
    """Streamable HTTP."""

    url: str
    headers: dict[str, str]


Server = StdioServer | HttpServer


class _Entry(Struct):
    command: str | None = None
    args: list[str] = []
    env: dict[str, str] | None = None
    cwd: str | None = None
    url: str | None = None
    headers: dict[str, str] | None = None
    type: str | None = None
    transport: str | None = None
    disabled: bool = False


class _File(Struct):
    servers: dict[str, Any] = msgspec.field(name="mcpServers")


def load_mcp_file(path: Path, environ: Mapping[str, str]) -> dict[str, Server]:
    """The servers by name, without disabled ones. Raises ``SettingsError``."""
    try:
        raw = json.loads(path.read_bytes(), object_pairs_hook=_unique)
        entries = msgspec.convert(raw, _File).servers
    except OSError as error:
        raise _refused(f"{path} cannot be read: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise _refused(f"{path}, line {error.lineno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # msgspec's, too
        raise _refused(f'{path}: it takes {{"mcpServers": {{…}}}}: {error}') from None
    servers = {}
    for name, entry in entries.items():
        try:
            server = _server(name, _expanded(entry, environ))
        except ValueError as error:  # msgspec's, too
            raise _refused(f"{path}: server {name!r}: {error}") from None
        if server is not None:
            servers[name] = server
    return servers


def _server(name: str, raw: Any) -> Server | None:
    entry = msgspec.convert(raw, _Entry)
    if not NAME.fullmatch(name):
        raise ValueError("a name takes 1 to 32 of A-Z a-z 0-9 _ -")
    if entry.disabled:
        return None
    if (entry.command is None) == (entry.url is None):
        raise ValueError("it takes either a command or a url")
    kind = entry.type or entry.transport
    if kind is not None and kind not in (_STDIO if entry.url is None else _HTTP):
        raise ValueError(
            f"{kind!r} is not a transport: it takes stdio with a command, http with a url"
        )
    if entry.command is not None:
        _check_process(entry)
        return StdioServer(entry.command, tuple(entry.args), entry.env or {}, entry.cwd)
    url = entry.url or ""
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ValueError("its url is not an http(s) address")
    headers = entry.headers or {}
    for header, value in headers.items():
        if not (_HEADER.fullmatch(header) and _HEADER_VALUE.fullmatch(value)):
            raise ValueError(f"the header {header!r} takes a name and a value in printable ASCII")
    return HttpServer(url, headers)


def _check_process(entry: _Entry) -> None:
    env = entry.env or {}
    for key, texts in {
        "command": (entry.command or "",),
        "args": entry.args,
        "env": (*env, *env.values()),
        "cwd": (entry.cwd or "",),
    }.items():
        if any("\0" in text for text in texts):
            raise ValueError(f"{key} takes no NUL")
    if any("=" in name for name in env):
        raise ValueError("env takes no name with =")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two servers with one name, the first would silently be gone."""
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise ValueError(f"{key!r} stands twice")
        made[key] = value
    return made


def _expanded(value: Any, environ: Mapping[str, str]) -> Any:
    """``value`` with the variables in its texts. Raises ``ValueError`` for one that is not set."""

    def known(match: re.Match[str]) -> str:
        found = environ.get(match[1]) or match[2]
        if found is None:
            raise ValueError(f"the environment variable {match[1]} is not set")
        return found

    if isinstance(value, str):
        return _VARIABLE.sub(known, value)
    if isinstance(value, list):
        return [_expanded(item, environ) for item in value]
    if isinstance(value, dict):
        return {name: _expanded(item, environ) for name, item in value.items()}
    return value


def _refused(why: str) -> SettingsError:
    return SettingsError("GATEWAY_MCP_FILE: " + " ".join(why.split()))
