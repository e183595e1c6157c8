"""``python -m app.simulator``: the model server as a process of its own, until a signal."""

import argparse
import asyncio
import contextlib
import resource
import signal
import sys

import uvloop

from app.simulator.server import Simulator

DEFAULT_PORT = 9100


async def serve(host: str, port: int) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    simulator = Simulator()
    await simulator.start(host, port)
    sys.stdout.write(
        f"simulator listening, OPENAI_BASE_URL={simulator.url}\n"
        f"try: curl -N {simulator.url}/chat/completions -H 'content-type: application/json'"
        ' -d \'{"model":"simulator","stream":true,'
        '"messages":[{"role":"user","content":"hello"}]}\'\n'
    )
    sys.stdout.flush()
    await stop.wait()
    await simulator.stop()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m app.simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 takes a free one")
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # a connection is a file; the default is 1,024
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(arguments.host, arguments.port))
    except OSError as error:
        sys.stderr.write(f"cannot listen on {arguments.host}:{arguments.port}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
