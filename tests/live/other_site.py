"""Somebody else's web site, on this machine: pages that try to use the gateway.

Two kinds of foreign page exist for a browser: of another site (``evil.example``), and of the same
site on another port (``127.0.0.1``). ``ATTACKS`` is what either can try without being asked.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

_PAGE = b"<!doctype html><title>Somebody else's</title><body>"


class _Blank(BaseHTTPRequestHandler):
    """HTTP/1.0: each connection ends with its answer, so that none outlives the server."""

    def do_GET(self) -> None:  # http.server's name
        self.send_response(200)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(_PAGE)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@contextmanager
def other_site() -> Iterator[int]:
    """A server of blank pages, whatever the path and host; its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Blank)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


_ELEMENT = """(url) => new Promise((resolve) => {{
  const element = document.createElement('{tag}');
  Object.assign(element, {properties});
  element.onload = () => resolve('loaded');
  element.onerror = () => resolve('nothing');
  element.{source} = url;
  document.body.append(element);
}})"""
_FORM = """(url) => {{
  const frame = document.createElement('iframe');
  frame.name = url; // of its own: a second form's would not be found beside the first one's
  const form = document.createElement('form');
  const [path, query] = url.split('?');
  Object.assign(form, {{ target: url, method: '{method}', enctype: '{enctype}' }});
  form.action = '{method}' === 'GET' ? path : url;
  for (const [name, value] of new URLSearchParams(query)) {{
    const field = document.createElement('input');
    Object.assign(field, {{ name, value }});
    form.append(field);
  }}
  document.body.append(frame, form);
  form.submit();
  return 'nothing';
}}"""
_FETCH = """(url) => fetch(url, {options})
  .then((r) => r.text().then((text) => (text || r.status ? 'read' : 'nothing')), () => 'nothing')"""


def _element(tag: str, source: str, properties: str = "{}") -> str:
    return _ELEMENT.format(tag=tag, source=source, properties=properties)


def _fetch(method: str, mode: str, kind: str = "") -> str:
    body = """body: '{"text": "sim:tokens"}',""" if method == "POST" else ""
    headers = f"headers: {{ 'content-type': '{kind}' }}," if kind else ""
    options = f"{{ method: '{method}', mode: '{mode}', credentials: 'include', {headers} {body} }}"
    return _FETCH.format(options=options)


# Each takes an address and answers 'nothing', 'loaded' or 'read'; or goes away.
ATTACKS = {
    "an image": _element("img", "src"),
    "a script": _element("script", "src"),
    "a module": _element("script", "src", "{ type: 'module' }"),
    "a style sheet": _element("link", "href", "{ rel: 'stylesheet' }"),
    "a video": """(url) => { document.body.append(Object.assign(document.createElement('video'),
        { src: url, preload: 'auto' })); return 'nothing'; }""",
    "a prefetch": _element("link", "href", "{ rel: 'prefetch' }"),
    "a preload": """(url) => { document.head.append(Object.assign(document.createElement('link'),
        { rel: 'preload', as: 'fetch', href: url })); return 'nothing'; }""",
    "an object": """(url) => { document.body.append(Object.assign(document.createElement('object'),
        { data: url })); return 'nothing'; }""",
    "an iframe": """(url) => new Promise((resolve) => {
        const frame = document.createElement('iframe');
        frame.onload = () => resolve(frame.contentDocument ? 'read' : 'nothing');
        frame.src = url;
        document.body.append(frame); })""",
    "a sandboxed script": """(url) => new Promise((resolve) => {
        onmessage = (event) => resolve(event.data);
        const frame = document.createElement('iframe');
        frame.sandbox = 'allow-scripts';
        frame.srcdoc = `<script>fetch(${JSON.stringify(url)}, { mode: 'cors' })
          .then(() => 'read', () => 'nothing').then((s) => parent.postMessage(s, '*'))</script>`;
        document.body.append(frame); })""",
    "an EventSource": """(url) => new Promise((resolve) => {
        const source = new EventSource(url, { withCredentials: true });
        source.onopen = () => resolve('read');
        source.onerror = () => source.readyState === 2 && resolve('nothing'); })""",
    "a form that gets": _FORM.format(method="GET", enctype="text/plain"),
    "a form that posts": _FORM.format(method="POST", enctype="application/x-www-form-urlencoded"),
    "a form that posts text": _FORM.format(method="POST", enctype="text/plain"),
    "a beacon": """(url) => { navigator.sendBeacon(url, '{"text": "sim:tokens"}');
        return 'nothing'; }""",
    "a ping": """(url) => { const link = document.createElement('a');
        Object.assign(link, { href: '#', ping: url }); document.body.append(link); link.click();
        return 'nothing'; }""",
    "fetch, GET": _fetch("GET", "cors"),
    "fetch, GET, no-cors": _fetch("GET", "no-cors"),
    "fetch, POST of text": _fetch("POST", "cors", "text/plain"),
    "fetch, POST of text, no-cors": _fetch("POST", "no-cors", "text/plain"),
    "fetch, POST of JSON": _fetch("POST", "cors", "application/json"),
    "fetch, DELETE": _fetch("DELETE", "cors"),
    "a new window": "(url) => { window.open(url); return 'nothing'; }",
    "a navigation": "(url) => { setTimeout(() => { location = url; }); return 'nothing'; }",
}
