"""Parts of the server's libraries that they load and that nothing here uses: a tenth of the start.

uvicorn loads its command line, with click and multiprocessing, where only its server is wanted, and
what reads files of settings for its log; prometheus_client loads a web server of its own, and a
client that pushes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NoReturn

UNUSED = (
    "uvicorn.main", "logging.config", "configparser",
    "http.server", "urllib.request", "wsgiref.simple_server",
)  # fmt: skip


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
    """Let libraries that are imported in this block do without UNUSED.

    Who asks for one of them later gets the real module.
    """
    stand_ins = {name: _Part(name) for name in UNUSED if name not in sys.modules}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]
