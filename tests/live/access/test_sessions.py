"""Browser sessions: signing in with a key, what the cookie opens, and what ends it."""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from http.cookies import Morsel, SimpleCookie

import httpx
import pytest

from tests.live.access.conftest import StartGuarded
from tests.live.access.people import Guarded, Person, call, joined
from tests.live.asking import assert_problem
from tests.live.reading import answer, ask, opened, until
from tests.live.servers import Gateway

pytestmark = pytest.mark.anyio

PLAIN_NAME, TLS_NAME = "gateway_session", "__Host-gateway_session"


def morsels(response: httpx.Response) -> dict[str, "Morsel[str]"]:
    """The cookies that an answer sets, by name."""
    jar: SimpleCookie = SimpleCookie()
    for line in response.headers.get_list("set-cookie"):
        jar.load(line)
    return dict(jar)


async def signed_in(url: str, who: Person) -> str:
    """What a browser shows from then on."""
    begun = await call(url, who, "POST", "/session")
    assert begun.status_code == 201, begun.text
    return f"{PLAIN_NAME}={morsels(begun)[PLAIN_NAME].value}"


async def status(url: str, cookie: str, method: str = "GET", path: str = "/session") -> int:
    headers = {"cookie": cookie, "origin": url}
    return (await call(url, None, method, path, headers=headers)).status_code


async def test_signing_out_ends_the_sessions_live_streams(guarded: Guarded) -> None:
    cookie = await signed_in(guarded.url, guarded.ann)
    headers = {"cookie": cookie}
    path = f"/chat?text={ask('tokens,n=5000,interval=0.05')}".replace(" ", "+")
    async with opened(guarded.url, "GET", path, None, headers) as stream:
        await stream.events(3)
        assert await status(guarded.url, cookie, "DELETE") == 204
        async with asyncio.timeout(30):
            end = await stream.until("done")
    assert [event.event for event in end[-2:]] == ["error", "done"]


async def test_a_key_becomes_a_cookie_that_scripts_and_other_sites_cannot_use(
    guarded: Guarded,
) -> None:
    begun = await call(guarded.url, guarded.ann, "POST", "/session")
    assert begun.status_code == 201
    assert set(begun.json()) == {"caller", "expires_at"}
    assert begun.json()["caller"] == guarded.ann.id
    lasts_s = datetime.fromisoformat(begun.json()["expires_at"]).timestamp() - time.time()
    assert 12 * 3600 - 60 < lasts_s <= 12 * 3600
    assert begun.headers["cache-control"] == "no-store"

    ((name, cookie),) = morsels(begun).items()
    assert name == PLAIN_NAME
    assert cookie["httponly"]
    assert (cookie["samesite"].lower(), cookie["path"]) == ("strict", "/")
    assert abs(int(cookie["max-age"]) - lasts_s) < 60
    assert (cookie["domain"], cookie["secure"]) == ("", "")
    assert guarded.ann.key not in begun.text + str(begun.headers)


async def test_it_opens_what_the_key_opens(guarded: Guarded) -> None:
    """An ``EventSource`` can send no header of its own: it starts, breaks off and comes back."""
    cookie = await signed_in(guarded.url, guarded.ann)
    browser = {"cookie": cookie, "accept": "text/event-stream", "sec-fetch-site": "same-origin"}
    path = f"/chat?text={ask('tokens,n=40,interval=0.01')}".replace(" ", "+")
    async with opened(guarded.url, "GET", path, headers=browser) as stream:
        seen = await stream.events(5)
        run_id = await stream.run_id()
    back = {**browser, "last-event-id": seen[-1].id}
    async with opened(guarded.url, "GET", path, headers=back) as stream:
        assert await stream.run_id() == run_id
        assert answer(seen + await stream.rest()) == "".join(f"tok{n} " for n in range(40))
    shown = await call(guarded.url, guarded.ann, "GET", f"/runs/{run_id}")
    assert shown.json()["status"] == "completed", "the key's caller is the same one"
    assert (await call(guarded.url, guarded.bob, "GET", f"/runs/{run_id}")).status_code == 404
    who = await call(guarded.url, None, "GET", "/session", headers={"cookie": cookie})
    assert who.json()["caller"] == guarded.ann.id


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ({}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"origin": "{url}"}, 201),
        ({"sec-fetch-site": "same-origin"}, 201),
    ],
)
async def test_only_our_own_pages_write_with_it(
    guarded: Guarded, shown: dict[str, str], expected: int
) -> None:
    cookie = await signed_in(guarded.url, guarded.ann)
    headers = {name: value.format(url=guarded.url) for name, value in shown.items()}
    begun = await call(
        guarded.url, None, "POST", "/runs", {"text": "hi"}, {"cookie": cookie, **headers}
    )
    assert begun.status_code == expected, begun.text


async def test_a_session_begins_with_a_key_and_not_with_a_session(guarded: Guarded) -> None:
    cookie = await signed_in(guarded.url, guarded.ann)
    assert await status(guarded.url, cookie, "POST") == 401
    refused = await call(guarded.url, None, "POST", "/session")
    assert_problem(refused, 401, "unauthorized")
    assert "set-cookie" not in refused.headers
    both = await call(guarded.url, guarded.bob, "POST", "/session", headers={"cookie": cookie})
    assert both.json()["caller"] == guarded.bob.id


