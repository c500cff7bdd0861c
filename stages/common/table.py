"""Tables that people keep, of plate maps and lists of plates: CSV, TSV or a workbook of Excel."""

from __future__ import annotations

import csv
import io
import unicodedata
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time, timedelta
from pathlib import Path
from typing import Any

from .errors import StageError

MOST_BYTES = 16 << 20
_MOST_UNPACKED = 256 << 20
_MOST_CELLS = 5_000_000
_TEXT, _BOOKS = (".csv", ".tsv", ".txt"), (".xlsx", ".xlsm", ".xls")
KINDS = _TEXT + _BOOKS


@dataclass(frozen=True)
class Table:
    """A table as it was read; `lines` are heading -> text, each with its number in the file."""

    name: str
    headings: tuple[str, ...]
    lines: tuple[tuple[int, Mapping[str, str]], ...]
    decimal_comma: bool


def read_table(path: Path, name: str, *, what: str, where: str, sheet: str = "") -> Table:
    """Return the table in the file `path`, which messages call `name`; all its values are text.

    `what` says what it is of ("the plate map"), `where` where it must be. `sheet` picks one of a
    workbook. Raises StageError for a file that cannot be read, and whatever is unclear in it.
    """
    suffix = path.suffix.lower()
    if suffix not in KINDS:
        raise StageError(f"{what} {name} is none of {', '.join(KINDS)}; save it so")
    data = read_bytes(path, name, what=what, where=where)
    if suffix in _BOOKS:
        return _table(_book(data, name, sheet, what), name, what, comma=False)
    rows, comma = _text(data, name, what)
    return _table(rows, name, what, comma=comma)


def read_bytes(path: Path, name: str, *, what: str, where: str) -> bytes:
    """Return a file's content; raises StageError, with the words of `read_table`."""
    try:
        with path.open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise StageError(
            f"cannot read {what} {name}: {error.strerror or error}; it must be {where}"
        ) from None
    if len(data) > MOST_BYTES:
        raise StageError(f"{what} {name} has more than {MOST_BYTES >> 20} MiB")
    return data


def _table(rows: Sequence[Sequence[str]], name: str, what: str, *, comma: bool) -> Table:
    numbered = [(n, [cell.strip() for cell in row]) for n, row in enumerate(rows, start=1)]
    filled = [(number, row) for number, row in numbered if any(row)]
    if not filled:
        raise StageError(f"{what} {name} is empty")
    headings = filled[0][1]
    while headings and not headings[-1]:
        headings.pop()
    twice = sorted({heading for heading in headings if headings.count(heading) > 1})
    if twice or not all(headings):
        raise StageError(
            f"{what} {name} has "
            + (f"the column {twice[0]!r} twice" if twice else "a column without a heading")
            + " in its first line; name each column once"
        )
    lines = []
    for number, row in filled[1:]:
        if any(row[len(headings) :]):
            raise StageError(f"{name}, line {number} has more values than there are columns")
        padded = row + [""] * (len(headings) - len(row))
        lines.append((number, dict(zip(headings, padded, strict=False))))
    return Table(name, tuple(headings), tuple(lines), comma)


def _text(data: bytes, name: str, what: str) -> tuple[list[list[str]], bool]:
    """Return a text table's rows, and whether its numbers may have a decimal comma."""
    try:
        wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))  # Excel's «Unicode text»
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        raise StageError(
            f"{what} {name} is not UTF-8 text; in Excel save it as «CSV UTF-8»"
        ) from None
    text = unicodedata.normalize("NFC", text)
    head = next((line for line in text.splitlines() if line.strip(" \t,;")), "")
    counts = {sign: head.count(sign) for sign in ",;\t"}
    used = [sign for sign in counts if counts[sign]]
    if len(used) > 1:
        shown = " and ".join(map(repr, used))
        raise StageError(
            f"the first line of {what} {name} has {shown}; separate its columns by one sign"
        )
    sign = used[0] if used else ","
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=sign, strict=True)
        rows: list[list[str]] = []
        for row in reader:
            # A quoted text may have lines of its own: keep the numbers of the file's lines.
            rows += [[] for _ in range(len(rows), reader.line_num - 1)]
            rows.append(row)
    except csv.Error as error:
        raise StageError(f"{what} {name} is no whole table ({error}); save it again") from None
    return rows, sign == ";"


def _book(data: bytes, name: str, sheet: str, what: str) -> list[list[str]]:
    """Return the rows of a workbook's sheet as text."""
    import python_calamine

    try:
        if data.startswith(b"PK"):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                if sum(part.file_size for part in archive.infolist()) > _MOST_UNPACKED:
                    raise StageError(f"{what} {name} unpacks to too much; save it as CSV")
        book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
        names = [sheet] if sheet else list(book.sheet_names)
        if sheet and sheet not in book.sheet_names:
            raise StageError(
                f"{what} {name} has no sheet {sheet!r}; it has {', '.join(book.sheet_names)}"
            )
        filled = {}
        for each in names:
            found = book.get_sheet_by_name(each)
            if found.total_height * found.total_width > _MOST_CELLS:
                raise StageError(f"{what} {name} has too many cells in {each!r}")
            rows = found.to_python(skip_empty_area=False)
            if any(cell not in {"", None} for row in rows for cell in row):
                filled[each] = rows
    except StageError:
        raise
    except Exception as error:  # noqa: BLE001 - the library raises its own kinds for each format
        raise StageError(f"{what} {name} is no whole workbook ({error}); save it again") from None
    if len(filled) != 1:
        raise StageError(
            f"{what} {name} has {len(filled)} sheets with values"
            + (f" ({', '.join(filled)}); say which with map.sheet" if filled else "")
        )
    (title, rows), *_ = filled.items()
    return [
        [_cell(value, f"{name}, {title}, line {n}, column {m}") for m, value in enumerate(row, 1)]
        for n, row in enumerate(rows, 1)
    ]


def _cell(value: Any, where: str) -> str:
    """Return a cell as text. Raises StageError for a date: Excel makes one of `1-2` and `MAR1`."""
    if isinstance(value, (date, time, timedelta)):
        raise StageError(
            f"{where} holds the date {value}; where it should be text or a number, set the cell's "
            "format to text and type it again"
        )
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        return format(value, ".15g")
    return "" if value is None else str(value)
