"""What is attacked: a gateway that takes keys and tokens, behind nginx and straight; two callers,
and what one of them has that the other must not get."""

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.access.identity_provider import (
    AUDIENCE,
    ISSUER,
    IdentityProvider,
    Signer,
    identity_provider,
    rsa_key,
)
from tests.live.access.people import Keyring, Person
from tests.live.attacks.case import HIDDEN
from tests.live.attacks.wire import exchange
from tests.live.reading import WAIT_S
from tests.live.servers import PLAIN, Gateway, SimulatorProcess, running_gateway
from tests.nginx import Nginx, running_nginx

OURS = Signer("provider")
THEIRS = Signer("provider", rsa_key(1))  # somebody else's key under the same name
ALLOWED = "https://allowed.example"  # GATEWAY_CORS_ORIGINS
MAX_BODY = 2 * 1024**2
_NAME = re.compile(rb"@([A-Z_]+)@")


class World:
    """``secret``: signs the sessions. ``foreign``: an address at which somebody else has keys, for
    tokens that name it. ``names``: for what is sent."""

    def __init__(
        self,
        gateway: Gateway,
        nginx: Nginx,
        simulator: SimulatorProcess,
        foreign: IdentityProvider,
        secret: bytes,
        people: tuple[Person, Person],
    ) -> None:
        self.gateway, self.nginx, self.simulator = gateway, nginx, simulator
        self.foreign, self.secret = foreign, secret
        self.ann, self.bob = people
        self.http = httpx.Client(timeout=WAIT_S, **PLAIN)
        running = self._begin("sim:silent")
        ended = self._begin("sim:tokens,n=3", {"idempotency-key": "anns"})
        self.http.get(gateway.url + ended["events_url"], headers=self.ann.headers)  # to its end
        self.names: dict[str, str] = {
            "ANN": self.ann.key,
            "BOB": self.bob.key,
            "RUN": running["run_id"],
            "CONVERSATION": running["conversation_id"],
            "MESSAGE": self._messages(running["conversation_id"])[0]["id"],
            "ENDED": ended["run_id"],
            "TALK": ended["conversation_id"],
            "NOBODY": "u" * 22,
            "COOKIE": self.sign_in(self.ann),
            "BOBS_COOKIE": self.sign_in(self.bob),
        }
        self._before = self._anns()

    def sign_in(self, who: Person) -> str:
        begun = self.http.post(f"{self.gateway.url}/session", headers=who.headers)
        assert begun.status_code == 201, begun.text
        return begun.headers["set-cookie"].partition("=")[2].partition(";")[0]

    def send(self, sent: bytes, more: Mapping[str, str], *, nginx: bool) -> bytes:
        """Each time from another address, so that failed tries of one case spoil no other. Nor is
        any of them the one whose X-Forwarded-* count."""
        url = self.nginx.url if nginx else self.gateway.url
        address = f"127.{secrets.randbelow(250) + 2}.{secrets.randbelow(250) + 1}.1"
        names = {**more, "HOST": httpx.URL(url).netloc.decode()}
        hidden = self.filled(HIDDEN, names).decode()
        size = len(hidden)
        names |= {"HIDDEN": hidden, "HIDDEN_LENGTH": f"{size}", "HIDDEN_SIZE": f"{size:x}"}
        filled = self.filled(sent, names)
        length = len(filled.rpartition(b"\r\n\r\n")[2])
        return exchange(url, filled.replace(b"@LENGTH@", b"%d" % length), address)

    def filled(self, text: bytes, more: Mapping[str, str]) -> bytes:
        """With what the names in it stand for; others are left."""
        names = {**self.names, **more}

        def fill(match: "re.Match[bytes]") -> bytes:
            name = match[1].decode()
            return names[name].encode() if name in names else match[0]

        return _NAME.sub(fill, text)

    def is_whole(self, *, nginx: bool) -> None:
        """It lives, it answers, Ann has what she had, and nobody was asked where keys are."""
        url = self.nginx.url if nginx else self.gateway.url
        assert self.http.get(f"{url}/health").json() == {"status": "ok"}
        asked = self.http.post(
            f"{url}/chat", json={"text": "sim:tokens,n=2"}, headers=self.bob.headers
        )
        assert '"text":"tok0 tok1 "' in asked.text, asked.text
        assert asked.text.count("event: done") == 1
        assert self._anns() == self._before
        assert self.foreign.asked == 0

    def calls(self, mark: str) -> int:
        """How often the model was asked with that word."""
        return int(self.simulator.stats(mark)["started"])

    @property
    def secrets(self) -> list[str]:
        """What stands in no answer and in no log."""
        keys = [who.key.split("_", 2)[2] for who in (self.ann, self.bob)]
        cookies = [self.names["COOKIE"], self.names["BOBS_COOKIE"]]
        return [*keys, *(cookie.partition(".")[2] for cookie in cookies), self.secret.decode()]

    def _begin(self, text: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        begun = self.http.post(
            f"{self.gateway.url}/runs",
            json={"text": text, "on_disconnect": "continue"},
            headers={**self.ann.headers, **(headers or {})},
        )
        assert begun.status_code == 201, begun.text
        started: dict[str, Any] = begun.json()
        return started

    def _messages(self, conversation: str) -> list[dict[str, Any]]:
        found = self.http.get(
            f"{self.gateway.url}/conversations/{conversation}", headers=self.ann.headers
        ).json()
        return [{**each, "title": found["title"]} for each in found["messages"]]

    def _anns(self) -> Any:
        """Her two runs and her two conversations as they stand, and that there are no more."""
        url, headers = self.gateway.url, self.ann.headers
        runs = [
            self.http.get(f"{url}/runs/{self.names[name]}", headers=headers).json()["status"]
            for name in ("RUN", "ENDED")
        ]
        talks = [self._messages(self.names[name]) for name in ("CONVERSATION", "TALK")]
        return runs, talks


@contextmanager
def attacked(simulator: SimulatorProcess, cwd: Path) -> Iterator[World]:
    ring = Keyring(cwd)
    people = ring.add(), ring.add()
    secret = cwd / "session_secret"
    secret.write_text(secrets.token_hex(32))
    secret.chmod(0o600)
    with ExitStack() as stack:
        provider = stack.enter_context(identity_provider(OURS))
        foreign = stack.enter_context(identity_provider(THEIRS))
        gateway = stack.enter_context(
            running_gateway(
                cwd,
                simulator.url,
                api_keys_file=ring.path,
                jwks_url=provider.url,
                jwt_issuer=ISSUER,
                jwt_audience=AUDIENCE,
                session_secret_file=secret,
                cors_origins=ALLOWED,
                trusted_proxies="127.0.0.1",
                rate_limit="1000000/minute",
                max_runs_per_caller=3,
                max_body_bytes=MAX_BODY,
                tools="app.llm.builtin:calculate",
                first_token_timeout_seconds=900,
            )
        )
        nginx = stack.enter_context(running_nginx([httpx.URL(gateway.url).port or 0]))
        world = World(gateway, nginx, simulator, foreign, secret.read_bytes(), people)
        stack.callback(world.http.close)
        yield world
