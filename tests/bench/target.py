"""How a target is started, asked and read.

In commands, headers, environments and files ``{port}`` is the target's own port, ``{upstream}`` the
base URL of the mock model, ``{upstream_port}`` its port, ``{folder}`` the target's own folder.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.load import Asking

PEERS = Path(__file__).parent / "peers"
COMPLETION = {
    "model": "{model}",
    "stream": True,
    "messages": [{"role": "user", "content": "{prompt}"}],
}
CHUNK = r'"content": ?"(tok\d+ )"'  # OpenAI's


@dataclass(frozen=True)
class Place:
    """Where a target runs this time."""

    folder: Path
    port: int
    upstream_port: int

    def fill(self, text: str) -> str:
        values = {
            "port": self.port,
            "upstream_port": self.upstream_port,
            "upstream": f"http://127.0.0.1:{self.upstream_port}/v1",
            "folder": self.folder,
        }
        for name, value in values.items():
            text = text.replace(f"{{{name}}}", str(value))
        return text


@dataclass(frozen=True)
class Target:
    """``token`` finds a token's text in whole frames, and nothing in those that repeat the text.

    ``files``: of ``peers``, filled in and put into the target's folder before the start.
    ``leaving``: fields of the body of a client that will leave and wants all work to end then.
    """

    title: str
    command: tuple[str, ...]
    token: str = CHUNK
    path: str = "/v1/chat/completions"
    body: Mapping[str, Any] = field(default_factory=lambda: COMPLETION)
    headers: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    leaving: Mapping[str, Any] = field(default_factory=dict)
    install: Callable[[], None] = lambda: None  # raises BenchError
    has_runs: bool = False  # that can be resumed and have many readers

    def asking(self, place: Place, model: str, **fields: Any) -> Asking:
        """``fields`` are added to the body."""
        body = json.dumps({**self.body, **fields}).replace("{model}", model)
        headers = "".join(
            f"{name}: {place.fill(value)}\r\n" for name, value in self.headers.items()
        )

        def request(tag: str) -> bytes:
            data = body.replace("{prompt}", f"say it #{tag}")
            head = (
                f"POST {self.path} HTTP/1.1\r\nhost: 127.0.0.1:{place.port}\r\n{headers}"
                f"content-type: application/json\r\naccept: text/event-stream\r\n"
                f"content-length: {len(data)}\r\n\r\n"
            )
            return (head + data).encode()

        return Asking(place.port, request, re.compile(self.token.encode()))

    def lay_out(self, place: Place) -> None:
        place.folder.mkdir(parents=True, exist_ok=True)
        for name in self.files:
            text = (PEERS / name).read_text()
            (place.folder / name).write_text(place.fill(text))


DIRECT = Target("no gateway: the mock model itself", ())
