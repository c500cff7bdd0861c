"""YAML and JSON of strangers, parsed within bounds: size, depth, aliases, digits.

The bounds are held before a parser that recurses or expands sees the text: 200 kB of `[` would end
the process, and a YAML file of 784 bytes, whose aliases name aliases, would take a gigabyte.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from pipeline.errors import PipelineError

MOST_BYTES = 16 << 20  # the largest of the packages compiled here has 40 kB
MOST_NODES = 1_000_000  # after aliases are expanded
DEEPEST = 100  # as protobuf's own readers
MOST_DIGITS = 400  # a double has at most 309 before its point

_NUMBER = re.compile(r"[-+]?[0-9][0-9a-fA-F_xo.:eE+-]*")
_JSON_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"?|[\[\]{}]', re.DOTALL)


def load_yaml(data: bytes, what: str) -> list[Any]:
    """Return every document of a YAML file; raises PipelineError, which `what` begins."""
    import yaml

    # Only libyaml's loader is fast enough for packages of some thousand lines.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _size(len(data), what)
        _bounded(yaml.parse(data, Loader=loader), what)
        return list(yaml.load_all(data, loader))
    except yaml.YAMLError as error:
        raise PipelineError(f"{what}: {str(error).splitlines()[0]}; correct the YAML") from None
    except (ValueError, RecursionError, OverflowError) as error:  # of an odd number or date
        raise PipelineError(f"{what}: {error}; put the value in quotes") from None


def _bounded(events: Any, what: str) -> None:
    """Count what the events would become; parsing into events neither recurses nor expands."""
    import yaml

    nodes = 0
    open_at: list[tuple[str | None, int]] = []  # the anchor of each open collection, nodes before
    sizes: dict[str, int] = {}
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise PipelineError(f"{what}: the alias *{event.anchor} holds itself; remove it")
            nodes += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            nodes += 1
            if event.anchor:
                sizes[event.anchor] = 1
            plain = event.style in (None, "") and len(event.value) > MOST_DIGITS
            if plain and _NUMBER.fullmatch(event.value):
                _digits(event.value, what)
        elif isinstance(event, yaml.CollectionStartEvent):
            sizes.pop(event.anchor or "", None)
            open_at.append((event.anchor, nodes))
            nodes += 1
            _depth(len(open_at), what)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_at.pop()
            if anchor:
                sizes[anchor] = nodes - before
        if nodes > MOST_NODES:
            raise PipelineError(
                f"{what}: it has more than {MOST_NODES:,} values, aliases expanded; make it smaller"
            )


def load_json(text: str | bytes, what: str) -> Any:
    """Return a JSON document; raises PipelineError, which `what` begins.

    NaN and Infinity are refused: no backend can store them.
    """

    def whole(digits: str) -> int:
        if len(digits) > MOST_DIGITS:
            _digits(digits, what)
        return int(digits)

    def number(digits: str) -> float:
        found = float(digits)
        if not math.isfinite(found):
            raise PipelineError(f"{what}: {digits} is beyond what a number can be; make it smaller")
        return found

    def unknown(name: str) -> NoReturn:
        raise PipelineError(f"{what}: {name} is no JSON; give a finite number")

    _size(len(text), what)
    try:
        string = text.decode("utf-8") if isinstance(text, bytes) else text
        depth = 0
        for token in _JSON_TOKEN.finditer(string):
            depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
            _depth(depth, what)
        return json.loads(string, parse_int=whole, parse_float=number, parse_constant=unknown)
    except ValueError as error:
        raise PipelineError(f"{what}: it is no JSON ({error}); correct it") from None


def _size(size: int, what: str) -> None:
    if size > MOST_BYTES:
        raise PipelineError(
            f"{what}: it has {size:,} bytes, at most {MOST_BYTES:,} are read; make it smaller"
        )


def _depth(depth: int, what: str) -> None:
    if depth > DEEPEST:
        raise PipelineError(f"{what}: it is nested deeper than {DEEPEST} levels; flatten it")


def _digits(number: str, what: str) -> NoReturn:
    raise PipelineError(
        f"{what}: a number has {len(number):,} digits, at most {MOST_DIGITS} are read; shorten it, "
        "or put it in quotes"
    )
