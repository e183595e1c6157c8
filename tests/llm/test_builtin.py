"""The tools that come with the gateway."""

import asyncio
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from langchain_core.tools import ToolException

from app.llm.builtin import EXPRESSION_CHARACTERS, calculate, current_time

pytestmark = pytest.mark.anyio

BOUND_S = 10


async def value(expression: str) -> str:
    async with asyncio.timeout(BOUND_S):
        answer: str = await calculate.ainvoke({"expression": expression})
    return answer


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1+1", "2"),
        ("2 + 3 * 4", "14"),
        ("(2 + 3) * 4", "20"),
        ("-3 ** 2", "-9"),
        ("2 ** -1", "0.5"),
        ("+-+5", "-5"),
        ("7 // 2", "3"),
        ("-7 // 2", "-4"),
        ("-7 % 3", "2"),
        ("-7.5 % 2", "0.5"),
        ("7 / 2", "3.5"),
        ("6 / 2", "3"),
        ("0.1 + 0.2", "0.3"),
        ("1 / 3 * 3", "1"),
        ("1 / 3", "0.3333333333333333333333333333"),
        ("2 ** 200", str(2**200)),
        ("10 ** 30 + 1", "1" + "0" * 29 + "1"),
        (".5 + 1.", "1.5"),
        ("1.5e3", "1500"),
        ("1e-10", "1E-10"),
        ("sqrt(2) ** 2", "2"),
        ("sqrt(16)", "4"),
        ("sqrt(10 ** 100)", str(10**50)),
        ("sqrt(1 / 4)", "0.5"),
        ("sqrt(2)", "1.414213562373095048801688724"),
        ("8 ** (1 / 3)", "2"),
        ("2 ** 0.5 * 10", "14.14213562373095048801688724"),
        ("abs(-2.5)", "2.5"),
        ("round(2.675, 2)", "2.68"),
        ("round(1234, -2)", "1200"),
        ("round(7 / 2)", "4"),
        ("min(3, 1, 2) + max(1, 5)", "6"),
        (" 1\n+\t1 ", "2"),
        ("0.25 * 100 / 4", "6.25"),
    ],
)
async def test_arithmetic_is_exact(expression: str, expected: str) -> None:
    assert await value(expression) == expected


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("1 / 0", "division by zero"),
        ("1 // 0", "division by zero"),
        ("1 % 0", "division by zero"),
        ("0 ** -1", "division by zero"),
        ("9**9**9", "too large"),
        ("10**10**10", "too large"),
        ("(10**300) ** (10**300)", "too large"),
        ("2 ** -(10 ** 10)", "too large"),
        ("1.5 ** (10 ** 9 + 0.5)", "too large"),
        ("*".join(["10**300"] * 10), "too large"),
        ("/".join(["10**300"] * 10), "too large"),
        ("1e999999999", "made of"),
        ("1" * 400 + "x", "made of"),
        ("sqrt(-1)", "not a real number"),
        ("(-8) ** (1 / 3)", "not a real number"),
        ("round(1, 10 ** 9)", "whole digits"),
        ("round(1, 0.5)", "whole digits"),
        ("1" * (EXPRESSION_CHARACTERS + 1), "longer than"),
        ("(" * 250 + "1" + ")" * 249, "not an arithmetic"),
        ("(" * 240 + "1" + ")" * 240, "not an arithmetic"),
        ("", "not an arithmetic"),
        ("1 +", "not an arithmetic"),
        ("1)+(2", "not an arithmetic"),
        ("1, 2", "not an arithmetic"),
        ("sqrt", "not an arithmetic"),
        ("sqrt(1, 2)", "not an arithmetic"),
        ("min()", "not an arithmetic"),
        ("min(*(1, 2))", "not an arithmetic"),
        ("1(2)", "not an arithmetic"),
        ("007", "not an arithmetic"),
        ("__import__('os')", "made of"),
        ("1 .real", "made of"),
        ("x + 1", "made of"),
        ("1j", "made of"),
        ("0x10", "made of"),
        ("2^3", "made of"),
        ("'a' * 9", "made of"),
        ("[1 for _ in (1,)]", "made of"),
        ("1 if 1 else 2", "made of"),
        ("٣ + 1", "made of"),
    ],
)
async def test_what_cannot_be_computed_is_said_to_the_model(expression: str, message: str) -> None:
    with pytest.raises(ToolException, match=message):
        await value(expression)


async def test_a_long_chain_is_still_computed() -> None:
    assert await value("+".join(["1"] * 250)) == "250"
    assert await value("-" * 200 + "1") == "1"


async def test_the_time_has_an_offset_and_a_weekday() -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    text, weekday = (await current_time.ainvoke({"zone": "Asia/Kolkata"})).split()
    told = datetime.fromisoformat(text)
    assert before <= told <= datetime.now(UTC)
    assert text.endswith("+05:30")
    assert weekday == told.strftime("%A")


async def test_the_time_is_utc_where_nobody_says() -> None:
    assert "+00:00 " in await current_time.ainvoke({})


@pytest.mark.parametrize(
    "zone", ["Mars/Base", "", "../../etc/passwd", "/etc/passwd", "tzdata.zi", "Europe", "a\0b", "é"]
)
async def test_an_unknown_zone_is_said_to_the_model(zone: str) -> None:
    with pytest.raises(ToolException, match="is not a time zone"):
        await current_time.ainvoke({"zone": zone})


@pytest.fixture
def no_zone_data() -> Iterator[None]:
    path = zoneinfo.TZPATH
    zoneinfo.reset_tzpath(())
    zoneinfo.ZoneInfo.clear_cache()
    yield
    zoneinfo.reset_tzpath(path)


async def test_without_zone_data_utc_is_still_known(no_zone_data: None) -> None:
    assert "+00:00 " in await current_time.ainvoke({"zone": "utc"})
    with pytest.raises(ToolException, match="no time zone data"):
        await current_time.ainvoke({"zone": "Europe/Berlin"})
