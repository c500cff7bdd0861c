"""What a person types: each task parses, delegates and prints. `invoke --list` shows them all."""

from __future__ import annotations

import sys
from pathlib import Path

from invoke import Collection

# invoke puts this folder on the path, not the one that holds the floors.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from . import checks, images, submission

namespace = Collection()
for _module in (images, checks, submission):
    for _task in Collection.from_module(_module).tasks.values():
        namespace.add_task(_task)
