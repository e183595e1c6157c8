"""The OpenAPI document against what the endpoints do."""

from pathlib import Path
from typing import Any

import pytest

from app.configuration import configuration
from app.main import create_app
from tests.access.key_files import entry, write

PUBLIC = {("/health", "get"), ("/ready", "get"), ("/session", "delete")}
BEGIN = ("/session", "post")
BUSY = {  # what meets a run in its conversation
    ("/chat", "post"),
    ("/stream-chat", "post"),
    ("/chat", "get"),
    ("/runs", "post"),
    ("/conversations/{conversation_id}/regenerate", "post"),
    ("/conversations/{conversation_id}", "delete"),
}


def document(**settings: str) -> dict[str, Any]:
    given = {f"GATEWAY_{name.upper()}": value for name, value in settings.items()}
    return create_app(configuration(given)).openapi()


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (path, method): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


@pytest.fixture
def guarded(tmp_path: Path) -> dict[str, Any]:
    return document(
        api_keys_file=str(write(tmp_path / "keys.json", entry())), data_dir=str(tmp_path)
    )


def test_what_asks_who_calls_says_so(guarded: dict[str, Any]) -> None:
    schemes = guarded["components"]["securitySchemes"]
    for where, operation in operations(guarded).items():
        asks = where not in PUBLIC
        assert ("401" in operation["responses"]) == asks, where
        assert ("429" in operation["responses"]) == asks, where
        named = {name for each in operation.get("security", ()) for name in each}
        assert bool(named) == asks, where
        assert named <= set(schemes)
    assert {(scheme["type"], scheme.get("in")) for scheme in schemes.values()} == {
        ("http", None),
        ("apiKey", "header"),
        ("apiKey", "cookie"),
    }


def test_a_session_begins_with_no_cookie(guarded: dict[str, Any]) -> None:
    begin = operations(guarded)[BEGIN]
    assert {name for each in begin["security"] for name in each} == {"bearer", "key_header"}


def test_an_open_gateway_asks_for_nothing() -> None:
    shown = document()
    assert "securitySchemes" not in shown["components"]
    assert not any("security" in operation for operation in operations(shown).values())


def test_every_status_is_named_and_every_problem_has_one_shape(guarded: dict[str, Any]) -> None:
    for where, operation in operations(guarded).items():
        responses = operation["responses"]
        assert all(status.isdigit() for status in responses), where
        assert {"400", "403", "408", "413", "414", "431"} <= set(responses), where
        assert ("415" in responses) == ("requestBody" in operation), where
        assert ("409" in responses) == (where in BUSY), where
        assert ("404" in responses) == ("{" in where[0] or where in {*BUSY, BEGIN}), where
        for status, response in responses.items():
            if status >= "400" and where != ("/ready", "get"):
                schema = response["content"]["application/problem+json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Problem"}, (where, status)
    assert "HTTPValidationError" not in str(guarded)


def test_references_lead_somewhere(guarded: dict[str, Any]) -> None:
    def references(node: Any) -> Any:
        if isinstance(node, dict):
            yield from (value for name, value in node.items() if name == "$ref")
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    for reference in references(guarded):
        name = reference.removeprefix("#/components/schemas/")
        assert name in guarded["components"]["schemas"], reference
