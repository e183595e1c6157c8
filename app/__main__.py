"""The command line: ``python -m app`` serves, ``python -m app chat "text"`` asks.

Importing little before the port is open is what makes the start fast.
"""

import argparse
import logging
import os
import signal
import sys
from urllib.parse import urlsplit

from app.configuration import Configuration, configuration_from_environment
from app.settings import SettingsError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m app", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("serve", help="start the gateway (default); settings: environment, .env")
    chat = commands.add_parser("chat", help="ask a running gateway and stream its answer")
    chat.add_argument("text")
    chat.add_argument("--url", default="http://127.0.0.1:8000", help="of the gateway")
    chat.add_argument("--model", help="default: the gateway's own")
    chat.add_argument("--conversation", metavar="ID", help="go on with it; default: a new one")
    arguments = parser.parse_args()
    if arguments.command == "chat":
        from app.client import run

        return run(arguments.text, arguments.url, arguments.model, arguments.conversation)
    return serve()


def serve() -> int:
    for number in (signal.SIGINT, signal.SIGTERM):  # until the server hears them
        signal.signal(number, lambda *_: os._exit(0))
    try:
        configuration = configuration_from_environment()
    except SettingsError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 2
    settings = configuration.settings
    from app import server
    from app.main import create_app

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for chatty in ("uvicorn.error", "httpx", "httpx2", "openai", "mcp", "alembic.runtime.plugins"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        server.serve(
            create_app(configuration),
            settings,
            lambda port: print(_first_words(configuration, port), flush=True),
        )
    except server.CannotListen as error:
        print(
            f"gateway: cannot listen on {settings.host}:{settings.port}: {error}; "
            "set another GATEWAY_PORT or GATEWAY_HOST",
            file=sys.stderr,
        )
        return 1
    return 0


def _first_words(configuration: Configuration, port: int) -> str:
    settings, default = configuration.settings, configuration.catalogue.default
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    host = f"[{host}]" if ":" in host else host
    url = f"http://{host}:{port}"
    model = default.name
    if default.is_simulator:
        model += (
            ", from the built-in simulator inside this process, because neither "
            "OPENAI_API_KEY nor OPENAI_BASE_URL is set"
        )
    elif default.runnable is not None:
        model += f", which is {default.runnable}"
    else:
        model += f" at {_address(default.base_url) if default.base_url else 'OpenAI'}"
    if others := len(configuration.catalogue.names) - 1:
        model += f", and {others} more"
    kept = settings.data_dir if settings.database_url is None else "the database that was named"
    return (
        f"page   {url}/\n"
        f"try    curl -N '{url}/chat?text=Hello'\n"
        f"model  {model}\n"
        f"data   conversations in {kept}, runs in memory"
    )


def _address(url: str) -> str:
    """Without user, password and query, which may be secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:  # while modules were being imported
        raise SystemExit(130) from None
