"""What goes wrong upstream, as the openai SDK tells it, to the gateway's codes."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.llm.failures import failure_of, retry_after

ASKED = httpx2.Request("POST", "http://model.example/v1/chat/completions")


def refused(
    status: int, body: dict[str, object] | None = None, headers: dict[str, str] | None = None
) -> openai.APIStatusError:
    response = httpx2.Response(status, headers=headers, request=ASKED)
    return openai.APIStatusError("its own words", response=response, body=body)


def in_stream(**body: object) -> openai.APIError:
    return openai.APIError("its own words", ASKED, body=body)


@pytest.mark.parametrize(
    ("status", "code", "again"),
    [
        (400, "upstream_rejected", False),
        (401, "upstream_auth", False),
        (402, "upstream_rejected", False),
        (403, "upstream_auth", False),
        (404, "upstream_rejected", False),
        (405, "upstream_rejected", False),
        (408, "upstream_unavailable", True),
        (409, "upstream_rejected", True),
        (413, "upstream_rejected", False),
        (422, "upstream_rejected", False),
        (429, "upstream_rate_limited", True),
        (499, "upstream_rejected", False),
        (500, "upstream_unavailable", True),
        (502, "upstream_unavailable", True),
        (503, "upstream_unavailable", True),
        (504, "upstream_unavailable", True),
        (529, "upstream_unavailable", True),
        (599, "upstream_unavailable", True),
    ],
)
def test_every_status_has_its_code_and_says_whether_to_ask_again(
    status: int, code: str, again: bool
) -> None:
    failure = failure_of(refused(status), head_seen=False)
    assert (failure.error.code, failure.again) == (code, again)


@pytest.mark.parametrize("body", [{"code": "insufficient_quota"}, {"type": "insufficient_quota"}])
def test_an_empty_account_is_not_asked_again(body: dict[str, object]) -> None:
    failure = failure_of(refused(429, body), head_seen=False)
    assert (failure.error.code, failure.again) == ("upstream_rate_limited", False)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"code": "rate_limit_exceeded"}, "upstream_rate_limited"),
        ({"type": "RateLimitError"}, "upstream_rate_limited"),
        ({"code": "too_many_requests"}, "upstream_rate_limited"),
        ({"code": "insufficient_quota"}, "upstream_rate_limited"),
        ({"code": 429}, "upstream_rate_limited"),
        ({"code": "429"}, "upstream_rate_limited"),
        ({"code": "invalid_api_key"}, "upstream_auth"),
        ({"type": "authentication_error"}, "upstream_auth"),
        ({"type": "permission_error"}, "upstream_auth"),
        ({"code": 401}, "upstream_auth"),
        ({"code": 403}, "upstream_auth"),
        ({"type": "invalid_request_error"}, "upstream_rejected"),
        ({"type": "BadRequestError", "code": 400}, "upstream_rejected"),
        ({"code": "context_length_exceeded"}, "upstream_rejected"),
        ({"code": "content_policy_violation"}, "upstream_rejected"),
        ({"code": 404}, "upstream_rejected"),
        ({"code": "server_error"}, "upstream_unavailable"),
        ({"type": "InternalServerError", "code": 500}, "upstream_unavailable"),
        ({"code": 503}, "upstream_unavailable"),
        ({"code": "never heard of"}, "upstream_unavailable"),
        ({"code": 7}, "upstream_unavailable"),
        ({"code": None, "type": None}, "upstream_unavailable"),
        ({"code": ["list"], "type": {"a": 1}}, "upstream_unavailable"),
        ({}, "upstream_unavailable"),
    ],
)
def test_an_error_object_in_the_stream_counts_by_its_code(
    body: dict[str, object], code: str
) -> None:
    failure = failure_of(in_stream(**body), head_seen=True)
    assert (failure.error.code, failure.again) == (code, False)


@pytest.mark.parametrize("kind", [openai.APIConnectionError, openai.APITimeoutError])
def test_no_connection_is_worth_another_try(kind: type[openai.APIConnectionError]) -> None:
    failure = failure_of(kind(request=ASKED), head_seen=False)
    assert (failure.error.code, failure.again) == ("upstream_unavailable", True)


def test_a_connection_lost_after_the_head_is_an_answer_that_broke_off() -> None:
    failure = failure_of(openai.APIConnectionError(request=ASKED), head_seen=True)
    assert (failure.error.code, failure.again) == ("upstream_broken", False)


@pytest.mark.parametrize(
    "error", [ValueError("no JSON"), KeyError("choices"), TypeError("x"), UnicodeError("x")]
)
def test_an_answer_of_the_wrong_shape_is_broken(error: Exception) -> None:
    failure = failure_of(error, head_seen=True)
    assert (failure.error.code, failure.again) == ("upstream_broken", False)


@pytest.mark.parametrize(
    "error", [refused(429, {"code": "x"}), in_stream(code="x"), ValueError("its own words")]
)
def test_the_upstreams_own_words_stay_behind(error: Exception) -> None:
    failure = failure_of(error, head_seen=True)
    assert "own words" not in f"{failure}{failure.error}{failure.error.detail}"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": ""}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": " 0.5 "}, 0.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)
def test_a_server_says_when_to_come_back(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(httpx2.Headers(headers)) == seconds
    assert failure_of(refused(503, headers=headers), head_seen=False).retry_after_s == seconds


def test_a_date_to_come_back_at_becomes_seconds() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    wait = retry_after({"retry-after": date})
    assert wait is not None
    assert 40 < wait <= 100


@pytest.mark.parametrize(
    "value",
    [
        "Fri, 31 Dec 99999999999999999999 23:59:59 GMT",
        "Wed, 3 Apr 2002 99999999999999:1:1 GMT",
        "Mon, 01 Jan 0001 00:00:00 -0000",
        "Fri, 31 Dec 2030 23:59:59 +99999999999",
        "nan",
    ],
)
def test_a_date_that_cannot_be_is_no_bug_of_ours(value: str) -> None:
    assert retry_after({"retry-after": value}) in (None, 0.0)


@given(st.text(st.characters(max_codepoint=255)))
def test_whatever_stands_there_it_is_seconds_or_nothing(value: str) -> None:
    wait = retry_after({"retry-after": value})
    assert wait is None or wait >= 0
