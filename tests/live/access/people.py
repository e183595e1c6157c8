"""Callers of a gateway that asks for keys, and the file that knows theirs."""

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from msgspec import structs

from app.access.key import Key, KeyLimits
from app.access.keys_edit import editing
from tests.live.reading import WAIT_S, Body, until
from tests.live.servers import Gateway

NO_LIMITS = KeyLimits()


class Person(NamedTuple):
    """``headers``: what they show with each request."""

    id: str
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}


class Keyring:
    """A keys file that is changed while gateways read it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "keys.json"

    def add(
        self,
        *,
        limits: KeyLimits = NO_LIMITS,
        models: tuple[str, ...] | None = None,
        lasts_s: float | None = None,
    ) -> Person:
        key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        now = datetime.now(UTC)
        key = Key(
            id=key_id,
            name=key_id,
            sha256=_digest(secret),
            created_at=now,
            expires_at=None if lasts_s is None else now + timedelta(seconds=lasts_s),
            limits=limits,
            models=models,
        )
        with editing(self.path, may_begin=True) as keys:
            keys.append(key)
        return Person(f"key:{key_id}", f"gw_{key_id}_{secret}")

    def revoke(self, person: Person) -> None:
        self._change(person, revoked_at=datetime.now(UTC))

    def rotate(self, person: Person) -> Person:
        """The old secret is good for nothing at once."""
        secret = secrets.token_urlsafe(32)
        self._change(person, sha256=_digest(secret))
        return Person(person.id, f"gw_{person.id.removeprefix('key:')}_{secret}")

    def _change(self, person: Person, **changes: Any) -> None:
        with editing(self.path) as keys:
            keys[:] = [
                structs.replace(key, **changes) if f"key:{key.id}" == person.id else key
                for key in keys
            ]


class Guarded(NamedTuple):
    """A gateway that asks for keys, and two callers who have one."""

    gateway: Gateway
    ring: Keyring
    ann: Person
    bob: Person

    @property
    def url(self) -> str:
        return self.gateway.url


async def status(url: str, who: Person) -> int:
    """Whether they are let in; no request that counts."""
    return (await call(url, who, "GET", "/session")).status_code


async def joined(guarded: Guarded, **key: Any) -> Person:
    """Somebody new, once the gateway knows the key."""
    who = guarded.ring.add(**key)
    await until(lambda: status(guarded.url, who), (200).__eq__, "a new key")
    return who


async def call(
    url: str,
    who: Person | None,
    method: str,
    path: str,
    body: Body = None,
    headers: Mapping[str, str] | None = None,
) -> httpx.Response:
    """Read to the end. Each time from another address, so that nobody's tries with a key that is
    not known yet, or not any more, add up."""
    shown = {**(who.headers if who else {}), **(headers or {})}
    json = {"json": body} if isinstance(body, Mapping) else {"content": body}
    address = f"127.{secrets.randbelow(250) + 1}.{secrets.randbelow(250) + 1}.1"
    transport = httpx.AsyncHTTPTransport(verify=False, local_address=address)  # no TLS
    async with httpx.AsyncClient(base_url=url, transport=transport, timeout=WAIT_S) as client:
        return await client.request(method, path, headers=shown, **json)


async def chat(url: str, who: Person, text: str, **fields: Any) -> httpx.Response:
    """``POST /chat``, read to the end."""
    answer = await call(url, who, "POST", "/chat", {"text": text, **fields})
    assert answer.status_code == 200, answer.text
    return answer


async def start(url: str, who: Person, text: str, **fields: Any) -> dict[str, Any]:
    """``POST /runs``."""
    answer = await call(url, who, "POST", "/runs", {"text": text, **fields})
    assert answer.status_code == 201, answer.text
    started: dict[str, Any] = answer.json()
    return started


def same_but_for_id(response: httpx.Response) -> tuple[int, dict[str, Any], dict[str, str]]:
    """What an answer tells, without what differs with each request."""
    shown = {name: value for name, value in response.json().items() if name != "request_id"}
    varying = ("date", "x-request-id", "ratelimit", "content-length")
    headers = {name: value for name, value in response.headers.items() if name not in varying}
    return response.status_code, shown, headers


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
