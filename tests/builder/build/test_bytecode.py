"""COPY --from=bytecode: Python sources of the workspace come with their byte-code."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from builder import oci
from builder.build.make import build, plans
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.sandbox.engines import choose
from builder.sandbox.process import Process, run
from builder.sandbox.unpack import image_entries
from builder.store import Store
from tests.builder.conftest import Make

ROOT = Path(__file__).parents[3]
RECIPE = "FROM base\nCOPY app/ /app/\nCOPY tool.py /tools/\nCOPY --from=bytecode / /app/\n"
SOURCES = {"app/m.py": "VALUE = 1\n", "app/sub/n.py": "x = 2\n", "app/no.py": "(", "tool.py": ""}


def on_base(make: Make, recipe: str = RECIPE, root: str = "workspace", **more: str) -> Workspace:
    """Return a workspace whose target `a` stands on the project's own base image."""
    workspace = make(recipe, root, **{**SOURCES, **more})
    shutil.copytree(ROOT / "stages/base", workspace.root / "stages/base", symlinks=True)
    return Workspace.load(workspace.root)


def imported(store: Store, image: oci.Image) -> str:
    """Return the value of the module m in an image, and what Python says as it is imported."""
    command = ("python3", "-v", "-c", "import m; print('it is', m.VALUE)")
    with tempfile.TemporaryFile() as output:
        ended = run(choose("bubblewrap", store), Process(image=image, command=command), output)
        output.seek(0)
        text = output.read().decode()
    assert ended.code == 0, text
    return text


def test_it_is_that_of_the_sources_below_a_folder_and_is_taken_while_these_are_the_same(
    make: Make,
) -> None:
    store = Store.open()
    above = {"stages/b/Dockerfile": "FROM a\nCOPY m.py /app/\n", "m.py": "VALUE = 7\n"}
    built = build(on_base(make, **above), store, ["a", "b"])
    (layer,) = built["a"].image.layers[-1:]
    only = oci.assemble({}, (layer,))[0]
    files = {entry.path for entry in image_entries(store, only) if entry.kind == "file"}
    assert files == {
        "app/__pycache__/m.cpython-313.pyc", "app/sub/__pycache__/n.cpython-313.pyc",
    }  # fmt: skip
    text = imported(store, built["a"].image)
    assert "it is 1" in text
    assert "code object from '/app/__pycache__/m.cpython-313.pyc'" in text
    text = imported(store, built["b"].image)
    assert "it is 7" in text, "the byte-code of another source was run"


def test_a_changed_source_is_compiled_again_and_nothing_else_is_a_reason(make: Make) -> None:
    def key(name: str, **files: str) -> str:
        workspace = on_base(make, root=name, **files)
        return plans(workspace, Store.open(), ["a"])["a"].layers[-1].key

    first = key("one")
    assert key("two", **{"notes.txt": "x"}) == first
    assert key("three", **{"tool.py": "y = 1\n"}) == first, "it is not below the folder"
    assert key("four", **{"app/m.py": "VALUE = 2\n"}) != first


@pytest.mark.parametrize(
    "recipe",
    [
        "FROM base\nCOPY --from=bytecode / /app/\nCOPY app/ /app/\n",
        "FROM base\nCOPY tool.py /tools/\nCOPY --from=bytecode / /app/\n",
        "FROM scratch\nCOPY app/ /app/\nCOPY --from=bytecode / /app/\n",
    ],
)
def test_where_there_is_nothing_to_compile_it_is_refused(make: Make, recipe: str) -> None:
    with pytest.raises(BuilderError, match=r"compiles what was copied before into /app/, and no"):
        plans(on_base(make, recipe), Store.open(), ["a"])
