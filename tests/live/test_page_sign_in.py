"""The chat page of a gateway with keys, in a real browser: signing in and out, and keys that end
while somebody reads, types or waits."""

import re
from collections.abc import Callable, Iterator

import httpx
import pytest
from playwright.sync_api import Page, expect

from app.simulator import expected_text
from tests.live.asking import marker
from tests.live.browser import NETWORK, ChatPage, Visitor
from tests.live.keyring import Keyring, noticed
from tests.live.servers import PLAIN, Gateway, SimulatorProcess, running_gateway

LONG = "sim:tokens,n=400,interval=0.05"  # a key is looked at every 5 s
WRONG = f"gw_{'a' * 16}_{'b' * 43}"


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    return Keyring(tmp_path_factory.mktemp("keys") / "keys.json")


@pytest.fixture(scope="module")
def guarded(
    simulator: SimulatorProcess, keyring: Keyring, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    keyring.add("first")
    with running_gateway(
        tmp_path_factory.mktemp("guarded"),
        simulator.url,
        api_keys_file=keyring.file,
        rate_limit="10000/minute",
    ) as process:
        yield process


@pytest.fixture
def key(guarded: Gateway, keyring: Keyring) -> str:
    """One that the gateway knows and no other test uses."""
    made = keyring.add("reader")
    noticed(guarded.url, made)
    return made


class Form:
    """The sign-in form, by what people and screen readers know it by."""

    def __init__(self, page: Page) -> None:
        self.region = page.get_by_role("region", name="Sign in")
        self.key = page.get_by_label("API key or token")
        self.button = page.get_by_role("button", name="Sign in")
        self.problem = page.get_by_role("alert")
        self.out = page.get_by_role("button", name="Sign out")

    def enter(self, key: str) -> None:
        self.key.fill(key)
        self.key.press("Enter")

    def has_let_in(self) -> None:
        expect(self.region).to_be_hidden()
        expect(self.key).to_have_value("")
        expect(self.out).to_be_visible()


@pytest.fixture
def chat(visitor: Visitor, guarded: Gateway) -> Iterator[ChatPage]:
    visitor.allow(NETWORK)  # a 401 is a line in Chromium's console
    yield visitor.chat(guarded.url)
    assert visitor.origins() == {guarded.url}


@pytest.fixture
def form(chat: ChatPage) -> Form:
    return Form(chat.page)


def test_a_key_lets_in_and_is_kept_nowhere(
    chat: ChatPage, form: Form, key: str, visitor: Visitor
) -> None:
    expect(form.key).to_be_focused()
    expect(chat.question).to_be_hidden()
    form.enter(key)
    form.has_let_in()
    chat.says("Signed in.")
    expect(chat.question).to_be_focused()
    chat.ask("sim:echo hello")

    assert chat.completes() == "hello"
    kept = chat.page.evaluate(
        "() => JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])"
    )
    assert kept == f'[{{}},{{}},"","{chat.url}/"]'
    assert key not in chat.page.content()
    shown = [request for request in visitor.requests if key in str(request.all_headers())]
    assert [f"{each.method} {each.url}" for each in shown] == [f"POST {chat.url}/session"]
    assert not any(key in request.url for request in visitor.requests)
    (cookie,) = visitor.context.cookies()
    assert cookie["name"] == "gateway_session"
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert key.split("_")[2] not in cookie["value"]


def test_a_wrong_key_is_told_in_words_and_the_next_one_lets_in(
    chat: ChatPage, form: Form, key: str
) -> None:
    form.enter(WRONG)
    expect(form.problem).to_have_text(re.compile("does not accept this key"))
    expect(form.key).to_have_value("")
    expect(form.key).to_be_focused()
    expect(form.key).to_have_attribute("aria-invalid", "true")
    expect(form.key).to_have_accessible_description(re.compile("does not accept this key"))
    form.enter("two words")
    expect(form.problem).to_have_text(re.compile("no key"))
    form.enter(f"  {key} ")

    form.has_let_in()
    expect(chat.page.locator("#key-problem")).to_be_empty()


def test_the_form_works_with_the_keyboard_alone(chat: ChatPage, form: Form, key: str) -> None:
    expect(form.key).to_be_focused()
    keyboard = chat.page.keyboard
    keyboard.press("Enter")
    expect(form.key).to_be_focused()
    keyboard.insert_text(key)
    keyboard.press("Tab")
    expect(form.button).to_be_focused()
    keyboard.press("Space")

    form.has_let_in()
    keyboard.press("Shift+Tab")
    expect(form.out).to_be_focused()


def test_a_session_is_there_after_a_reload_and_gone_after_signing_out(
    chat: ChatPage, form: Form, key: str, visitor: Visitor
) -> None:
    form.enter(key)
    form.has_let_in()
    chat.page.reload()
    expect(form.out).to_be_visible()
    expect(form.region).to_be_hidden()
    chat.ask(f"{LONG} {marker()}")
    chat.says("Answering…")
    (cookie,) = visitor.context.cookies()
    form.out.click()

    chat.says("Signed out.")
    expect(form.region).to_be_visible()
    expect(form.out).to_be_hidden()
    expect(chat.log).to_be_empty()
    assert visitor.context.cookies() == []
    copied = {"Cookie": f"{cookie['name']}={cookie['value']}"}
    assert httpx.get(f"{chat.url}/session", headers=copied, **PLAIN).status_code == 401


def test_a_question_that_meets_no_session_goes_on_after_signing_in(
    chat: ChatPage, form: Form, key: str, keyring: Keyring, simulator: SimulatorProcess
) -> None:
    form.enter(key)
    form.has_let_in()
    chat.ask("sim:echo before")
    chat.completes()
    other = keyring.rotate(key)
    noticed(chat.url, other)
    word = marker()
    chat.ask(f"sim:echo {word}")

    expect(form.region).to_be_visible()
    expect(form.key).to_be_focused()
    go_on = chat.page.get_by_role("button", name="Go on")
    go_on.click()
    chat.says("Please sign in first.")
    form.enter(other)
    form.has_let_in()
    expect(go_on).to_be_focused()
    go_on.press("Enter")
    assert chat.completes() == word
    shown = chat.page.locator("#log .text").all_text_contents()
    assert shown == ["sim:echo before", "before", f"sim:echo {word}", word]
    assert simulator.stats(word)["started"] == 1


def test_a_key_that_ends_under_an_answer_costs_neither_it_nor_what_is_being_typed(
    chat: ChatPage, form: Form, key: str, keyring: Keyring, simulator: SimulatorProcess
) -> None:
    form.enter(key)
    form.has_let_in()
    prompt = f"{LONG} {marker()}"
    chat.ask(prompt)
    expect(chat.answer).to_contain_text("tok3 ")
    chat.question.press_sequentially("the next ")
    other = keyring.rotate(key)

    expect(form.region).to_be_visible()
    expect(chat.question).to_be_focused()
    chat.question.press_sequentially("question")
    expect(chat.question).to_have_value("the next question")
    assert expected_text(prompt).startswith(chat.text)
    chat.question.press("Enter")
    expect(form.key).to_be_focused()
    form.enter(other)
    form.has_let_in()
    chat.page.get_by_role("button", name="Go on").press("Enter")
    assert chat.completes() == expected_text(prompt)
    assert chat.lengths == sorted(chat.lengths)
    expect(chat.question).to_have_value("the next question")
    assert simulator.stats(prompt)["started"] == 1


def test_eventsource_has_the_session_and_its_end_shows_the_form(
    chat: ChatPage, form: Form, key: str, keyring: Keyring
) -> None:
    form.enter(key)
    form.has_let_in()
    chat.page.get_by_role("checkbox", name="Use EventSource (GET)").check()
    chat.ask("sim:echo by EventSource")
    assert chat.completes() == "by EventSource"
    chat.ask(f"{LONG} {marker()}")
    expect(chat.answer).to_contain_text("tok3 ")
    keyring.revoke(key)
    expect(form.region).to_be_visible()
    expect(chat.again).to_be_visible()

    chat.page.reload()
    expect(form.region).to_be_visible()
    other = keyring.add("another")
    noticed(chat.url, other)
    form.enter(other)
    form.has_let_in()
    chat.page.get_by_role("checkbox", name="Use EventSource (GET)").check()
    keyring.revoke(other)
    noticed(chat.url, other, 401)
    chat.ask("sim:echo too late")
    expect(form.region).to_be_visible()


def test_too_many_failed_tries_are_told_with_the_seconds_to_wait(
    visitor: Visitor, start_gateway: Callable[..., Gateway], keyring: Keyring
) -> None:
    keyring.add("somebody")
    gateway = start_gateway(api_keys_file=keyring.file)
    for _ in range(20):
        httpx.get(f"{gateway.url}/session", headers={"x-api-key": WRONG}, **PLAIN)
    visitor.allow(NETWORK)
    form = Form(visitor.chat(gateway.url).page)
    form.enter(WRONG)

    expect(form.problem).to_have_text(re.compile(r"limit of .* Please wait \d+ seconds\."))


def test_an_open_gateway_asks_nobody(visitor: Visitor, page_gateway: Gateway) -> None:
    chat = visitor.chat(page_gateway.url)
    chat.ask("sim:echo hello")
    assert chat.completes() == "hello"
    form = Form(chat.page)
    expect(form.region).to_be_hidden()
    expect(form.out).to_be_hidden()


@pytest.mark.parametrize("width", [1280, 320])
def test_the_form_fits_and_is_read_as_a_form(chat: ChatPage, form: Form, width: int) -> None:
    chat.page.set_viewport_size({"width": width, "height": 640})
    expect(form.key).to_have_attribute("type", "password")
    expect(form.key).to_have_attribute("autocomplete", "current-password")
    expect(form.key).to_have_accessible_name("API key or token")
    expect(form.button).to_be_in_viewport()
    page = chat.page
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
