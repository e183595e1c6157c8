"""The command line: ``python -m app`` serves, ``python -m app chat "text"`` asks,
``python -m app keys`` makes keys.

Importing little before the port is open is what makes the start fast.
"""

import argparse
import logging
import os
import signal
import sys
from urllib.parse import urlsplit

from app.configuration import Configuration, configuration_from_environment
from app.listening import CannotListen, listen_together
from app.settings import Settings, SettingsError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m app", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    server = commands.add_parser(
        "serve", help="start the gateway (default); settings: environment, .env"
    )
    server.add_argument("--as-worker", help=argparse.SUPPRESS)  # app/worker.py says it
    chat = commands.add_parser("chat", help="ask a running gateway and stream its answer")
    chat.add_argument("text")
    chat.add_argument("--url", default="http://127.0.0.1:8000", help="of the gateway")
    chat.add_argument("--model", help="default: the gateway's own")
    chat.add_argument("--conversation", metavar="ID", help="go on with it; default: a new one")
    chat.add_argument(
        "--key-file",
        metavar="PATH",
        help="holds the API key; default: GATEWAY_API_KEY. The key itself is never an argument: "
        "everybody on the machine can read those in the process list",
    )
    commands.add_parser("keys", help="make, list, revoke and rotate API keys", add_help=False)
    if sys.argv[1:2] == ["keys"]:
        from app.access import keys_command

        return keys_command.run(sys.argv[2:])
    arguments = parser.parse_args()
    if arguments.command == "chat":
        from app.client import run

        return run(
            arguments.text,
            arguments.url,
            arguments.model,
            arguments.conversation,
            arguments.key_file,
        )
    return serve(getattr(arguments, "as_worker", None))


def serve(inherited: str | None) -> int:
    """``inherited``: a worker's descriptors. Answers the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):  # until the server hears them
        signal.signal(number, lambda *_: os._exit(0))
    if inherited is not None:  # it is for our parent, though a terminal sends it to us as well
        signal.signal(signal.SIGHUP, lambda *_: None)
    try:
        configuration = configuration_from_environment()
    except SettingsError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 2
    settings = configuration.settings
    _log(settings)
    try:
        if settings.workers > 1 and inherited is None:
            return _supervise(configuration)
        from app.main import create_app

        app = create_app(configuration)
        if inherited is not None:
            from app.worker_server import serve_as_worker

            serve_as_worker(app, settings, inherited)
        else:
            from app import server

            server.serve(
                app,
                settings,
                lambda port: print(_first_words(configuration, port), flush=True),
            )
    except CannotListen as error:
        print(
            f"gateway: cannot listen on {settings.host}:{settings.port}: {error}; "
            "set another GATEWAY_PORT or GATEWAY_HOST",
            file=sys.stderr,
        )
        return 1
    return 0


def _supervise(configuration: Configuration) -> int:
    """Raises ``CannotListen``."""
    from app.workers import supervise

    settings = configuration.settings
    listeners = listen_together(settings.host, settings.port, settings.workers)
    port = listeners[0].getsockname()[1]
    return supervise(
        listeners,
        settings.drain_seconds,
        lambda: print(_first_words(configuration, port), flush=True),
    )


def _log(settings: Settings) -> None:
    who = "%(process)d " if settings.workers > 1 else ""
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s {who}%(levelname)s %(name)s %(message)s"
    )
    for chatty in ("uvicorn.error", "httpx", "httpx2", "openai", "mcp", "alembic.runtime.plugins"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


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
    runs = "in memory" if settings.redis_url is None else "in Redis"
    guards, shown = "no keys: whoever can connect may ask", ""
    if not settings.is_open:
        keys = f"the keys in {settings.api_keys_file}" if settings.api_keys_file else ""
        tokens = f"tokens of {settings.jwt_issuer}" if settings.takes_tokens else ""
        guards = " and ".join(filter(None, (keys, tokens)))
        shown = '-H "Authorization: Bearer $GATEWAY_API_KEY" '
    kept = settings.data_dir if settings.database_url is None else "the database that was named"
    return (
        f"page   {url}/\n"
        f"guard  {guards}\n"
        f"try    curl -N {shown}'{url}/chat?text=Hello'\n"
        f"model  {model}\n"
        f"data   conversations in {kept}, runs {runs}"
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