async def test_signing_out_ends_this_session_and_no_other(guarded: Guarded) -> None:
    here, there = [await signed_in(guarded.url, guarded.ann) for _ in range(2)]
    ended = await call(
        guarded.url, None, "DELETE", "/session", headers={"cookie": here, "origin": guarded.url}
    )
    assert ended.status_code == 204
    taken_back = morsels(ended)
    assert set(taken_back) == {PLAIN_NAME, TLS_NAME}
    assert {cookie["max-age"] for cookie in taken_back.values()} == {"0"}
    assert taken_back[TLS_NAME]["secure"], "no browser takes it otherwise"
    assert await status(guarded.url, here) == 401, "whoever kept a copy"
    assert await status(guarded.url, there) == 200


async def test_signing_out_needs_no_session(guarded: Guarded) -> None:
    cookie = await signed_in(guarded.url, guarded.ann)
    for shown in (cookie, cookie, f"{PLAIN_NAME}=x", "other=1"):
        assert await status(guarded.url, shown, "DELETE") == 204
    assert (await call(guarded.url, None, "DELETE", "/session")).status_code == 204


async def test_another_sites_page_signs_nobody_out(guarded: Guarded) -> None:
    cookie = await signed_in(guarded.url, guarded.ann)
    refused = await call(guarded.url, None, "DELETE", "/session", headers={"cookie": cookie})
    assert refused.status_code == 403
    assert await status(guarded.url, cookie) == 200


async def test_what_we_did_not_sign_is_no_session(guarded: Guarded) -> None:
    name, _, value = (await signed_in(guarded.url, guarded.ann)).partition("=")
    claims, _, signature = value.partition(".")
    others = (await signed_in(guarded.url, guarded.bob)).partition("=")[2].partition(".")[0]
    for forged in ("x", claims, f"{claims}.", f"{others}.{signature}", f"{claims}.{signature}A"):
        assert await status(guarded.url, f"{name}={forged}") == 401, forged


async def test_it_ends_with_its_key(guarded: Guarded) -> None:
    brief = await joined(guarded, lasts_s=8)
    begun = await call(guarded.url, brief, "POST", "/session")
    cookie = morsels(begun)[PLAIN_NAME]
    assert int(cookie["max-age"]) <= 8
    shown = [f"{PLAIN_NAME}={cookie.value}"]
    for change in (guarded.ring.revoke, guarded.ring.rotate):
        who = await joined(guarded)
        shown.append(await signed_in(guarded.url, who))
        assert await status(guarded.url, shown[-1]) == 200
        change(who)

    async def statuses() -> set[int]:
        return {await status(guarded.url, each) for each in shown}

    await until(statuses, {401}.__eq__, "401 for all of them")


async def test_over_tls_it_has_the_name_that_only_tls_may_set(start_guarded: StartGuarded) -> None:
    """What a proxy that we trust says of the scheme counts; what anybody else says does not."""
    behind = start_guarded(trusted_proxies="127.0.0.0/8")
    tls = {"x-forwarded-proto": "https"}
    begun = await call(behind.url, behind.ann, "POST", "/session", headers=tls)
    ((name, cookie),) = morsels(begun).items()
    assert name == TLS_NAME
    assert cookie["secure"]
    for shown, expected in ((TLS_NAME, 200), (PLAIN_NAME, 401)):
        headers = {**tls, "cookie": f"{shown}={cookie.value}"}
        found = await call(behind.url, None, "GET", "/session", headers=headers)
        assert found.status_code == expected, shown


async def test_who_is_no_proxy_says_nothing_of_the_scheme(guarded: Guarded) -> None:
    tls = {"x-forwarded-proto": "https"}
    begun = await call(guarded.url, guarded.ann, "POST", "/session", headers=tls)
    assert list(morsels(begun)) == [PLAIN_NAME]


async def test_an_open_gateway_has_no_sessions_and_says_that_nobody_needs_one(
    gateway: Gateway,
) -> None:
    asked = await call(gateway.url, None, "GET", "/session")
    assert (asked.status_code, asked.json()) == (200, {"caller": "anonymous", "expires_at": None})
    assert_problem(await call(gateway.url, None, "POST", "/session"), 404, "not_found")
    assert (await call(gateway.url, None, "DELETE", "/session")).status_code == 204


async def test_with_the_same_secret_it_is_good_at_another_gateway(
    start_gateway: Callable[..., Gateway], guarded: Guarded, start_guarded: StartGuarded
) -> None:
    settings = {
        "api_keys_file": guarded.ring.path,
        "session_secret_file": guarded.ring.path.parent / "data" / "session_secret",
    }
    same, other = start_gateway(**settings), start_guarded()
    cookie = await signed_in(guarded.url, guarded.ann)
    assert await status(same.url, cookie) == 200
    assert await status(other.url, cookie) == 401
