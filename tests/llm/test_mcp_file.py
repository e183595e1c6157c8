"""``GATEWAY_MCP_FILE``: what other clients write, and every way to get it wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.llm.mcp_file import HttpServer, Server, StdioServer, load_mcp_file
from app.settings import SettingsError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mcp.json"


def load(path: Path, servers: Any, **environ: str) -> dict[str, Server]:
    path.write_text(json.dumps({"mcpServers": servers}))
    return load_mcp_file(path, environ)


def test_a_command_is_a_process(path: Path) -> None:
    entry = {"command": "npx", "args": ["-y", "x"], "env": {"A": "1"}, "cwd": "/srv"}
    assert load(path, {"a": entry}) == {"a": StdioServer("npx", ("-y", "x"), {"A": "1"}, "/srv")}
    assert load(path, {"a": {"command": "x", "type": "stdio"}}) == {
        "a": StdioServer("x", (), {}, None)
    }


@pytest.mark.parametrize(
    "kind",
    [{}, {"type": "http"}, {"type": "streamable-http"}, {"transport": "streamable_http"}],
)
def test_a_url_is_streamable_http(path: Path, kind: dict[str, str]) -> None:
    entry = {"url": "http://127.0.0.1:1/mcp", "headers": {"X": "y"}, **kind}
    assert load(path, {"a": entry}) == {"a": HttpServer("http://127.0.0.1:1/mcp", {"X": "y"})}


def test_disabled_servers_and_what_is_for_other_clients_are_passed_over(path: Path) -> None:
    path.write_text(
        json.dumps(
            {
                "$schema": "x",
                "mcpServers": {
                    "off": {"command": "x", "disabled": True},
                    "on": {"command": "x", "disabled": False, "alwaysAllow": ["y"], "timeout": 60},
                },
            }
        )
    )
    assert list(load_mcp_file(path, {})) == ["on"]


def test_variables_stand_in_every_text(path: Path) -> None:
    entry = {
        "command": "${BIN}/x",
        "args": ["$BIN", "${LEVEL:-low}", "${BIN}${BIN}"],
        "env": {"KEY": "${KEY}"},
    }
    server = StdioServer("/b/x", ("$BIN", "low", "/b/b"), {"KEY": "s}ecret"}, None)
    assert load(path, {"a": entry}, BIN="/b", KEY="s}ecret") == {"a": server}
    http = {"url": "https://${HOST}/mcp", "headers": {"Authorization": "Bearer ${KEY}"}}
    assert load(path, {"a": http}, HOST="h", KEY="k") == {
        "a": HttpServer("https://h/mcp", {"Authorization": "Bearer k"})
    }


@pytest.mark.parametrize(
    ("servers", "why"),
    [
        ({"a b": {"command": "x"}}, "server 'a b': a name takes"),
        ({"": {"command": "x"}}, "server '': a name takes"),
        ({"a" * 33: {"command": "x"}}, "a name takes"),
        ({"a": {}}, "server 'a': it takes either a command or a url"),
        ({"a": {"command": "x", "url": "http://h"}}, "either a command or a url"),
        ({"a": {"command": 1}}, "server 'a': Expected `str | null`, got `int` - at `$.command`"),
        ({"a": {"command": "x", "args": [1]}}, "at `$.args[0]`"),
        ({"a": {"command": "x", "args": "y"}}, "at `$.args`"),
        ({"a": {"command": "x", "env": {"A": 1}}}, "got `int`"),
        ({"a": []}, "server 'a': Expected `object`, got `array`"),
        ({"a": {"url": "ftp://h"}}, "not an http(s) address"),
        ({"a": {"url": "https://"}}, "not an http(s) address"),
        ({"a": {"url": "http://[h"}}, "server 'a': Invalid"),
        ({"a": {"url": "http://h", "type": "sse"}}, "'sse' is not a transport"),
        ({"a": {"command": "x", "type": "http"}}, "'http' is not a transport"),
        ({"a": {"command": "${NO_SUCH}"}}, "the environment variable NO_SUCH is not set"),
        ({"a": {"command": "x\0"}}, "server 'a': command takes no NUL"),
        ({"a": {"command": "x", "args": ["a", "\0"]}}, "args takes no NUL"),
        ({"a": {"command": "x", "env": {"A": "\0"}}}, "env takes no NUL"),
        ({"a": {"command": "x", "env": {"A\0": ""}}}, "env takes no NUL"),
        ({"a": {"command": "x", "env": {"A=B": ""}}}, "env takes no name with ="),
        ({"a": {"command": "x", "cwd": "/\0"}}, "cwd takes no NUL"),
        *(
            ({"a": {"url": "http://h", "headers": headers}}, "in printable ASCII")
            for headers in (
                {"X\n": "y"},
                {"X Y": "y"},
                {"é": "y"},
                {"": "y"},
                *({"X": value} for value in ("y\r\nZ: z", "y\n", "\0", "é", "€", " y", "\x7f")),
            )
        ),
        ([], "it takes"),
    ],
)
def test_an_entry_that_cannot_be_stops_the_start(path: Path, servers: Any, why: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(path, servers)
    assert str(caught.value).startswith(f"GATEWAY_MCP_FILE: {path}: ")
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b'{\n"mcpServers": {\n"a": }}', ", line 3: "),
        (b"", ", line 1: "),
        (b"[]", ": it takes"),
        (b'{"servers": {}}', ": it takes"),
        (b"\xff\xfe\xff", ": it takes"),
        (b"[" * 100_000, ": it takes"),
    ],
)
def test_a_file_that_is_none_stops_the_start(path: Path, text: bytes, why: str) -> None:
    path.write_bytes(text)
    with pytest.raises(SettingsError) as caught:
        load_mcp_file(path, {})
    assert str(caught.value).startswith(f"GATEWAY_MCP_FILE: {path}{why}")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_stops_the_start(path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        load_mcp_file(path, {})


def test_a_name_that_stands_twice_is_told(path: Path) -> None:
    path.write_text('{"mcpServers": {"a": {"command": "x"}, "a": {"command": "y"}}}')
    with pytest.raises(SettingsError, match="'a' stands twice"):
        load_mcp_file(path, {})


def test_a_header_that_cannot_be_sent_is_not_shown(path: Path) -> None:
    entry = {"url": "http://h", "headers": {"Authorization": "Bearer ${KEY}"}}
    with pytest.raises(SettingsError, match="the header 'Authorization'") as caught:
        load(path, {"a": entry}, KEY="s3cr3t\n")
    assert "s3cr3t" not in str(caught.value)
    for value in ("", "a", "a b\tc"):
        assert load(path, {"a": {"url": "http://h", "headers": {"X": value}}})
