"""The API reference at ``/docs``: whole, offline, under the page's policy."""

from playwright.sync_api import expect

from tests.live.browser import Visitor
from tests.live.servers import Gateway

ENDPOINTS = {
    ("POST", "/chat"),
    ("GET", "/chat"),
    ("POST", "/stream-chat"),
    ("POST", "/runs"),
    ("GET", "/runs/{run_id}"),
    ("DELETE", "/runs/{run_id}"),
    ("POST", "/runs/{run_id}/cancel"),
    ("GET", "/runs/{run_id}/events"),
    ("GET", "/models"),
    ("GET", "/health"),
    ("GET", "/ready"),
}


def test_the_reference_renders_without_any_other_server(
    visitor: Visitor, page_gateway: Gateway
) -> None:
    """The browser of these tests can reach no other host; the visitor also hears the console."""
    page = visitor.context.new_page()
    answer = page.goto(f"{page_gateway.url}/docs")
    assert answer
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    expect(page.get_by_role("heading", name="SSE gateway for LLM chat")).to_be_visible()

    listed = {
        (
            block.locator(".opblock-summary-method").inner_text(),
            block.locator(".opblock-summary-path").get_attribute("data-path"),
        )
        for block in page.locator(".opblock").all()
    }
    assert listed >= ENDPOINTS
    assert {origin for origin in visitor.origins() if origin != "data:"} == {page_gateway.url}


def test_an_endpoint_unfolds_and_answers_when_tried(
    visitor: Visitor, page_gateway: Gateway
) -> None:
    page = visitor.context.new_page()
    page.goto(f"{page_gateway.url}/docs")
    health = page.locator(".opblock", has=page.locator('[data-path="/health"]'))
    health.locator(".opblock-summary").click()
    health.get_by_role("button", name="Try it out").click()
    health.get_by_role("button", name="Execute").click()

    answer = health.locator(".live-responses-table")
    expect(answer.locator("td.response-col_status").last).to_contain_text("200")
    expect(answer).to_contain_text('"status": "ok"')


def test_the_body_of_a_question_is_described(visitor: Visitor, page_gateway: Gateway) -> None:
    page = visitor.context.new_page()
    page.goto(f"{page_gateway.url}/docs")
    chat = page.locator(".opblock-post", has=page.locator('[data-path="/chat"]'))
    chat.locator(".opblock-summary").click()

    expect(chat.locator(".opblock-section-request-body")).to_contain_text("application/json")
    expect(chat.locator(".model-example, .example").first).to_contain_text("grace_seconds")
