"""The chat page for everybody: keyboard, screen reader, small screens, dark rooms."""

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from app.simulator import expected_text
from tests.live.browser import ChatPage, Visitor

WIDE = {"width": 1280, "height": 800}
NARROW = {"width": 360, "height": 640}
# Contrast of text with what lies behind it (WCAG 2.2, 1.4.3), of everything visible with words.
_CONTRAST = """() => {
  const context = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = (colour) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const light = (colour) => rgba(colour).slice(0, 3)
    .map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const { backgroundColor } = getComputedStyle(at);
      if (rgba(backgroundColor)[3] === 255) return backgroundColor;
    }
    return 'white';
  };
  const hasWords = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  return [...document.querySelectorAll('body *')]
    .filter((e) => e.checkVisibility() && hasWords(e))
    .map((e) => {
      const [a, b] = [light(getComputedStyle(e).color), light(behind(e))];
      const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      return { what: e.outerHTML.slice(0, 80), ratio };
    });
}"""
_OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
_FROM_BOTTOM = """() => {
  const page = document.documentElement;
  return page.scrollHeight - page.clientHeight - page.scrollTop;
}"""


def focused(chat: ChatPage) -> str:
    """What a screen reader would call the element that has the focus."""
    name: str = chat.page.evaluate(
        "() => (document.activeElement.labels?.[0] ?? document.activeElement).textContent.trim()"
    )
    return re.sub(r"\s+", " ", name)


def test_everything_can_be_done_with_the_keyboard(chat: ChatPage) -> None:
    keyboard = chat.page.keyboard
    keyboard.press("Tab")
    assert focused(chat) == "Skip to the question"
    keyboard.press("Enter")
    expect(chat.question).to_be_focused()
    keyboard.type("sim:stall,after=2")
    keyboard.press("Enter")
    expect(chat.answer).to_have_text("tok0 tok1 ")
    expect(chat.question).to_be_focused()
    expect(chat.question).to_have_value("")

    keyboard.press("Tab")
    expect(chat.stop).to_be_focused()
    keyboard.press("Space")
    chat.says("Stopped.")
    expect(chat.question).to_be_focused()

    keyboard.press("Tab")
    expect(chat.send).to_be_focused()
    keyboard.press("Tab")
    assert focused(chat) == "Use EventSource (GET)"
    keyboard.press("Space")
    expect(chat.page.get_by_role("checkbox")).to_be_checked()


def test_the_button_below_a_failure_is_reached_and_gives_the_focus_back(chat: ChatPage) -> None:
    chat.ask("sim:eof,after=2")
    expect(chat.again).to_be_visible()
    chat.page.keyboard.press("Shift+Tab")
    expect(chat.again).to_be_focused()
    chat.page.keyboard.press("Enter")

    expect(chat.question).to_be_focused()
    expect(chat.page.get_by_role("article")).to_have_count(4)


def test_shift_enter_starts_a_line_and_an_input_method_keeps_its_enter(chat: ChatPage) -> None:
    chat.question.press("Enter")
    chat.question.fill("one")
    chat.question.press("Shift+Enter")
    chat.question.press_sequentially("two")
    composing: dict[str, Any] = {"key": "Enter", "isComposing": True, "bubbles": True}
    chat.question.dispatch_event("keydown", composing)

    expect(chat.question).to_have_value("one\ntwo")
    expect(chat.log).to_be_empty()


def test_one_question_at_a_time(chat: ChatPage) -> None:
    chat.ask("sim:stall,after=2")
    chat.says("Answering…")
    chat.ask("sim:echo second")

    chat.says("Please wait for the answer, or stop it first.")
    expect(chat.question).to_have_value("sim:echo second")
    expect(chat.page.get_by_role("article")).to_have_count(2)


def test_roles_names_and_live_regions_are_there(chat: ChatPage) -> None:
    expect(chat.status).to_have_attribute("aria-live", "polite")
    expect(chat.question).to_have_accessible_description(re.compile("Enter sends"))
    expect(chat.page.get_by_role("heading", level=1)).to_have_text("Gateway chat")
    expect(chat.page.get_by_role("main")).to_be_visible()
    expect(chat.page.locator("html")).to_have_attribute("lang", "en")
    for control in chat.page.locator("button:visible, input:visible, textarea:visible").all():
        expect(control).to_have_accessible_name(re.compile(r"\w"))


