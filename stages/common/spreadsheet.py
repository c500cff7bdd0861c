"""Keeps text in a CSV file from becoming a formula when a spreadsheet opens the file.

Source: https://owasp.org/www-community/attacks/CSV_Injection. Numbers stay as they are, also those
below 0: text alone is guarded. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

# What a spreadsheet may take for the beginning of a formula, wide letters too; and the same behind
# a ', so that a text that is guarded differs from one that was given so. RE2 reads it as well.
FORMULA = r"\A('*(?:[ \t\r\n]*[=+\-@＝＋－＠]|[\t\r\n]))"


def guarded(text: str) -> str:
    """Return the text with a ' in front where it could be a formula, which a cell does not show."""
    return re.sub(FORMULA, r"'\1", text)


def given(text: str) -> str:
    """Return the text that `guarded` was handed."""
    return text[1:] if text.startswith("'") and re.match(FORMULA, text[1:]) else text


def cells(values: Iterable[Any]) -> list[Any]:
    """Return a row of a CSV file with its texts guarded."""
    return [guarded(value) if isinstance(value, str) else value for value in values]
