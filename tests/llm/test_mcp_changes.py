"""MCP servers whose tools change while they are connected."""

from pathlib import Path

import pytest

from tests.llm.mcp_servers.running import CHANGING, Desk, HttpDesk, kept, until

pytestmark = pytest.mark.anyio

BEFORE = ["it_change", "it_old"]
AFTER = ["it_change", "it_new_1"]


async def test_tools_of_a_process_come_and_go(tmp_path: Path) -> None:
    async with kept(it=Desk(tmp_path, CHANGING).process()) as it:
        await it.becomes("it", None)
        assert it.toolbox.names == BEFORE
        assert await it.call("it_change") == ("changed", False)
        await until(lambda: it.toolbox.names == AFTER, "the tools changed")
        assert await it.call("it_new_1") == ('{"city": "Zürich"}', False)


async def test_tools_at_an_address_come_and_go(tmp_path: Path) -> None:
    desk = HttpDesk(tmp_path, CHANGING)
    with desk.running():
        async with kept(it=desk.server) as it:
            await it.becomes("it", None)
            assert it.toolbox.names == BEFORE
            # The SDK opens the stream for notifications a moment after the session.
            for _ in range(100):
                await it.call("it_change")
                if it.toolbox.names == AFTER:
                    break
            await until(lambda: it.toolbox.names == AFTER, "the tools changed")


async def test_a_flood_of_notifications_is_few_lists_and_the_last_one_counts(
    tmp_path: Path,
) -> None:
    desk = Desk(tmp_path, CHANGING)
    async with kept(it=desk.process()) as it:
        await it.becomes("it", None)
        await it.call("it_change", '{"times": 200}')
        await until(lambda: it.toolbox.has("it_new_200"), "the last tool is there")
        assert len(it.toolbox.names) == 201
        assert desk.notes().count("listed") < 50


async def test_lists_keep_their_distance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.llm.mcp.RELIST_S", 600)
    desk = Desk(tmp_path, CHANGING)
    async with kept(it=desk.process()) as it:
        await it.becomes("it", None)
        for _ in range(20):
            await it.call("it_change")
        await desk.noted("listed", 2)
        for _ in range(20):
            await it.call("it_change")
        assert desk.notes().count("listed") == 2


async def test_one_change_is_one_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.llm.mcp.RELIST_S", 0)
    desk = Desk(tmp_path, CHANGING)
    async with kept(it=desk.process()) as it:
        await it.becomes("it", None)
        await it.call("it_change")
        await until(lambda: it.toolbox.names == AFTER, "the tools changed")
        for _ in range(20):
            await it.call("it_new_1")
        assert desk.notes().count("listed") == 2
