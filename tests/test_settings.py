"""Settings out of an environment: defaults, refusals in one line, what a cluster injects."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.environment import NOT_BUILT, environment, load, variable
from app.settings import Settings, SettingsError

# Every variable of the contract's table.
CONTRACT = {
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "GATEWAY_MODEL",
    "GATEWAY_MODELS_FILE",
    "GATEWAY_HOST",
    "GATEWAY_PORT",
    "GATEWAY_WORKERS",
    "GATEWAY_REDIS_URL",
    "GATEWAY_DATABASE_URL",
    "GATEWAY_DATA_DIR",
    "GATEWAY_API_KEYS_FILE",
    "GATEWAY_JWKS_URL",
    "GATEWAY_JWT_PUBLIC_KEY_FILE",
    "GATEWAY_JWT_ISSUER",
    "GATEWAY_JWT_AUDIENCE",
    "GATEWAY_SESSION_SECRET_FILE",
    "GATEWAY_ALLOW_ANONYMOUS",
    "GATEWAY_ALLOWED_HOSTS",
    "GATEWAY_TRUSTED_PROXIES",
    "GATEWAY_TOOLS",
    "GATEWAY_MCP_FILE",
    "GATEWAY_UPSTREAM_READER",
    "GATEWAY_TRACE_CONTENT",
    "GATEWAY_CORS_ORIGINS",
    "GATEWAY_HEARTBEAT_SECONDS",
    "GATEWAY_RECONNECT_GRACE_SECONDS",
    "GATEWAY_CONNECT_TIMEOUT_SECONDS",
    "GATEWAY_FIRST_TOKEN_TIMEOUT_SECONDS",
    "GATEWAY_STALL_TIMEOUT_SECONDS",
    "GATEWAY_RUN_TIMEOUT_SECONDS",
    "GATEWAY_MAX_ITERATIONS",
    "GATEWAY_MAX_RUNS",
    "GATEWAY_MAX_READERS",
    "GATEWAY_RATE_LIMIT",
    "GATEWAY_MAX_RUNS_PER_CALLER",
    "GATEWAY_TOKENS_PER_DAY",
    "GATEWAY_MAX_BODY_BYTES",
    "GATEWAY_MAX_DIALECT_BODY_BYTES",
    "GATEWAY_MAX_ANSWER_BYTES",
    "GATEWAY_LOG_MEMORY_BYTES",
    "GATEWAY_RUN_RETENTION_SECONDS",
    "GATEWAY_HISTORY_MESSAGES",
    "GATEWAY_DRAIN_SECONDS",
}
DEFAULTS = {
    "model": "simulator",
    "host": "127.0.0.1",
    "port": 8000,
    "workers": 1,
    "allow_anonymous": False,
    "heartbeat_seconds": 10,
    "reconnect_grace_seconds": 5,
    "connect_timeout_seconds": 10,
    "first_token_timeout_seconds": 120,
    "stall_timeout_seconds": 60,
    "run_timeout_seconds": 900,
    "max_runs": 5_000,
    "max_readers": 20_000,
    "max_body_bytes": 4 * 1024**2,
    "max_answer_bytes": 8 * 1024**2,
    "log_memory_bytes": 512 * 1024**2,
    "run_retention_seconds": 900,
    "drain_seconds": 20,
    "cors_origins": (),
    "allowed_hosts": (),
    "trusted_proxies": (),
}
IMPOSSIBLE = [
    ("GATEWAY_PORT", "65536"),
    ("GATEWAY_PORT", "-1"),
    ("GATEWAY_PORT", "http"),
    ("GATEWAY_WORKERS", "0"),
    ("GATEWAY_WORKERS", "257"),
    ("GATEWAY_ALLOW_ANONYMOUS", "perhaps"),
    ("GATEWAY_MODEL", "m" * 257),
    ("GATEWAY_UPSTREAM_READER", "carrier pigeon"),
    ("GATEWAY_HEARTBEAT_SECONDS", "0"),
    ("GATEWAY_HEARTBEAT_SECONDS", "nan"),
    ("GATEWAY_HEARTBEAT_SECONDS", "inf"),
    ("GATEWAY_HEARTBEAT_SECONDS", "ten"),
    ("GATEWAY_RECONNECT_GRACE_SECONDS", "601"),
    ("GATEWAY_RECONNECT_GRACE_SECONDS", "-1"),
    ("GATEWAY_DRAIN_SECONDS", "-1"),
    ("GATEWAY_MAX_RUNS", "0"),
    ("GATEWAY_MAX_RUNS", "1.5"),
    ("GATEWAY_MAX_READERS", "0"),
    ("GATEWAY_MAX_BODY_BYTES", "1023"),
    ("GATEWAY_MAX_BODY_BYTES", "4 parsecs"),
    ("GATEWAY_MAX_ANSWER_BYTES", "0"),
    ("GATEWAY_LOG_MEMORY_BYTES", "1KiB"),
    ("GATEWAY_TRUSTED_PROXIES", "10.0.0.0/33"),
    ("GATEWAY_TRUSTED_PROXIES", "10.0.0.1, proxy.example"),
    ("GATEWAY_CORS_ORIGINS", "https://a.example/"),
    ("GATEWAY_CORS_ORIGINS", "a.example"),
    ("GATEWAY_CORS_ORIGINS", "*, https://a.example"),
    ("GATEWAY_CORS_ORIGINS", "https://*.example/x"),
    ("GATEWAY_CORS_ORIGINS", "https://*"),
    ("GATEWAY_CORS_ORIGINS", "https://*.example"),
    ("GATEWAY_CORS_ORIGINS", "http://localhost:*"),
    ("GATEWAY_CORS_ORIGINS", "http://[::1"),
    ("OPENAI_BASE_URL", "api.example/v1"),
    ("OPENAI_BASE_URL", "ftp://api.example"),
    ("OPENAI_BASE_URL", "http://"),
    ("OPENAI_BASE_URL", "http://api.example:port/v1"),
    ("OPENAI_BASE_URL", "http://api .example/v1"),
]


def refusal(environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        load(environ)
    text = str(caught.value)
    assert "\n" not in text, "one line"
    assert caught.value.__cause__ is None
    return text


def test_several_workers_need_redis_and_are_told_why() -> None:
    text = refusal({"GATEWAY_WORKERS": "2"})
    assert "GATEWAY_WORKERS=2 needs GATEWAY_REDIS_URL" in text
    assert load({"GATEWAY_WORKERS": "2", "GATEWAY_REDIS_URL": "redis://h"}).workers == 2


def test_nothing_has_to_be_set() -> None:
    bare = load({}).model_dump()
    assert {name: bare[name] for name in DEFAULTS} == DEFAULTS


def test_every_variable_of_the_contract_is_known() -> None:
    known = {variable(field) for field in Settings.model_fields} | NOT_BUILT
    assert known == CONTRACT


def test_every_setting_says_what_it_takes() -> None:
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize(("name", "value"), IMPOSSIBLE)
def test_an_impossible_value_stops_the_start_and_says_what_is_possible(
    name: str, value: str
) -> None:
    text = refusal({name: value})
    field = next(field for field in Settings.model_fields if variable(field) == name)
    assert name in text
    assert str(Settings.model_fields[field].description) in text


def test_a_body_without_a_bound_is_refused_with_the_reason() -> None:
    assert "a body is parsed in memory" in refusal({"GATEWAY_MAX_BODY_BYTES": "2GiB"})


@pytest.mark.parametrize("name", sorted(NOT_BUILT))
def test_what_is_not_built_yet_cannot_be_switched_on(name: str) -> None:
    assert name in refusal({name: "something"})
    assert load({name: " "}) == load({}), "empty is unset"


@pytest.mark.parametrize(
    "name", ["GATEWAY_PROT", "GATEWAY_", "GATEWAY_port", "GATEWAY_OPENAI_API_KEY"]
)
def test_an_unknown_name_stops_the_start(name: str) -> None:
    assert name in refusal({name: "1"})


def test_what_a_cluster_injects_for_a_service_of_that_name_is_ignored() -> None:
    injected = {
        "GATEWAY_SERVICE_HOST": "10.0.0.1",
        "GATEWAY_SERVICE_PORT": "80",
        "GATEWAY_PORT": "tcp://10.0.0.1:80",
        "GATEWAY_PORT_80_TCP": "tcp://10.0.0.1:80",
        "GATEWAY_PORT_80_TCP_PROTO": "tcp",
    }
    assert load(injected) == load({})


def test_names_of_others_are_not_read() -> None:
    assert load({"PATH": "x", "PORT": "1", "HOST": "0.0.0.0", "gateway_port": "1"}) == load({})


@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_value_counts_as_unset(value: str) -> None:
    environ = dict.fromkeys(CONTRACT, value)
    assert load(environ) == load({})


def test_values_are_read_with_their_units() -> None:
    read = load(
        {
            "GATEWAY_MAX_BODY_BYTES": "1MiB",
            "GATEWAY_HEARTBEAT_SECONDS": " 0.5 ",
            "GATEWAY_CORS_ORIGINS": "https://a.example, http://localhost:3000",
            "GATEWAY_ALLOWED_HOSTS": "a.example,,b.example ",
            "GATEWAY_TRUSTED_PROXIES": "10.0.0.0/8,::1",
            "GATEWAY_PORT": "0",
        }
    )
    assert read.max_body_bytes == 1024**2
    assert read.heartbeat_seconds == 0.5
    assert read.cors_origins == ("https://a.example", "http://localhost:3000")
    assert read.allowed_hosts == ("a.example", "b.example")
    assert read.trusted_proxies == ("10.0.0.0/8", "::1")
    assert read.port == 0


def test_any_origin_is_a_star_alone() -> None:
    assert load({"GATEWAY_CORS_ORIGINS": "*"}).cors_origins == ("*",)


@pytest.mark.parametrize(
    ("environ", "model", "simulated"),
    [
        ({}, "simulator", True),
        ({"GATEWAY_MODEL": "m"}, "m", True),
        ({"OPENAI_API_KEY": "k"}, "gpt-4o-mini", False),
        ({"OPENAI_BASE_URL": "http://localhost:11434/v1"}, "gpt-4o-mini", False),
        ({"OPENAI_API_KEY": "k", "GATEWAY_MODEL": "m"}, "m", False),
    ],
)
def test_the_simulator_answers_only_where_nobody_said_whom_to_ask(
    environ: dict[str, str], model: str, simulated: bool
) -> None:
    read = load(environ)
    assert (read.model, read.uses_simulator) == (model, simulated)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "gateway.example", "128.0.0.1"])
def test_an_open_gateway_listens_to_strangers_only_when_told_so(host: str) -> None:
    assert "GATEWAY_ALLOW_ANONYMOUS" in refusal({"GATEWAY_HOST": host})
    assert load({"GATEWAY_HOST": host, "GATEWAY_ALLOW_ANONYMOUS": "true"}).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "LocalHost"])
def test_loopback_needs_no_permission(host: str) -> None:
    assert load({"GATEWAY_HOST": host}).host == host


def test_the_key_is_never_shown() -> None:
    read = load({"OPENAI_API_KEY": "sk-very-secret"})
    assert read.openai_api_key == "sk-very-secret"
    assert "sk-very-secret" not in repr(read) + str(read)
    assert "sk-very" not in refusal({"OPENAI_BASE_URL": "sk-very-secret pasted into the wrong one"})


@given(st.sampled_from(sorted(CONTRACT)), st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_any_value_is_read_or_refused_in_one_line(name: str, value: str) -> None:
    try:
        load({name: value})
    except SettingsError as error:
        assert "\n" not in str(error)  # noqa: PT017  either way out is right


def test_the_environment_goes_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in CONTRACT:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".env").write_text("GATEWAY_PORT=1\nGATEWAY_MAX_RUNS=7\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_PORT", "2")
    read = load(environment())
    assert (read.port, read.max_runs) == (2, 7)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load({}).port = 1
    assert load({}).port == 8000
