"""Two tools that models often miss: what time it is, and arithmetic. Not on by themselves::

    GATEWAY_TOOLS=app.llm.builtin:current_time,app.llm.builtin:calculate

Numbers are fractions, so that 0.1 + 0.2 is 0.3 and a third times three is one; only roots are
rounded. Nothing is ever passed to ``eval``, and every size is bounded before it is computed.
"""

import ast
import math
import operator
import re
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from decimal import Context, Decimal, DecimalException
from fractions import Fraction
from zoneinfo import ZoneInfo

from langchain_core.tools import ToolException, tool

EXPRESSION_CHARACTERS = 500
NUMBER_BITS = 4_000  # of a numerator or denominator: 1,200 digits, multiplied in microseconds
ROUND_DIGITS = 100
ROOTS = Context(prec=60, Emin=-1_000, Emax=1_000)
SHOWN = Context(prec=28)
PLAIN_BELOW = 28  # digits before the point, and
PLAIN_ABOVE = -7  # places behind it, outside of which a number is shown as 1.5E-10

# Possessive, or a long number could be cut into tokens in exponentially many ways.
_NUMBER = r"(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][+-]?[0-9]{1,3}+(?![0-9]))?+"
_TOKENS = re.compile(rf"(?:\s++|{_NUMBER}|sqrt|abs|round|min|max|[-+*/%(),])*+")


@tool
async def current_time(zone: str = "UTC") -> str:
    """The current date, weekday and time in a time zone.

    zone: an IANA name such as Europe/Berlin or America/New_York.
    """
    now = datetime.now(_zone(zone))
    return f"{now.isoformat(timespec='seconds')} {now:%A}"


@tool
async def calculate(expression: str) -> str:
    """The exact value of an arithmetic expression.

    It takes numbers, + - * / // % **, parentheses, and sqrt(x), abs(x), round(x, digits),
    min(a, b, ...), max(a, b, ...). The power is **, not ^; there are no other names.
    """
    if len(expression) > EXPRESSION_CHARACTERS:
        raise ToolException(f"the expression is longer than {EXPRESSION_CHARACTERS} characters")
    if not _TOKENS.fullmatch(expression):
        raise ToolException(
            "an expression is made of numbers, + - * / // % ** ( ) and sqrt abs round min max"
        )
    try:
        expression = " ".join(expression.split())
        return _shown(_value(ast.parse(expression, mode="eval").body, expression))
    except ZeroDivisionError:
        raise ToolException("division by zero") from None
    except DecimalException:
        raise ToolException("the numbers get too large") from None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ToolException("this is not an arithmetic expression") from None


def _zone(name: str) -> tzinfo:
    if name.upper() in ("UTC", "Z", "GMT"):
        return UTC  # also where the machine has no zone data
    try:
        return ZoneInfo(name)
    except (ValueError, OSError):  # no such name, or one that leads out of the zone data
        pass
    except KeyError:  # ZoneInfoNotFoundError
        try:
            ZoneInfo("Etc/UTC")
        except KeyError:
            raise ToolException("this machine has no time zone data: only UTC is known") from None
    raise ToolException(f"{name[:60]!r} is not a time zone: it takes a name like Europe/Berlin")


def _value(node: ast.expr, source: str) -> Fraction:
    """Raises ``SyntaxError`` for what is no arithmetic, ``ZeroDivisionError``, ``DecimalException``
    and ``ToolException``."""
    if isinstance(node, ast.Constant):
        return _bounded(Fraction(ast.get_source_segment(source, node) or ""))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        return _UNARY[type(node.op)](_value(node.operand, source))
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        left, right = _value(node.left, source), _value(node.right, source)
        return _bounded(_BINARY[type(node.op)](left, right))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return _bounded(_called(node.func.id, [_value(part, source) for part in node.args]))
    raise SyntaxError


def _called(name: str, values: list[Fraction]) -> Fraction:
    if name in ("min", "max") and values:
        return min(values) if name == "min" else max(values)
    if name == "abs" and len(values) == 1:
        return abs(values[0])
    if name == "sqrt" and len(values) == 1:
        return _power(values[0], Fraction(1, 2))
    if name == "round" and len(values) in (1, 2):
        digits = values[1] if len(values) == 2 else Fraction(0)
        if digits.denominator != 1 or abs(digits) > ROUND_DIGITS:
            raise ToolException(f"round takes whole digits up to {ROUND_DIGITS}")
        return Fraction(round(values[0], int(digits)))
    raise SyntaxError


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator == 1:
        if _bits(base) * abs(exponent) > NUMBER_BITS:
            raise ToolException("the numbers get too large")
        return Fraction(base**exponent)
    if base < 0:
        raise ToolException("a root of a negative number is not a real number")
    if exponent == Fraction(1, 2):
        over, under = math.isqrt(base.numerator), math.isqrt(base.denominator)
        if over * over == base.numerator and under * under == base.denominator:
            return Fraction(over, under)
    return Fraction(ROOTS.power(_decimal(base, ROOTS), _decimal(exponent, ROOTS)))


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _bounded(value: Fraction) -> Fraction:
    if _bits(value) > NUMBER_BITS:
        raise ToolException("the numbers get too large")
    return value


def _decimal(value: Fraction, context: Context) -> Decimal:
    return context.divide(Decimal(value.numerator), Decimal(value.denominator))


def _shown(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    rounded = _decimal(value, SHOWN).normalize(SHOWN)
    return f"{rounded:f}" if PLAIN_ABOVE < rounded.adjusted() < PLAIN_BELOW else str(rounded)


_UNARY: dict[type[ast.unaryop], Callable[[Fraction], Fraction]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
_BINARY: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda left, right: Fraction(left // right),
    ast.Mod: operator.mod,
    ast.Pow: _power,
}
