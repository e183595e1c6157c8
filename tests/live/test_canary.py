"""Nothing that the gateway and what stands before it write holds a secret, or what people said.

Whatever is written is looked through: terminal, nginx's logs, files. Only what the data directory
keeps is not: conversations are kept there.
"""

import contextlib
import secrets
import signal
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from app.simulator.texts import SECRET
from tests.access.identity_provider import AUDIENCE, ISSUER, Signer
from tests.live.canaries import Canaries, files
from tests.live.keyring import Keyring, noticed
from tests.live.raw import exchange
from tests.live.servers import PLAIN, Process, SimulatorProcess
from tests.live.several import calling
from tests.nginx import Nginx, running_nginx
from tests.redis_server import RedisServer, running_redis

END_S = 60
REFUSED_OR = {200: (200,), 401: (401, 429)}  # 429: too often from one address
LEAKY = """
from langchain_core.tools import tool

@tool
def leaky(word: str) -> str:
    \"\"\"Says in its failure what it was given.\"\"\"
    raise LookupError(f"no such word: {word}")
"""
KNOWN = ("data", "keys.json", "keys.json.lock", "secret", "leaky.py", "jwt.pem")  # in the folder


class Place(NamedTuple):
    """A gateway behind nginx, and all that it uses; every secret of it is a canary."""

    folder: Path
    canaries: Canaries
    gateway: Process
    url: str
    nginx: Nginx
    redis: RedisServer
    model: SimulatorProcess
    ring: Keyring
    signer: Signer

    def written(self) -> dict[str, str]:
        said = {"the terminal": self.gateway.output, "nginx's logs": self.nginx.said}
        return {**said, **files(self.folder, *KNOWN)}


