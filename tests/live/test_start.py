"""The first minute of a new user."""

from collections.abc import Callable

import httpx

from tests.live.servers import Gateway


def test_the_first_words_name_the_page_a_curl_line_the_model_and_the_data(
    start_gateway: Callable[..., Gateway],
) -> None:
    gateway = start_gateway(upstream=None)

    assert f"{gateway.url}/" in gateway.output
    assert f"curl -N '{gateway.url}/chat?text=" in gateway.output
    assert "simulator" in gateway.find(r"^model\s+(.*)")
    assert gateway.find(r"^data\s+(.*)")
    answer = httpx.get(f"{gateway.url}/chat", params={"text": "Hello"}, timeout=20)
    assert answer.text.count("event: done") == 1


def test_the_first_words_keep_the_secrets_of_an_address(
    start_gateway: Callable[..., Gateway],
) -> None:
    gateway = start_gateway(upstream="http://user:s3cr3t@[::1]:9/v1")
    assert gateway.find(r"^model\s+(.*)").endswith(" at http://[::1]:9/v1")
    assert "s3cr3t" not in gateway.output


def test_a_link_with_fields_that_nobody_knows_is_answered_all_the_same(gateway: Gateway) -> None:
    strange = "&utm_source=a&utm_source=b&%ff=%fe" + "&x=1" * 1000
    answer = httpx.get(f"{gateway.url}/chat?text=sim:tokens,n=1{strange}", timeout=20)
    assert answer.text.count("event: final") == 1
