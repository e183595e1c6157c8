"""What a start says of keys, and which it refuses: one line each."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.access.people import Guarded, Keyring
from tests.live.servers import Gateway
from tests.live.test_settings_refusals import refusal


def test_the_first_words_say_what_guards_it(guarded: Guarded, gateway: Gateway) -> None:
    assert str(guarded.ring.path) in guarded.gateway.find(r"^guard\s+(.*)")
    assert '"Authorization: Bearer $GATEWAY_API_KEY"' in guarded.gateway.find(r"^try\s+(.*)")
    assert guarded.ann.key not in guarded.gateway.output
    assert gateway.find(r"^guard\s+(.*)").startswith("no keys")
    assert "Authorization" not in gateway.find(r"^try\s+(.*)")


def missing(folder: Path) -> dict[str, str]:
    return {"GATEWAY_API_KEYS_FILE": str(folder / "none.json")}


def open_to_everybody(folder: Path) -> dict[str, str]:
    ring = Keyring(folder)
    ring.add()
    ring.path.chmod(0o644)
    return {"GATEWAY_API_KEYS_FILE": str(ring.path)}


def malformed(folder: Path) -> dict[str, str]:
    path = folder / "keys.json"
    path.touch(0o600)
    path.write_text("{")
    return {"GATEWAY_API_KEYS_FILE": str(path)}


def weak_secret(folder: Path) -> dict[str, str]:
    ring, secret = Keyring(folder), folder / "secret"
    ring.add()
    secret.touch(0o600)
    secret.write_text("change-me")
    return {
        "GATEWAY_API_KEYS_FILE": str(ring.path),
        "GATEWAY_SESSION_SECRET_FILE": str(secret),
    }


def no_public_key(folder: Path) -> dict[str, str]:
    return {
        "GATEWAY_JWT_PUBLIC_KEY_FILE": str(folder / "none.pem"),
        "GATEWAY_JWT_ISSUER": "https://identity.example",
        "GATEWAY_JWT_AUDIENCE": "gateway",
    }


@pytest.mark.parametrize(
    ("made", "variable"),
    [
        (missing, "GATEWAY_API_KEYS_FILE"),
        (open_to_everybody, "GATEWAY_API_KEYS_FILE"),
        (malformed, "GATEWAY_API_KEYS_FILE"),
        (weak_secret, "GATEWAY_SESSION_SECRET_FILE"),
        (no_public_key, "GATEWAY_JWT_PUBLIC_KEY_FILE"),
    ],
)
def test_what_does_not_guard_is_refused(
    tmp_path: Path, made: Callable[[Path], dict[str, str]], variable: str
) -> None:
    assert variable in refusal("python -m app", made(tmp_path), tmp_path)
