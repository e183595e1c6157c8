"""Pages of other sites, in a real browser: they start nothing and read nothing.

Every attempt goes through a proxy that notes it, so that "nothing happened" means that the gateway
was asked and refused, not that the browser never asked.
"""

import json
from collections.abc import Iterator
from urllib.parse import urlencode

import httpx
import pytest
from playwright.sync_api import Page

from tests.live.asking import marker
from tests.live.browser import Visitor, wait_until
from tests.live.cutting_proxy import CuttingProxy, Exchange, cutting_proxy
from tests.live.other_site import ATTACKS, other_site
from tests.live.servers import Gateway, SimulatorProcess

SITES = {"another site": "evil.example", "another port": "127.0.0.1", "localhost": "localhost"}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with other_site() as port:
        yield port


@pytest.fixture
def evil(visitor: Visitor) -> Page:
    """A page of nobody's yet; what its console says is its own affair."""
    visitor.allow("")
    return visitor.context.new_page()


def refused(proxy: CuttingProxy, word: str, page: Page) -> list[Exchange]:
    """Wait for the attempts with that word; all of them must have been refused."""
    wait_until(
        lambda: proxy.asked(word) and all(each.status for each in proxy.asked(word)),
        f"{word} has reached the gateway and was answered",
        page,
    )
    asked = proxy.asked(word)
    assert {each.status for each in asked} <= {403, 406}, asked
    assert not any(each.is_stream for each in asked)
    return asked


@pytest.mark.parametrize("site", SITES)
def test_another_sites_page_starts_nothing(
    evil: Page,
    proxy: CuttingProxy,
    simulator: SimulatorProcess,
    page_gateway: Gateway,
    port: int,
    site: str,
) -> None:
    """406 is what a link of another port gets, and everybody else 403."""
    before = simulator.stats()["started"]
    for attack, code in ATTACKS.items():
        word = marker()
        evil.goto(f"http://{SITES[site]}:{port}/")
        query = urlencode({"text": f"sim:tokens,n=3 {word}"})
        outcome = evil.evaluate(code, f"{proxy.url}/chat?{query}")

        assert outcome == "nothing", attack
        for each in refused(proxy, word, evil):
            navigated = each.headers.get("sec-fetch-mode") == "navigate" and each.method == "GET"
            expected = 406 if navigated and site == "another port" else 403
            assert each.status == expected, (attack, each)
    with httpx.Client(base_url=page_gateway.url, trust_env=False) as client:
        assert "event: done" in client.get("/chat", params={"text": "sim:tokens"}).text
    assert simulator.stats()["started"] == before + 1, "ours alone"


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("path", ["/runs", "/stream-chat"])
def test_no_other_door_starts_anything_either(
    evil: Page, proxy: CuttingProxy, simulator: SimulatorProcess, port: int, site: str, path: str
) -> None:
    before = simulator.stats()["started"]
    evil.goto(f"http://{SITES[site]}:{port}/")
    for attack in (name for name in ATTACKS if "post" in name.lower()):
        word = marker()
        query = urlencode({"text": f"sim:tokens,n=3 {word}"})
        evil.evaluate(ATTACKS[attack], f"{proxy.url}{path}?{query}")
        assert {each.status for each in refused(proxy, word, evil)} == {403}
    assert simulator.stats()["started"] == before


@pytest.fixture
def run(page_gateway: Gateway, simulator: SimulatorProcess) -> Iterator[str]:
    """Somebody's run, in the middle of its answer, whose id has become known."""
    word = marker()
    with httpx.Client(base_url=page_gateway.url, trust_env=False) as client:
        body = {"text": f"sim:stall,after=3 {word}", "grace_seconds": 600}
        run_id = client.post("/runs", json=body).raise_for_status().json()["run_id"]
        wait_until(lambda: simulator.stats(word)["open"] == 1, "the model was asked")
        yield run_id
        assert client.get(f"/runs/{run_id}").json()["status"] == "running"
        assert simulator.stats(word)["open"] == 1
        assert client.delete(f"/runs/{run_id}").json()["status"] == "cancelled"


READING = ["a script", "an EventSource", "fetch, GET", "fetch, GET, no-cors", "a sandboxed script"]
ENDING = ["fetch, DELETE", "fetch, POST of text", "fetch, POST of text, no-cors"]
ENDING += ["fetch, POST of JSON", "a form that posts", "a beacon"]


