"""deploy/make_secrets.py, run as the service ``setup`` runs it."""

import os
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from dotenv import dotenv_values

from app.access.keys import KeysFile
from app.access.session_secret import session_secret
from app.environment import load
from app.errors import Unauthorized

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy/make_secrets.py"


class Setup:
    def __init__(self, home: Path) -> None:
        self.given, self.made = home / "given", home / "made"
        self.given.mkdir()
        for name in ("env", "certificate", "key"):
            (self.given / name).touch()
        self.made.mkdir()

    def run(self) -> str:
        """What it says; empty when all is well."""
        done = subprocess.run(
            [sys.executable, SCRIPT, self.given, self.made],
            check=False,
            timeout=60,
            capture_output=True,
            text=True,
        )
        assert (done.returncode == 0) == (not done.stderr), done
        return done.stdout + done.stderr

    def files(self) -> dict[str, str]:
        return {
            str(path.relative_to(self.made)): path.read_text()
            for path in self.made.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path)


def test_everything_is_made_for_its_group_and_nobody_else(setup: Setup) -> None:
    assert setup.run() == ""
    made = setup.files()

    assert set(made) == {
        "gateway/gateway.env",
        "gateway/session_secret",
        "keys/keys.json",
        "nginx/certificate.pem",
        "nginx/key.pem",
        "postgres/password",
        "postgres/superuser",
        "redis/password",
        "redis/redis.conf",
    }
    for name in made:
        assert stat.S_IMODE((setup.made / name).stat().st_mode) == 0o640
    names = ("postgres/password", "postgres/superuser", "redis/password", "gateway/session_secret")
    passwords = {made[name] for name in names}
    assert {len(password) for password in passwords} == {64}
    assert len(passwords) == len(names)


def test_a_second_start_changes_nothing(setup: Setup) -> None:
    setup.run()
    first = setup.files()
    assert setup.run() == ""
    assert setup.files() == first


def test_the_gateway_takes_what_was_made(setup: Setup) -> None:
    setup.run()
    env = dotenv_values(setup.made / "gateway/gateway.env")
    made = setup.files()

    settings = load({name: value or "" for name, value in env.items()})
    assert settings.redis_url == f"redis://:{made['redis/password']}@redis:6379/0"
    assert settings.database_url
    assert made["postgres/password"] in settings.database_url
    assert made["redis/redis.conf"] == f"requirepass {made['redis/password']}\n"


def test_the_gateway_takes_the_secret_and_the_keys_file_and_lets_nobody_in(setup: Setup) -> None:
    setup.run()
    secret, file = setup.made / "gateway/session_secret", setup.made / "keys/keys.json"
    settings = load({"GATEWAY_SESSION_SECRET_FILE": str(secret)})
    assert session_secret(settings) == secret.read_bytes()
    with pytest.raises(Unauthorized):
        KeysFile(file).check(f"gw_{'a' * 16}_{'b' * 43}")


def test_keys_outlive_the_next_start_and_their_file_stays_the_gateways(setup: Setup) -> None:
    setup.run()
    file = setup.made / "keys/keys.json"
    made = subprocess.run(
        [sys.executable, "-m", "app", "keys", "add", "ci"],
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "GATEWAY_API_KEYS_FILE": str(file)},
    )
    setup.run()
    assert KeysFile(file).check(made.stdout.strip()).id.startswith("key:")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_what_the_operator_gives_is_added_and_wins(setup: Setup) -> None:
    (setup.given / "env").write_text(
        "OPENAI_API_KEY=sk-given\nGATEWAY_DATABASE_URL=postgresql://me@elsewhere/chat\n"
    )
    setup.run()
    env = dotenv_values(setup.made / "gateway/gateway.env")

    assert env["OPENAI_API_KEY"] == "sk-given"
    assert env["GATEWAY_DATABASE_URL"] == "postgresql://me@elsewhere/chat"
    (setup.given / "env").write_text("")
    setup.run()
    assert "OPENAI_API_KEY" not in dotenv_values(setup.made / "gateway/gateway.env")


def test_the_certificate_fits_its_key(setup: Setup) -> None:
    setup.run()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(setup.made / "nginx/certificate.pem", setup.made / "nginx/key.pem")


def test_a_given_certificate_is_used_and_ones_own_comes_back_without_it(
    setup: Setup, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = Setup(tmp_path / "other")
    other.run()
    for name in ("certificate", "key"):
        # A comment before the first line is allowed (RFC 7468) and tells the two apart.
        pem = (other.made / f"nginx/{name}.pem").read_text()
        (setup.given / name).write_text(f"theirs\n{pem}")
    setup.run()
    assert setup.files()["nginx/key.pem"].startswith("theirs")

    (setup.given / "key").write_text("")
    assert "belong together" in setup.run()
    assert setup.files()["nginx/key.pem"].startswith("theirs")
