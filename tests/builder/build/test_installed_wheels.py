"""In a finished image Python finds what each locked wheel brings, as after `pip install`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from builder.build.make import build
from builder.build.workspace import Workspace
from builder.packages import python, wheels
from builder.packages.lock_file import Requirements
from builder.sandbox.bubblewrap import Bubblewrap
from builder.sandbox.process import Process, run
from builder.store import Store

ROOT = Path(__file__).parents[3]
TARGETS = sorted(
    (lock.parent.name, str(lock.parent.relative_to(ROOT)))
    for lock in ROOT.glob(f"stages/**/{wheels.LOCK}")
)
# Nothing is imported: the package that holds a module may do anything.
SCRIPT = """
import base64, hashlib, importlib.metadata as metadata, importlib.util, json, os
owners = metadata.packages_distributions()
wrong, lost, seen = [], [], {}
for found in metadata.distributions():
    seen[found.name.lower().replace("_", "-").replace(".", "-")] = found.version
    for file in found.files or [f"{found.name} has no RECORD"]:
        try:
            data = open(file.locate(), "rb").read()
        except OSError as error:
            wrong.append(f"{found.name}: {file}: {error}")
            continue
        if file.hash:
            value = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            if (value, len(data)) != (file.hash.value, file.size):
                wrong.append(f"{found.name}: {file}")
for name in owners:
    if name.isidentifier() and importlib.util.find_spec(name) is None:
        lost.append(name)
print(json.dumps([seen, sorted(owners), wrong, lost]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("target", "folder"), TARGETS, ids=[name for name, _ in TARGETS])
def test_every_module_is_found_and_every_record_is_true(target: str, folder: str) -> None:
    store = Store.open()
    image = build(Workspace.load(ROOT), store, [target])[target].image
    paths = [f"/opt/{name}/{python.SITE}" for name in ("venv", "testing")]
    process = Process(
        image=image, command=("/usr/bin/python3", "-c", SCRIPT), env={"PYTHONPATH": ":".join(paths)}
    )
    with tempfile.TemporaryFile() as output:
        ended = run(Bubblewrap(store), process, output)
        output.seek(0)
        text = output.read().decode()
    assert ended.code == 0, text
    seen, owners, wrong, lost = json.loads(text)
    assert wrong == []
    assert lost == []
    locked = {wheel.name: wheel.version for wheel in wheels.read_lock(Requirements(ROOT / folder))}
    assert locked.items() <= seen.items()
    assert len(owners) >= len(locked)
