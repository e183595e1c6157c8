"""``python -m app keys`` as scripts use it, several at once, and killed."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.access.keys import KeysFile
from app.access.keys_edit import read_keys
from tests.access.key_files import KEY, accepts, entry, write
from tests.live.servers import ROOT

WAIT_S = 60
ADD_20 = """
import sys
from app.access.keys_command import run
print("ready", file=sys.stderr, flush=True)
input()
for number in range(20):
    if run(["add", f"{sys.argv[1]} {number}", "--file", "keys.json"]):
        sys.exit(1)
"""
KILLED = """
import os, signal, sys
from app.access.keys_command import run
setattr(os, sys.argv[1], lambda *_: os.kill(os.getpid(), signal.SIGKILL))
run(["add", "never", "--file", "keys.json"])
"""


@pytest.fixture
def environment() -> dict[str, str]:
    own = {name: each for name, each in os.environ.items() if not name.startswith("GATEWAY_")}
    return {**own, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}


def keys(
    cwd: Path, environment: dict[str, str], *words: str, stdout: int = subprocess.PIPE
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "app", "keys", *words],
        cwd=cwd,
        env=environment,
        timeout=WAIT_S,
        check=False,
        stdout=stdout,
        stderr=subprocess.PIPE,
    )


def test_a_script_gets_the_key_alone_and_a_person_the_words(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    environment |= {"GATEWAY_API_KEYS_FILE": "keys.json", "PYTHONIOENCODING": "ascii"}
    made = keys(tmp_path, environment, "add", "Zoë")
    assert made.returncode == 0
    assert re.fullmatch(rb"gw_[a-z0-9]{16}_[A-Za-z0-9_-]{43}\n", made.stdout)
    assert b"added to keys.json; the key is shown only now" in made.stderr
    assert accepts(KeysFile(tmp_path / "keys.json"), made.stdout.decode().strip())
    listed = keys(tmp_path, environment, "list")
    assert (listed.returncode, listed.stderr) == (0, b"")
    assert b"Zo\\xeb" in listed.stdout


def test_a_key_that_nobody_saw_is_told(tmp_path: Path, environment: dict[str, str]) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        made = keys(tmp_path, environment, "add", "ci", "--file", "keys.json", stdout=full)
    finally:
        os.close(full)
    assert made.returncode == 1
    (key,) = read_keys(tmp_path / "keys.json")
    last = made.stderr.decode().splitlines()[-1]
    assert last.startswith("gateway: stdout cannot be written: No space left on device")
    assert last.endswith(f"rotate {key.id}")


def test_two_processes_that_add_at_once_lose_nothing(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    adding = [
        subprocess.Popen(
            [sys.executable, "-c", ADD_20, name],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b")
    ]
    try:
        for process in adding:
            assert process.stderr is not None
            assert process.stderr.readline() == "ready\n"
        for process in adding:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        made = [key for each in adding for key in each.communicate(timeout=WAIT_S)[0].split()]
        assert [process.returncode for process in adding] == [0, 0]
    finally:
        for process in adding:
            process.kill()
            process.communicate()
    file = KeysFile(tmp_path / "keys.json")
    assert len(set(made)) == 40
    assert all(accepts(file, key) for key in made)
    assert len(read_keys(tmp_path / "keys.json")) == 40


@pytest.mark.parametrize("step", ["fsync", "fchmod", "replace"])
def test_a_process_that_is_killed_while_it_writes_leaves_the_old_file(
    tmp_path: Path, environment: dict[str, str], step: str
) -> None:
    file = write(tmp_path / "keys.json", entry())
    before = file.read_bytes()
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, step],
        cwd=tmp_path,
        env=environment,
        timeout=WAIT_S,
        check=False,
        capture_output=True,
    )
    assert (killed.returncode, killed.stdout) == (-signal.SIGKILL, b"")
    assert file.read_bytes() == before
    made = keys(tmp_path, environment, "add", "ci", "--file", "keys.json")
    assert accepts(KeysFile(file), made.stdout.decode().strip())
    assert accepts(KeysFile(file), KEY)
    assert {each.name for each in tmp_path.iterdir()} == {"keys.json", ".keys.json.lock"}
