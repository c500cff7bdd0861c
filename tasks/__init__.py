"""What a person types: each task parses, delegates and prints. `invoke --list` shows them all."""

from __future__ import annotations

import sys
from pathlib import Path

from invoke import Collection

# invoke puts this folder on the path, where its modules would hide others; the floors are above.
_HERE = Path(__file__).resolve().parent
sys.path[:] = [str(_HERE.parent), *(p for p in sys.path if p != str(_HERE))]

from . import (  # noqa: E402
    checks,
    demo,
    host,
    housekeeping,
    images,
    inspection,
    packages,
    packaging,
    releases,
    submission,
)
from .printing import teaching  # noqa: E402

namespace = Collection()
for _module in (
    demo,
    host,
    housekeeping,
    images,
    inspection,
    packages,
    packaging,
    releases,
    submission,
    checks,
):
    for _name, _task in Collection.from_module(_module).tasks.items():
        _task.body = teaching(_task.body, _name)
        namespace.add_task(_task)
