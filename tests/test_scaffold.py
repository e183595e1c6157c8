"""What the files around the code promise: locks, image, nothing of one developer's machine."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RUN_LOCK, DEV_LOCK = LOCKS = (ROOT / "requirements.lock", ROOT / "requirements-dev.lock")


def requirements(lock: Path) -> dict[str, str]:
    """Name and marker of each requirement, with the rest of its logical line."""
    text = re.sub(r"^\s*#.*\n", "", lock.read_text(), flags=re.MULTILINE).replace("\\\n", "")
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition("==")
        found[name] = rest
    return found


def dockerfile() -> list[tuple[str, str]]:
    """(instruction, arguments) in order, comments gone and continued lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = (line.partition(" ") for line in text.replace("\\\n", "").splitlines() if line)
    return [(instruction, rest.strip()) for instruction, _, rest in lines]


def last_stage() -> dict[str, str]:
    """The image's own instructions; of repeated ones the last, which is the one that counts."""
    steps = dockerfile()
    start = max(at for at, (instruction, _) in enumerate(steps) if instruction == "FROM")
    return dict(steps[start:])


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_requirement_is_pinned_exactly_and_by_hash(lock: Path) -> None:
    pinned = requirements(lock)
    assert pinned
    for name, rest in pinned.items():
        assert re.fullmatch(r"[a-z0-9-]+", name), f"{name!r} is not NAME==VERSION"
        pattern = r"[0-9][0-9a-z.+!]*(?: ; .+?)?(?:\s+--hash=sha256:[0-9a-f]{64})+"
        assert re.fullmatch(pattern, rest), f"{name} has no exact version or no hash"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_names_no_place_to_download_from(lock: Path) -> None:
    assert not re.search(r"https?:|file:| @ |--(?!hash=)", lock.read_text())


def test_what_is_tested_is_what_runs() -> None:
    def files(lock: Path) -> dict[str, str]:
        """Without markers: what tests need on more platforms has a wider one there."""
        return {
            name: re.sub(r" ; .*?(?=\s+--)", "", rest) for name, rest in requirements(lock).items()
        }

    run, dev = files(RUN_LOCK), files(DEV_LOCK)
    assert {name: dev.get(name) for name in run} == run


def test_the_image_installs_by_hash_and_names_no_registry() -> None:
    steps = dockerfile()
    assert any("--require-hashes -r requirements.lock" in rest for _, rest in steps)
    for base in [rest for instruction, rest in steps if instruction == "FROM"]:
        assert re.fullmatch(r"python:3\.\d+-slim(?: AS \w+)?", base)


def test_the_image_runs_as_nobody_special_and_stops_when_told() -> None:
    image = last_stage()
    user, group = image["USER"].split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert image["STOPSIGNAL"] == "SIGTERM"
    # The exec form: with a shell in between, the signal would never reach the gateway.
    assert json.loads(image["CMD"]) == ["python", "-m", "app"]
    assert image["EXPOSE"] == "8000"
    assert "GATEWAY_HOST=0.0.0.0" in image["ENV"].split()


def test_the_image_asks_its_own_health_in_valid_python() -> None:
    command = json.loads(last_stage()["HEALTHCHECK"].partition("CMD ")[2])
    assert command[:2] == ["python", "-c"]
    compile(command[2], "HEALTHCHECK", "exec")
    assert "/health" in command[2]


def test_the_build_context_is_only_what_the_image_needs() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    kept = {line[1:].rstrip("/") for line in ignored if line.startswith("!")}
    copied = [rest.split()[0] for step, rest in dockerfile() if step == "COPY" and "--" not in rest]
    assert kept == {source.rstrip("/") for source in copied}


def test_conversations_outlive_the_container() -> None:
    folder = dict(pair.split("=") for pair in last_stage()["ENV"].split())["GATEWAY_DATA_DIR"]
    assert last_stage()["VOLUME"] == folder
    user, group = last_stage()["USER"].split(":")
    assert f"install -d -m 700 -o {user} -g {group} {folder} " in last_stage()["RUN"]


def our_files() -> Iterator[Path]:
    """Every file but those that .gitignore keeps out. Asks no git: a tarball has none."""
    made_here = {".git", ".venv", ".bench", "data", "node_modules", "__pycache__", ".hypothesis"}
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in made_here and "_cache" not in name]
        yield from (Path(folder, name) for name in names if name not in {".env", ".git"})


def test_no_file_holds_a_path_of_the_machine_it_was_written_on() -> None:
    # In pieces, so that this file does not find itself.
    paths = [f"/{name}/".encode() for name in ("root", "work", "tmp/v", "opt/wheels")]
    guilty = [
        (str(file.relative_to(ROOT)), path.decode())
        for file in our_files()
        for path in paths
        if re.search(rb"(?<![\w.$}])" + re.escape(path), file.read_bytes())
    ]
    assert guilty == []
