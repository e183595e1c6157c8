"""Bodies that are huge, deep, ambiguous or called something else.

Anchors: OWASP API4:2023 (unrestricted resource consumption), CWE-400, CWE-674 (recursion), RFC 8259
section 4 (names that stand twice) and section 8.1 (UTF-8, no byte order mark).
"""

import gzip
import json

from tests.live.attacks.case import ANN, BOB, CLOSE, JSON, Case, get, head, kept, post
from tests.live.attacks.world import MAX_BODY

_TEXT = '"text":"@MARK@"'
BODIES: dict[str, str | bytes] = {
    "a megabyte of [": "[" * 1_000_000,
    "a megabyte of {": '{"a":' * 200_000,
    "deep objects": '{"text":' * 100_000 + "1" + "}" * 100_000,
    "deep in a field": f'{{{_TEXT},"stop":' + "[" * 50_000 + "]" * 50_000 + "}",
    "a hundred thousand names": f"{{{_TEXT}," + ",".join(f'"f{n}":1' for n in range(100_000)) + "}",
    "a hundred thousand tools": f'{{{_TEXT},"tools":[' + ",".join(['"t"'] * 100_000) + "]}",
    "a name of a megabyte": f'{{{_TEXT},"' + "n" * 1_000_000 + '":1}',
    "1e400": f'{{{_TEXT},"temperature":1e400}}',
    "minus 1e400": f'{{{_TEXT},"temperature":-1e400}}',
    "NaN": f'{{{_TEXT},"temperature":NaN}}',
    "Infinity": f'{{{_TEXT},"grace_seconds":Infinity}}',
    "a hundred thousand digits": f'{{{_TEXT},"seed":' + "9" * 100_000 + "}",
    "a hundred thousand digits behind a point": f'{{{_TEXT},"top_p":0.' + "9" * 100_000 + "1e9}",
    "an exponent of a hundred thousand digits": f'{{{_TEXT},"seed":1e' + "9" * 100_000 + "}",
    "hexadecimal": f'{{{_TEXT},"seed":0x10}}',
    "true for a number": f'{{{_TEXT},"max_tokens":true}}',
    "a number as text": f'{{{_TEXT},"max_tokens":"1"}}',
    "names that stand twice": f'{{{_TEXT},"text":"b"}}',
    "names that stand twice, one escaped": f'{{{_TEXT},"\\u0074ext":"b"}}',
    "text and query": f'{{{_TEXT},"query":"b"}}',
    "names in other letters": '{"Text":"@MARK@"}',
    "a name with NUL": '{"text\\u0000":"@MARK@"}',
    "an operator": '{"text":{"$ne":"@MARK@"}}',
    "__proto__": f'{{{_TEXT},"__proto__":{{"is_admin":true}}}}',
    "__class__": f'{{{_TEXT},"__class__":"os.system"}}',
    "an owner": f'{{{_TEXT},"owner":"anonymous"}}',
    "limits": f'{{{_TEXT},"limits":{{"max_runs":1000}}}}',
    "a byte order mark": b"\xef\xbb\xbf" + f"{{{_TEXT}}}".encode(),
    "UTF-16": f"{{{_TEXT}}}".encode("utf-16"),
    "UTF-32": f"{{{_TEXT}}}".encode("utf-32-le"),
    "UTF-7": "+AHsAIgB0AGUAeAB0ACIAOgAiAGEAIgB9-",
    "overlong UTF-8": b'{"text":"\xc0\xaf"}',
    "something behind it": f"{{{_TEXT}}}x",
    "another one behind it": f"{{{_TEXT}}}{{{_TEXT}}}",
    "NUL behind it": f"{{{_TEXT}}}\0",
    "a comment": f"{{{_TEXT}/* */}}",
    "single quotes": "{'text':'@MARK@'}",
    "a control character": '{"text":"@MARK@\n"}',
    "a list of it": f"[{{{_TEXT}}}]",
    "null": "null",
    "nothing": "",
    "YAML": "text: @MARK@",
    "200,001 characters": '{"text":"@MARK@' + "x" * 200_001 + '"}',
}
KINDS = {
    "none": "X-None: 1",
    "text/plain": "Content-Type: text/plain",
    "a form": "Content-Type: application/x-www-form-urlencoded",
    "a form with files": "Content-Type: multipart/form-data; boundary=x",
    "JSON behind a comma": "Content-Type: text/plain, application/json",
    "JSON as a parameter": "Content-Type: text/plain; application/json",
    "longer": "Content-Type: application/jsonx",
    "pickle": "Content-Type: application/x-python-pickle",
    "XML": "Content-Type: application/xml",
}
TITLES = {"empty": "", "201 characters": "t" * 201, "a number": 1, "a list": ["t"], "null": None}


