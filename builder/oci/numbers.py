"""Numbers as others write them: digits in files and headers, sizes in the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from builder.errors import BuilderError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Numbers = TypeVar("Numbers", bound=DataclassInstance)

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
# 18 digits fit 64 bits; Python itself refuses some thousand.
_DIGITS = re.compile(r"[0-9]{1,18}")


def whole(text: str) -> int | None:
    """Return the number that one to 18 ASCII digits say, None for any other text.

    >>> whole("8080"), whole("²"), whole("-1")
    (8080, None, None)
    """
    return int(text) if _DIGITS.fullmatch(text) else None


def from_environment(
    defaults: Numbers, variables: Mapping[str, str], environ: Mapping[str, str]
) -> Numbers:
    """Return `defaults` with what the environment sets; `variables` names one for each field.

    A value is digits, with K, M, G or T after them for powers of 1024. Raises BuilderError for any
    other.
    """
    found: dict[str, Any] = {}
    for name, variable in variables.items():
        if text := environ.get(variable):
            match = re.fullmatch(r"([0-9]{1,15})([KMGT]?)", text)
            if match is None:
                raise BuilderError(
                    f"{variable}={text} is not a number; write digits, and K, M, G or T after them "
                    "for powers of 1024"
                )
            found[name] = int(match[1]) * _UNITS[match[2]]
    return replace(defaults, **found)
