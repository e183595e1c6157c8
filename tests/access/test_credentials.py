"""What a request shows: one credential, none, or what is refused."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.access.credentials import (
    MAX_BYTES,
    Credential,
    cookie_name,
    find_credential,
    session_cookie,
)
from app.errors import Unauthorized

KEY = "gw_abcdefghijklmnop_" + "s-_S" * 10 + "xyz"
TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2ln+/~=="
OTHER = KEY.replace("s", "t")
HOST_COOKIE = "__Host-gateway_session"


def found(*headers: tuple[str, str], is_tls: bool = False) -> Credential | None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return find_credential(raw, is_tls=is_tls)


@pytest.mark.parametrize("text", [KEY, TOKEN])
@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  "])
def test_a_bearer_is_found_in_any_case(scheme: str, text: str) -> None:
    assert found(("accept", "*/*"), ("authorization", scheme + text)) == Credential(text)


def test_a_key_of_its_own_header_is_found() -> None:
    assert found(("x-api-key", KEY)) == Credential(KEY)
    assert found(("x-api-key", f" {KEY}\t")) == Credential(KEY)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("cookie", "a=b")],
        [("authorization", "")],
        [("authorization", "Bearer")],
        [("authorization", "Bearer ")],
        [("x-api-key", "")],
        [("x-api-key", " "), ("authorization", "bearer  ")],
        [("cookie", "gateway_session=")],
        [("cookie", "")],
    ],
)
def test_nothing_and_what_is_empty_is_no_credential(headers: list[tuple[str, str]]) -> None:
    assert found(*headers) is None


def test_what_is_empty_hides_nothing_beside_it() -> None:
    key = Credential(KEY)
    assert found(("authorization", "Bearer "), ("x-api-key", KEY)) == key
    assert found(("x-api-key", ""), ("authorization", f"Bearer {KEY}")) == key
    cookie = ("cookie", "gateway_session=value")
    assert found(("authorization", "Bearer "), cookie) == Credential("value", is_session=True)


@pytest.mark.parametrize(
    "headers",
    [
        [("authorization", f"Bearer {KEY}"), ("x-api-key", KEY)],
        [("authorization", f"Bearer {KEY}"), ("authorization", f"bearer  {KEY}")],
        [("x-api-key", KEY), ("x-api-key", KEY)],
    ],
)
def test_the_same_one_twice_is_one(headers: list[tuple[str, str]]) -> None:
    assert found(*headers) == Credential(KEY)


@pytest.mark.parametrize(
    "headers",
    [
        [("authorization", f"Bearer {KEY}"), ("x-api-key", OTHER)],
        [("authorization", f"Bearer {KEY}"), ("authorization", f"Bearer {OTHER}")],
        [("x-api-key", KEY), ("x-api-key", OTHER)],
        [("authorization", f"Bearer {KEY}"), ("authorization", "Basic dTpw")],
        [("cookie", "gateway_session=a; gateway_session=b")],
        [("cookie", "gateway_session=a"), ("cookie", "x=y; gateway_session=b")],
    ],
)
def test_two_different_ones_are_refused(headers: list[tuple[str, str]]) -> None:
    for order in (headers, headers[::-1]):
        with pytest.raises(Unauthorized):
            found(*order)


@pytest.mark.parametrize(
    "value",
    [
        "Basic dXNlcjpwYXNz",
        f"Digest {KEY}",
        KEY,
        f"Bearer\t{KEY}",
        f"Bearer:{KEY}",
        f"Bearer {KEY}, Bearer {OTHER}",
        f"Bearer {KEY} {OTHER}",
        f"Bearer {KEY}\n",
        f"Bearer {KEY}\x00",
        f"Bearer {KEY}\x7f",
        f"Bearer {KEY}\xe9",
        f'Bearer "{KEY}"',
        "Bearer =",
        "Bearer " + "a" * (MAX_BYTES + 1),
        "\xc3\xa9",
    ],
)
def test_what_can_be_none_is_refused(value: str) -> None:
    with pytest.raises(Unauthorized):
        found(("authorization", value))


@pytest.mark.parametrize(
    "value", [f"Bearer {KEY}", f"{KEY},{OTHER}", f"{KEY}\0", "\xe9", "=", '""']
)
def test_a_header_of_its_own_takes_nothing_but_a_key(value: str) -> None:
    with pytest.raises(Unauthorized):
        found(("x-api-key", value))


def test_a_long_token_is_found_whole() -> None:
    assert found(("authorization", "Bearer " + "a" * MAX_BYTES)) == Credential("a" * MAX_BYTES)


@pytest.mark.parametrize("is_tls", [False, True])
def test_a_session_is_found_under_the_name_of_its_connection_alone(is_tls: bool) -> None:
    ours, theirs = cookie_name(is_tls=is_tls), cookie_name(is_tls=not is_tls)
    assert {ours, theirs} == {HOST_COOKIE, "gateway_session"}
    cookie = ("cookie", f"theme=dark; {theirs}=evil;{ours}=good.value=; last=1")
    assert found(cookie, is_tls=is_tls) == Credential("good.value=", is_session=True)
    assert found(("cookie", f"{theirs}=evil"), is_tls=is_tls) is None
    assert cookie_name(is_tls=True) == HOST_COOKIE


@pytest.mark.parametrize(
    "pair",
    ["gateway_session", "GATEWAY_SESSION=a", "xgateway_session=a", "gateway_session =a", "=a"],
)
def test_no_other_name_is_the_session(pair: str) -> None:
    assert found(("cookie", pair)) is None


def test_the_same_session_twice_is_one() -> None:
    cookie = ("cookie", "gateway_session=a; gateway_session=a; gateway_session=")
    assert found(cookie, cookie) == Credential("a", is_session=True)


def test_a_session_that_is_not_ascii_is_refused() -> None:
    with pytest.raises(Unauthorized):
        found(("cookie", "gateway_session=\xe9"))
    assert found(("cookie", "other=\xe9; gateway_session=a")) == Credential("a", is_session=True)


def test_a_header_goes_before_the_cookie_even_when_it_is_bad() -> None:
    cookie = ("cookie", "gateway_session=a")
    assert found(cookie, ("authorization", f"Bearer {KEY}")) == Credential(KEY)
    with pytest.raises(Unauthorized):
        found(cookie, ("authorization", "Basic dTpw"))
    with pytest.raises(Unauthorized):
        found(cookie, ("x-api-key", "no key"))
    two = ("cookie", "gateway_session=a; gateway_session=b")
    assert found(two, ("x-api-key", KEY)) == Credential(KEY)


def test_who_signs_out_may_show_a_key_beside_the_cookie() -> None:
    headers = [(b"authorization", b"Bearer key"), (b"cookie", b"gateway_session=a")]
    assert session_cookie(headers, is_tls=False) == "a"
    assert session_cookie(headers, is_tls=True) is None
    with pytest.raises(Unauthorized):
        session_cookie([*headers, (b"cookie", b"gateway_session=b")], is_tls=False)


def test_a_credential_does_not_show_itself() -> None:
    assert KEY not in repr(Credential(KEY))


NAMES = st.sampled_from([b"authorization", b"x-api-key", b"cookie", b"accept"])
PIECES = st.sampled_from([b"Bearer ", b"gateway_session=", HOST_COOKIE.encode(), b"; ", b'"'])
VALUES = st.lists(PIECES | st.binary(max_size=8), max_size=6).map(b"".join)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=5), st.booleans())
def test_whatever_comes_is_a_credential_or_none_or_refused(
    headers: list[tuple[bytes, bytes]], is_tls: bool
) -> None:
    try:
        credential = find_credential(headers, is_tls=is_tls)
    except Unauthorized:
        return
    if credential is not None:
        assert credential.text
        assert credential.text.isascii()
        allowed = set(string.ascii_letters + string.digits + "._~+/-=")
        assert credential.is_session or set(credential.text) <= allowed
