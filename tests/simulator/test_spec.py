import pytest

from app.simulator import AWKWARD, expected_chunks, expected_text
from app.simulator.ask import Ask
from app.simulator.scripts import play
from app.simulator.spec import COMMON, SCRIPTS, BadSpecError, choose, parse
from app.simulator.steps import End
from app.simulator.texts import filled, pieces, repaired


def test_defaults_fill_what_a_spec_leaves_out() -> None:
    spec = parse("sim:tokens,interval=0.5")

    assert (spec.count("n"), spec.seconds("interval"), spec.has("batch")) == (100, 0.5, False)


@pytest.mark.parametrize(
    ("prompt", "model", "name", "text"),
    [
        ("hello", "gpt-4o", "plain", "hello"),
        ("hello", "sim:tokens,n=3", "tokens", "hello"),
        ("please sim:echo a b", "sim:tokens", "echo", "a b"),
        ("sim:echo\nsim:tokens", "m", "echo", "sim:tokens"),
        ("maxsim:echo is no spec, nor is sim: echo", "m", "plain", None),
    ],
)
def test_the_first_spec_in_the_prompt_wins_over_the_model(
    prompt: str, model: str, name: str, text: str | None
) -> None:
    spec, rest = choose(prompt, model)

    assert (spec.name, rest) == (name, prompt if text is None else text)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("sim:nope", "known: plain, tokens"),
        ("sim:tokens,m=1", "known: interval, first"),
        ("sim:tokens,n=-1", "from 0 to 1e\\+06"),
        ("sim:tokens,n=1.5", "a whole number"),
        ("sim:tokens,n=" + "9" * 5000, "a whole number"),
        ("sim:tokens,interval=nan", "from 0 to 3600"),
        ("sim:tokens,interval=1e9", "from 0 to 3600"),
        ("sim:tokens,n", "n=value"),
        ("sim:tokens,n=1,n=2", "once"),
        ("sim:tokens,", "unknown key ''"),
        ("sim:cut,how=softly", "rst, fin, nohead"),
        ("sim:status,retry_after=1%0D%0Ax:y", "printable"),
        ("sim:status,code=200", "from 400 to 599"),
        ("sim:tool,name=a+b+c,args={}+{}", "equally many"),
        ("sim:tool,name=a+", "1 to 4096"),
        ("sim:chaos,p=1.5", "from 0 to 1"),
    ],
)
def test_what_is_not_understood_is_refused_with_what_is_known(source: str, says: str) -> None:
    with pytest.raises(BadSpecError, match=says):
        parse(source)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_plays_with_its_defaults_and_comes_to_an_end(name: str) -> None:
    steps = list(play(Ask(parse(f"sim:{name}"), "hi", "hi")))

    assert all(not isinstance(step, End) for step in steps[:-1])
    assert not isinstance(steps[-1], str)
    assert not COMMON.keys() & SCRIPTS[name].keys() - {"interval", "first"}


@pytest.mark.parametrize(("size", "chunk"), [(0, 1), (1, 1), (100, 7), (5000, 4096), (64, 64)])
def test_filler_is_as_long_as_asked_and_the_same_however_it_is_cut(size: int, chunk: int) -> None:
    cut = list(filled(size, chunk))

    assert "".join(cut) == "".join(filled(size, 1))
    assert len("".join(cut).encode()) == size
    assert all(len(piece) == chunk for piece in cut[:-1])


@pytest.mark.parametrize("text", ["", "a  b\n\nc", "你好世界。 long-word-in-between 🚀", *AWKWARD])
def test_pieces_of_a_text_are_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("\ud83d\ude00", "😀"),
        ("\ud83dx", "\ufffdx"),
        ("\ude00y", "\ufffdy"),
        ("\ud83d\ud83d\ude00", "\ufffd😀"),
        ("x\ud83d", "x\ufffd"),
    ],
)
def test_surrogates_are_joined_or_replaced(sent: str, shown: str) -> None:
    assert repaired(sent) == shown


def test_the_expected_text_is_what_a_correct_reader_shows() -> None:
    assert expected_text("sim:tokens,n=2") == "tok0 tok1 "
    assert expected_text("sim:echo a\ud83d") == "a\ufffd"
    assert expected_text("sim:malformed,after=1") == expected_text("sim:cut,after=1") == "tok0 "
    assert "pair 😀 in one" in expected_text("sim:awkward")
    assert expected_text("sim:awkward").endswith("ends high \ufffd")
    assert expected_chunks("sim:awkward") == list(AWKWARD)


def test_the_demo_quotes_the_question_and_tells_how_to_connect_a_real_model() -> None:
    text = expected_text("What is\n\nSSE? " + "x" * 500)

    assert "> What is SSE? xxx" in text
    assert "OPENAI_API_KEY" in text
    assert "OPENAI_BASE_URL" in text
    assert "simulator" in text
    assert 100 <= len(expected_chunks("What is SSE?")) <= 220
