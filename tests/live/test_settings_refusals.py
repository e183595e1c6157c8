"""A gateway that cannot start as told says so in one line that names the variable."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.live.servers import PLAIN, ROOT, Process

WAYS = {"python -m app": ("app",), "uvicorn": ("uvicorn", "app.main:app", "--port", "0")}
SECRET = "sk-not-for-the-terminal"
END_S = 60  # an upper bound for a start on a busy machine; a refusal takes one second

# One of a kind; tests/test_settings.py has them all. Environment, variable that the line must name,
# and a word of what it takes.
REFUSED: list[tuple[dict[str, str], str, str]] = [
    ({"GATEWAY_PROT": "8000", "OPENAI_API_KEY": SECRET}, "GATEWAY_PROT", "setting"),
    ({"GATEWAY_PORT": "eight"}, "GATEWAY_PORT", "port"),
    ({"GATEWAY_HEARTBEAT_SECONDS": "nan"}, "GATEWAY_HEARTBEAT_SECONDS", "seconds above 0"),
    ({"GATEWAY_RECONNECT_GRACE_SECONDS": "601"}, "GATEWAY_RECONNECT_GRACE_SECONDS", "0 to 600"),
    ({"GATEWAY_ALLOW_ANONYMOUS": "perhaps"}, "GATEWAY_ALLOW_ANONYMOUS", "true or false"),
    ({"GATEWAY_CORS_ORIGINS": "*, https://a.example"}, "GATEWAY_CORS_ORIGINS", "* alone"),
    ({"GATEWAY_WORKERS": "2"}, "GATEWAY_WORKERS", "Redis"),
    ({"GATEWAY_REDIS_URL": f"http://:{SECRET}@h"}, "GATEWAY_REDIS_URL", "not an address of Redis"),
    ({"OPENAI_BASE_URL": f"localhost:{SECRET}"}, "OPENAI_BASE_URL", "http(s)"),
    ({"GATEWAY_HOST": "0.0.0.0"}, "GATEWAY_HOST", "GATEWAY_ALLOW_ANONYMOUS"),
    ({"GATEWAY_JWKS_URL": f"https://{SECRET}"}, "GATEWAY_JWT_ISSUER", "needed with tokens"),
    ({"GATEWAY_API_KEYS_FILE": "/nowhere"}, "GATEWAY_API_KEYS_FILE", "cannot be read"),
    ({"GATEWAY_TRACE_CONTENT": "true"}, "GATEWAY_TRACE_CONTENT", "not built yet"),
]
UNDER_UVICORN = [REFUSED[row] for row in (0, 2, 7, 9)]


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's own without what concerns a gateway."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GATEWAY_", "OPENAI_"))
    }
    return {**clean, "PYTHONPATH": str(ROOT), **settings}


def refusal(way: str, settings: Mapping[str, str], cwd: Path) -> str:
    """The one line that a start which fails leaves on the terminal."""
    ended = subprocess.run(
        [sys.executable, "-m", *WAYS[way]],
        env=environment(settings),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=END_S,
        check=False,
    )
    assert ended.returncode > 0, ended
    assert ended.stdout.count("\n") == 1, ended.stdout
    return ended.stdout


@pytest.mark.parametrize(("settings", "names", "says"), REFUSED, ids=lambda value: str(value))
def test_a_setting_that_cannot_be_stops_the_start_with_one_line(
    settings: dict[str, str], names: str, says: str, tmp_path: Path
) -> None:
    line = refusal("python -m app", settings, tmp_path)

    assert names in line
    assert says in line
    assert SECRET not in line


@pytest.mark.parametrize(("settings", "names", "says"), UNDER_UVICORN, ids=lambda value: str(value))
def test_a_bare_uvicorn_refuses_with_the_same_line(
    settings: dict[str, str], names: str, says: str, tmp_path: Path
) -> None:
    line = refusal("uvicorn", settings, tmp_path)

    assert names in line
    assert says in line
    assert SECRET not in line


def test_a_port_in_use_stops_the_start_with_one_line(tmp_path: Path) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refusal("python -m app", {"GATEWAY_PORT": str(port)}, tmp_path)

    assert "GATEWAY_PORT" in line
    assert str(port) in line


def test_an_address_that_is_not_ours_stops_the_start_with_one_line(tmp_path: Path) -> None:
    """192.0.2.1 is for documentation (RFC 5737): nobody has it."""
    settings = {"GATEWAY_HOST": "192.0.2.1", "GATEWAY_ALLOW_ANONYMOUS": "true"}
    line = refusal("python -m app", settings, tmp_path)

    assert "GATEWAY_HOST" in line


def test_a_dot_env_file_is_read_and_named_settings_are_refused_from_it_too(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("GATEWAY_PORT=eight\n")

    assert "GATEWAY_PORT" in refusal("python -m app", {}, tmp_path)


def started(settings: Mapping[str, str], cwd: Path, *arguments: str) -> Process:
    return Process(*(arguments or ("app",)), env={"GATEWAY_PORT": "0", **settings}, cwd=cwd)


def test_the_environment_wins_over_the_dot_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "# as .env.example has it\nGATEWAY_MODEL=from-the-file\nexport GATEWAY_DRAIN_SECONDS='0'\n"
        'GATEWAY_HEARTBEAT_SECONDS="7"\nGATEWAY_PORT=\nSOMETHING_ELSE=1\n'
    )
    gateway = started({"GATEWAY_MODEL": "from-the-environment"}, tmp_path)
    try:
        url = gateway.find(r"^page\s+(http://\S+?)/$")
        with httpx.Client(base_url=url, **PLAIN, timeout=30) as http:
            [model] = http.get("/models").json()["items"]
            answer = http.get("/chat", params={"text": "sim:tokens,n=1"}).text
    finally:
        gateway.stop()

    assert model["name"] == "from-the-environment"
    assert '"heartbeat_ms":7000' in answer


INJECTED = {
    "GATEWAY_SERVICE_HOST": "10.0.0.7",
    "GATEWAY_SERVICE_PORT": "8000",
    "GATEWAY_SERVICE_PORT_HTTP": "8000",
    "GATEWAY_PORT_8000_TCP": "tcp://10.0.0.7:8000",
    "GATEWAY_PORT_8000_TCP_ADDR": "10.0.0.7",
    "GATEWAY_PORT_8000_TCP_PORT": "8000",
    "GATEWAY_PORT_8000_TCP_PROTO": "tcp",
    "GATEWAY_PORT": "tcp://10.0.0.7:8000",
}


def test_what_a_cluster_injects_for_a_service_of_that_name_is_ignored(tmp_path: Path) -> None:
    """Under uvicorn, because ``GATEWAY_PORT`` is among it and 8000 may be taken here."""
    server = started(INJECTED, tmp_path, *WAYS["uvicorn"])
    try:
        url = server.find(r"running on (http://\S+)")
        assert httpx.get(f"{url}/health", **PLAIN).json() == {"status": "ok"}
    finally:
        server.stop()


def test_python_m_app_too_ignores_what_a_cluster_injects(tmp_path: Path) -> None:
    """It gets as far as the one thing that is wrong."""
    line = refusal("python -m app", {**INJECTED, "GATEWAY_MAX_RUNS": "0"}, tmp_path)

    assert "GATEWAY_MAX_RUNS" in line
