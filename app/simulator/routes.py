"""What each path answers. Knows requests and operations, no sockets."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from urllib.parse import parse_qs

from app.simulator import frames as wire
from app.simulator.ask import Ask
from app.simulator.chat import BadChatError, parse_chat
from app.simulator.frames import Frames
from app.simulator.kept import Kept
from app.simulator.ops import Leave, Op, Setting, Sleep, Write, cut_at, message
from app.simulator.scripts import play
from app.simulator.spec import SCRIPTS, Spec
from app.simulator.stats import Call, Outcome, Stats
from app.simulator.steps import Close
from app.simulator.streamed import streamed
from app.simulator.whole import whole

DEFAULT_MODEL = "simulator"
_DONE = Leave(Close.KEEP, Outcome.FINISHED)


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, whole."""

    method: str
    path: str
    query: str
    body: bytes
    keep_alive: bool = True
    http11: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """Operations to carry out, and the call that they belong to, if it is one."""

    ops: Iterator[Op]
    keep_alive: bool
    call: Call | None = None


def error(
    status: int, text: str, code: str, *, keep_alive: bool, allow: str | None = None
) -> Answer:
    """An error of ours, in OpenAI's form."""
    body = wire.error_body(text, code, status=status)
    extra = {} if allow is None else {"allow": allow}
    data = message(status, body, keep_alive=keep_alive, extra=extra)
    return Answer(iter((Write(data), _DONE)), keep_alive)


class Routes:
    def __init__(self, stats: Stats, kept: Kept) -> None:
        self._stats = stats
        self._kept = kept
        self._numbers = count(1)
        self._table = {
            "/v1/chat/completions": ("POST", self._chat),
            "/v1/models": ("GET", self._models),
            "/stats": ("GET", self._show),
            "/requests": ("GET", self._requests),
            "/reset": ("POST", self._reset),
            "/health": ("GET", self._health),
        }

    def __call__(self, request: Request) -> Answer:
        """The answer to a request. Counts a call as started; whoever plays it ends it."""
        # A HEAD is refused with a body all the same, so nothing may follow on the connection.
        keep_alive = request.keep_alive and request.method != "HEAD"
        if request.path not in self._table:
            text = f"unknown path {request.path}; known: {', '.join(self._table)}"
            return error(404, text, "not_found", keep_alive=keep_alive)
        method, handle = self._table[request.path]
        if request.method != method:
            text = f"{request.path} takes {method} only"
            code = "method_not_allowed"
            return error(405, text, code, keep_alive=keep_alive, allow=method)
        return handle(request)

    def _json(self, request: Request, value: object) -> Answer:
        data = message(200, wire.dumps(value), keep_alive=request.keep_alive)
        return Answer(iter((Write(data), _DONE)), request.keep_alive)

    def _health(self, request: Request) -> Answer:
        return self._json(request, {"status": "ok"})

    def _models(self, request: Request) -> Answer:
        names = [DEFAULT_MODEL, *(f"sim:{name}" for name in SCRIPTS)]
        more = {"object": "model", "created": 1_700_000_000, "owned_by": "simulator"}
        data = [{"id": name, **more} for name in names]
        return self._json(request, {"object": "list", "data": data})

    def _show(self, request: Request) -> Answer:
        return self._json(request, self._stats.as_json(_contains(request)))

    def _requests(self, request: Request) -> Answer:
        return self._json(request, self._kept.find(_contains(request)))

    def _reset(self, request: Request) -> Answer:
        self._stats.reset()
        self._kept.clear()
        return self._json(request, {})

    def _chat(self, request: Request) -> Answer:
        try:
            chat = parse_chat(request.body)
            self._kept.add(request.body)
            ask = chat.ask()
        except BadChatError as problem:
            self._stats.rejected += 1
            self._stats.changed()
            keep_alive = request.keep_alive
            return error(400, str(problem), "invalid_request", keep_alive=keep_alive)
        spec, stream = ask.spec, bool(chat.stream)
        call_id = f"chatcmpl-sim{next(self._numbers):09d}"
        call = self._stats.begin(call_id, chat.model, ask.prompt, spec.source, stream=stream)
        usage = bool(spec.count("usage")) and (chat.wants_usage or not stream)
        setting = Setting(
            spec=spec,
            frames=Frames(call_id, int(call.started_at), chat.model, with_usage=usage),
            prompt_tokens=chat.prompt_tokens,
            usage=usage,
            keep_alive=request.keep_alive,
            chunked=request.http11,
        )
        steps = play(self._counted(ask))
        ops = streamed(steps, setting) if stream else whole(steps, setting)
        return Answer(_shaped(ops, spec), request.keep_alive, call)

    def _counted(self, ask: Ask) -> Ask:
        """Scripts whose calls do not all end the same need to know how manyth this one is."""
        if "key" not in ask.spec.values:
            return ask
        key = ask.spec.text("key")
        self._stats.attempts[key] += 1
        return replace(ask, attempt=self._stats.attempts[key])


def _contains(request: Request) -> str:
    return parse_qs(request.query).get("contains", [""])[0]


def _shaped(ops: Iterator[Op], spec: Spec) -> Iterator[Op]:
    """The delay before the head, and the size of the writes."""
    if spec.has("cutat"):
        ops = cut_at(ops, spec.count("cutat"))
    if not spec.seconds("head"):
        return ops
    return _after(spec.seconds("head"), ops)


def _after(seconds: float, ops: Iterator[Op]) -> Iterator[Op]:
    yield Sleep(seconds)
    yield from ops
