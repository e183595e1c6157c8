"""What the gateway runs with: the settings and the files and tools that they name, all checked."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from app.conversations.url import database_url
from app.environment import environment, load
from app.llm.catalogue import Catalogue, load_catalogue
from app.llm.mcp_file import Server, load_mcp_file
from app.llm.models_file import ModelsFile
from app.llm.toolbox import Toolbox
from app.settings import Settings, SettingsError

if TYPE_CHECKING:
    from app.access.keys import KeysFile
    from app.access.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Credentials:
    """What callers show. ``session_secret``: signs their sessions' cookies."""

    keys: "KeysFile | None"
    tokens: "Tokens | None"
    session_secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Configuration:
    """``database_url`` is SQLAlchemy's. ``credentials``: None on an open gateway."""

    settings: Settings
    catalogue: Catalogue
    toolbox: Toolbox
    mcp_servers: Mapping[str, Server]
    database_url: str
    credentials: Credentials | None

    @property
    def uses_simulator(self) -> bool:
        """The built-in one answers for some model."""
        return any(entry.is_simulator for entry in self.catalogue)


def configuration(environ: Mapping[str, str]) -> Configuration:
    """Raises ``SettingsError``. LangChain is imported only where tools or a runnable ask for it."""
    settings = load(environ)
    catalogue = load_catalogue(settings, environ)
    servers = load_mcp_file(settings.mcp_file, environ) if settings.mcp_file else {}
    if settings.tools or any(entry.runnable for entry in catalogue):
        here = str(Path.cwd())
        if here not in sys.path:  # `python -m` puts it there, a server's own command may not
            sys.path.append(here)
    toolbox = Toolbox()
    if settings.tools:
        from app.llm.tool_loading import load_tools

        toolbox = Toolbox(load_tools(settings.tools))
    if settings.models_file is not None:
        _check_models(settings.models_file, catalogue, toolbox, servers)
    if settings.redis_url is not None and (wrong := _wrong_with_redis(settings.redis_url)):
        raise SettingsError(f"GATEWAY_REDIS_URL is not possible as it is: {wrong}")
    return Configuration(
        settings, catalogue, toolbox, servers, database_url(settings), _credentials(settings)
    )


def configuration_from_environment() -> Configuration:
    """Raises ``SettingsError``."""
    return configuration(environment())


def _credentials(settings: Settings) -> Credentials | None:
    """Raises ``SettingsError``. PyJWT is imported only where there are tokens: it takes 0.2 s."""
    if settings.is_open:
        return None
    from app.access.gate import default_limits
    from app.access.keys import KeysFile
    from app.access.session_secret import session_secret

    keys = tokens = None
    if settings.api_keys_file is not None:
        try:
            keys = KeysFile(settings.api_keys_file)
        except SettingsError as error:
            raise SettingsError(f"GATEWAY_API_KEYS_FILE: {error}") from None
    if settings.takes_tokens:
        from app.access.tokens import Tokens

        tokens = Tokens(settings, default_limits(settings))
    return Credentials(keys, tokens, session_secret(settings))


def _check_models(
    path: Path, catalogue: Catalogue, toolbox: Toolbox, servers: Mapping[str, Server]
) -> None:
    """The tools and runnables that a models file names. Raises ``SettingsError``."""
    for number, entry in enumerate(catalogue):
        if entry.runnable is not None and (wrong := _wrong_with_runnable(entry.runnable)):
            raise ModelsFile(path).refused(number, "runnable", wrong)
        for name in entry.tools or ():
            # What an MCP server will offer is not known yet; its tools begin with its name.
            is_served = any(name.startswith(f"{server}_") for server in servers)
            if not is_served and not toolbox.has(name):
                raise ModelsFile(path).refused(
                    number,
                    "tools",
                    f"takes tools that GATEWAY_TOOLS and GATEWAY_MCP_FILE name, and {name} is none",
                )


def _wrong_with_runnable(where: str) -> str | None:
    from app.llm.runnable import load_runnable

    try:
        load_runnable(where)
    except SettingsError as error:
        return f"takes a LangChain Runnable: {error}"
    return None


def _wrong_with_redis(url: str) -> str | None:
    from app.events.redis_wire import Address

    try:
        Address(url)
    except ValueError as error:
        return str(error)
    return None
