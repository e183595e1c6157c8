"""``python -m app keys`` where its output, or its file, leads nowhere."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.access.keys import KeysFile
from tests.access.key_files import ID, NOW, accepts, entry, write


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "keys.json", entry())


def keys(redirection: str, path: Path, *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command in a shell."""
    command = [sys.executable, "-m", "app", "keys", *words, "--file", str(path)]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("words", [["add", "q"], ["rotate", ID], ["list"]])
def test_no_key_is_made_that_nobody_could_see(path: Path, words: list[str]) -> None:
    before = path.read_bytes()
    told = "gateway: stdout is closed, and nothing else shows what this prints\n"
    assert keys(">&-", path, *words) == (1, "", told)
    assert path.read_bytes() == before


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_messages_that_nobody_could_see_are_dropped(path: Path, redirection: str) -> None:
    path.chmod(0o664)  # which is told as well
    code, key, _ = keys(redirection, path, "add", "q")
    assert code == 0
    assert accepts(KeysFile(path, lambda: NOW), key.strip())


def test_a_link_that_leads_round_to_itself_is_told_and_left_alone(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)
    told = f"gateway: {path} is a link that leads round to itself\n"
    assert keys("", path, "add", "d") == (1, "", told)
    assert path.is_symlink()