def _chunked(body: bytes, size: int = 65_536) -> bytes:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head("POST", "/chat", JSON, "Transfer-Encoding: chunked", CLOSE, BOB) + (
        b"\r\n\r\n" + framed + b"0\r\n\r\n"
    )


_HUGE = b'{"text":"a"' + b" " * MAX_BODY + b"}"
_BAD = (
    kept(post("/chat", '{"text":""}', BOB)),
    kept(post("/chat", '{"text":"a","conversation_id":"x"}', BOB)),
    kept(post("/chat", '{"text":"a","model":"a b"}', BOB)),
    kept(get("/chat?text=sim:malformed,kind=html", BOB)),
    kept(get("/chat?text=sim:status,code=400", BOB)),
    kept(get("/chat?text=sim:eof", BOB)),
)


def _pipeline(*requests: bytes) -> bytes:
    """@LENGTH@ is of the last one."""
    filled = []
    for request in requests[:-1]:
        first, _, body = request.partition(b"\r\n\r\n")
        filled.append(first.replace(b"@LENGTH@", b"%d" % len(body)) + b"\r\n\r\n" + body)
    return b"".join([*filled, requests[-1]])


CASES = [
    *(
        Case(f"body: {name}", post("/chat", body, BOB), 422, "invalid_request")
        for name, body in BODIES.items()
    ),
    *(
        Case(
            f"body called: {name}",
            post("/chat", f"{{{_TEXT}}}", BOB, kind=kind),
            415,
            "unsupported_media_type",
        )
        for name, kind in KINDS.items()
    ),
    Case(
        "body: compressed",
        post("/chat", gzip.compress(b'{"text":"a"}'), BOB, "Content-Encoding: gzip"),
        422,
        "invalid_request",
    ),
    Case(
        "body: over the limit by its length",
        head("POST", "/chat", JSON, BOB, CLOSE, f"Content-Length: {MAX_BODY + 1}") + b"\r\n\r\n{",
        413,
        "payload_too_large",
    ),
    Case("body: over the limit in chunks", _chunked(_HUGE), 413, "payload_too_large"),
    Case(
        "body: over the limit in chunks without end",
        _chunked(_HUGE)[: -len(b"0\r\n\r\n")],
        413,
        "payload_too_large",
    ),
    Case(
        "body: chunks of one byte",
        _chunked(b'{"text":"' + b"a" * 20_000 + b'"}x', 1),
        422,
        "invalid_request",
    ),
    *(
        Case(
            f"title: {name}",
            post("/conversations/@TALK@", json.dumps({"title": title}), ANN, method="PATCH"),
            422,
            "invalid_request",
        )
        for name, title in TITLES.items()
    ),
    # A slot that a failed request keeps is missing for ever: phantom 429 (LiteLLM). Bob has three.
    Case(
        "slots: three dozen requests that fail",
        _pipeline(*_BAD * 6, post("/chat", '{"text":"sim:tokens,n=1 @MARK@"}', BOB)),
        (422, 404, 422, 200, 200, 200) * 6 + (200,),
        text="tok0 ",
        starts=1,
    ),
]
