"""The caller's key: out of the environment or a file, never out of an argument, which everybody on
the machine can read in the process list. No message here ever holds it."""

import os
import re
from pathlib import Path

from app.client.link import ClientError

VARIABLE = "GATEWAY_API_KEY"
_LONGEST = 64 * 1024  # what is longer is another file
_KEY = re.compile(r"[!-~]+")  # what a header can carry; what is a key, the gateway knows


def find_key(file: str | None) -> str | None:
    """That in ``file``, else that in ``GATEWAY_API_KEY``; None: there is none, or it is empty.

    Raises ``ClientError``.
    """
    if file is None:
        key, place = os.environ.get(VARIABLE, "").strip(), VARIABLE
        if not key:
            return None
    else:
        key, place = _read(Path(file)), f"the key file {file}"
    if not _KEY.fullmatch(key):
        raise ClientError(f"{place} holds no key: it is one word of ASCII letters and signs")
    return key


def _read(path: Path) -> str:
    try:
        with path.open("rb") as opened:
            return opened.read(_LONGEST).decode("ascii").strip()
    except OSError as error:
        raise ClientError(f"the key file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        return ""
