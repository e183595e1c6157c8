"""What the readers of one question got, held against the truth. Pure; answers are sentences."""

from collections.abc import Iterator, Sequence

from app.events.mirror import JUMP
from tests.chaos.records import Heard, Record

# What a gateway may say of an answer that it did not finish: its model is always well here.
CODES = {"worker_lost", "draining"}
SLACK_S = 1.0  # what a reader calls its absence, and what the gateway does
_TEXTS = ("token", "reasoning")


def wrong_with(record: Record) -> Iterator[str]:
    """Of one reader."""
    yield from record.trouble
    if not record.heard:
        return
    yield from _numbers(record)
    yield from _order(record.heard)
    yield from _texts(record)
    if record.status is not None:
        yield from _ending(record)


def disagreement(records: Sequence[Record]) -> Iterator[str]:
    """Of the readers of one run: the same number is the same event for all of them."""
    first, *others = records
    known = {heard.seq: (heard.name, heard.data) for heard in first.heard}
    for record in others:
        for heard in record.heard:
            if known.setdefault(heard.seq, (heard.name, heard.data)) != (heard.name, heard.data):
                yield f"two readers have two events number {heard.seq}: {heard.name}"
                return


def _numbers(record: Record) -> Iterator[str]:
    """From 1 without gaps, but for what is hidden and the ending that another worker wrote."""
    before = 0
    for heard in record.heard:
        is_taken_over = heard.seq % JUMP == 0 and heard.name == "error"
        if heard.seq <= before:
            yield f"number {heard.seq} after {before}"
        elif heard.seq > before + 1 and not is_taken_over and not _hides(record, before):
            yield f"number {heard.seq} after {before}: some are missing"
        before = heard.seq


def _hides(record: Record, before: int) -> bool:
    """Reasoning goes before the answer, right behind the start; it may be all there is."""
    return before == 1 and bool(record.question.reasoning) and not record.question.shows_reasoning


def _order(heard: Sequence[Heard]) -> Iterator[str]:
    names = [each.name for each in heard]
    if names[0] != "start":
        yield f"the first event is {names[0]}"
    strange = set(names[1:]) - {*_TEXTS, "final", "error", "done"}
    if strange:
        yield f"events that nobody makes here: {', '.join(sorted(strange))}"
    for name in ("start", "final", "error", "done"):
        if names.count(name) > 1:
            yield f"{names.count(name)} events are {name}"
    if "done" in names[:-1]:
        yield "done is not the last"


def _texts(record: Record) -> Iterator[str]:
    question, is_whole = record.question, record.status == "completed"
    if not is_part(record.text(), question.answer, is_whole=is_whole):
        yield f"the text is not that of the answer: {_difference(record.text(), question.answer)}"
    if question.shows_reasoning:
        told = record.text("reasoning")
        if not is_part(told, question.reasoning, is_whole=is_whole):
            yield f"the reasoning is another: {_difference(told, question.reasoning)}"


def is_part(text: str, whole: str, *, is_whole: bool) -> bool:
    """The beginning of it, or all of it. A surrogate whose second half never came is U+FFFD."""
    if is_whole:
        return text == whole
    return whole.startswith((text, text.removesuffix("\ufffd")))


def _difference(text: str, whole: str) -> str:
    at = next(
        (at for at, pair in enumerate(zip(text, whole, strict=False)) if len(set(pair)) > 1), 0
    )
    at = at or min(len(text), len(whole))
    return f"at {at} of {len(whole)} {text[at : at + 40]!r} stands for {whole[at : at + 40]!r}"


def _ending(record: Record) -> Iterator[str]:
    names = [heard.name for heard in record.heard]
    before = names[-2] if len(names) > 1 else ""
    match record.status:
        case "completed":
            if before != "final":
                yield f"completed behind {before}"
            elif record.heard[-2].data["text"] != record.question.answer:
                yield "final is not the answer"
        case "failed":
            if before != "error":
                yield f"failed behind {before}"
            if record.code not in CODES:
                yield f"failed with {record.code}"
        case "cancelled":
            if "final" in names or "error" in names:
                yield f"cancelled behind {before}"
            grace_s = record.question.grace_s
            if grace_s is None or record.longest_away_s < grace_s - SLACK_S:
                yield (
                    f"cancelled, though its reader was away for {record.longest_away_s:.1f} s "
                    f"at most and its grace is {grace_s} s"
                )
        case _:
            yield f"done says {record.status}"
