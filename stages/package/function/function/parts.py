"""Parts of libraries that these load and that nothing here uses, or hardly ever.

uvicorn loads its command line, with click and multiprocessing, where only its server is wanted, and
what reads files of settings for its log; prometheus_client loads a web server of its own, and a
client that pushes. numpy writes the help texts of its functions, Pillow makes lists of all names
that a camera may give to a value. Without them the start takes a sixth less.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType
from typing import Any, NoReturn

UNUSED = (
    "uvicorn.main", "logging.config", "configparser",
    "http.server", "urllib.request", "wsgiref.simple_server",
)  # fmt: skip
# Loaded when something of them is first asked for: of these, libraries take nothing as they load.
LATER = frozenset({
    "numpy._core._add_newdocs", "numpy._core._add_newdocs_scalars", "PIL.ExifTags",
    "html", "http.client", "http.cookies",
})  # fmt: skip


class _Later:
    """Finds LATER for `import`, which runs them when they are used."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in LATER else None
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


class _Part(ModuleType):
    """Stands in for a module that is left out; any name of it is a class that cannot be used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python itself asks of a module
            raise AttributeError(name)
        return type(name, (_LeftOut,), {"__module__": self.__name__})


class _LeftOut:
    def __init__(self, *_: object, **__: object) -> NoReturn:
        whole = f"{type(self).__module__}.{type(self).__name__}"
        raise NotImplementedError(f"{whole} was left out when the function started (parts.py)")


@contextmanager
def left_out() -> Iterator[None]:
    """Let libraries that are imported in this block do without UNUSED, and with LATER later.

    Who asks for one of UNUSED afterwards gets the real module.
    """
    stand_ins = {name: _Part(name) for name in UNUSED if name not in sys.modules}
    sys.modules.update(stand_ins)
    sys.meta_path.insert(0, _Later)
    try:
        yield
    finally:
        sys.meta_path.remove(_Later)
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]
