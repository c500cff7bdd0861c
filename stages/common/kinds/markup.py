"""Reads XML piece by piece: the memory needed is that of the largest piece, not of the document.

A document type is refused: entities could multiply without end or name files elsewhere, and no
microscope writes one. Standard library only.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

from common.errors import StageError

_CHUNK = 1 << 16
_MOST_NODES = 1_000_000  # of one piece
_MOST_TEXT = 64 << 20  # characters of one piece
_MOST_DEPTH = 200


class _Pieces:
    """A parser's target that builds the wanted elements and drops all others."""

    def __init__(self, wanted: frozenset[str], name: str) -> None:
        self.wanted = wanted
        self.name = name
        self.path: list[str] = []
        self.found: list[Element] = []
        self.builder: TreeBuilder | None = None
        self.depth = self.nodes = self.text = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.path.append(local(tag))
        if len(self.path) > _MOST_DEPTH:
            raise StageError(f"{self.name} nests more than {_MOST_DEPTH} elements; export it again")
        if len(self.path) == 1:
            self.found.append(Element(tag, attributes))
        if self.builder is None and "/".join(self.path[-2:]) in self.wanted:
            self.builder, self.depth, self.nodes, self.text = TreeBuilder(), len(self.path), 0, 0
        if self.builder is not None:
            self.nodes += 1 + len(attributes)
            self.text += sum(map(len, attributes.values()))
            self._bound()
            self.builder.start(tag, attributes)

    def end(self, tag: str) -> None:
        if self.builder is not None:
            self.builder.end(tag)
            if len(self.path) == self.depth:
                self.found.append(self.builder.close())
                self.builder = None
        self.path.pop()

    def data(self, text: str) -> None:
        if self.builder is not None:
            self.text += len(text)
            self._bound()
            self.builder.data(text)

    def doctype(self, name: str, *_: str | None) -> None:
        raise StageError(
            f"{self.name} declares a document type ({name}), which no microscope writes; export "
            "the plate again"
        )

    def close(self) -> None:
        pass

    def _bound(self) -> None:
        if self.nodes > _MOST_NODES or self.text > _MOST_TEXT:
            raise StageError(f"{self.name} has an element that is too large; export it again")


def pieces(source: Path | bytes, name: str, wanted: set[str]) -> Iterator[Element]:
    """Yield the root element without its content, then each element `parent/child` of `wanted`.

    Raises StageError, naming `name`, for what cannot be read, is no XML or has a document type.
    """
    target = _Pieces(frozenset(wanted), name)
    parser = XMLParser(target=target)  # noqa: S314 - a document type is refused
    try:
        with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as file:
            while chunk := file.read(_CHUNK):
                parser.feed(chunk)
                yield from target.found
                target.found.clear()
        parser.close()
    except ParseError as error:
        raise StageError(f"{name} is not whole XML ({error}); copy it again") from None
    except (ValueError, LookupError) as error:  # an encoding that is not known
        raise StageError(f"{name} cannot be read as XML ({error}); export it again") from None
    except OSError as error:
        raise StageError(f"cannot read {name}: {error.strerror or error}") from None
    yield from target.found


def local(tag: str) -> str:
    """Return an element's or attribute's name without its namespace."""
    return tag.rpartition("}")[2]


def namespace(element: Element) -> str:
    """Return an element's namespace, empty where it has none."""
    return element.tag[1:].rpartition("}")[0] if element.tag.startswith("{") else ""


def texts(element: Element) -> dict[str, str]:
    """Return local name -> text of an element's children."""
    return {local(child.tag): (child.text or "").strip() for child in element}


def attributes(element: Element) -> dict[str, str]:
    """Return local name -> value of an element's attributes."""
    return {local(key): value for key, value in element.attrib.items()}


def whole(values: dict[str, str], key: str, name: str, default: int | None = None) -> int:
    """Return the whole number 0 to 999,999,999 that a document gives for `key`.

    Raises StageError where it is missing (and has no default) or is something else.
    """
    text = values.get(key)
    if text is None and default is not None:
        return default
    if text is None or not (text.isascii() and text.isdecimal() and len(text) < 10):
        found = "has no" if text is None else f"has {text[:40]!r} as"
        raise StageError(f"{name} {found} {key}, which must be a whole number; export it again")
    return int(text)
