"""Where conversations are kept, as SQLAlchemy writes it; checked before its slow import."""

import os
import re
import tempfile
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from app.settings import Settings, SettingsError

_POSTGRESQL = {"postgres", "postgresql", "postgresql+asyncpg"}
_SQLITE = {"sqlite", "sqlite+aiosqlite"}
# libpq's name for TLS, which every provider's address has, and asyncpg's for the same values.
_OPTIONS = {"sslmode": "ssl", "ssl": "ssl", "host": "host", "port": "port"}
_TLS = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_FILE = "gateway.db"


def database_url(settings: Settings) -> str:
    """``settings.database_url`` for our drivers; without one, a file in ``settings.data_dir``.

    Makes the file's directory where it is missing, for us alone. Raises ``SettingsError``; never
    shows the address, which may hold a password.
    """
    if settings.database_url is None:
        return _sqlite(settings.data_dir / _FILE, "GATEWAY_DATA_DIR", "a directory")
    scheme, _, rest = settings.database_url.partition("://")
    if scheme in _SQLITE and re.fullmatch(r"/(?!:memory:$)[^?]+", rest) and "%00" not in rest:
        return _sqlite(Path(unquote(rest[1:])), "GATEWAY_DATABASE_URL", "sqlite:///path, a path")
    if scheme in _POSTGRESQL:
        return "postgresql+asyncpg://" + _postgresql(rest)
    raise _impossible()


def _sqlite(path: Path, variable: str, what: str) -> str:
    """What is written next to the file: its log, and the locks of those who use it."""
    path = path.absolute()
    takes = SettingsError(f"{variable} takes {what} that the gateway may write to")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError:
        raise takes from None
    if path.exists() and not (path.is_file() and os.access(path, os.R_OK | os.W_OK)):
        raise takes
    return f"sqlite+aiosqlite:///{quote(str(path))}"


def _postgresql(rest: str) -> str:
    try:
        parts = urlsplit(f"//{rest}")
        options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        _ = parts.port  # raises ValueError for one that is none
    except ValueError:
        raise _impossible() from None
    if not ((parts.hostname or "host" in options) and parts.path.strip("/") and not parts.fragment):
        raise _impossible()
    if unknown := sorted(options.keys() - _OPTIONS.keys()):
        raise SettingsError(
            f"GATEWAY_DATABASE_URL takes no option {unknown[0]!r}: only {', '.join(_OPTIONS)}"
        )
    for name, value in options.items():
        if _OPTIONS[name] == "ssl" and value not in _TLS:
            raise SettingsError(f"GATEWAY_DATABASE_URL takes for {name} one of {', '.join(_TLS)}")
    query = urlencode({_OPTIONS[name]: value for name, value in options.items()})
    return f"{parts.netloc}{parts.path}" + (f"?{query}" if query else "")


def _impossible() -> SettingsError:
    return SettingsError(
        "GATEWAY_DATABASE_URL is not possible as it is: "
        f"it takes {Settings.model_fields['database_url'].description}"
    )
