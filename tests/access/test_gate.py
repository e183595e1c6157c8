"""Who calls: keys, tokens and sessions through one gate, with the limits that apply."""

import logging
from pathlib import Path

import pytest

from app.access.failed_tries import TRIES
from app.access.gate import Gate, default_limits
from app.access.key import KeyLimits
from app.access.model import ANONYMOUS, Caller, Limits
from app.access.sessions import SessionEnded, Sessions
from app.access.signed_out import MemorySignedOut
from app.access.tokens import Tokens
from app.errors import IdentityAway, RateLimited, Unauthorized
from app.settings import Settings
from tests.access.identity_provider import Signer, settings_for
from tests.access.ring import Clock, Ring

pytestmark = pytest.mark.anyio

SIGNER = Signer("key")
HERE = "192.0.2.1"
STRANGERS_KEY = "gw_abcdefghijklmnop_" + "x" * 43


class House:
    """A gateway's gate, with a keys file, an identity provider and sessions."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.clock = Clock()
        self.ring = Ring(folder, self.clock)
        pem = folder / "public.pem"
        pem.write_bytes(SIGNER.pem)
        self.settings = settings_for(
            api_keys_file=self.ring.path, jwt_public_key_file=pem, **settings
        )
        self.tokens = Tokens(self.settings, default_limits(self.settings))
        self.sessions = Sessions(
            bytes(range(32)),
            MemorySignedOut(self.clock),
            keys=self.ring.file,
            tokens=self.tokens,
            clock=self.clock,
        )
        self.gate = Gate(
            self.settings,
            keys=self.ring.file,
            tokens=self.tokens,
            sessions=self.sessions,
            clock=self.clock,
        )


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


async def identify(
    gate: Gate, address: str = HERE, is_tls: bool = False, /, **headers: str
) -> Caller:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return await gate.identify(raw, address, is_tls=is_tls)


async def test_keys_tokens_and_sessions_are_all_callers(house: House) -> None:
    key, token = house.ring.add(), SIGNER.token()
    by_key = await identify(house.gate, authorization=f"Bearer {key}")
    assert by_key.id == "key:" + key.split("_")[1]
    assert await identify(house.gate, x_api_key=key) == by_key
    by_token = await identify(house.gate, authorization=f"Bearer {token}")
    assert by_token.id == "token:ada"
    assert await identify(house.gate, x_api_key=token) == by_token
    for caller in (by_key, by_token):
        value, _ = house.sessions.begin(caller)
        in_session = await identify(house.gate, cookie=f"gateway_session={value}")
        assert (in_session.id, in_session.limits) == (caller.id, caller.limits)
        secure = await identify(
            house.gate, HERE, True, cookie=f"__Host-gateway_session={value}; gateway_session=x"
        )
        assert secure == in_session
        with pytest.raises(Unauthorized):
            await identify(house.gate, HERE, True, cookie=f"gateway_session={value}")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer "},
        {"authorization": "Basic dTpw"},
        {"authorization": f"Bearer {STRANGERS_KEY}"},
        {"authorization": f"Bearer {Signer('key').token(aud='another')}"},
        {"authorization": "Bearer nonsense"},
        {"x-api-key": STRANGERS_KEY},
        {"cookie": "gateway_session=nonsense"},
    ],
)
async def test_nobody_else_is_let_in(headers: dict[str, str], house: House) -> None:
    with pytest.raises(Unauthorized) as refusal:
        await identify(house.gate, **headers)
    assert str(refusal.value) == Unauthorized.message


async def test_each_kind_is_refused_where_it_is_not_taken(house: House) -> None:
    """A gateway that was set to be guarded is never open, whatever it was put together with."""
    key, token = house.ring.add(), SIGNER.token()
    cookie, _ = house.sessions.begin(house.ring.file.check(key))
    gate = Gate(house.settings)
    assert not gate.is_open
    shown: list[dict[str, str]] = [
        {},
        {"authorization": f"Bearer {key}"},
        {"authorization": f"Bearer {token}"},
        {"cookie": f"gateway_session={cookie}"},
    ]
    for headers in shown:
        with pytest.raises(Unauthorized):
            await identify(gate, **headers)


async def test_a_key_is_never_shown_to_the_identity_providers_side(house: House) -> None:
    away = Tokens(settings_for(jwks_url="https://identity.example/keys"), Limits())
    gate = Gate(house.settings, keys=house.ring.file, tokens=away)
    with pytest.raises(Unauthorized):
        await identify(gate, authorization=f"Bearer {STRANGERS_KEY}")
    with pytest.raises(IdentityAway):
        await identify(gate, authorization=f"Bearer {SIGNER.token()}")


async def test_an_open_gateway_takes_everybody_for_the_same_and_looks_at_nothing() -> None:
    gate = Gate(Settings.model_validate({}))
    assert gate.is_open
    shown: list[dict[str, str]] = [
        {},
        {"authorization": "Bearer sk-whatever"},
        {"authorization": "Basic \x00", "x-api-key": "another"},
        {"cookie": "gateway_session=a; gateway_session=b"},
    ]
    for headers in shown:
        assert await identify(gate, **headers) == Caller(ANONYMOUS)
    assert gate.still_accepts(Caller(ANONYMOUS))
    limited = Gate(Settings.model_validate({"rate_limit": "5/minute", "tokens_per_day": 7}))
    assert (await identify(limited)).limits == Limits("5/minute", None, 7)


async def test_a_guarded_gateway_limits_everybody(house: House) -> None:
    for credential in (house.ring.add(), SIGNER.token()):
        caller = await identify(house.gate, x_api_key=credential)
        assert caller.limits == Limits("120/minute", 20, None)


async def test_what_a_key_says_of_its_own_goes_before_the_settings(tmp_path: Path) -> None:
    house = House(tmp_path, rate_limit="5/hour", max_runs_per_caller=6, tokens_per_day=7)
    for own, limits in (
        (KeyLimits(), Limits("5/hour", 6, 7)),
        (KeyLimits(rate="1/day"), Limits("1/day", 6, 7)),
        (KeyLimits(max_runs=1), Limits("5/hour", 1, 7)),
        (KeyLimits(tokens_per_day=1), Limits("5/hour", 6, 1)),
    ):
        key = house.ring.add(limits=own, models=("small",))
        caller = await identify(house.gate, x_api_key=key)
        assert caller.limits == limits
        cookie, _ = house.sessions.begin(caller)
        in_session = await identify(house.gate, cookie=f"gateway_session={cookie}")
        assert (in_session.limits, in_session.models) == (limits, {"small"})


async def test_too_many_failed_tries_are_told_to_wait_and_the_valid_pass(house: House) -> None:
    key = house.ring.add()
    for _ in range(TRIES):
        with pytest.raises(Unauthorized):
            await identify(house.gate, x_api_key=STRANGERS_KEY)
    for headers in (
        {"x-api-key": STRANGERS_KEY},
        {"authorization": "Basic dTpw"},
        {"cookie": "gateway_session=nonsense"},
    ):
        with pytest.raises(RateLimited):
            await identify(house.gate, **headers)
    await identify(house.gate, x_api_key=key)
    with pytest.raises(Unauthorized):
        await identify(house.gate, "192.0.2.2", x_api_key=STRANGERS_KEY)


async def test_showing_nothing_or_a_session_that_is_over_is_no_try(house: House) -> None:
    key = house.ring.add()
    cookie, _ = house.sessions.begin(house.ring.file.check(key))
    house.ring.revoke(key)
    for _ in range(2 * TRIES):
        with pytest.raises(Unauthorized):
            await identify(house.gate)
        with pytest.raises(SessionEnded):
            await identify(house.gate, cookie=f"gateway_session={cookie}")
    with pytest.raises(Unauthorized):  # the first that counts
        await identify(house.gate, x_api_key=key)


async def test_a_live_stream_is_accepted_as_long_as_its_credential(house: House) -> None:
    key = house.ring.add()
    by_key = await identify(house.gate, x_api_key=key)
    by_token = await identify(house.gate, x_api_key=SIGNER.token(exp=int(house.clock.now) + 3600))
    cookie, ends_at = house.sessions.begin(by_key)
    in_session = await identify(house.gate, cookie=f"gateway_session={cookie}")
    everybody = (by_key, by_token, in_session)
    begin = house.clock.now
    assert all(map(house.gate.still_accepts, everybody))
    house.clock.now += 3600
    assert list(map(house.gate.still_accepts, everybody)) == [True, False, True]
    house.clock.now = ends_at
    assert list(map(house.gate.still_accepts, everybody)) == [True, False, False]
    house.clock.now = begin
    house.ring.rotate(key)
    assert list(map(house.gate.still_accepts, everybody)) == [False, True, False]
    assert not house.gate.still_accepts(Caller(ANONYMOUS))
    assert not Gate(house.settings, tokens=house.tokens).still_accepts(by_key)
    assert not Gate(house.settings, keys=house.ring.file).still_accepts(by_token)


async def test_no_credential_gets_into_the_log(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown = [STRANGERS_KEY, "eyJ0.canary.c2ln", "c2Vzc2lvbg.Y2FuYXJ5"]
    for _ in range(2 * TRIES):
        for headers in ({"x-api-key": shown[0]}, {"authorization": f"Bearer {shown[1]}"}):
            with pytest.raises((Unauthorized, RateLimited)):
                await identify(house.gate, **headers)
        with pytest.raises((Unauthorized, RateLimited)):
            await identify(house.gate, cookie=f"gateway_session={shown[2]}")
    assert caplog.records
    assert not any(text in caplog.text for text in shown)
