"""Parameter values: their types, their text, the conditions and selectors that read them.

Sources: api/v2alpha1/pipeline_spec.proto and backend/src/v2/driver of kubeflow/pipelines.
"""

from __future__ import annotations

import ast
import json
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from pipeline.errors import PipelineError
from pipeline.spec.documents import load_json

# strconv.ParseBool and ParseInt of Go.
_BOOLEAN = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_DOUBLE = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"nan|[+-]?inf(inity)?", re.IGNORECASE | re.ASCII)


def _finite(value: Any) -> None:
    """Raise ValueError for NaN and Infinity anywhere in `value`, OverflowError for no double."""
    if isinstance(value, int | float) and not math.isfinite(value):
        raise ValueError
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _finite(inner)


def is_not_finite(text: str) -> bool:
    """Tell whether Go's ParseFloat reads a text as NaN or Infinity."""
    return bool(_NOT_FINITE.fullmatch(text.strip()))


def coerce(value: Any, kind: str, name: str) -> Any:
    """Return `value` (also as text from a command line) as the parameter type `kind`.

    Text is read as the launcher reads an output's file: blanks around it do not count
    (TextToPbValue in backend/src/v2/metadata/converter.go).

    Raises PipelineError for what is not of that type, and for numbers that are not finite: no
    backend can store them.
    """
    try:
        if kind == "NUMBER_INTEGER":
            if isinstance(value, str):
                return int(_INTEGER.fullmatch(value.strip())[0])  # type: ignore[index]
            if isinstance(value, bool) or int(value) != value:
                raise ValueError
            return int(value)
        if kind == "NUMBER_DOUBLE":
            if isinstance(value, str):
                value = _DOUBLE.fullmatch(value.strip())[0]  # type: ignore[index]
            number = float(value) if not isinstance(value, bool) else math.nan
            if not math.isfinite(number):
                raise ValueError
            return number
        if kind == "BOOLEAN":
            return value if isinstance(value, bool) else _BOOLEAN[value.strip()]
        if kind in ("LIST", "STRUCT"):
            found = load_json(value, f"the parameter {name}") if isinstance(value, str) else value
            if not isinstance(found, list if kind == "LIST" else dict):
                raise ValueError
            _finite(found)
            return whole(found)
    except (ValueError, TypeError, OverflowError, KeyError, AttributeError):
        shown = repr(value)
        raise PipelineError(
            f"the parameter {name} = {shown if len(shown) < 100 else shown[:97] + '…'} is not of "
            f"its type {kind}"
        ) from None
    if kind == "STRING" and not isinstance(value, str):
        return text(value)
    return value


def whole(value: Any) -> Any:
    """Return a value as protobuf's Struct gives it back.

    It has doubles only, so whole ones are integers here, and maps without order: keys are sorted.
    """
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [whole(item) for item in value]
    if isinstance(value, dict):
        return {key: whole(value[key]) for key in sorted(value)}
    return value


def text(value: Any) -> str:
    """Return a value as the launcher puts it into an argument.

    Numbers have no exponent and no empty fraction (Go's FormatFloat 'f', -1); lists and
    dictionaries are JSON as Go writes it: without spaces, keys sorted, `<`, `>` and `&` escaped.
    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, float) and math.isfinite(value):
        return f"{Decimal(repr(value)):f}".removesuffix(".0")
    return "".join(_json(whole(value)))


def argument(value: Any) -> str:
    """Return a value as the driver puts it into an argument; the launcher then has no part in it.

    As `text`, but of numbers: one that is whole and of 64 bits has all its digits, others are
    Go's %g (pbValueToString of backend/src/v2/driver/util.go, kubeflow/pipelines 2.17).
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return text(value)
    number = float(value)
    if number.is_integer() and -(2.0**63) <= number < 2.0**63:
        return str(int(number))
    exponent = Decimal(repr(number)).adjusted()
    # %g takes an exponent below -4 and from 6 on, where it writes as few digits as are exact.
    return text(number) if -4 <= exponent < 6 else _with_exponent(number, 2)


