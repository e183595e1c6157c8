"""Which failures of the database may pass: the same write may succeed later."""

from sqlalchemy.exc import DBAPIError, InterfaceError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

# The first byte of SQLite's codes (its "Result and Error Codes"), by name: locked by another, disk
# full or failing, file not to be read or written. A damaged file may be replaced by a whole one.
_SQLITE = {
    3: "SQLITE_PERM",
    5: "SQLITE_BUSY",
    6: "SQLITE_LOCKED",
    7: "SQLITE_NOMEM",
    8: "SQLITE_READONLY",
    9: "SQLITE_INTERRUPT",
    10: "SQLITE_IOERR",
    11: "SQLITE_CORRUPT",
    13: "SQLITE_FULL",
    14: "SQLITE_CANTOPEN",
    15: "SQLITE_PROTOCOL",
    26: "SQLITE_NOTADB",
}
# Classes of SQLSTATE (PostgreSQL, appendix A): connection, authorization, no such database,
# rolled back for another's sake, resources, lock not available, intervention, the system's own.
_POSTGRESQL = ("08", "28", "3D", "40", "53", "55", "57", "58", "25006")  # 25006: read-only
# Somebody took the tables away, and may bring them back. SQLite has no code of its own for that.
_MISSING = "its tables are missing"


def passing(error: BaseException) -> str | None:
    """What is the matter, in a word without addresses and texts; None for what never passes."""
    if isinstance(error, TimeoutError | NoConnectionFree):
        return "timeout"
    if isinstance(error, OSError):
        return type(error).__name__
    if not isinstance(error, DBAPIError) or error.orig is None:
        return None
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        is_missing = str(error.orig).startswith("no such table")
        return _MISSING if is_missing else _SQLITE.get(code & 0xFF)
    state: str | None = getattr(error.orig, "sqlstate", None)
    if state == "42P01":
        return _MISSING
    if state is not None:
        return f"SQLSTATE {state}" if state.startswith(_POSTGRESQL) else None
    # asyncpg's own, without a code from the server. Those that are ValueErrors blame an argument.
    is_lost = isinstance(error, InterfaceError) and not isinstance(error.orig.__cause__, ValueError)
    return "connection lost" if error.connection_invalidated or is_lost else None


def is_lost(error: BaseException) -> bool:
    """A connection that was kept turned out to be dead: the next one may work at once."""
    return isinstance(error, DBAPIError) and error.connection_invalidated


FAILURES = (SQLAlchemyError, OSError, TimeoutError)
