"""Parameter values: their types, the placeholders in arguments, the conditions of tasks.

Sources: api/v2alpha1/pipeline_spec.proto and backend/src/v2/driver of kubeflow/pipelines.
"""

from __future__ import annotations

import ast
import json
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from pipeline.errors import PipelineError

_TRUE, _FALSE = {"true", "1"}, {"false", "0"}


def coerce(value: Any, kind: str, name: str) -> Any:
    """Return `value` (also as text from a command line) as the parameter type `kind`.

    Raises PipelineError for what is not of that type.
    """
    try:
        if kind == "NUMBER_INTEGER":
            number = float(value) if not isinstance(value, bool) else float("nan")
            if number != int(number):
                raise ValueError
            return int(value) if isinstance(value, str | int) else int(number)
        if kind == "NUMBER_DOUBLE":
            if isinstance(value, bool):
                raise ValueError
            return float(value)
        if kind == "BOOLEAN":
            if isinstance(value, str) and value.lower() in _TRUE | _FALSE:
                return value.lower() in _TRUE
            if not isinstance(value, bool):
                raise ValueError
            return value
        if kind in ("LIST", "STRUCT"):
            found = json.loads(value) if isinstance(value, str) else value
            if not isinstance(found, list if kind == "LIST" else dict):
                raise ValueError
            return whole(found)
    except (ValueError, TypeError, OverflowError):
        raise PipelineError(f"the parameter {name} = {value!r} is not of its type {kind}") from None
    if kind == "STRING" and not isinstance(value, str):
        return text(value)
    return value


def whole(value: Any) -> Any:
    """Return `value` with doubles that are whole numbers as integers: protobuf has doubles only."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [whole(item) for item in value]
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    return value


def text(value: Any) -> str:
    """Return a value as the launcher puts it into an argument.

    Numbers have no exponent and no empty fraction (Go's FormatFloat 'f', -1); lists and
    dictionaries are JSON without spaces, keys sorted (Go's json.Marshal of a Struct).
    """
    if isinstance(value, str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return f"{Decimal(repr(value)):f}".removesuffix(".0")
    return json.dumps(whole(value), separators=(",", ":"), sort_keys=True, ensure_ascii=False)


_INPUT = re.compile(r"\{\{\$\.inputs\.parameters\[(['\"])(.+?)\1\]\}\}")


def filled(value: Any, parameters: Mapping[str, Any]) -> Any:
    """Return a constant with the placeholders in its strings replaced: `"to {text}"`, `[output]`.

    A string that is one placeholder and nothing else takes the value with its type.
    """
    if isinstance(value, str):
        whole_one = _INPUT.fullmatch(value)
        if whole_one and whole_one[2] in parameters:
            return parameters[whole_one[2]]
        return _INPUT.sub(lambda m: text(parameters[m[2]]) if m[2] in parameters else m[0], value)
    if isinstance(value, list):
        return [filled(item, parameters) for item in value]
    if isinstance(value, dict):
        return {key: filled(item, parameters) for key, item in value.items()}
    return value


_PLACEHOLDER = re.compile(r"\{\{\$(\.[^}]*?)?\}\}")
_PART = re.compile(
    r"\.(inputs|outputs)\.(parameters|artifacts)\[(['\"])(.+?)\3\](?:\.(\w+))?"
    r"(?:\[(['\"])(.+?)\6\])?"
)


def substitute(
    words: Sequence[str], executor_input: Mapping[str, Any], facts: Mapping[str, str]
) -> list[str]:
    """Return `words` with their placeholders replaced; absent optional parts vanish."""
    found: list[str] = []
    for word in words:
        expanded = _structure(word, executor_input)
        for part in expanded if isinstance(expanded, list) else [expanded]:
            made = _PLACEHOLDER.sub(lambda m: _placeholder(m, executor_input, facts), str(part))
            found.append(made)
    return found


def _structure(word: str, executor_input: Mapping[str, Any]) -> Any:
    if not word.startswith(('{"Concat"', '{"IfPresent"')):
        return word
    try:
        return _expand(json.loads(word), executor_input)
    except ValueError:
        return word


def _expand(node: Any, executor_input: Mapping[str, Any]) -> Any:
    if isinstance(node, dict) and "Concat" in node:
        return "".join(str(_expand(part, executor_input)) for part in node["Concat"])
    if isinstance(node, dict) and "IfPresent" in node:
        inner, inputs = node["IfPresent"], executor_input["inputs"]
        name = inner["InputName"]
        there = name in inputs["parameterValues"] or name in inputs["artifacts"]
        return _expand(inner["Then"] if there else inner.get("Else", []), executor_input)
    if isinstance(node, list):
        return [_expand(part, executor_input) for part in node]
    return node


def _placeholder(
    match: re.Match[str], executor_input: Mapping[str, Any], facts: Mapping[str, str]
) -> str:
    path = match[1]
    if path is None:
        return json.dumps(executor_input)
    if path.startswith(".json_escape[1]"):
        escaped = json.dumps(json.dumps(executor_input))
        return escaped[1:-1]
    if path == ".outputs.output_file":
        return str(executor_input["outputs"]["outputFile"])
    if path.removeprefix(".") in facts:
        return facts[path.removeprefix(".")]
    part = _PART.fullmatch(path)
    if part is None:
        return match[0]
    side, kind, _, name, field, _, key = part.groups()
    try:
        if kind == "parameters":
            if side == "inputs":
                return text(executor_input["inputs"]["parameterValues"][name])
            return str(executor_input["outputs"]["parameters"][name]["outputFile"])
        artifact = executor_input[side]["artifacts"][name]["artifacts"][0]
        if field in ("path", "uri"):
            return str(artifact["uri"])
        if field == "metadata":
            return text(artifact["metadata"][key]) if key else json.dumps(artifact["metadata"])
        return text(artifact.get(field, ""))
    except KeyError:
        raise PipelineError(f"the placeholder {match[0]} has no value") from None


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
        return bool(_evaluate(ast.parse(python.strip(), mode="eval").body, parameters))
    except (SyntaxError, KeyError, TypeError, ValueError) as error:
        raise PipelineError(
            f"the condition {expression!r} cannot be evaluated ({error!r})"
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
    """Apply a parameter expression selector, `parseJson(string_value)["key"]`."""
    match = _SELECTOR.fullmatch(expression)
    if match is None:
        raise PipelineError(f"the selector {expression!r} is not known")
    document = json.loads(value) if isinstance(value, str) else value
    try:
        return document[match[2]]
    except (KeyError, TypeError):
        raise PipelineError(f"{value!r} has no member {match[2]!r}") from None
