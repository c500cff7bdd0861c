"""What a person types: each task parses, delegates and prints. `invoke --list` shows them all."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from invoke import Collection

# invoke puts this folder on the path, where its modules would hide others; the floors are above.
_HERE = Path(__file__).resolve().parent
sys.path[:] = [str(_HERE.parent), *(p for p in sys.path if p != str(_HERE))]

from .printing import teaching  # noqa: E402

_MODULES = (
    "checks",
    "demo",
    "host",
    "housekeeping",
    "images",
    "inspection",
    "packages",
    "packaging",
    "releases",
    "submission",
)

namespace = Collection()
for _module in _MODULES:
    _found = Collection.from_module(import_module(f"{__name__}.{_module}"))
    for _name, _task in _found.tasks.items():
        _task.body = teaching(_task.body, _name)
        namespace.add_task(_task)
