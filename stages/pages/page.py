"""The frame of a report: style, the one script, and the policy that lets a browser run no other.

A report is a template that extends `page.html.jinja`; its macros stand in `macros.html.jinja`.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from . import numbers, plate_map

_HERE = Path(__file__).parent
_STYLE, _SCRIPT = ((_HERE / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))


def policy() -> str:
    """Return the page's Content-Security-Policy: nothing from outside, and one script by its hash.

    Source: https://www.w3.org/TR/CSP3/, a hash of an inline script in `script-src`.
    """
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )


def environment(folder: Path) -> Environment:
    """Return the templates in `folder` and those shared; every name that they print is escaped."""
    pages = Environment(
        loader=FileSystemLoader([folder, _HERE]), autoescape=True, undefined=StrictUndefined,
        keep_trailing_newline=True,
    )  # fmt: skip
    pages.filters |= {"decimals": numbers.decimals, "amount": numbers.amount,
                      "colour": plate_map.colour}  # fmt: skip
    pages.globals |= {
        "style": Markup(_STYLE), "script": Markup(_SCRIPT), "policy": Markup(policy()),  # noqa: S704 - our own files
    }  # fmt: skip
    return pages


def packed(html: str) -> str:
    """Return a part of the page as the text that the page's script unpacks when it is opened."""
    return base64.b64encode(gzip.compress(html.encode(), mtime=0)).decode()


def download(data: bytes, kind: str) -> str:
    """Return a file of the media type `kind` as a link's address."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
