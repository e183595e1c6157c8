"""docker-compose.yml, as far as it can be checked without a container engine: by Debian's
docker-compose, which reads it and starts nothing, and by what it then says."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.environment import load
from app.settings import Settings

ROOT = Path(__file__).parents[2]
# Where the operator names no file of theirs; here also in place of a developer's .env.
NOTHING = ROOT / "deploy/none"
RUNNING = ("gateway1", "gateway2", "nginx", "redis", "postgres")
OURS = ("setup", "keys")  # the gateway's image, for a moment
ALL = (*RUNNING, *OURS)


def read(environment: dict[str, str]) -> dict[str, Any]:
    """As docker-compose understands it, with that in the shell."""
    done = subprocess.run(
        ["docker-compose", "--env-file", NOTHING, "-f", ROOT / "docker-compose.yml", "config"],
        check=False,
        timeout=60,
        capture_output=True,
        text=True,
        cwd="/",
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", **environment},
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    understood: dict[str, Any] = yaml.safe_load(done.stdout)
    return understood


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return read({})


@pytest.fixture(params=ALL)
def service(request: pytest.FixtureRequest, compose: dict[str, Any]) -> dict[str, Any]:
    assert set(compose["services"]) == set(ALL)
    one: dict[str, Any] = compose["services"][request.param]
    return one


def mounts(service: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    """Path in the container: what is mounted there, and whether it can be written to."""
    found = {}
    for mount in service.get("volumes", ()):
        source, target, *mode = mount.split(":")
        found[target] = (source, mode != ["ro"])
    return found


def made(compose: dict[str, Any]) -> dict[str, str]:
    """What setup fills: folder and volume."""
    found = mounts(compose["services"]["setup"]).items()
    return {target.removeprefix("/made/"): volume for target, (volume, writes) in found if writes}


def test_every_service_is_confined(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert 0 < float(service["cpus"]) <= 1, "more than a small machine has is refused"
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert 0 < service["pids_limit"] <= 256
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert service["stop_grace_period"] == "40s"


def test_every_service_runs_as_nobody_special(service: dict[str, Any]) -> None:
    """Ours by the image's own USER, which tests/test_scaffold.py looks at."""
    if service["image"] == "sse-gateway:local":
        assert "user" not in service
    else:
        user, group = service["user"].split(":")
        assert int(user) > 0
        assert group == "10001", "the group that may read what setup made"


def test_every_image_has_a_version(service: dict[str, Any]) -> None:
    name, _, tag = service["image"].rpartition(":")
    assert name
    assert tag
    assert "latest" not in tag
    assert ("build" in service) == (service["image"] == "sse-gateway:local")
    if "build" not in service:
        assert re.match(r"\d+\.?\d*", tag)


@pytest.mark.parametrize("name", RUNNING)
def test_every_lasting_service_is_asked_how_it_is_and_started_again(
    compose: dict[str, Any], name: str
) -> None:
    service = compose["services"][name]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["interval"] == "5s"
    assert "test" in service["healthcheck"] or "build" in service, "else the image's own"
    for other, how in service["depends_on"].items():
        expected = "completed_successfully" if other == "setup" else "healthy"
        assert how == {"condition": f"service_{expected}"}
    assert "setup" in service["depends_on"]


def test_only_the_load_balancer_is_published_and_on_loopback_only(compose: dict[str, Any]) -> None:
    published = {name: one["ports"] for name, one in compose["services"].items() if "ports" in one}
    assert published == {"nginx": ["127.0.0.1:8000:8000/tcp", "127.0.0.1:8443:8443/tcp"]}


def test_the_load_balancer_reaches_no_database_and_databases_reach_nothing_outside(
    compose: dict[str, Any],
) -> None:
    networks = {name: set(one.get("networks", ())) for name, one in compose["services"].items()}
    assert networks.pop("nginx").isdisjoint(networks.pop("redis") | networks.pop("postgres"))
    assert compose["networks"]["back"]["internal"] is True
    for name in OURS:
        assert compose["services"][name]["network_mode"] == "none"
        assert networks.pop(name) == set()
    assert set(networks) == {"gateway1", "gateway2"}


def test_both_gateways_are_the_same_and_start_as_they_are(compose: dict[str, Any]) -> None:
    one, two = compose["services"]["gateway1"], compose["services"]["gateway2"]
    assert one == two
    settings = load({**one["environment"], "GATEWAY_HOST": "0.0.0.0"})
    assert not settings.is_open
    assert not settings.allow_anonymous
    assert settings.allowed_hosts == ("localhost", "127.0.0.1", "[::1]")
    assert settings.drain_seconds * 2 <= 40