@pytest.mark.parametrize("site", SITES)
def test_a_known_run_is_neither_read_nor_ended_by_another_sites_page(
    evil: Page, proxy: CuttingProxy, port: int, run: str, site: str
) -> None:
    evil.goto(f"http://{SITES[site]}:{port}/")
    tries = [(attack, path) for attack in READING for path in ("", "/events")]
    tries += [(attack, path) for attack in ENDING for path in ("", "/cancel")]
    for attack, path in tries:
        word = marker()
        outcome = evil.evaluate(ATTACKS[attack], f"{proxy.url}/runs/{run}{path}?{word}")
        assert {each.status for each in refused(proxy, word, evil)} == {403}, (attack, path)
        assert outcome == "nothing", (attack, path)


@pytest.mark.parametrize("site", SITES)
def test_a_frame_with_a_known_run_cannot_be_looked_into(
    evil: Page, proxy: CuttingProxy, port: int, run: str, site: str
) -> None:
    evil.goto(f"http://{SITES[site]}:{port}/")

    assert evil.evaluate(ATTACKS["an iframe"], f"{proxy.url}/runs/{run}") == "nothing"
    assert [each.status for each in proxy.asked(run)] == [200 if site == "another port" else 403]


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("path", ["/", "/docs"])
def test_the_pages_cannot_be_framed(
    evil: Page, proxy: CuttingProxy, port: int, site: str, path: str
) -> None:
    evil.goto(f"http://{SITES[site]}:{port}/")
    evil.evaluate(ATTACKS["an iframe"], f"{proxy.url}{path}")

    assert [each.status for each in proxy.asked(path)] == [200], "and no script nor style of it"
    assert evil.frames[1].locator("#ask, #reference").count() == 0


def test_a_name_that_is_rebound_to_this_machine_gets_nothing(
    evil: Page, page_gateway: Gateway, simulator: SimulatorProcess, run: str
) -> None:
    """DNS rebinding: first the name leads to a page of theirs, then to us. The browser takes both
    for one origin, and only ``Host`` tells."""
    with other_site() as port:
        evil.goto(f"http://evil.example:{port}/")
    word = marker()
    headers = {"content-type": "application/json"}
    body = json.dumps({"text": f"sim:tokens,n=3 {word}"})
    question = {"method": "POST", "headers": headers, "body": body}
    code = """([path, options]) => fetch(path, options).then((r) => r.json().then((b) =>
      [r.status, b.code, r.headers.get('content-type')]))"""
    with cutting_proxy(page_gateway.url, port) as proxy:
        for path, options in [
            (f"/chat?text=sim:tokens%20{word}", {}),
            ("/chat", question),
            ("/runs", question),
            (f"/runs/{run}", {}),
            (f"/runs/{run}/events", {}),
            (f"/runs/{run}", {"method": "DELETE"}),
            (f"/runs/{run}/cancel", {"method": "POST"}),
            ("/models", {}),
            ("/openapi.json", {}),
            ("/app.js", {}),
        ]:
            told = evil.evaluate(code, [path, options])
            assert told == [403, "forbidden", "application/problem+json"], path
        answer = evil.reload()
        assert answer
        assert answer.status == 403
        asked = proxy.exchanges[:10]
    assert [each.headers["host"] for each in asked] == [f"evil.example:{port}"] * 10
    assert not any("sec-fetch-site" in each.headers for each in asked), "nothing else tells"
    assert simulator.stats(word)["started"] == 0


def test_typing_a_question_into_the_address_bar_starts_nothing(
    evil: Page, proxy: CuttingProxy, simulator: SimulatorProcess
) -> None:
    word = marker()
    answer = evil.goto(f"{proxy.url}/chat?text=sim:tokens%20{word}")

    assert answer
    assert answer.status == 406
    assert answer.json()["code"] == "not_acceptable"
    assert [each.headers["sec-fetch-site"] for each in proxy.asked(word)] == ["none"]
    assert simulator.stats(word)["started"] == 0


def test_a_link_on_the_page_itself_starts_nothing(
    visitor: Visitor, proxy: CuttingProxy, simulator: SimulatorProcess
) -> None:
    """Same-origin navigation and prefetch: what a model's answer with a link in it could bring."""
    visitor.allow("")
    word = marker()
    page = visitor.chat(proxy.url).page
    for attack in ("a prefetch", "a form that gets", "a navigation"):
        page.evaluate(ATTACKS[attack], f"{proxy.url}/chat?text=sim:tokens%20{word}")
    refused(proxy, word, page)

    assert {each.status for each in proxy.asked(word)} == {406}
    assert simulator.stats(word)["started"] == 0
