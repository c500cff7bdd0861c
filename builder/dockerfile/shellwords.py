r"""Words as Docker reads them: split at white space, freed of quotes, their variables replaced.

Meaning: https://docs.docker.com/reference/dockerfile/#environment-replacement; details as in
BuildKit's `frontend/dockerfile/shell/lex.go`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from builder.errors import BuilderError

# A number, one of the shell's own parameters, which have no value here, or a name.
_NAME = re.compile(r"\d+|[@*#?$!-]|[^\W\d]\w*")


def split(text: str) -> list[str]:
    r"""Split at white space outside quotes; quotes and escapes stay for `expand`.

    >>> split(r'A="x y" B=a\ b')
    ['A="x y"', 'B=a\\ b']
    """
    return re.findall(r"""(?:\\.|'[^']*'|"(?:\\.|[^"\\])*"|[^\s\\]|\\$)+""", text)


def expand(text: str, variables: Mapping[str, str]) -> str:
    r"""Remove quotes and escapes, and replace `$name` and `${name}` outside single quotes.

    `${name:-word}`, `${name:+word}` and `${name:?message}` are known, with and without the colon.
    Raises BuilderError for quotes and braces that do not end, and for other modifiers.

    >>> expand("${tag:-latest} \"$dir\" '$dir' \\$dir", {"dir": "/app"})
    'latest /app $dir $dir'
    """
    found, _ = _until(text, 0, variables, "")
    return found


def _until(text: str, at: int, variables: Mapping[str, str], stop: str) -> tuple[str, int]:
    """Expand `text` from `at` up to an unquoted `stop`, and tell where that is."""
    out = ""
    while at < len(text) and text[at] != stop:
        char = text[at]
        if char == "'":
            end = text.find("'", at + 1)
            if end < 0:
                raise BuilderError(f"{text!r}: a ' is missing at the end")
            out, at = out + text[at + 1 : end], end + 1
        elif char == '"':
            inner, at = _quoted(text, at + 1, variables)
            out += inner
        elif char == "\\":
            out, at = out + text[at + 1 : at + 2], at + 2
        elif char == "$":
            value, at = _variable(text, at + 1, variables)
            out += value
        else:
            out, at = out + char, at + 1
    return out, at


def _quoted(text: str, at: int, variables: Mapping[str, str]) -> tuple[str, int]:
    out = ""
    while at < len(text):
        char = text[at]
        if char == '"':
            return out, at + 1
        if char == "\\" and text[at + 1 : at + 2] in ('"', "$", "\\"):
            out, at = out + text[at + 1 : at + 2], at + 2
        elif char == "$":
            value, at = _variable(text, at + 1, variables)
            out += value
        else:
            out, at = out + char, at + 1
    raise BuilderError(f'{text!r}: a " is missing at the end')


def _variable(text: str, at: int, variables: Mapping[str, str]) -> tuple[str, int]:
    """Return what the variable whose `$` is before `at` stands for, and where it ends."""
    brace = text[at : at + 1] == "{"
    match = _NAME.match(text, at + brace)
    if match is None:
        if brace:
            raise BuilderError(f"{text!r}: there is no name after ${{")
        return "$", at
    name, at = match[0], match.end()
    if not brace:
        return variables.get(name, ""), at
    colon = text[at : at + 1] == ":"
    value = variables.get(name) or (None if colon else variables.get(name))
    operator = text[at + colon : at + colon + 1]
    if operator == "}" and not colon:
        return variables.get(name, ""), at + 1
    if operator not in ("-", "+", "?") or not operator:
        raise BuilderError(
            f"{text!r}: in ${{{name}…}} there are :-word, :+word and :?message, and nothing else"
        )
    word, at = _until(text, at + colon + 1, variables, "}")
    if at >= len(text):
        raise BuilderError(f"{text!r}: a }} is missing at the end")
    if operator == "+":
        return ("" if value is None else word), at + 1
    if value is None and operator == "?":
        raise BuilderError(f"{name} must be set: {word or 'it is empty'}")
    return (word if value is None else value), at + 1
