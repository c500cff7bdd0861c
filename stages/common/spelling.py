"""How names of files and channels are compared, and how a message shows them. Standard library."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_NUMBER = re.compile(r"0*(\d+)")
_LETTERS_AND_NUMBER = re.compile(r"\D*?0*(\d+)")


def composed(name: str) -> str:
    """Return `name` in Unicode's composed form (NFC): `é` is one sign, however it was typed."""
    return unicodedata.normalize("NFC", name)


def plain(name: str) -> str:
    """Return what two spellings of a channel have in common: no case, no leading zeros."""
    return _NUMBER.sub(r"\1", composed(name).casefold())


def channel(found: str, known: Iterable[str]) -> str | None:
    """Return which of the layout's channels `known` a file's `found` is, or None.

    `DAPI` is `dapi` and `01` is `1`. Where only one of the two has letters, the number decides:
    `C01`, `ch1` and `w1` are `1`.
    """
    wanted = plain(found)
    same = [name for name in known if plain(name) == wanted]
    if not same:
        same = [name for name in known if _same_number(plain(name), wanted)]
    return same[0] if len(same) == 1 else None


def _same_number(one: str, other: str) -> bool:
    numbers = [_LETTERS_AND_NUMBER.fullmatch(text) for text in (one, other)]
    if one.isdecimal() == other.isdecimal() or None in numbers:
        return False
    return len({int(number[1]) for number in numbers if number}) == 1


def shown(name: str) -> str:
    """Return `name` for a message: whatever the eye cannot see or tell apart is written as a code.

    `é` typed as two signs becomes `e\\u0301`; a byte that is not UTF-8 becomes `\\xe9`.
    """
    return "".join(map(_sign, ("", *name), name))


def _sign(before: str, sign: str) -> str:
    code = ord(sign)
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte that is not UTF-8 (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    pair = composed(before) + sign
    if not sign.isprintable() or composed(pair) != pair:
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    return sign


def is_utf8(name: str) -> bool:
    """Say whether a file's name is text: only such a name can go into a digest."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
