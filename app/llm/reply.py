"""One run's answer, over as many model turns as it takes."""

from app.conversations.model import Step
from app.events.model import Usage
from app.events.queue import EventQueue
from app.llm.turn import Prompt, Turn


class Reply:
    """All model turns of one run. ``attempts``: requests made, with retries; ``answered_by``: the
    model that spoke last."""

    def __init__(self, prompt: Prompt, queue: EventQueue) -> None:
        self.prompt = prompt
        self.queue = queue
        self.turns: list[Turn] = []
        self.steps: list[Step] = []
        self.attempts = 0
        self.answered_by: str | None = None

    def usage(self) -> Usage:
        """Of all turns; ``estimated`` as soon as one is. What was asked of a model that never said
        a word is estimated, too."""
        told = [turn.usage() for turn in self.turns]
        if not told:
            asked = self.prompt.estimated_tokens()
            return Usage(asked, 0, asked, estimated=True)
        return Usage(
            sum(usage.input_tokens for usage in told),
            sum(usage.output_tokens for usage in told),
            sum(usage.total_tokens for usage in told),
            any(usage.estimated for usage in told),
        )
