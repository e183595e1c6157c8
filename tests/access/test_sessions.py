"""A browser's session: whose it is, until when, and what is none."""

import hmac
import json
import math
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.access.key import KeyLimits
from app.access.model import Caller, Limits
from app.access.sessions import MAX_CHARS, SessionEnded, Sessions
from app.access.signed_out import SESSION_S, MemorySignedOut
from app.access.tokens import MAX_SUBJECT_CHARS, Tokens
from app.errors import IdentityAway, Unauthorized
from tests.access.identity_provider import Signer, settings_for
from tests.access.ring import Clock, Ring

pytestmark = pytest.mark.anyio

SECRET = bytes(range(32))
SIGNER = Signer("key")


class Desk:
    """Where sessions begin, with a keys file, an identity provider and a clock."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.ring = Ring(folder, self.clock)
        self.signed_out = MemorySignedOut(self.clock)
        pem = folder / "public.pem"
        pem.write_bytes(SIGNER.pem)
        self.tokens = Tokens(settings_for(jwt_public_key_file=pem), Limits())
        self.sessions = self.another()

    def another(self, secret: bytes = SECRET) -> Sessions:
        return Sessions(
            secret, self.signed_out, keys=self.ring.file, tokens=self.tokens, clock=self.clock
        )

    def holder(self, key: str | None = None) -> Caller:
        return self.ring.file.check(key or self.ring.add())


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_session_is_its_keys_holder_for_twelve_hours(desk: Desk) -> None:
    holder = desk.holder()
    value, ends_at = desk.sessions.begin(holder)
    assert ends_at == desk.clock.now + 12 * 3600 == desk.clock.now + SESSION_S
    caller = desk.another().check(value)
    assert (caller.id, caller.key_id, caller.key_sha256) == (
        holder.id,
        holder.key_id,
        holder.key_sha256,
    )
    assert caller.expires_at == ends_at
    desk.clock.now = ends_at - 1
    assert desk.sessions.check(value) == caller
    desk.clock.now = ends_at
    with pytest.raises(SessionEnded):
        desk.sessions.check(value)


def test_a_session_ends_with_its_key(desk: Desk) -> None:
    end = float(round(desk.clock.now) + 60)
    value, ends_at = desk.sessions.begin(desk.holder(desk.ring.add(expires_at=end)))
    assert ends_at == desk.sessions.check(value).expires_at == end


def test_a_key_whose_end_comes_nearer_takes_its_sessions_along(desk: Desk) -> None:
    key = desk.ring.add()
    value, _ = desk.sessions.begin(desk.holder(key))
    end = float(round(desk.clock.now) + 60)
    desk.ring.expire(key, end)
    assert desk.sessions.check(value).expires_at == end
    desk.clock.now = end
    with pytest.raises(SessionEnded):
        desk.sessions.check(value)


def test_revoking_or_rotating_a_key_ends_its_sessions(desk: Desk) -> None:
    for change in (desk.ring.revoke, desk.ring.rotate):
        key = desk.ring.add()
        value, _ = desk.sessions.begin(desk.holder(key))
        other, _ = desk.sessions.begin(desk.holder())
        change(key)
        with pytest.raises(SessionEnded):
            desk.sessions.check(value)
        desk.sessions.check(other)


def test_what_a_caller_may_is_looked_up_again(desk: Desk) -> None:
    key = desk.ring.add(models=("small",))
    value, _ = desk.sessions.begin(desk.holder(key))
    assert desk.sessions.check(value).models == {"small"}
    desk.ring.limit(key, KeyLimits("1/minute"))
    assert desk.sessions.check(value).limits == Limits("1/minute")


async def test_a_tokens_session_is_its_subject_until_the_token_ends(desk: Desk) -> None:
    holder = await desk.tokens.check(SIGNER.token(exp=int(desk.clock.now) + 600))
    value, ends_at = desk.sessions.begin(holder)
    assert ends_at == int(desk.clock.now) + 600
    caller = desk.sessions.check(value)
    assert caller == Caller(
        "token:ada",
        expires_at=ends_at,
        signed_by=holder.signed_by,
        session_id=caller.session_id,
    )
    assert desk.tokens.still_accepts(caller)
    desk.clock.now = ends_at
    with pytest.raises(SessionEnded):
        desk.sessions.check(value)


async def test_a_tokens_session_ends_when_the_provider_drops_its_key(desk: Desk) -> None:
    holder = await desk.tokens.check(SIGNER.token())
    stranger = Caller(holder.id, expires_at=holder.expires_at, signed_by="another")
    value, _ = desk.sessions.begin(stranger)
    with pytest.raises(SessionEnded):
        desk.sessions.check(value)


async def test_while_no_tokens_can_be_judged_a_session_is_not_over(desk: Desk) -> None:
    value, _ = desk.sessions.begin(await desk.tokens.check(SIGNER.token()))
    unasked = Tokens(settings_for(jwks_url="https://identity.example/keys"), Limits())
    sessions = Sessions(SECRET, desk.signed_out, keys=None, tokens=unasked)
    with pytest.raises(IdentityAway):
        sessions.check(value)


async def test_sessions_of_what_is_no_longer_taken_are_over(desk: Desk) -> None:
    by_key, _ = desk.sessions.begin(desk.holder())
    by_token, _ = desk.sessions.begin(await desk.tokens.check(SIGNER.token()))
    for sessions, value in (
        (Sessions(SECRET, desk.signed_out, keys=None, tokens=desk.tokens), by_key),
        (Sessions(SECRET, desk.signed_out, keys=desk.ring.file, tokens=None), by_token),
    ):
        with pytest.raises(SessionEnded):
            sessions.check(value)


def test_a_session_does_not_prolong_itself(desk: Desk) -> None:
    value, ends_at = desk.sessions.begin(desk.holder())
    desk.clock.now += 3600
    again, ends_again = desk.sessions.begin(desk.sessions.check(value))
    assert again != value
    assert ends_again == ends_at


def test_a_session_that_was_signed_out_is_over_and_no_other(desk: Desk) -> None:
    holder = desk.holder()
    value, _ = desk.sessions.begin(holder)
    other, _ = desk.sessions.begin(holder)
    desk.sessions.end(value)
    desk.sessions.end(value)
    with pytest.raises(SessionEnded):
        desk.another().check(value)
    desk.sessions.check(other)


def test_only_what_we_signed_and_is_not_over_is_remembered_as_signed_out(desk: Desk) -> None:
    value, ends_at = desk.sessions.begin(desk.holder())
    for none in ("", "a.b", value[:-1], desk.another(b"another" * 8).begin(desk.holder())[0]):
        desk.sessions.end(none)
    desk.clock.now = ends_at
    desk.sessions.end(value)
    assert list(desk.signed_out.all()) == []


def test_a_cookie_holds_no_limits_and_fits_a_browser(desk: Desk) -> None:
    key = desk.ring.add(limits=KeyLimits("7/hour", 3), models=("small",))
    value, _ = desk.sessions.begin(desk.holder(key))
    payload = urlsafe_b64decode(value.partition(".")[0] + "==")
    assert b"7/hour" not in payload
    assert b"small" not in payload
    assert key.split("_", 2)[2].encode() not in payload
    longest = Caller(f"token:{'💡' * MAX_SUBJECT_CHARS}", signed_by="f" * 64)
    assert len(desk.sessions.begin(longest)[0]) <= 1700 < MAX_CHARS


def test_ids_of_sessions_are_random_and_of_128_bits(desk: Desk) -> None:
    holder = desk.holder()
    values = [desk.sessions.begin(holder)[0] for _ in range(100)]
    ids = {json.loads(urlsafe_b64decode(value.partition(".")[0] + "=="))[0] for value in values}
    assert len(ids) == 100
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{22}", one) for one in ids)


def test_a_cookie_with_any_other_character_is_refused(desk: Desk) -> None:
    value, _ = desk.sessions.begin(desk.holder())
    assert re.fullmatch(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{43}", value)  # no quotes, as cookies go
    for at, character in enumerate(value):
        other = "B" if character != "B" else "A"
        with pytest.raises(Unauthorized) as refusal:
            desk.sessions.check(value[:at] + other + value[at + 1 :])
        assert not isinstance(refusal.value, SessionEnded)


def test_what_we_did_not_sign_is_refused(desk: Desk) -> None:
    value, ends_at = desk.sessions.begin(desk.holder())
    payload, _, signature = value.partition(".")
    later = json.loads(urlsafe_b64decode(payload + "=="))
    later[2] = ends_at + 3600
    forged = urlsafe_b64encode(json.dumps(later).encode()).decode().rstrip("=")
    for none in (
        "",
        ".",
        payload,
        f".{signature}",
        f"{payload}.",
        f"{forged}.{signature}",
        f"{value}=",
        f"{value}.{signature}",
        f" {value}",
        "é",
        "\ud800",
        "a" * 10_000_000,
        desk.another(b"another" * 8).begin(desk.holder())[0],
    ):
        with pytest.raises(Unauthorized) as refusal:
            desk.sessions.check(none)
        assert not isinstance(refusal.value, SessionEnded)


def test_a_longer_cookie_is_refused_though_we_signed_it(desk: Desk) -> None:
    value, _ = desk.sessions.begin(Caller("key:" + "x" * MAX_CHARS, key_id="x", key_sha256="x"))
    with pytest.raises(Unauthorized) as refusal:
        desk.sessions.check(value)
    assert not isinstance(refusal.value, SessionEnded)


async def test_no_token_is_a_session_and_no_session_a_token(desk: Desk) -> None:
    value, _ = desk.sessions.begin(desk.holder())
    with pytest.raises(Unauthorized):
        await desk.tokens.check(value)
    made = jwt.encode({"sub": "ada", "exp": desk.clock.now + 60}, SECRET, "HS256")
    for token in (SIGNER.token(), made):
        with pytest.raises(Unauthorized):
            desk.sessions.check(token)


def test_the_secret_itself_signs_nothing(desk: Desk) -> None:
    """What another service signs with the same secret is no session here."""
    payload = desk.sessions.begin(desk.holder())[0].partition(".")[0]
    signature = urlsafe_b64encode(hmac.digest(SECRET, payload.encode(), "sha256")).decode()
    with pytest.raises(Unauthorized):
        desk.sessions.check(f"{payload}.{signature.rstrip('=')}")


@given(st.text(max_size=200))
def test_whatever_is_shown_is_refused_and_nothing_breaks(value: str) -> None:
    sessions = Sessions(SECRET, MemorySignedOut(), keys=None, tokens=None)
    with pytest.raises(Unauthorized):
        sessions.check(value)
    sessions.end(value)


def test_a_caller_without_an_end_has_a_session_with_one(desk: Desk) -> None:
    _, ends_at = desk.sessions.begin(Caller("key:x", expires_at=math.inf))
    assert ends_at == desk.clock.now + SESSION_S
