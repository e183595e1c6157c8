"""Repair UTF-16 surrogates where text comes in, so that nothing behind has to think of them.

A server that cuts its JSON between two ``\\ud83d`` ``\\ude00`` escapes sends the halves of one
character in two chunks; Python keeps each as a lone surrogate, which no UTF-8 encoder takes
(RFC 3629 section 3). Halves that meet are joined, those that never do become U+FFFD.
"""


class SurrogateJoiner:
    """For one channel of one answer. Holds back at most one character."""

    __slots__ = ("_high",)

    def __init__(self) -> None:
        self._high = ""

    def feed(self, text: str) -> str:
        """The text to pass on now; empty if it is only half a character so far."""
        if not self._high and text.isascii():
            return text
        text = self._high + text
        self._high = ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._high = text[:-1], text[-1]
        return repaired(text)

    def flush(self) -> str:
        """What is still held back when the answer ends."""
        rest, self._high = self._high, ""
        return repaired(rest)


def repaired(text: str) -> str:
    """``text`` with its pairs joined and lone surrogates replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def utf8_size(text: str) -> int:
    """Bytes."""
    return len(text) if text.isascii() else len(text.encode())
