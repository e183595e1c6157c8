"""A page whose origin stands in ``GATEWAY_CORS_ORIGINS``: it may do all that our own may."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page

from app.simulator import expected_text
from tests.live.asking import PROBLEM_FIELDS, marker
from tests.live.browser import NETWORK, Visitor
from tests.live.cutting_proxy import CuttingProxy, Fate, cutting_proxy
from tests.live.other_site import ATTACKS, other_site
from tests.live.servers import SimulatorProcess, running_gateway

_ASK = """([url, options]) => fetch(url, options).then((r) => r.text().then((body) => (
  { status: r.status, body, headers: Object.fromEntries(r.headers) })))"""
_LISTEN = """(url) => new Promise((resolve, reject) => {
  const got = [];
  const source = new EventSource(url, { withCredentials: true });
  for (const type of ['start', 'token', 'final', 'done']) {
    source.addEventListener(type, (event) => {
      got.push({ type, ...JSON.parse(event.data) });
      if (type === 'done') { source.close(); resolve(got); }
    });
  }
  source.onerror = () => source.readyState === 2 && reject(new Error('closed'));
})"""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with other_site() as port:
        yield port


@pytest.fixture(scope="module")
def open_proxy(
    port: int, simulator: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CuttingProxy]:
    """In front of a gateway that allows ``friend.example``."""
    cwd, origins = tmp_path_factory.mktemp("gateway"), f"http://friend.example:{port}"
    with (
        running_gateway(cwd, simulator.url, cors_origins=origins) as gateway,
        cutting_proxy(gateway.url) as proxy,
    ):
        yield proxy


@pytest.fixture
def friend(visitor: Visitor, port: int) -> Page:
    page = visitor.context.new_page()
    page.goto(f"http://friend.example:{port}/")
    return page


def ask(page: Page, url: str, **options: Any) -> dict[str, Any]:
    """``fetch``; what the page may read of the answer."""
    answer: dict[str, Any] = page.evaluate(_ASK, [url, {"credentials": "include", **options}])
    return answer


def post(page: Page, url: str, **body: Any) -> dict[str, Any]:
    headers = {"content-type": "application/json", "idempotency-key": marker()}
    return ask(page, url, method="POST", headers=headers, body=json.dumps(body))


def test_an_allowed_page_asks_and_reads_the_exposed_headers(
    friend: Page, open_proxy: CuttingProxy
) -> None:
    url = open_proxy.url
    answer = post(friend, f"{url}/chat", text="sim:tokens,n=3")

    assert answer["status"] == 200
    assert answer["body"].count("event: token") == 3
    headers = answer["headers"]
    assert headers["location"] == headers["content-location"] + "/events"
    assert headers["x-request-id"]
    again = ask(friend, url + headers["location"], headers={"last-event-id": ""})
    assert again["body"] == answer["body"]
    run = ask(friend, url + headers["content-location"])
    assert json.loads(run["body"])["status"] == "completed"
    gone = ask(friend, url + headers["content-location"], method="DELETE")
    assert json.loads(gone["body"])["stopped_after_ms"] == 0


def test_an_allowed_page_reads_why_it_was_refused(
    visitor: Visitor, friend: Page, open_proxy: CuttingProxy
) -> None:
    visitor.allow(NETWORK)
    for answer, status in [
        (post(friend, f"{open_proxy.url}/chat", text=""), 422),
        (post(friend, f"{open_proxy.url}/chat", text="x", unknown=1), 422),
        (ask(friend, f"{open_proxy.url}/runs/{'x' * 22}"), 404),
        (ask(friend, f"{open_proxy.url}/nowhere"), 404),
        (ask(friend, f"{open_proxy.url}/chat", method="DELETE"), 405),
    ]:
        assert answer["status"] == status
        problem = json.loads(answer["body"])
        assert set(problem) == PROBLEM_FIELDS
        assert problem["request_id"] == answer["headers"]["x-request-id"]


def test_an_allowed_page_listens_with_eventsource_and_reconnects(
    friend: Page, open_proxy: CuttingProxy, simulator: SimulatorProcess
) -> None:
    word = marker()
    open_proxy.fates.extend([Fate("end", events=2)] * 2)
    url = f"{open_proxy.url}/chat?text=sim:awkward%20{word}"
    got = friend.evaluate(_LISTEN, url)

    tokens = "".join(event["text"] for event in got if event["type"] == "token")
    assert tokens == got[-2]["text"] == expected_text("sim:awkward")
    assert [each.status for each in open_proxy.asked(word)] == [200] * 3
    assert simulator.stats(word)["started"] == 1


def test_the_others_stay_out_where_one_is_allowed(
    visitor: Visitor, open_proxy: CuttingProxy, simulator: SimulatorProcess, port: int
) -> None:
    visitor.allow("")
    evil = visitor.context.new_page()
    evil.goto(f"http://evil.example:{port}/")
    word = marker()
    url = f"{open_proxy.url}/chat?text=sim:tokens%20{word}"
    for attack in ("fetch, GET", "an EventSource", "fetch, POST of text, no-cors", "an image"):
        assert evil.evaluate(ATTACKS[attack], url) == "nothing"

    asked = open_proxy.asked(word)
    assert [each.status for each in asked] == [403] * 4
    assert simulator.stats(word)["started"] == 0
