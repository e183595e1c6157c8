"""S5: what a client hears while the model is silent before its answer.

In one variant the model's server sends its head and then nothing, in the other not even a head. All
targets listen at once, because they do nothing but wait.
"""

import asyncio
import re
import time
from collections.abc import Mapping

import uvloop

from tests.bench.client import Client, Failed, Tally
from tests.bench.load import Asking
from tests.bench.results import Silence
from tests.bench.servers import Running
from tests.bench.shapes import expected

SILENCE_S = 40.0  # proxies and browsers give up on a quiet connection after 30 to 60 s
VARIANTS = ("first", "head")  # flags of the model's name, see `shapes`
MARGIN_S = 1.0  # what comes so close to the ends of the silence is no sign of life in it
LATE_S = 20.0  # after the silence; then an answer is not complete
_PROMISE = re.compile(rb'"heartbeat_ms":(\d+)')


class Listener(Client):
    """Notes when bytes came. Times are ``time.monotonic()``."""

    head_at: float | None = None
    heartbeat_s: float | None = None

    def __init__(self, token: re.Pattern[bytes]) -> None:
        super().__init__(token, Tally())
        self.reads_at: list[float] = []

    def data_received(self, data: bytes) -> None:
        self.reads_at.append(time.monotonic())
        super().data_received(data)

    def on_headers_complete(self) -> None:
        self.head_at = time.monotonic()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if promise := _PROMISE.search(body):
            self.heartbeat_s = int(promise[1]) / 1000
        super().on_body(body)


def listen(
    targets: Mapping[str, Running], silence_s: float = SILENCE_S
) -> dict[str, dict[str, Silence]]:
    async def all_at_once() -> dict[tuple[str, str], Silence]:
        async with asyncio.TaskGroup() as group:
            tasks = {}
            for name, running in targets.items():
                for variant in VARIANTS:
                    model = f"sim-n3-i0-{variant}{silence_s * 1000:.0f}"
                    asking = running.target.asking(running.place, model)
                    tasks[name, variant] = group.create_task(_listen(asking, model, silence_s))
        return {key: task.result() for key, task in tasks.items()}

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        heard = runner.run(all_at_once())
    return {name: {variant: heard[name, variant] for variant in VARIANTS} for name in targets}


async def _listen(asking: Asking, model: str, silence_s: float) -> Silence:
    client = Listener(asking.token)
    asked_at = time.monotonic()
    try:
        async with asyncio.timeout(silence_s + LATE_S):
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: client, "127.0.0.1", asking.port)
            complete = await client.ask(asking.request(model)) == expected(model)
    except (Failed, OSError):  # a timeout is an OSError too
        complete = False
    if not client.closed:
        client.close()
    reads_s = [at - asked_at for at in client.reads_at]
    return Silence(
        head_s=client.head_at - asked_at if client.head_at else None,
        signs_s=[at for at in reads_s if MARGIN_S < at < silence_s - MARGIN_S],
        heartbeat_s=client.heartbeat_s,
        complete=complete,
    )