def test_a_screen_reader_hears_an_answer_once_it_is_whole(chat: ChatPage) -> None:
    expect(chat.log).to_have_attribute("aria-busy", "false")
    chat.ask("sim:stall,after=2")
    chat.says("Answering…")
    expect(chat.log).to_have_attribute("aria-busy", "true")
    chat.page.keyboard.press("Escape")

    chat.says("Stopped.")
    expect(chat.log).to_have_attribute("aria-busy", "false")


LONG = [
    "sim:plain,interval=0",
    "sim:echo " + "x" * 600,
    "sim:echo https://example.org/" + "a/" * 200,
    "sim:awkward",
]


@pytest.mark.parametrize("size", [NARROW, {"width": 320, "height": 480}], ids=["360", "320"])
def test_a_narrow_screen_never_scrolls_sideways(chat: ChatPage, size: dict[str, Any]) -> None:
    chat.page.set_viewport_size({"width": size["width"], "height": size["height"]})
    for prompt in LONG:
        chat.ask(prompt)
        chat.completes()
        assert chat.page.evaluate(_OVERFLOW) <= 0, prompt
    chat.ask("sim:eof")
    expect(chat.again).to_be_visible()

    assert chat.page.evaluate(_OVERFLOW) <= 0
    for control in (chat.question, chat.send, chat.again):
        expect(control).to_be_in_viewport(ratio=1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_in_both_colour_schemes(chat: ChatPage, scheme: str) -> None:
    chat.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    chat.ask("sim:eof,after=3")
    expect(chat.again).to_be_visible()
    idle = chat.page.evaluate(_CONTRAST)
    chat.ask("sim:stall,after=3")
    chat.says("Answering…")
    found = idle + chat.page.evaluate(_CONTRAST)

    assert len(found) > 20
    assert [each for each in found if each["ratio"] < 4.5] == []
    paper = chat.page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    channels = [int(part) for part in re.findall(r"[0-9]+", paper)]
    assert (max(channels) < 64) == (scheme == "dark")


def test_the_view_follows_the_answer_unless_the_reader_looks_elsewhere(chat: ChatPage) -> None:
    chat.page.set_viewport_size({"width": 360, "height": 640})
    chat.ask("sim:plain,interval=0")
    chat.completes()
    assert chat.page.evaluate(_FROM_BOTTOM) <= 1

    chat.page.evaluate("() => scrollTo(0, 0)")
    chat.page.evaluate("() => { document.querySelector('.answer .text').append('x '.repeat(9)) }")
    assert chat.page.evaluate("() => scrollY") == 0
    chat.ask("sim:tokens,n=3000,interval=0")
    chat.completes()
    assert chat.page.evaluate(_FROM_BOTTOM) <= 1, "a question brings the view back"


def test_a_reader_who_scrolled_up_is_left_there_while_the_answer_grows(chat: ChatPage) -> None:
    chat.page.set_viewport_size({"width": 360, "height": 640})
    chat.ask("sim:tokens,n=3000,interval=0.001")
    expect(chat.answer).to_contain_text("tok500 ")
    chat.page.evaluate("() => scrollTo(0, 0)")

    assert chat.completes() == expected_text("sim:tokens,n=3000")
    assert chat.page.evaluate("() => scrollY") == 0


def test_nothing_moves_for_people_who_asked_for_less_motion(chat: ChatPage) -> None:
    chat.page.emulate_media(reduced_motion="reduce")
    chat.ask("sim:stall,after=2")
    chat.says("Answering…")

    assert chat.page.evaluate("() => document.getAnimations().length") == 0


def test_the_page_leaves_nothing_behind_in_the_browser(visitor: Visitor, chat: ChatPage) -> None:
    chat.ask("sim:echo secret")
    chat.completes()

    assert visitor.context.cookies() == []
    assert chat.page.evaluate("() => localStorage.length + sessionStorage.length") == 0
