"""A real browser signs in with a key, and its ``EventSource`` is let in by the cookie alone."""

import json

from playwright.sync_api import Page

from tests.live.access.people import Guarded
from tests.live.browser import NETWORK, Visitor, wait_until

_SIGN_IN = """(key) => fetch('/session', {
  method: 'POST', headers: { Authorization: `Bearer ${key}` },
}).then((answer) => answer.status)"""
_SIGN_OUT = "() => fetch('/session', { method: 'DELETE' }).then((answer) => answer.status)"
_FOLLOW = """(url) => {
  window.got = [];
  window.source = new EventSource(url);
  for (const type of ['start', 'token', 'final', 'done']) {
    source.addEventListener(type, (event) => got.push([type, JSON.parse(event.data)]));
  }
  source.addEventListener('done', () => source.close());
}"""
_HAS_GIVEN_UP = "() => source.readyState === EventSource.CLOSED"


def follow(page: Page, text: str) -> None:
    page.evaluate(_FOLLOW, f"/chat?text={text}")


def test_event_source_is_let_in_by_a_session(visitor: Visitor, guarded: Guarded) -> None:
    visitor.allow(NETWORK)  # 401 is logged
    page = visitor.context.new_page()
    page.goto(f"{guarded.url}/docs")

    follow(page, "sim:tokens,n=3")
    wait_until(lambda: page.evaluate(_HAS_GIVEN_UP), "401 ends it for good", page)
    assert page.evaluate("() => got") == []

    assert page.evaluate(_SIGN_IN, guarded.ann.key) == 201
    assert page.evaluate("() => document.cookie") == "", "scripts cannot read it"
    follow(page, "sim:tokens,n=3")
    wait_until(lambda: page.evaluate(_HAS_GIVEN_UP), "done", page)
    got = page.evaluate("() => got")
    assert [type for type, _ in got] == ["start", *["token"] * 3, "final", "done"], json.dumps(got)

    assert page.evaluate(_SIGN_OUT) == 204
    assert visitor.context.cookies() == []
    follow(page, "sim:tokens,n=3")
    wait_until(lambda: page.evaluate(_HAS_GIVEN_UP), "401 ends it for good", page)
    assert page.evaluate("() => got") == []
