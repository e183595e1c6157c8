"""``python -m app chat`` and gateways with keys: where the key comes from, and who sees it."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.client import ClientError, Run
from app.simulator import expected_text
from tests.live.chat import Chat
from tests.live.keyring import Keyring, noticed
from tests.live.servers import ROOT, Gateway, SimulatorProcess, running_gateway
from tests.live.stand_ins import DONE, FINAL, RUN_ID, START, STREAM, Canned, Proxy, frames, token

KEY = f"gw_{'a' * 16}_{'b' * 43}"
REFUSED = (
    'event: error\ndata: {"code": "unauthorized", "message": "no", "retryable": false}\n\n'
    'event: done\ndata: {"status": "failed", "usage": null}\n\n'
)
PROBLEM = "\r\ncontent-type: application/problem+json"


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    return Keyring(tmp_path_factory.mktemp("keys") / "keys.json")


@pytest.fixture(scope="module")
def guarded(
    simulator: SimulatorProcess, keyring: Keyring, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    keyring.add("first")
    cwd = tmp_path_factory.mktemp("guarded")
    with running_gateway(cwd, simulator.url, api_keys_file=keyring.file) as process:
        yield process


@pytest.fixture
def key(guarded: Gateway, keyring: Keyring) -> str:
    made = keyring.add("reader")
    noticed(guarded.url, made)
    return made


def chat_with_file(url: str, file: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app", "chat", "x", "--url", url, "--key-file", str(file)],
        check=False,
        timeout=60,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), **env},
    )


def test_the_key_of_the_environment_lets_in_and_is_shown_on_every_connection(
    guarded: Gateway, key: str
) -> None:
    """The run is cut, resumed, and its model asked for: each wants the key."""
    with (
        Proxy(guarded.url, [900, 700]) as proxy,
        Chat("sim:awkward", proxy.url, GATEWAY_API_KEY=f" {key}\n") as chat,
    ):
        assert chat.wait() == 0
        assert proxy.connections == 3
    assert chat.out.decode() == expected_text("sim:awkward") + "\n"
    assert key not in chat.words


def test_a_key_file_lets_in_before_the_environment(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    body = frames(START, token("one two"), FINAL, DONE)
    with Canned((STREAM, body)) as server:
        done = chat_with_file(server.url, tmp_path / "key", GATEWAY_API_KEY="gw_other")
        (request,) = server.requests
    assert done.returncode == 0, done.stderr
    assert f"authorization: Bearer {KEY}\r\n" in request
    assert "gw_other" not in request


@pytest.mark.parametrize(("key", "words"), [("", "wants a key: set GATEWAY_API_KEY"), (KEY, "not")])
def test_without_a_key_that_is_accepted_one_line_says_what_to_do(
    guarded: Gateway, key: str, words: str
) -> None:
    with Chat("x", guarded.url, GATEWAY_API_KEY=key) as chat:
        assert chat.wait() == 2
    assert re.fullmatch(rf"error: the gateway (does )?{words}.*\n", chat.words)
    assert chat.out == b""
    assert KEY not in chat.words


def test_a_key_that_ends_under_an_answer_is_told_in_words(
    guarded: Gateway, key: str, keyring: Keyring
) -> None:
    question = "sim:tokens,n=20000,interval=0.02"
    with Chat(question, guarded.url, GATEWAY_API_KEY=key) as chat:
        chat.shows("tok3 ")
        keyring.revoke(key)
        assert chat.wait() == 2
    assert expected_text(question).startswith(chat.out.decode().rstrip("\n"))
    assert re.fullmatch(r"error: the gateway does not accept the key.*\n", chat.words)


def test_an_end_that_comes_before_any_event_is_told_in_words_and_costs_no_place() -> None:
    cut = (STREAM, "retry: 1\n" + frames(START, token("one ")))
    with (
        Canned(cut, (STREAM, REFUSED)) as server,
        Chat("x", server.url, GATEWAY_API_KEY=KEY) as chat,
    ):
        assert chat.wait() == 2
        assert f"last-event-id: {RUN_ID}.2" in server.requests[1]
        assert all(f"authorization: Bearer {KEY}" in request for request in server.requests)
    assert chat.out == b"one \n"
    assert chat.words.splitlines()[-1].startswith("error: the gateway does not accept the key")


def test_what_the_key_may_not_do_is_told_as_the_gateway_says_it() -> None:
    refusal = ("403 Forbidden" + PROBLEM, '{"code": "forbidden", "detail": "Not allowed."}')
    with Canned(refusal) as server, Chat("x", server.url, GATEWAY_API_KEY=KEY) as chat:
        assert chat.wait() == 2
        assert server.connections == 1
    assert chat.words == "error: Not allowed.\n"


def test_a_limit_is_waited_for_and_named() -> None:
    limit = '{"code": "rate_limited", "detail": "This caller has reached its limit of 1 run."}'
    answer = (STREAM, frames(START, token("one two"), FINAL, DONE))
    with (
        Canned(("429 Too Many Requests\r\nretry-after: 0" + PROBLEM, limit), answer) as server,
        Chat("x", server.url, GATEWAY_API_KEY=KEY) as chat,
    ):
        assert chat.wait() == 0
    assert re.match(r"This caller has reached its limit of 1 run, trying again in", chat.words)


def test_a_redirect_takes_the_key_nowhere() -> None:
    with Canned(("200 OK", "")) as other:
        moved = (f"307 Temporary Redirect\r\nlocation: {other.url}/chat", "")
        with Canned(moved) as server, Chat("x", server.url, GATEWAY_API_KEY=KEY) as chat:
            assert chat.wait() == 2
        assert other.connections == 0


@pytest.mark.parametrize("key", ["two words", "gw_\u00fc", "gw_a\nx-evil: 1", "\x1b[2J"])
def test_what_is_no_key_is_neither_sent_nor_shown(key: str) -> None:
    with Canned((STREAM, "")) as server, Chat("x", server.url, GATEWAY_API_KEY=key) as chat:
        assert chat.wait() == 2
        assert server.connections == 0
    assert chat.words == (
        "error: GATEWAY_API_KEY holds no key: it is one word of ASCII letters and signs\n"
    )


def test_a_key_file_that_cannot_be_read_is_told_in_one_line(tmp_path: Path) -> None:
    done = chat_with_file("http://127.0.0.1:1", tmp_path / "none")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: the key file {tmp_path}/none cannot be read: No such file or directory\n"
    )
    (tmp_path / "empty").touch()
    assert "empty holds no key" in chat_with_file("http://127.0.0.1:1", tmp_path / "empty").stderr


def test_a_key_that_goes_over_a_network_in_the_clear_is_warned_of() -> None:
    address = "http://gateway.example"
    assert Run("x", address, key=KEY).bares_key == address
    for safe in ("https://gateway.example", "http://127.0.0.1:8000", "http://[::1]:1", "localhost"):
        assert Run("x", safe, key=KEY).bares_key is None
    assert Run("x", address).bares_key is None
    with Chat("x", f"{address}:65000", GATEWAY_API_KEY=KEY) as chat:
        assert chat.wait() == 2
    assert chat.words.startswith(f"warning: the key goes to {address}:65000 unencrypted")
    assert KEY not in chat.words


def test_an_address_with_a_password_and_a_key_do_not_go_together() -> None:
    with pytest.raises(ClientError, match="do not go together"):
        Run("x", "https://me:pass@gateway.example", key=KEY)
