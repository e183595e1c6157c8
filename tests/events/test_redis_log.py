"""The log in Redis: the contract of every log, on one worker and across two."""

from collections.abc import AsyncIterator

import pytest

from app.events.log import EventLog
from tests.events.event_log_contract import EventLogContract
from tests.events.sharing import Across, shared_address, worker
from tests.redis_server import RedisServer

pytestmark = pytest.mark.anyio


class TestOnItsOwnWorker(EventLogContract):
    @pytest.fixture
    async def log(self, redis_server: RedisServer) -> AsyncIterator[EventLog]:
        async with worker(shared_address(redis_server.url)) as one:
            yield one.log


class TestAcrossWorkers(EventLogContract):
    @pytest.fixture
    async def log(self, redis_server: RedisServer) -> AsyncIterator[EventLog]:
        address = shared_address(redis_server.url)
        async with worker(address) as one, worker(address) as other:
            yield Across(one, other)
