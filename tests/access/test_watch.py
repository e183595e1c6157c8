"""Live streams and the credentials that they came with."""

import asyncio
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial

import pytest

from app.access import watch as module
from app.access.model import Caller
from app.access.watch import LOOK_S, Watch

pytestmark = pytest.mark.anyio

ADA = Caller("key:ada", key_id="ada", key_sha256="1")
BOB = Caller("key:bob", key_id="bob", key_sha256="2")


class Judge:
    """Says no to whoever is in ``refused``; ``asked``: of whom, in order."""

    def __init__(self, *refused: Caller) -> None:
        self.refused = list(refused)
        self.asked: list[Caller] = []

    def __call__(self, caller: Caller) -> bool:
        self.asked.append(caller)
        return caller not in self.refused


class Stream:
    def __init__(self) -> None:
        self.refusals = 0

    def refuse(self) -> None:
        self.refusals += 1


async def test_all_streams_of_a_refused_caller_are_told_once_and_no_others() -> None:
    judge = Judge()
    watch = Watch(judge)
    adas, bobs = [Stream() for _ in range(3)], [Stream() for _ in range(3)]
    with ExitStack() as open_streams:
        for stream in adas:
            open_streams.enter_context(watch.watching(ADA, stream.refuse))
        for stream in bobs:
            open_streams.enter_context(watch.watching(BOB, stream.refuse))
        await watch.look()
        assert [stream.refusals for stream in (*adas, *bobs)] == [0] * 6
        judge.refused.append(ADA)
        await watch.look()
        await watch.look()
        assert [stream.refusals for stream in (*adas, *bobs)] == [1, 1, 1, 0, 0, 0]
        assert len(watch) == 3
    assert not watch._groups  # nothing is kept of those that have left


async def test_a_look_asks_once_for_each_credential() -> None:
    judge = Judge()
    watch = Watch(judge)
    rotated, other_key = replace(ADA, key_sha256="3"), replace(ADA, key_id="other")
    session, signed_otherwise = replace(ADA, expires_at=5.0), replace(ADA, signed_by="key")
    tokens = [Caller(f"token:{name}", expires_at=5.0) for name in ("ada", "bob")]
    callers = [ADA, rotated, other_key, session, signed_otherwise, *tokens, BOB]
    with ExitStack() as open_streams:
        for caller in callers * 10:
            open_streams.enter_context(watch.watching(replace(caller), Stream().refuse))
        await watch.look()
        assert judge.asked == callers


async def test_a_stream_that_has_ended_is_not_told() -> None:
    judge = Judge(ADA)
    watch = Watch(judge)
    gone, stays = Stream(), Stream()
    with watch.watching(ADA, stays.refuse):
        with suppress(ConnectionError), watch.watching(ADA, gone.refuse):
            raise ConnectionError
        await watch.look()
    assert (gone.refusals, stays.refusals) == (0, 1)
    await watch.look()
    assert len(judge.asked) == 1


async def test_a_stream_that_ends_while_others_are_told_is_not_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 1)
    watch = Watch(Judge(ADA))
    told: list[str] = []
    contexts = {name: watch.watching(ADA, partial(told.append, name)) for name in "abc"}
    for context in contexts.values():
        context.__enter__()
    looking = asyncio.ensure_future(watch.look())
    while not told:  # noqa: ASYNC110  each pass of the loop tells one
        await asyncio.sleep(0)
    [left, other] = set(contexts) - set(told)
    contexts[left].__exit__(None, None, None)
    await looking
    assert sorted(told) == sorted(set("abc") - {left})
    for name in (told[0], other):
        contexts[name].__exit__(None, None, None)
    assert len(watch) == 0


async def test_a_refusal_may_end_streams_at_once() -> None:
    watch = Watch(Judge(ADA))
    with ExitStack() as open_streams:
        for _ in range(5):
            open_streams.enter_context(watch.watching(ADA, open_streams.close))
        await watch.look()
        assert len(watch) == 0


async def test_a_stream_that_begins_after_its_credential_ended_is_told_at_the_next_look() -> None:
    watch = Watch(Judge(ADA))
    early, late = Stream(), Stream()
    with watch.watching(ADA, early.refuse):
        await watch.look()
        with watch.watching(ADA, late.refuse):
            await watch.look()
            assert (early.refusals, late.refusals) == (1, 1)


async def test_the_end_of_a_refused_stream_takes_no_newer_one_along() -> None:
    judge = Judge(ADA)
    watch = Watch(judge)
    late = Stream()
    with ExitStack() as newer:
        with watch.watching(ADA, Stream().refuse):
            with watch.watching(ADA, Stream().refuse):
                await watch.look()
            newer.enter_context(watch.watching(ADA, late.refuse))
        await watch.look()
        assert late.refusals == 1


async def test_a_bug_keeps_nobody_else_from_being_told(caplog: pytest.LogCaptureFixture) -> None:
    def judge(caller: Caller) -> bool:
        if caller is BOB:
            raise RuntimeError("bug")
        return False

    def broken() -> None:
        raise RuntimeError("bug")

    watch = Watch(judge)
    bobs, adas = Stream(), [Stream(), Stream()]
    with (
        watch.watching(BOB, bobs.refuse),
        watch.watching(ADA, adas[0].refuse),
        watch.watching(ADA, broken),
        watch.watching(ADA, adas[1].refuse),
    ):
        await watch.look()
        assert [stream.refusals for stream in (bobs, *adas)] == [0, 1, 1]
        assert len(caplog.records) == 2


async def test_a_long_look_lets_others_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 10)
    passes = 0

    async def others() -> None:
        nonlocal passes
        while True:
            passes += 1
            await asyncio.sleep(0)

    judge = Judge()
    watch = Watch(judge)
    working = asyncio.ensure_future(others())
    with ExitStack() as open_streams:
        for number in range(100):
            caller = replace(ADA, expires_at=float(number))
            open_streams.enter_context(watch.watching(caller, Stream().refuse))
        await watch.look()
        assert passes >= 9
        for _ in range(99):
            open_streams.enter_context(watch.watching(BOB, Stream().refuse))
        judge.refused.append(BOB)
        before = passes
        await watch.look()
        assert passes >= before + 9 + 9
    working.cancel()


async def test_it_looks_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    assert LOOK_S <= 10.0  # with the second after which a changed file is noticed: contract, 60 s
    monkeypatch.setattr(module, "LOOK_S", 0.001)
    judge = Judge()
    watch = Watch(judge)
    told = asyncio.Event()
    looking = asyncio.ensure_future(watch.run())
    with watch.watching(ADA, told.set):
        async with asyncio.timeout(30):
            while len(judge.asked) < 3:  # noqa: ASYNC110  no event tells of a look
                await asyncio.sleep(0.001)
            assert not told.is_set()
            judge.refused.append(ADA)
            await told.wait()
    looking.cancel()
