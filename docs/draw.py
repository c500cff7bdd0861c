"""Draw docs/architecture.svg: the floors and rooms, from pyproject.toml and the rooms' docstrings.

    .venv/bin/python docs/draw.py

A test compares the picture with what this draws.
"""

from __future__ import annotations

import ast
import textwrap
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Pixels: the whole picture, a line of text, the spaces between rooms and around a floor, a title.
_WIDTH, _LINE, _GAP, _MARGIN, _TITLE = 960, 14, 8, 14, 26
_FLOORS = ("cli", "pipeline", "builder", "stages")
_STYLE = (
    ".floor{fill:#f5f7fa;stroke:#8a94a6}.room{fill:#fff;stroke:#556}"
    ".title{font-size:15px;font-weight:bold}.name{font-size:13px;font-weight:bold}"
    ".text{font-size:11px;fill:#334}.module{font-size:11px;fill:#77808f}"
    ".note{font-size:12px;fill:#334}"
)


def layers(package: str) -> list[list[str]]:
    """Return the rooms of a floor, a row for each layer, the uppermost first."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    for contract in tool["importlinter"]["contracts"]:
        if contract.get("containers") == [package]:
            rows = [[room.strip() for room in row.split("|")] for row in contract["layers"]]
            return [row for row in rows if (ROOT / package / row[0]).is_dir()]  # else modules
    return []


def summary(folder: Path) -> str:
    """Return the first sentence of a package's docstring."""
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    return text.partition("\n\n")[0].replace("\n", " ")


def _text(x: float, y: float, kind: str, words: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(words)}</text>'


def modules(folder: Path) -> str:
    """Return the names of a room's modules."""
    names = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    return " · ".join(names)


def _lines(folder: Path, width: float) -> list[tuple[str, str]]:
    """Return the lines below a room's name, each with its kind."""
    letters = int((width - 16) / 5.4)
    found = [("text", line) for line in textwrap.wrap(summary(folder), letters)]
    return found + [("module", line) for line in textwrap.wrap(modules(folder), letters)]


def _room(x: float, y: float, size: tuple[float, float], folder: Path) -> str:
    width, height = size
    return "".join(
        [
            (
                f'<rect class="room" x="{x:g}" y="{y:g}" width="{width:g}" '
                f'height="{height:g}" rx="5"/>'
            ),
            _text(x + 8, y + 18, "name", folder.name),
            *(
                _text(x + 8, y + 34 + _LINE * i, kind, line)
                for i, (kind, line) in enumerate(_lines(folder, width))
            ),
        ]
    )


def _floor(package: str, top: float) -> tuple[str, float]:
    """Draw one floor from `top` downwards; return it and where it ends."""
    rooms: list[str] = []
    y = top + _TITLE + _MARGIN
    inside = _WIDTH - 4 * _MARGIN
    for row in layers(package):
        width = (inside - _GAP * (len(row) - 1)) / len(row)
        folders = [ROOT / package / room for room in row]
        height = 30 + _LINE * max(len(_lines(folder, width)) for folder in folders)
        for column, folder in enumerate(folders):
            x = 2 * _MARGIN + column * (width + _GAP)
            rooms.append(_room(x, y, (width, height), folder))
        y += height + _GAP
    height = y - top + (_MARGIN - _GAP if rooms else 0)
    frame = f'x="{_MARGIN}" y="{top:g}" width="{_WIDTH - 2 * _MARGIN}" height="{height:g}" rx="8"'
    head = [
        f'<rect class="floor" {frame}/>',
        _text(2 * _MARGIN, top + 24, "title", f"{package}/"),
        _text(2 * _MARGIN + 90, top + 24, "note", _describe(package)),
    ]
    return "\n".join(head + rooms), top + height


def _describe(package: str) -> str:
    if package == "stages":
        return "The code inside the images: prepare, train, validate, package, and the function."
    return summary(ROOT / package)


def draw() -> str:
    """Return the picture as SVG."""
    parts: list[str] = []
    y = float(_MARGIN)
    for package in _FLOORS:
        drawn, y = _floor(package, y)
        parts.append(drawn)
        y += _GAP
    size = f'viewBox="0 0 {_WIDTH} {y + _GAP:g}" width="{_WIDTH}" height="{y + _GAP:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">'
    return "\n".join([head, f"<style>{_STYLE}</style>", *parts, "</svg>\n"])


if __name__ == "__main__":
    (ROOT / "docs/architecture.svg").write_text(draw(), encoding="utf-8")
