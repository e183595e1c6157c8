"""What the application does to its process, and undoes."""

import asyncio
import gc

import pytest

from app.configuration import configuration
from app.llm.model import ChatModel
from app.main import LOAD_AFTER_S, create_app

pytestmark = pytest.mark.anyio


async def test_the_collector_is_on_again_after_a_shutdown_while_the_library_loads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loading = asyncio.Event()

    async def never(_: ChatModel) -> None:
        loading.set()
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(ChatModel, "load", never)
    app = create_app(configuration({"OPENAI_API_KEY": "k"}))
    async with asyncio.timeout(LOAD_AFTER_S + 30), app.router.lifespan_context(app):
        await loading.wait()
        assert not gc.isenabled()
    assert gc.isenabled()
