"""Chromium, driven by Playwright, and the chat page in it. Every wait has a bound.

Playwright's synchronous interface keeps an event loop for as long as it runs, and no other loop
may run beside it; so a browser lives for one module and is not shared with asynchronous tests.

Names: every other host than 127.0.0.1 and localhost is not found, but for those in ``HOSTS``, which
are this machine too. So pages of another site are real, and the tests need no network.
"""

import re
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    expect,
    sync_playwright,
)

from tests.live.cutting_proxy import CuttingProxy, cutting_proxy
from tests.live.servers import Gateway, SimulatorProcess, running_gateway

WAIT_S = 30.0
WAIT_MS = WAIT_S * 1000
HOSTS = ("evil.example", "friend.example")
_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules="
    + "".join(f"MAP {host} 127.0.0.1," for host in HOSTS)
    + "MAP * ~NOTFOUND,EXCLUDE 127.0.0.1,EXCLUDE localhost",
]
# What Chromium itself writes to the console for a connection that a test has cut or refused.
NETWORK = r"Failed to load resource: (net::ERR_|the server responded with a status of )"

# Notes all that the status line says, and how long the answer was whenever it changed.
_WATCH = """() => {
  window.seen = { said: [], lengths: [] };
  const watch = (selector, note) => {
    const options = { childList: true, characterData: true, subtree: true };
    new MutationObserver(note).observe(document.querySelector(selector), options);
  };
  watch('#status', () => seen.said.push(document.querySelector('#status').textContent));
  watch('#log', () => {
    const answer = [...document.querySelectorAll('.answer .text')].pop();
    if (answer) seen.lengths.push(answer.textContent.length);
  });
}"""


class ChatPage:
    """The gateway's page, used as a person does: by labels, roles and keys."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.question = page.get_by_role("textbox", name="Your question")
        self.send = page.get_by_role("button", name="Send")
        self.stop = page.get_by_role("button", name="Stop")
        self.fresh = page.get_by_role("button", name="New chat")
        self.again = page.get_by_role("button", name="Ask again")
        self.status = page.get_by_role("status")
        self.log = page.get_by_role("log", name="Conversation")
        self.answer = page.locator(".answer .text").last
        self.notes = page.locator(".answer .notes").last
        page.goto(url)
        page.evaluate(_WATCH)

    def ask(self, text: str) -> None:
        self.question.fill(text)
        self.question.press("Enter")

    def says(self, words: str | re.Pattern[str]) -> None:
        expect(self.status).to_have_text(words)

    def completes(self) -> str:
        """Wait for the end of the answer, and answer its text as the DOM holds it."""
        self.says("Answer complete.")
        return self.text

    @property
    def text(self) -> str:
        return self.answer.text_content() or ""

    @property
    def said(self) -> list[str]:
        """All that the status line has said so far."""
        said: list[str] = self.page.evaluate("() => seen.said")
        return said

    @property
    def lengths(self) -> list[int]:
        """The answer's lengths so far; the last question's alone if it was asked on a new page."""
        lengths: list[int] = self.page.evaluate("() => seen.lengths")
        return lengths


class Visitor:
    """Opens pages, and remembers what none of them may do: complain, or ask other origins."""

    def __init__(self, browser: Browser) -> None:
        self.context = browser.new_context()
        self.context.set_default_timeout(WAIT_MS)
        self.context.on("console", self._complaint)
        self.context.on("weberror", lambda error: self._complaints.append(str(error.error)))
        self.context.on("request", self._requested)
        self._complaints: list[str] = []
        self._allowed: list[str] = []
        self.requests: list[Request] = []

    def chat(self, url: str) -> ChatPage:
        return ChatPage(self.context.new_page(), url)

    def allow(self, pattern: str) -> None:
        """Console messages that this test brings about."""
        self._allowed.append(pattern)

    @property
    def complaints(self) -> list[str]:
        return [
            text
            for text in self._complaints
            if not any(re.match(pattern, text) for pattern in self._allowed)
        ]

    def origins(self) -> set[str]:
        return {"/".join(request.url.split("/")[:3]) for request in self.requests}

    def _complaint(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._complaints.append(message.text)

    def _requested(self, request: Request) -> None:
        self.requests.append(request)


def wait_until(holds: Callable[[], object], what: str, page: Page | None = None) -> None:
    """Poll until something holds; ``page``: let its events in meanwhile."""
    deadline = time.monotonic() + WAIT_S
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {WAIT_S:g} s: {what}")
        if page:
            page.wait_for_timeout(20)
        else:
            time.sleep(0.02)  # a poll of another process, bounded above


def upstream_ends(simulator: SimulatorProcess, word: str, outcome: str) -> dict[str, Any]:
    """Wait for the end of the only call with ``word`` in its prompt; its statistics."""
    wait_until(lambda: simulator.stats(word)["open"] == 0, "the upstream call has ended")
    (call,) = simulator.stats(word)["calls"]
    assert call["outcome"] == outcome, call
    stats: dict[str, Any] = call
    return stats


def texts(locator: Locator) -> list[str]:
    return [(text or "").strip() for text in locator.all_text_contents()]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = shutil.which("chromium")
    assert executable, "Chromium is missing: `make test` says how to get it"
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=_FLAGS, timeout=WAIT_MS
        )
        yield browser
        browser.close()


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Visitor]:
    visitor = Visitor(browser)
    yield visitor
    visitor.context.close()
    assert not visitor.complaints, visitor.complaints


@pytest.fixture(scope="session")
def page_gateway(
    simulator: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway that leaves a silent model and a slow test machine their time."""
    with running_gateway(
        tmp_path_factory.mktemp("gateway"), simulator.url, heartbeat_seconds=2
    ) as process:
        yield process


@pytest.fixture
def chat(visitor: Visitor, page_gateway: Gateway) -> Iterator[ChatPage]:
    """The page of that gateway; in the end it must have asked nobody else."""
    yield visitor.chat(page_gateway.url)
    assert visitor.origins() == {page_gateway.url}


@pytest.fixture
def proxy(page_gateway: Gateway) -> Iterator[CuttingProxy]:
    with cutting_proxy(page_gateway.url) as proxy:
        yield proxy


@pytest.fixture
def cut_chat(visitor: Visitor, proxy: CuttingProxy) -> Iterator[ChatPage]:
    """The page as it comes through the proxy."""
    visitor.allow(NETWORK)
    yield visitor.chat(proxy.url)
    assert visitor.origins() == {proxy.url}
