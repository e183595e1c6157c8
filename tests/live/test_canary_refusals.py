"""What refuses to start says why, and commands say what went wrong, without a secret in it."""

import json
from pathlib import Path

from tests.access.identity_provider import AUDIENCE, ISSUER
from tests.live.canaries import Canaries
from tests.live.keyring import Keyring
from tests.live.servers import Process

END_S = 60


def test_neither_what_refuses_to_start_nor_the_commands_tell(tmp_path: Path) -> None:
    canaries = Canaries()
    ring = Keyring(tmp_path / "keys.json")
    key = canaries.know("key", ring.add("one"))
    (sha256,) = (each["sha256"] for each in json.loads(ring.file.read_text())["keys"])
    canaries.know("hash", sha256)
    bad = tmp_path / "bad"
    bad.mkdir()

    def put(name: str, text: str, mode: int = 0o600) -> str:
        path = bad / name
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    word = canaries("refused")
    tokens = {"GATEWAY_JWT_ISSUER": ISSUER, "GATEWAY_JWT_AUDIENCE": AUDIENCE}
    open_keys = put("open", ring.file.read_text(), 0o644)
    starts: list[dict[str, str]] = [
        {"GATEWAY_API_KEYS_FILE": put("text", f"{key} {word}")},
        {"GATEWAY_API_KEYS_FILE": put("json", json.dumps({"version": 1, "keys": [{"id": key}]}))},
        {"GATEWAY_API_KEYS_FILE": put("field", json.dumps({"version": 1, key: sha256}))},
        {"GATEWAY_API_KEYS_FILE": open_keys},
        {"GATEWAY_API_KEYS_FILE": str(ring.file), "GATEWAY_SESSION_SECRET_FILE": put("s", word)},
        {"GATEWAY_JWT_PUBLIC_KEY_FILE": put("pem", f"-----BEGIN {word}"), **tokens},
        {"GATEWAY_JWKS_URL": f"ftp://u:{word}@h/", **tokens},
        {"OPENAI_API_KEY": f"{word}\u00e9"},
        {"OPENAI_BASE_URL": f"ftp://u:{word}@h"},
        {"GATEWAY_REDIS_URL": f"redis://:{word}@h:port"},
        {"GATEWAY_DATABASE_URL": f"postgresql://u:{word}@h:port/d"},
        {"GATEWAY_DATABASE_URL": f"mysql://u:{word}@h/d"},
        {"GATEWAY_MODELS_FILE": put("models", f'[[models]]\nname = "m"\napi_key = "{word}"\n')},
        {"GATEWAY_MCP_FILE": put("mcp", f'{{"mcpServers": {{"m": {{"env": "{word}"}}}}}}')},
    ]
    wrong = f"{key[:-1]}{'A' if key[-1] != 'A' else 'B'}"
    commands: list[tuple[dict[str, str], list[str]]] = [
        *((start, []) for start in starts),
        ({}, ["keys", "list", "--file", str(ring.file)]),
        ({}, ["keys", "revoke", key, "--file", str(ring.file)]),
        ({}, ["keys", "rotate", wrong, "--file", str(ring.file)]),
        ({}, ["keys", "list", "--file", open_keys]),
        ({"GATEWAY_API_KEY": key}, ["chat", word, "--url", "http://127.0.0.1:1"]),
        ({"GATEWAY_API_KEY": f"{key} x"}, ["chat", word, "--url", "http://127.0.0.1:1"]),
        ({"GATEWAY_API_KEY": key}, ["chat", word, "--url", f"http://u:{word}@127.0.0.1:1"]),
    ]
    written = {}
    for settings, words in commands:
        command = Process("app", *words, env=settings, cwd=tmp_path)
        try:
            code = command.wait(END_S)
        finally:
            command.stop()
        named = f"{settings} {words}"
        written[named] = command.output
        assert command.output, named
        assert code != 0 or words[:2] == ["keys", "list"], (named, command.output)
        assert "Traceback" not in command.output, (named, command.output)
    assert not canaries.found_in(written), written
