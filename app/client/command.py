"""``python -m app chat``: the answer on the terminal, Ctrl-C, and exit codes.

=====  ============================================================
0      the answer is complete
1      the run failed
2      wrong usage, unreachable, an HTTP problem, or the run is lost
130    stopped: by Ctrl-C (143: by SIGTERM), or by somebody else
141    the reader of our output had enough, as in ``| head -1``
=====  ============================================================

A terminal shows tokens as they come. What is printed stays: below a text that is taken back stands
a note that says so. A file or a pipe gets the answer and nothing else, because a script whose
``$(python -m app chat …)`` sometimes began with "Let me look that up." would be wrong in silence.
So where the model may use tools it gets the answer once ``final`` has told it; where the model has
none, nothing is ever taken back, and tokens go there as they come, too.
"""

import asyncio
import os
import signal
from contextlib import aclosing, suppress
from types import FrameType

from app.client.events import Done, Error, Event, Final, Retract, Start, Token, Waiting
from app.client.key import find_key
from app.client.link import ClientError
from app.client.question import GRACE_S
from app.client.stream import Run
from app.client.terminal import Interrupted, OutputLost, Terminal

EXITS = {"completed": 0, "failed": 1, "cancelled": 130}
USAGE = 2
_NOTES = {
    "length": "note: the answer was cut at its length limit",
    "content_filter": "note: the model's filter cut the answer",
}


def run(
    text: str,
    url: str,
    model: str | None = None,
    conversation_id: str | None = None,
    key_file: str | None = None,
) -> int:
    """Ask, show the answer, tell the conversation, and return the exit code.

    ``key_file``: what holds the key, if it is not GATEWAY_API_KEY.
    """
    terminal = Terminal()
    try:
        key = find_key(key_file)
        asked = Run(text, url, model=model, conversation_id=conversation_id, key=key)
        if asked.bares_key:
            terminal.say(f"warning: the key goes to {asked.bares_key} unencrypted: use https://")
        return asyncio.run(_Command(asked, terminal).run())
    except ClientError as error:
        terminal.say(f"error: {error}")
        return USAGE
    except KeyboardInterrupt:  # before our own handler was there
        return 128 + signal.SIGINT


class _Command:
    def __init__(self, asked: Run, terminal: Terminal) -> None:
        self._asked = asked
        self._terminal = terminal
        self._signal: int | None = None
        self._text: list[str] = []  # the answer so far
        self._holds: bool | None = None  # whether it is written only once it is certain

    async def run(self) -> int:
        """Raises ``ClientError``."""
        self._loop = asyncio.get_running_loop()
        self._showing = asyncio.create_task(self._show(), name="show the answer")
        for number in (signal.SIGINT, signal.SIGTERM):
            # Not `loop.add_signal_handler`, which is never heard while a write blocks the loop.
            signal.signal(number, self._on_signal)
        try:
            return await self._showing
        except (asyncio.CancelledError, Interrupted):
            return await self._stop()
        except OutputLost as error:
            await self._asked.stop()
            if not error.quiet:
                self._terminal.say(f"error: {error}")
            return 128 + signal.SIGPIPE if error.quiet else EXITS["failed"]

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self._signal is not None or self._showing.done():
            os._exit(128 + number)  # the second one leaves at once, whatever is still under way
        self._signal = number
        if self._terminal.interruptible:
            raise Interrupted
        self._loop.call_soon_threadsafe(self._showing.cancel)

    async def _stop(self) -> int:
        confirmed = await self._asked.stop()
        with suppress(OutputLost, Interrupted):
            self._end_answer()
        if confirmed:
            self._terminal.say("stopped")
        else:
            self._terminal.say(
                "the gateway did not confirm the stop; "
                f"without a reader it ends the run within {GRACE_S} s"
            )
        self._tell_conversation()
        return 128 + (self._signal or signal.SIGINT)

    async def _show(self) -> int:
        """Raises ``ClientError``, ``OutputLost``, ``Interrupted``."""
        code = USAGE
        try:
            async with aclosing(self._asked.follow()) as events:
                async for event in events:
                    if isinstance(event, Start) and self._holds is None:
                        to_program = not self._terminal.is_terminal
                        self._holds = to_program and await self._asked.may_retract()
                    elif isinstance(event, Done):
                        code = EXITS[event.status]
                    else:
                        self._take(event)
        except ClientError:
            self._end_answer()
            raise
        self._end_answer()
        if code == EXITS["cancelled"]:
            self._terminal.say("stopped by the gateway")
        self._tell_conversation()
        return code

    def _take(self, event: Event) -> None:
        terminal = self._terminal
        if isinstance(event, Token):
            self._text.append(event.text)
            if not self._holds:
                terminal.show(event.text)
        elif isinstance(event, Retract):
            self._text = ["".join(self._text).removesuffix(event.text)]
            if not self._holds:
                if terminal.is_terminal:
                    terminal.end_line()
                terminal.say("note: what came last is not part of the answer")
        elif isinstance(event, Final):
            self._finish(event)
        elif isinstance(event, Error):
            self._end_answer()
            terminal.say(f"error: {event.message} ({event.code})")
        elif isinstance(event, Waiting):
            terminal.say(_waiting(event))

    def _finish(self, final: Final) -> None:
        """``final`` is the truth: show what of it was not shown."""
        shown = "" if self._holds else "".join(self._text)
        self._text.clear()
        if not final.text.startswith(shown):
            self._terminal.end_line()
            self._terminal.say("note: the answer is not what came so far, but this")
            shown = ""
        self._terminal.show(final.text[len(shown) :])
        if note := _NOTES.get(final.finish_reason):
            self._terminal.end_line()
            self._terminal.say(note)

    def _end_answer(self) -> None:
        """Write what was held back of an answer that never came to ``final``; end the line."""
        if self._holds:
            text = "".join(self._text)
            self._text.clear()
            self._terminal.show(text)
        self._terminal.end_line()

    def _tell_conversation(self) -> None:
        if self._asked.conversation_id:  # behind `=`, because it may begin with a hyphen
            self._terminal.say(f"to go on: --conversation={self._asked.conversation_id}")


def _waiting(event: Waiting) -> str:
    doing = "resuming" if event.resuming else "trying again"
    return f"{event.reason.rstrip('.')}, {doing} in {max(1, round(event.seconds))} s …"