def test_secrets_are_files_and_stand_in_no_environment(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for variable in service.get("environment", {}):
            assert not re.search("PASSWORD$|KEY|SECRET|_URL$", variable) or (
                variable == "OPENAI_BASE_URL" or variable.endswith("_FILE")
            ), f"{name}: {variable}"
        assert not re.search(r"requirepass|--pass", json.dumps(service.get("command", "")))
    assert {secret["file"] for secret in compose["secrets"].values()} == {str(NOTHING)}
    assert NOTHING.read_bytes() == b""


def test_what_the_operator_gives_goes_to_setup_alone(compose: dict[str, Any]) -> None:
    given = read({"ENV_FILE": "/a/env", "TLS_CERTIFICATE_FILE": "/a/pem", "TLS_KEY_FILE": "/a/key"})
    assert {name: secret["file"] for name, secret in given["secrets"].items()} == {
        "env": "/a/env",
        "certificate": "/a/pem",
        "key": "/a/key",
    }
    assert [name for name, one in compose["services"].items() if "secrets" in one] == ["setup"]


def test_each_service_sees_its_own_secrets_and_cannot_write_them(compose: dict[str, Any]) -> None:
    volumes = made(compose)
    assert set(volumes) == {"gateway", "keys", "nginx", "redis", "postgres"}
    keys = volumes.pop("keys")
    for name in RUNNING:
        seen = mounts(compose["services"][name])
        assert seen["/run/secrets"] == (volumes[name.rstrip("12")], False)
        others = set(volumes.values()) - {volumes[name.rstrip("12")]}
        assert not others & {source for source, _ in seen.values()}
        assert seen.get("/run/keys") == ((keys, False) if name.startswith("gateway") else None)


def test_keys_are_made_by_a_service_that_sees_nothing_else(compose: dict[str, Any]) -> None:
    service, gateway = compose["services"]["keys"], compose["services"]["gateway1"]
    folder = Path(gateway["environment"]["GATEWAY_API_KEYS_FILE"]).parent
    assert mounts(service) == {str(folder): (mounts(gateway)[str(folder)][0], True)}
    assert service["environment"] == {
        "GATEWAY_API_KEYS_FILE": gateway["environment"]["GATEWAY_API_KEYS_FILE"]
    }
    assert service["entrypoint"] == ["python", "-m", "app", "keys"]
    assert service["profiles"] == ["keys"], "else `up` would start it"
    assert service["depends_on"] == {"setup": {"condition": "service_completed_successfully"}}


def test_the_gateways_are_told_of_files_that_setup_makes(
    compose: dict[str, Any], tmp_path: Path
) -> None:
    script = str(ROOT / "deploy/make_secrets.py")
    subprocess.run([sys.executable, script, tmp_path / "given", tmp_path], check=True, timeout=60)
    folders = {volume: folder for folder, volume in made(compose).items()}
    gateway = compose["services"]["gateway1"]
    for variable in ("GATEWAY_API_KEYS_FILE", "GATEWAY_SESSION_SECRET_FILE"):
        path = Path(gateway["environment"][variable])
        volume, _ = mounts(gateway)[str(path.parent)]
        assert (tmp_path / folders[volume] / path.name).is_file()


def test_the_image_has_the_folders_that_setup_writes_to(compose: dict[str, Any]) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    for target, (_, writes) in mounts(compose["services"]["setup"]).items():
        if writes:
            assert re.search(rf"install -d -m 750 -o 10001 -g 10001 .*{target}\b", dockerfile)


def test_every_file_that_is_mounted_is_there(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for source, writes in mounts(service).values():
            if source.startswith("/"):
                assert not writes
                assert Path(source).exists()


def test_redis_refuses_when_full_and_keeps_nothing_on_disk(compose: dict[str, Any]) -> None:
    command = compose["services"]["redis"]["command"]
    options = dict(zip(command[2::2], command[3::2], strict=True))
    assert options == {
        "--maxmemory": "512mb",
        "--maxmemory-policy": "noeviction",
        "--save": "",
        "--appendonly": "no",
    }
    assert compose["services"]["redis"]["mem_limit"] == "768m"


def test_the_load_balancer_lets_as_large_bodies_through_as_a_gateway_takes() -> None:
    text = (ROOT / "deploy/nginx.conf").read_text()
    limit = re.search(r"client_max_body_size (\d+)m;", text)
    assert limit
    assert int(limit[1]) * 1024**2 == Settings.model_fields["max_body_bytes"].default
