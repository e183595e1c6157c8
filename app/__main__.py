"""The command line: ``python -m app`` serves, ``python -m app chat "text"`` asks.

Importing little before the port is open is what makes the start fast.
"""

import argparse
import logging
import os
import signal
import sys

from app.settings import Settings, SettingsError, from_environment


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m app", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("serve", help="start the gateway (default); settings: environment, .env")
    chat = commands.add_parser("chat", help="ask a running gateway and stream its answer")
    chat.add_argument("text")
    chat.add_argument("--url", default="http://127.0.0.1:8000", help="of the gateway")
    chat.add_argument("--model", help="default: the gateway's own")
    arguments = parser.parse_args()
    if arguments.command == "chat":
        from app.client import run

        return run(arguments.text, arguments.url, arguments.model)
    return serve()


def serve() -> int:
    for number in (signal.SIGINT, signal.SIGTERM):  # until the server hears them
        signal.signal(number, lambda *_: os._exit(0))
    try:
        settings = from_environment()
    except SettingsError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 2
    from app import server
    from app.main import create_app

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for chatty in ("uvicorn.error", "httpx2", "openai"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        server.serve(
            create_app(settings),
            settings,
            lambda port: print(_first_words(settings, port), flush=True),
        )
    except server.CannotListen as error:
        print(
            f"gateway: cannot listen on {settings.host}:{settings.port}: {error}; "
            "set another GATEWAY_PORT or GATEWAY_HOST",
            file=sys.stderr,
        )
        return 1
    return 0


def _first_words(settings: Settings, port: int) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    host = f"[{host}]" if ":" in host else host
    url = f"http://{host}:{port}"
    if settings.uses_simulator:
        model = (
            f"{settings.model}, from the built-in simulator inside this process, because neither "
            "OPENAI_API_KEY nor OPENAI_BASE_URL is set"
        )
    else:
        model = f"{settings.model} at {settings.openai_base_url or 'OpenAI'}"
    return (
        f"page   {url}/\n"
        f"try    curl -N '{url}/chat?text=Hello'\n"
        f"model  {model}\n"
        "data   in memory only: nothing is written to disk"
    )


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:  # while modules were being imported
        raise SystemExit(130) from None
