"""The files of a new stage, from the templates in `cli/new_stage/`."""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from builder.errors import BuilderError

_TEMPLATES = Path(__file__).parent / "new_stage"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


def new_stage(root: Path, name: str) -> list[Path]:
    """Write the files of the stage `name` below `root`/stages and return them.

    The name becomes a Python module, an image and a step. Raises BuilderError for one that cannot,
    and where the folder is there already.
    """
    taken = {path.parent.name for path in root.glob("stages/**/Dockerfile")} | {"common", "builder"}
    if not _NAME.fullmatch(name) or keyword.iskeyword(name) or name in sys.stdlib_module_names:
        raise BuilderError(
            f"a stage cannot be called {name!r}, since it names a Python module and an image; "
            "take small letters, digits and _, and no module of Python's own"
        )
    folder = root / "stages" / name
    if name in taken or folder.exists():
        raise BuilderError(f"there is a stage or folder {name} already; take another name")
    # The templates make Python and Dockerfiles, not HTML.
    pages = Environment(  # noqa: S701
        loader=FileSystemLoader(_TEMPLATES), undefined=StrictUndefined, keep_trailing_newline=True
    )
    written = []
    for template in sorted(pages.list_templates(extensions=["jinja"])):
        place = Path(template.removesuffix(".jinja"))
        inside = Path(name, *place.parts[1:]) if place.parts[0] == "module" else place
        path = folder / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(pages.get_template(template).render(name=name), encoding="utf-8")
        written.append(path)
    return written