@pytest.fixture(params=["lean", "langchain"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    canaries = Canaries()
    canaries.know("the model server's words", SECRET)
    signer = Signer("one")
    (tmp_path / "jwt.pem").write_bytes(signer.pem)
    secret = tmp_path / "secret"
    secret.write_text(canaries.know("session secret", secrets.token_hex(32)))
    secret.chmod(0o600)
    (tmp_path / "leaky.py").write_text(LEAKY)
    ring = Keyring(tmp_path / "keys.json")
    ring.add("first")
    (tmp_path / "model").mkdir()
    with contextlib.ExitStack() as stack:
        model = SimulatorProcess(tmp_path / "model")
        stack.callback(model.stop)
        password = canaries("Redis password")
        redis = stack.enter_context(running_redis(requirepass=password))
        environment = {
            "OPENAI_API_KEY": canaries("model key"),
            "OPENAI_BASE_URL": model.url,
            "GATEWAY_PORT": "0",
            "GATEWAY_UPSTREAM_READER": request.param,
            "GATEWAY_REDIS_URL": f"redis://:{password}@127.0.0.1:{redis.port}?prefix=canary",
            "GATEWAY_API_KEYS_FILE": str(ring.file),
            "GATEWAY_JWT_PUBLIC_KEY_FILE": str(tmp_path / "jwt.pem"),
            "GATEWAY_JWT_ISSUER": ISSUER,
            "GATEWAY_JWT_AUDIENCE": AUDIENCE,
            "GATEWAY_SESSION_SECRET_FILE": str(secret),
            "GATEWAY_TRUSTED_PROXIES": "127.0.0.1",
            "GATEWAY_TOOLS": "leaky:leaky,app.llm.builtin:calculate",
            "GATEWAY_MAX_ITERATIONS": "2",
            "GATEWAY_FIRST_TOKEN_TIMEOUT_SECONDS": "3",
            "GATEWAY_STALL_TIMEOUT_SECONDS": "1",
            "GATEWAY_RATE_LIMIT": "100000/minute",
            "GATEWAY_DRAIN_SECONDS": "1",
        }
        gateway = Process("app", env=environment, cwd=tmp_path)
        stack.callback(gateway.stop)
        url = gateway.find(r"^page\s+(http://\S+?)/$")
        nginx = stack.enter_context(running_nginx([httpx.URL(url).port or 0]))
        yield Place(tmp_path, canaries, gateway, url, nginx, redis, model, ring, signer)


def test_whatever_happens(place: Place) -> None:
    canaries = place.canaries
    key = canaries.know("key", place.ring.add("canary"))
    noticed(place.url, key)
    token = canaries.know("token", place.signer.token(email=canaries("claim")))
    shown = {"authorization": f"Bearer {key}"}
    for url in (place.url, place.nginx.url):
        with httpx.Client(base_url=url, timeout=END_S, **PLAIN) as http:
            talk(http, canaries, shown)
            sign_in_and_out(http, canaries, token)
            try_in_vain(http, canaries, place.signer)
        odd_bytes(url, canaries, key)
    with asking_on(place, shown, f"sim:silent {canaries('last prompt')}"):
        break_everything(place, shown)
    written = place.written()
    assert "too many credentials" in written["the terminal"]
    assert "/chat" in written["nginx's logs"]
    assert canaries.found_in(files(place.folder / "data")), "nothing was kept"
    assert not canaries.found_in(written), "".join(written.values())


def talk(http: httpx.Client, canaries: Canaries, shown: Mapping[str, str]) -> None:
    """What an honest caller says, and what comes of it."""
    prompt = canaries("prompt")
    once = {**shown, "idempotency-key": canaries("idempotency key")}
    first = http.post("/chat", json={"text": f"sim:echo {prompt}"}, headers=once)
    assert f"{prompt}" in first.text
    assert "event: final" in first.text
    assert http.post("/chat", json={"text": f"other {prompt}"}, headers=once).status_code in (
        200,
        422,
    )
    run_id = first.headers["content-location"].removeprefix("/runs/")
    conversation = http.get(f"/runs/{run_id}", headers=shown).json()["conversation_id"]
    at = f"/conversations/{conversation}"
    http.patch(at, json={"title": canaries("title")}, headers=shown)
    assert canaries("title") in http.get(at, headers=shown).text
    asked = {"text": f"sim:echo {prompt}", "key": canaries("key in the query")}
    assert http.get("/chat", params=asked, headers=shown).status_code == 200
    for script in FAILING:
        body = {"text": f"{script} {prompt}", "conversation_id": conversation}
        assert "event: done" in http.post("/chat", json=body, headers=shown).text
    for call in (
        ("calculate", {"expression": f"'{canaries('tool argument')}' + {canaries('operand')}"}),
        ("calculate", f'{{"expression": {canaries("broken argument")}'),
        ("leaky", {"word": canaries("word of a failed tool")}),
        ("leaky", {"no_such": canaries("strange argument")}),
        (canaries("tool name"), {}),
    ):
        body = {"text": calling(call), "include": ["tools"]}
        assert "event: done" in http.post("/chat", json=body, headers=shown).text
    for body in wrong_bodies(canaries):
        answer = http.post("/chat", json=body, headers=shown)
        assert answer.status_code in (404, 422), answer.text
    word = canaries("path")
    for path in (f"/runs/{word}", f"/runs/{word}/events", f"/conversations/{word}", f"/x/{word}"):
        assert http.get(path, headers=shown).status_code == 404
    cursor = {**shown, "last-event-id": f"{canaries('cursor')}.1"}
    assert http.post("/chat", json={}, headers=cursor).status_code in (400, 404)


FAILING = (
    "sim:status,code=401",
    "sim:status,code=400",
    "sim:status,code=500,times=1,key=canary",
    "sim:error",
    "sim:malformed,kind=json",
    "sim:malformed,kind=html",
    "sim:malformed,kind=shape",
    "sim:cut",
    "sim:eof",
    "sim:stall",
    "sim:awkward",
    "sim:react",
)


def wrong_bodies(canaries: Canaries) -> list[Any]:
    word = canaries("wrong body")
    return [
        {"text": word, word: word},
        {"text": [word]},
        {"text": word, "model": f"{word} {word}"},
        {"text": word, "tools": [word]},
        {"text": word, "grace_seconds": word},
        {"text": word, "conversation_id": word},
        {"text": word, "query": word},
        word,
    ]


def sign_in_and_out(http: httpx.Client, canaries: Canaries, token: str) -> None:
    begun = http.post("/session", headers={"authorization": f"Bearer {token}"})
    assert begun.status_code == 201, begun.text
    http.cookies.clear()
    cookie = begun.headers["set-cookie"].partition("=")[2].partition(";")[0]
    cookie = canaries.know(f"cookie of {http.base_url}", cookie)
    for value, status in ((cookie, 200), (cookie[:-4] + "AAAA", 401), (canaries("cookie"), 401)):
        shown = {"cookie": f"gateway_session={value}"}
        assert http.get("/models", headers=shown).status_code in (
            status,
            429 if status > 400 else status,
        )
    shown = {"cookie": f"gateway_session={cookie}", "origin": str(http.base_url).rstrip("/")}
    http.request("DELETE", "/session", headers=shown)
    assert http.get("/models", headers=shown).status_code in (401, 403)


def try_in_vain(http: httpx.Client, canaries: Canaries, signer: Signer) -> None:
    """More often than one address may."""
    wrong = canaries("wrong key")
    shown = [
        {"authorization": f"Bearer gw_{'0' * 16}_{wrong}{'0' * (43 - len(wrong))}"},
        {"authorization": f"Bearer {wrong}"},
        {"authorization": f"Basic {wrong}"},
        {"authorization": wrong},
        {"x-api-key": wrong},
        {"x-api-key": wrong, "authorization": f"Bearer {wrong}2"},
        {"authorization": f"Bearer {canaries.know('old token', signer.token(exp=1))}"},
        {"authorization": f"Bearer {canaries.know('odd token', signer.token(aud=wrong))}"},
    ]
    for _ in range(3):
        for headers in shown:
            assert http.get("/models", headers=headers).status_code in (401, 429)


def odd_bytes(url: str, canaries: Canaries, key: str) -> None:
    """What is refused before anybody has looked who asks."""
    word = canaries("odd bytes").encode()
    head = b"Host: HOST\r\nAuthorization: Bearer %b\r\n" % key.encode()
    for sent in (
        b"GET /%b HTTP/9\r\n%b\r\n" % (word, head),
        b"%b / HTTP/1.1\r\n%b\r\n" % (word, head),
        b"GET /chat?text=%b HTTP/1.1\r\n%bX: %b\r\n\r\n" % (word, head, word * 10_000),
        b"GET /%b HTTP/1.1\r\n%b\r\n" % (word * 10_000, head),
        b"POST /chat HTTP/1.1\r\n%bContent-Length: 1, 2\r\n\r\n%b" % (head, word),
        b"POST /chat HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n%b\r\n" % (head, word),
        b"GET / HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % word,
    ):
        exchange(url, sent)


@contextlib.contextmanager
def asking_on(place: Place, shown: Mapping[str, str], text: str) -> Iterator[None]:
    """Somebody who reads through nginx until the gateway is gone."""

    def read() -> None:
        with contextlib.suppress(httpx.HTTPError):
            httpx.post(
                f"{place.nginx.url}/chat",
                json={"text": text},
                headers=shown,
                timeout=END_S,
                **PLAIN,
            )

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield
    finally:
        reader.join(END_S)


def break_everything(place: Place, shown: Mapping[str, str]) -> None:
    """Model, tables, Redis, key, keys file, and at last the gateway go away."""
    canaries = place.canaries
    body = {"text": f"sim:echo {canaries('prompt of bad times')}"}

    def ask() -> None:
        """Also by a link, whose query is the question."""
        with contextlib.suppress(httpx.HTTPError):
            httpx.post(f"{place.nginx.url}/chat", json=body, headers=shown, timeout=END_S, **PLAIN)
            httpx.get(f"{place.nginx.url}/chat", params=body, headers=shown, timeout=END_S, **PLAIN)

    place.model.stop()
    ask()
    with contextlib.closing(sqlite3.connect(place.folder / "data" / "gateway.db")) as database:
        database.execute("DROP TABLE messages")
    ask()
    place.redis.kill()
    ask()
    place.ring.file.write_text(f'{{"version": 1, "keys": [{{"id": "{canaries("keys file")}"}}]}}')
    place.gateway.find(r"(the keys that it had stay in force)")
    place.gateway.signal(signal.SIGTERM)
    ask()
    place.gateway.wait()
    ask()