def _with_exponent(number: float, digits: int) -> str:
    """Return the shortest exact number with an exponent that has so many digits or more."""
    sign, written, _ = Decimal(repr(number)).normalize().as_tuple()
    exponent = Decimal(repr(number)).adjusted()
    first, *rest = map(str, written)
    fraction = "." + "".join(rest) if rest else ""
    mark = "-" if exponent < 0 else "+"
    return f"{'-' * sign}{first}{fraction}e{mark}{abs(exponent):0{digits}}"


_ESCAPES = {ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"}


def _json(value: Any) -> Iterator[str]:
    """Yield the parts of a value's JSON as Go's json.Marshal writes it (encoding/json)."""
    if isinstance(value, dict):
        yield "{"
        for number, key in enumerate(sorted(value)):
            yield from ("," * bool(number), *_json(key), ":", *_json(value[key]))
        yield "}"
    elif isinstance(value, list):
        yield "["
        for number, item in enumerate(value):
            yield from ("," * bool(number), *_json(item))
        yield "]"
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        small = 0 < abs(value) < 1e-6
        exponent = small or abs(value) >= 1e21
        # Of e-09 the zero is left out; e+09 does not come up.
        yield _with_exponent(float(value), 1 if small else 2) if exponent else text(float(value))
    else:
        yield json.dumps(value, ensure_ascii=False).translate(_ESCAPES)


_LONGEST_CONDITION = 100_000
_TOKEN = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|&&|\|\||!(?!=)|\btrue\b|\bfalse\b")
_WORDS = {"&&": " and ", "||": " or ", "!": " not ", "true": "True", "false": "False"}
_COMPARE = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt,
    ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip
_CASTS: dict[str, Callable[[Any], Any]] = {
    "int": int,
    "double": float,
    "string": text,
    "bool": bool,
}


def condition(expression: str, parameters: Mapping[str, Any]) -> bool:
    """Evaluate a trigger condition: the part of CEL that the compiler writes.

    Values of different types are unequal, as in CEL. Raises PipelineError for anything else.
    """
    python = _TOKEN.sub(lambda m: _WORDS.get(m[0], m[0]), expression)
    try:
        if len(python) > _LONGEST_CONDITION:
            raise ValueError("it is too long")
        return bool(_evaluate(ast.parse(python.strip(), mode="eval").body, parameters))
    except (SyntaxError, KeyError, TypeError, ValueError, RecursionError, MemoryError) as error:
        raise PipelineError(
            f"the condition {expression[:200]!r} cannot be evaluated ({error!r})"
        ) from None


def _evaluate(node: ast.expr, parameters: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.BoolOp():
            values = (bool(_evaluate(value, parameters)) for value in node.values)
            return all(values) if isinstance(node.op, ast.And) else any(values)
        case ast.UnaryOp(op=ast.Not()):
            return not _evaluate(node.operand, parameters)
        case ast.UnaryOp(op=ast.USub()):
            return -_evaluate(node.operand, parameters)
        case ast.Compare(ops=[order], comparators=[right]):
            a, b = _evaluate(node.left, parameters), _evaluate(right, parameters)
            if isinstance(a, bool) != isinstance(b, bool):
                return isinstance(order, ast.NotEq)
            return _COMPARE[type(order)](a, b)
        case ast.Subscript(slice=ast.Constant(value=key)):
            if ast.unparse(node.value) == "inputs.parameter_values":
                return parameters[str(key)]
        case ast.Call(func=ast.Name(id=name), args=[argument]):
            return _CASTS[name](_evaluate(argument, parameters))
    raise ValueError(ast.unparse(node))


_SELECTOR = re.compile(r"parseJson\(string_value\)\[(['\"])(.+)\1\]")


def select(value: Any, expression: str) -> Any:
    """Apply a parameter expression selector, `parseJson(string_value)["key"]`.

    Raises PipelineError for another expression and for a value without that member.
    """
    match = _SELECTOR.fullmatch(expression)
    if match is None:
        raise PipelineError(f"the selector {expression!r} is not known")
    document = load_json(value, "the selected value") if isinstance(value, str) else value
    try:
        return document[match[2]]
    except (KeyError, TypeError):
        raise PipelineError(f"{value!r} has no member {match[2]!r}") from None
