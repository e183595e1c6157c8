"""Keys and sessions behind the load balancer, with the files that the service ``setup`` makes."""

import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from app.simulator import expected_text
from tests.deploy.behind import Pair
from tests.live.keyring import Keyring, noticed
from tests.live.reading import WAIT_S
from tests.live.servers import PLAIN, ROOT, SimulatorProcess

PROMPT = "sim:tokens,n=5"
COOKIE = "__Host-gateway_session"


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    """Of a file that has no keys yet; a session's secret lies near it."""
    made = tmp_path_factory.mktemp("made")
    script = str(ROOT / "deploy/make_secrets.py")
    subprocess.run([sys.executable, script, made / "given", made], check=True, timeout=WAIT_S)
    return Keyring(made / "keys/keys.json")


@pytest.fixture(scope="module")
def guarded(
    keyring: Keyring, upstream: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    with Pair(
        upstream,
        tmp_path_factory.mktemp,
        api_keys_file=keyring.file,
        session_secret_file=keyring.file.parents[1] / "gateway/session_secret",
        trusted_proxies="127.0.0.1",
    ) as pair:
        yield pair


@pytest.fixture
def key(guarded: Pair, keyring: Keyring) -> str:
    made = keyring.add("reader")
    for gateway in guarded.gateways:
        noticed(gateway.url, made)
    return made


@pytest.fixture
def browser(guarded: Pair) -> Iterator[httpx.Client]:
    """Says of itself what a browser with the page says, over TLS."""
    nginx = guarded.nginx
    page = {"Origin": nginx.tls_url, "Sec-Fetch-Site": "same-origin"}
    with httpx.Client(
        base_url=nginx.tls_url, headers=page, verify=nginx.trust(), trust_env=False, timeout=WAIT_S
    ) as client:
        yield client


def shown(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_without_a_key_there_is_the_page_and_nothing_else(browser: httpx.Client) -> None:
    """The file of a new deployment has none at all."""
    assert browser.get("/").status_code == 200
    assert browser.get("/session").status_code == 401
    refused = browser.post("/chat", json={"text": PROMPT})
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")


def test_a_session_of_one_gateway_over_tls_streams_from_both_and_ends(
    guarded: Pair, browser: httpx.Client, key: str
) -> None:
    begun = browser.post("/session", headers=shown(key))
    assert begun.status_code == 201
    cookie, *rest = begun.headers.get_list("set-cookie")
    assert not rest
    assert cookie.startswith(f"{COOKIE}=")
    attributes = set(cookie.lower().split("; "))
    assert {"secure", "httponly", "samesite=strict", "path=/"} <= attributes

    writers = set[int]()
    for _ in range(4):
        answer = browser.post("/chat", json={"text": PROMPT})
        assert f'"text":"{expected_text(PROMPT)}"' in answer.text
        run = answer.headers["content-location"]
        writers |= {
            at
            for at, gateway in enumerate(guarded.gateways)
            if httpx.get(gateway.url + run, headers=shown(key), **PLAIN).status_code == 200
        }
    assert writers == {0, 1}

    assert browser.delete("/session").status_code == 204
    assert COOKIE not in browser.cookies
    assert browser.post("/chat", json={"text": PROMPT}).status_code == 401


def test_nobody_can_say_that_a_connection_is_tls(guarded: Pair, key: str) -> None:
    forged = {"X-Forwarded-Proto": "https", "Forwarded": "proto=https"}
    begun = httpx.post(f"{guarded.nginx.url}/session", headers={**shown(key), **forged}, **PLAIN)
    assert begun.status_code == 201
    assert begun.headers["set-cookie"].startswith("gateway_session=")
    assert "secure" not in begun.headers["set-cookie"].lower()


def test_keys_and_cookies_stand_in_no_log(guarded: Pair, browser: httpx.Client, key: str) -> None:
    browser.post("/session", headers=shown(key))
    browser.post("/session", headers=shown(f"{key[:-1]}!"))
    secrets = [key.split("_", 2)[2], browser.cookies[COOKIE]]
    for said in (guarded.nginx.said, *(gateway.output for gateway in guarded.gateways)):
        assert not any(secret in said for secret in secrets)
