"""Names of rows and wells, from A01 to AF48 and beyond. Standard library only."""

from __future__ import annotations

import re
import string

MOST_ROWS, MOST_COLUMNS = 52, 99  # rows A to AZ; a plate of 1536 wells has 32 x 48
_LETTERS = string.ascii_uppercase
_WELL = re.compile(r"([A-Za-z]{1,2})0*([0-9]{1,2})")


def row_name(number: int) -> str:
    """Return the name of a row that is counted from 1: 1 is A, 26 is Z, 27 is AA."""
    if not 1 <= number <= MOST_ROWS:
        raise ValueError(f"a plate has no row {number}")
    tens, ones = divmod(number - 1, len(_LETTERS))
    return (_LETTERS[tens - 1] if tens else "") + _LETTERS[ones]


def row_number(text: str) -> int | None:
    """Return the number, from 1, of a row written as letters or as a number; None for neither."""
    if text.isascii() and text.isdecimal():
        number = int(text[:9])
    elif re.fullmatch(r"[A-Z]{1,2}", text.upper()):
        number = 0
        for letter in text.upper():
            number = number * len(_LETTERS) + _LETTERS.index(letter) + 1
    else:
        return None
    return number if 1 <= number <= MOST_ROWS else None


def well_name(row: str, column: int) -> str:
    """Return a well's name: A01."""
    return f"{row}{column:02d}"


def parse_well(text: str) -> tuple[int, int] | None:
    """Return row and column, from 1, of a name such as `a1`, `A01` or `AF48`, or None."""
    found = _WELL.fullmatch(text.strip())
    row = row_number(found[1]) if found else None
    if found is None or row is None or not int(found[2]):
        return None
    return row, int(found[2])


def row_range(text: str, rows: int) -> list[str]:
    """Return the names of the rows `C` or `A-D`. Raises ValueError for rows beyond `rows`."""
    first, dash, last = str(text).partition("-")
    known = [row_name(number) for number in range(1, rows + 1)]
    if first not in known or (last if dash else first) not in known:
        raise ValueError(f"rows {text!r} are not within A-{known[-1]}")
    picked = known[known.index(first) : known.index(last or first) + 1]
    if not picked:
        raise ValueError(f"rows {text!r} run backwards")
    return picked


def column_range(text: str | int, columns: int) -> list[int]:
    """Return the columns `3` or `1-12`. Raises ValueError for columns beyond `columns`."""
    first, _, last = str(text).partition("-")
    picked = list(range(int(first), int(last or first) + 1))
    if not picked or picked[0] < 1 or picked[-1] > columns:
        raise ValueError(f"columns {text!r} are not within 1-{columns}")
    return picked
