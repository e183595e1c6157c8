"""The error tree against its own drawing and against the table of codes that users rely on."""

import inspect
import re

import pytest

from app import errors
from app.errors import BusyError, CallerError, GatewayError, RunError, UpstreamError

# The contract's table: code, HTTP status (None: in a stream only), retryable.
TABLE: dict[str, tuple[int | None, bool]] = {
    "invalid_request": (422, False),
    "bad_cursor": (400, False),
    "unauthorized": (401, False),
    "forbidden": (403, False),
    "not_found": (404, False),
    "method_not_allowed": (405, False),
    "request_timeout": (408, False),
    "not_acceptable": (406, False),
    "payload_too_large": (413, False),
    "uri_too_long": (414, False),
    "unsupported_media_type": (415, False),
    "headers_too_large": (431, False),
    "idempotency_conflict": (422, False),
    "conversation_busy": (409, True),
    "rate_limited": (429, True),
    "overloaded": (503, True),
    "draining": (503, True),
    "upstream_unavailable": (None, True),
    "upstream_rate_limited": (None, True),
    "upstream_timeout": (None, True),
    "upstream_stalled": (None, True),
    "upstream_broken": (None, True),
    "worker_lost": (None, True),
    "upstream_auth": (None, False),
    "upstream_rejected": (None, False),
    "run_timeout": (None, False),
    "too_many_iterations": (None, False),
    "answer_too_large": (None, False),
    "internal": (None, False),
}


def drawn() -> set[tuple[str, str]]:
    """(class, base) of every line of the drawing in the module's docstring."""
    text = inspect.cleandoc(errors.__doc__ or "")
    tree = text[text.index("GatewayError") : text.index("\n\nBefore")]
    edges, above = set(), ["Exception"]
    for line in tree.splitlines():
        name = re.search(r"\w+", line)
        assert name, line
        depth = name.start() // 4
        del above[depth + 1 :]
        edges.add((name.group(), above[depth]))
        above.append(name.group())
    return edges


def classes() -> list[type[GatewayError]]:
    return [
        member
        for _, member in inspect.getmembers(errors, inspect.isclass)
        if issubclass(member, GatewayError)
    ]


def leaves() -> list[type[GatewayError]]:
    return [kind for kind in classes() if not kind.__subclasses__()]


def test_the_drawing_in_the_docstring_is_the_tree() -> None:
    assert drawn() == {(kind.__name__, kind.__bases__[0].__name__) for kind in classes()}


def test_a_status_in_the_drawing_is_the_one_of_the_class() -> None:
    text = errors.__doc__ or ""
    for kind in leaves():
        told = re.search(rf"── {kind.__name__} +(\d{{3}})", text)
        assert (int(told[1]) if told else 500) == kind.status, kind


@pytest.mark.parametrize("kind", leaves())
def test_code_status_and_retryable_are_those_of_the_table(kind: type[GatewayError]) -> None:
    status, retryable = TABLE[kind.code]
    assert (kind.status, kind.retryable) == (status or 500, retryable)


def test_no_two_errors_share_a_code() -> None:
    # What we need being away is one more way to be overloaded, with words of its own.
    away = {errors.StoreAway, errors.IdentityAway}
    codes = [kind.code for kind in leaves() if kind not in away]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("kind", leaves())
def test_every_error_belongs_to_the_one_whose_fault_it_is(kind: type[GatewayError]) -> None:
    status, _ = TABLE[kind.code]
    whose = [base for base in kind.__mro__ if base in GatewayError.__subclasses__()]
    assert len(whose) == 1
    if whose[0] in (UpstreamError, RunError):
        assert status is None, "in a stream only"
    else:
        assert whose[0] in (CallerError, BusyError)
        assert status is not None


@pytest.mark.parametrize("kind", leaves())
def test_every_error_has_words_of_its_own_for_people(kind: type[GatewayError]) -> None:
    assert kind.message.endswith(".")
    if kind is not errors.RateLimited:  # it says which limit
        assert str(kind()) == kind().detail == kind.message
    assert all(kind.message != other.message for other in leaves() if other is not kind)


@pytest.mark.parametrize("kind", BusyError.__subclasses__())
def test_who_is_busy_says_when_to_come_back(kind: type[BusyError]) -> None:
    assert kind.retry_after_s >= 1


def test_only_what_is_said_on_purpose_replaces_the_message() -> None:
    error = errors.InvalidRequest("stop takes at most 16")
    assert error.detail == "stop takes at most 16"
    assert error.message == errors.InvalidRequest.message
