"""Another gateway on the same database, as a real process: one question, whose answer runs on.

``python -m tests.conversations.other URL``; runs until it is killed.
"""

import asyncio
import sys
from pathlib import Path

from app.conversations.sql import SqlStore
from tests.conversations.making import ask, id_of
from tests.live.servers import Process


class OtherGateway(Process):
    def __init__(self, url: str, cwd: Path) -> None:
        super().__init__("tests.conversations.other", url, env={}, cwd=cwd)

    async def asked(self) -> str:
        """The id of its conversation, once the question is stored."""
        return await asyncio.to_thread(self.find, r"^asked (\S+)$")


async def main(url: str) -> None:
    store = SqlStore(url)
    await store.open()
    asked = ask()
    await store.write([asked])
    print(f"asked {id_of(asked)}")  # noqa: T201  for the test
    print(f"migrated {'alembic' in sys.modules}")  # noqa: T201  for the test
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
