"""Models that a key may use: what it is shown, what it gets, and what it is refused."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.live.access.people import Guarded, Keyring, Person, call, chat, same_but_for_id
from tests.live.reading import ask
from tests.live.servers import Gateway, SimulatorProcess, running_gateway

pytestmark = pytest.mark.anyio

MODELS = """
[[models]]
name = "large"

[[models]]
name = "small"

[[models]]
name = "falling"
model = "sim:status,code=400"
fallbacks = ["last"]

[[models]]
name = "last"
"""


@pytest.fixture(scope="module")
def chosen(
    simulator: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    """Ann may use all models, Bob two."""
    cwd = tmp_path_factory.mktemp("models")
    ring = Keyring(cwd)
    ann, bob = ring.add(), ring.add(models=("small", "falling", "gone"))
    (cwd / "models.toml").write_text(MODELS)
    settings = {"api_keys_file": ring.path, "models_file": cwd / "models.toml"}
    with running_gateway(cwd, simulator.url, **settings) as gateway:
        yield Guarded(gateway, ring, ann, bob)


async def listed(url: str, who: Person) -> dict[str, bool]:
    """By name, whether it is the default."""
    shown = (await call(url, who, "GET", "/models")).json()["items"]
    return {entry["name"]: entry["default"] for entry in shown}


def model_of(answer: httpx.Response) -> str:
    """Of ``start``."""
    return answer.text.partition('"model":"')[2].partition('"')[0]


async def test_a_caller_sees_its_own_models_and_its_own_default(chosen: Guarded) -> None:
    names = {"large": True, "small": False, "falling": False, "last": False}
    assert await listed(chosen.url, chosen.ann) == names
    assert await listed(chosen.url, chosen.bob) == {"small": True, "falling": False}
    assert model_of(await chat(chosen.url, chosen.ann, ask("tokens,n=1"))) == "large"
    assert model_of(await chat(chosen.url, chosen.bob, ask("tokens,n=1"))) == "small"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/chat", {"text": "hi", "model": "{}"}),
        ("POST", "/stream-chat", {"text": "hi", "model": "{}"}),
        ("POST", "/runs", {"text": "hi", "model": "{}"}),
        ("GET", "/chat?text=hi&model={}", None),
        ("POST", "/conversations/{conversation}/regenerate", {"model": "{}"}),
    ],
)
async def test_what_it_may_not_use_is_as_what_is_not_there(
    chosen: Guarded, method: str, path: str, body: dict[str, Any] | None
) -> None:
    begun = await call(chosen.url, chosen.bob, "POST", "/runs", {"text": ask("tokens,n=1")})
    path = path.replace("{conversation}", begun.json()["conversation_id"])

    async def asked(who: Person, model: str) -> httpx.Response:
        fields = {name: value.format(model) for name, value in (body or {}).items()}
        return await call(chosen.url, who, method, path.format(model), fields or None)

    refused = [await asked(chosen.bob, model) for model in ("large", "last", "gone", "strange")]
    assert {each.status_code for each in refused} == {422}
    assert refused[0].json()["detail"].startswith("model: ")
    assert len({str(same_but_for_id(each)[1]) for each in refused}) == 1
    assert (await asked(chosen.bob, "small")).status_code in (200, 201, 409)


async def test_an_old_conversation_widens_nothing(chosen: Guarded) -> None:
    """Answering anew takes the caller's default, whatever answered before."""
    first = await chat(chosen.url, chosen.bob, ask("tokens,n=1"))
    conversation = first.text.partition('"conversation_id":"')[2].partition('"')[0]
    path = f"/conversations/{conversation}/regenerate"
    assert model_of(await call(chosen.url, chosen.bob, "POST", path)) == "small"


async def test_fallbacks_are_the_operators_choice(chosen: Guarded) -> None:
    answer = await chat(chosen.url, chosen.bob, "hi", model="falling")
    assert '"finish_reason"' in answer.text
    assert answer.text.rpartition('"model":"')[2].startswith("last")


async def test_without_a_models_file_names_go_upstream_if_the_key_has_them(
    start_gateway: Callable[..., Gateway], tmp_path_factory: pytest.TempPathFactory
) -> None:
    ring = Keyring(tmp_path_factory.mktemp("keys"))
    any_model, some = ring.add(), ring.add(models=("gpt-b", "gpt-a"))
    url = start_gateway(api_keys_file=ring.path, model="gpt-c").url
    assert await listed(url, any_model) == {"gpt-c": True}
    assert await listed(url, some) == {"gpt-a": True, "gpt-b": False}
    assert model_of(await chat(url, some, ask("tokens,n=1"), model="gpt-b")) == "gpt-b"
    assert model_of(await chat(url, some, ask("tokens,n=1"))) == "gpt-a"
    refused = await call(url, some, "POST", "/chat", {"text": "hi", "model": "gpt-c"})
    assert refused.status_code == 422
    assert model_of(await chat(url, any_model, ask("tokens,n=1"), model="gpt-x")) == "gpt-x"
