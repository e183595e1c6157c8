"""What a run's events add up to."""

from app.conversations.model import Step
from app.events.model import Event, Reasoning, Retract, Token, ToolCall, ToolResult


class Answer:
    """``tokens``: the text so far, in pieces. ``steps`` and ``reasoning``: what belongs to the
    answer beside its text."""

    __slots__ = ("_preamble", "_reasoning", "steps", "tokens")

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self._reasoning: list[str] = []
        self._preamble = ""
        self.steps: list[Step] = []

    @property
    def text(self) -> str:
        return "".join(self.tokens)

    @property
    def reasoning(self) -> str:
        return "".join(self._reasoning)

    def gather(self, event: Event) -> None:
        """Also of events that are none of its parts."""
        match event:
            case Token(text):
                self.tokens.append(text)
            case Reasoning(text):
                self._reasoning.append(text)
            case Retract(text):
                self.tokens = [self.text.removesuffix(text)]
                self._preamble = text
            case ToolCall():
                if not self.steps or self.steps[-1].results:
                    self.steps.append(Step(self._preamble, ()))
                    self._preamble = ""
                step = self.steps[-1]
                self.steps[-1] = Step(step.text, (*step.calls, event))
            case ToolResult(id=call_id):
                for at, step in enumerate(self.steps):
                    if any(call.id == call_id for call in step.calls):
                        self.steps[at] = Step(step.text, step.calls, (*step.results, event))
