"""What the simulated model says. Pure text, no format.

``SECRET`` stands in every failure that a real upstream would explain in its own words, so that a
test can prove that such words never reach a user.
"""

import re
from collections.abc import Iterator

SECRET = "SECRET-UPSTREAM-DETAIL sk-secret-123"  # noqa: S105  # nosec B105  # opens nothing

# Each is one chunk. Python's json writes the surrogates as the same \udxxx escapes that a server
# sends whose tokenizer splits an emoji. Neighbours matter: a high and a low one make a pair.
AWKWARD: tuple[str, ...] = (
    "plain ",
    "line\nbreak ",
    "two\n\nbreaks ",
    "\n",
    "\n\n",
    "carriage\rreturn ",
    "\r",
    "\r\n",
    "cr\r\nlf ",
    "\r\n\r\n",
    "data: x",
    "\ndata: x\n\n",
    "\nevent: done\n",
    "\nid: 5\n",
    "\nretry: 1\n",
    ": comment\n",
    "data: [DONE]\n\n",
    "nul\u0000 ",
    "tab\t ",
    "next\u0085line ",
    "u2028\u2028x ",
    "u2029\u2029x ",
    "bom\ufeff ",
    "\ufeff",
    "  leading",
    "trailing  ",
    " ",
    "\"double\" and 'single' and `tick` ",
    "back\\slash \\n \\u0041 ",
    '{"a": [1, {"b": null}]} ',
    '<script>alert("1")</script><img src=x onerror=alert(2)> ',
    "&lt;&amp; ",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002 ",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 ",
    "\U0001f469\U0001f3fd\u200d",
    "\U0001f680 ",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u202eabc\u202c ",
    "e\u0301 a\u0308 z\u0361\u035c ",
    "\u0301 ",
    "escape \u001b[31m bell \u0007 del \u007f ",
    "max \U0010ffff nonchar \uffff\ufffe ",
    "pair ",
    "\ud83d",
    "\ude00",
    " in one chunk \U0001f600 ",
    "lone high ",
    "\ud83d",
    "then text ",
    "lone low ",
    "\ude00",
    " high inside \ud83dx low inside \ude00x ",
    "two highs ",
    "\ud83d",
    "\ud83d",
    "\ude00",
    " reversed \ude00\ud83d ",
    "last chunk ends high \ud83d",
)


def repaired(text: str) -> str:
    """Surrogate pairs joined, unpaired halves as U+FFFD: what a correct reader makes of it."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


_QUOTED = 80  # characters of the question that the demo repeats
_DEMO = """\
## Hello from the built-in simulator 👋

{quote}I am **not a real model**: this answer is scripted, so that you can see streaming work \
without a key. To talk to a real one:

1. set `OPENAI_API_KEY`, or
2. set `OPENAI_BASE_URL` to any OpenAI-compatible server,
3. and start the gateway again.

```bash
OPENAI_API_KEY=sk-... python -m app
```

| you send | you see |
|---|---|
| `sim:tokens,n=20` | twenty numbered tokens |
| `sim:stall` | a model that falls silent |

流式输出正常工作，祝你使用愉快！🚀
"""  # noqa: RUF001  full-width punctuation is what Chinese takes

# Word-like pieces as a tokenizer cuts them: up to eight characters with the space before, Chinese
# by one or two, white space alone. A piece may split a grapheme; joined, they are the text.
_PIECE = re.compile(r" ?[^\s\u3000-\u9fff\uff00-\uffef]{1,8}|[\u3000-\u9fff\uff00-\uffef]{1,2}|\s+")


def pieces(text: str) -> Iterator[str]:
    """Cut a text into token-like pieces whose concatenation is exactly the text."""
    return (match.group() for match in _PIECE.finditer(text))


def shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[:limit] + "…"


def demo(prompt: str) -> str:
    """The default answer. Quotes the beginning of the question on one line."""
    asked = shortened(" ".join(prompt.split()), _QUOTED)
    return _DEMO.format(quote=f"You asked:\n\n> {asked}\n\n" if asked else "")


ANSWER = "Here is the answer, after some thought: forty-two."
PREAMBLE = "Let me look that up. "


def token(k: int) -> str:
    return f"tok{k} "


_ALPHABET = 'The quick brown fox, 0123456789; "quoted" & <tagged> \\ back\n'


def filled(size: int, chunk: int) -> Iterator[str]:
    """Mixed ASCII of exactly ``size`` bytes in pieces of ``chunk``, never held as a whole."""
    block = _ALPHABET * (chunk // len(_ALPHABET) + 2)
    for start in range(0, size, chunk):
        offset = start % len(_ALPHABET)
        yield block[offset : offset + min(chunk, size - start)]
