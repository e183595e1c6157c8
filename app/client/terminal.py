"""What the person sees: the answer on stdout, everything else on stderr.

1. To a file or a pipe the answer goes exactly, as UTF-8. To a terminal it goes without control
   characters, because an escape sequence from a model could retitle, erase or type (ECMA-48).
2. Bytes, not ``print``: a terminal that knows fewer characters shows ``?`` and nothing crashes.
3. A write into a full pipe blocks for as long as its reader likes. ``interruptible`` tells the
   signal handler that raising ``Interrupted`` is what gets us out of there (PEP 475).
"""

import os
import sys
from contextlib import suppress
from typing import BinaryIO

# Each as its picture: ESC as U+241B. C1 has none. Line feed and tab stay.
_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"}
_PICTURES |= {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


class Interrupted(Exception):
    """A signal came while we waited for the reader of our output."""


class OutputLost(Exception):
    """Nobody takes our output any more. ``quiet``: because its reader has had enough."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"the answer cannot be written: {error.strerror}")
        self.quiet = isinstance(error, BrokenPipeError)


def harmless(text: str) -> str:
    """``text`` with nothing in it that a terminal would obey, but for line ends and tabs."""
    return text.replace("\r\n", "\n").translate(_PICTURES)


class Terminal:
    """``is_terminal``: a person looks at the answer; else a program or a file takes it."""

    def __init__(self) -> None:
        self.interruptible = False
        self.is_terminal = sys.stdout.isatty()
        self._encoding = sys.stdout.encoding if self.is_terminal else "utf-8"
        self._same_screen = self.is_terminal and sys.stderr.isatty()
        self._mid_line = False

    def show(self, text: str) -> None:
        """A piece of the answer. Raises ``OutputLost``, ``Interrupted``."""
        if not text:
            return
        if self.is_terminal:
            text = harmless(text)
        try:
            self._write(sys.stdout.buffer, text.encode(self._encoding, "replace"))
        except OSError as error:
            raise OutputLost(error) from error
        self._mid_line = not text.endswith("\n")

    def end_line(self) -> None:
        if self._mid_line:
            self.show("\n")

    def say(self, words: str) -> None:
        """One line that is not the answer. Raises ``Interrupted``."""
        line = harmless(" ".join(words.split())) + "\n"
        if self._same_screen and self._mid_line:
            line, self._mid_line = "\n" + line, False
        with suppress(OSError):  # nobody is left to be told
            self._write(sys.stderr.buffer, line.encode(sys.stderr.encoding, "replace"))

    def _write(self, stream: BinaryIO, data: bytes) -> None:
        try:
            self.interruptible = True
            stream.write(data)
            stream.flush()
        except (OSError, Interrupted):
            _discard(stream)
            raise
        finally:
            self.interruptible = False


def _discard(stream: BinaryIO) -> None:
    """What the buffer still holds must not fail or block once more when Python exits."""
    with suppress(OSError), open(os.devnull, "wb") as nothing:  # noqa: PTH123  # no path of ours
        os.dup2(nothing.fileno(), stream.fileno())
