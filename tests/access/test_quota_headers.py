"""RateLimit-Policy and RateLimit, read back as structured fields."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.access.model import Limits
from app.access.quota_headers import headers
from app.access.quotas import standings
from app.access.requests import Policy, Standing

REQUESTS = Standing(Policy("requests", 120, 60), 119, 60)
# RFC 9651: a list of strings with parameters that are integers of 15 digits, or strings.
_PARAMETER = r';[a-z]+=(?:\d{1,15}|"[ !#-\[\]-~]*")'
_LIST = re.compile(rf'"[ !#-\[\]-~]*"(?:{_PARAMETER})*(?:, "[ !#-\[\]-~]*"(?:{_PARAMETER})*)*')


def test_without_limits_there_are_no_headers() -> None:
    assert headers([]) == []


def test_a_window_of_requests_is_said_in_the_drafts_default_unit() -> None:
    assert headers([REQUESTS]) == [
        ("RateLimit-Policy", '"requests";q=120;w=60'),
        ("RateLimit", '"requests";r=119;t=60'),
    ]


def test_runs_are_concurrent_and_know_no_time() -> None:
    found = standings(Limits(max_runs=20), 3, 0, 0.0)
    assert headers(found) == [
        ("RateLimit-Policy", '"runs";q=20;qu="concurrent-requests"'),
        ("RateLimit", '"runs";r=17'),
    ]


def test_tokens_are_of_a_day_and_reset_at_midnight() -> None:
    found = standings(Limits(tokens_per_day=1000), 0, 400, 86_400 - 90.5)
    assert headers(found) == [
        ("RateLimit-Policy", '"tokens";q=1000;qu="tokens";w=86400'),
        ("RateLimit", '"tokens";r=600;t=91'),
    ]


def test_several_limits_are_one_list_in_the_same_order() -> None:
    found = [REQUESTS, *standings(Limits("", 20, 1000), 0, 0, 0.0)]
    (_, policies), (_, left) = headers(found)
    names = [re.findall(r'"(\w+)";[qr]=', text) for text in (policies, left)]
    assert names == [["requests", "runs", "tokens"]] * 2
    assert policies.count(", ") == left.count(", ") == 2


@given(
    max_runs=st.none() | st.integers(1, 10**30),
    tokens_per_day=st.none() | st.integers(1, 10**30),
    running=st.integers(0, 10**30),
    tokens=st.integers(-(10**30), 10**30),
    now=st.floats(0, 1e10),
)
def test_whatever_the_limits_they_are_structured_fields(
    max_runs: int | None, tokens_per_day: int | None, running: int, tokens: int, now: float
) -> None:
    found = standings(Limits(None, max_runs, tokens_per_day), running, tokens, now)
    for _, value in headers([REQUESTS, *found]):
        assert _LIST.fullmatch(value)


@pytest.mark.parametrize("text", ['"a";q=-1', "a;q=1", '"a";q=1234567890123456', '"a";q=1,'])
def test_what_is_no_structured_field_would_be_noticed(text: str) -> None:
    assert not _LIST.fullmatch(text)
