"""The tests of a stage, run inside its image: an action like any other, remembered by its key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from builder import oci
from builder.build.make import build
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.oci import canonical
from builder.packages import download, wheels
from builder.packages.python import DEFAULT
from builder.sandbox.process import Mount, Process, Sandbox, run
from builder.store import Store

FORMAT = "tests-1"
_TESTING = f"/opt/testing/{DEFAULT.site}"


@dataclass(frozen=True, slots=True)
class Tested:
    """How a stage's tests ended: pytest's exit code, and whether that was known already.

    `files` has the SHA-256 of each file of the tests, by its path in the workspace.
    """

    name: str
    code: int
    cached: bool
    seconds: float
    files: Mapping[str, str]


def with_tests(workspace: Workspace) -> list[str]:
    """Return the targets that have tests."""
    return [name for name, t in workspace.targets.items() if (t.folder / "tests").is_dir()]


def run_tests(
    workspace: Workspace,
    store: Store,
    sandbox: Sandbox,
    name: str,
    arguments: Sequence[str] = (),
    *,
    output: BinaryIO | int | None = None,
) -> Tested:
    """Run pytest on the tests of the target `name` inside its image, without network.

    A pass of the same image, tests and arguments is not repeated; a failure is. Raises BuilderError
    where the target has no tests.
    """
    folder = _folder(workspace, name)
    image = with_testing(workspace, store, name)
    hashes, key = _files(folder), _key(image, folder, arguments)
    files = {f"{folder.relative_to(workspace.root).as_posix()}/{n}": h for n, h in hashes.items()}
    if known := store.get_result(key):
        return Tested(name, 0, cached=True, seconds=known["seconds"], files=files)
    with store.in_use():
        ended = run(sandbox, pytest(image, folder, ["/tests", *arguments]), output)
    if ended.code == 0:
        store.put_result(key, {"seconds": ended.seconds})
    return Tested(name, ended.code, cached=False, seconds=ended.seconds, files=files)


def passed(workspace: Workspace, store: Store, name: str) -> bool:
    """Tell whether all tests of the target passed here as it is now; none are run.

    Raises BuilderError where the target has no tests.
    """
    folder = _folder(workspace, name)
    image = with_testing(workspace, store, name, need_layers=False)
    return store.get_result(_key(image, folder, ())) is not None


def _folder(workspace: Workspace, name: str) -> Path:
    folder = workspace.target(name).folder / "tests"
    if not folder.is_dir():
        raise BuilderError(f"{name} has no tests: {folder} is not there")
    return folder


def _files(folder: Path) -> dict[str, str]:
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and "__pycache__" not in p.parts]
    return {p.relative_to(folder).as_posix(): download.sha256_file(p) for p in files}


def _key(image: oci.Image, folder: Path, arguments: Sequence[str]) -> str:
    action = {
        "format": FORMAT, "image": image.digest, "tests": _files(folder), "with": list(arguments)
    }  # fmt: skip
    return canonical.sha256(canonical.dumps(action)).removeprefix("sha256:")


def pytest(
    image: oci.Image, folder: Path, arguments: Sequence[str], env: Mapping[str, str] | None = None
) -> Process:
    """Return pytest in an image that `with_testing` made; it sees `folder` at /tests."""
    return Process(
        image=image,
        command=("python3", "-m", "pytest", "-p", "no:cacheprovider", "-q", *arguments),
        env={"PYTHONPATH": f"/app:{_TESTING}", "HYPOTHESIS_STORAGE_DIRECTORY": "/tmp/hypothesis",  # noqa: S108
             **(env or {})},
        mounts=(Mount(folder, "/tests"),),
        workdir="/tmp",  # noqa: S108
    )  # fmt: skip


def with_testing(
    workspace: Workspace, store: Store, name: str, *, need_layers: bool = True
) -> oci.Image:
    """Build the target `name` and return its image with pytest on top, of the target `testing`."""
    own = wheels.locked_for(workspace.target(name).folder)
    if own.version != DEFAULT.version:
        raise BuilderError(
            f"{name} has Python {own.version}, and the target testing brings pytest for "
            f"{DEFAULT.version}; its tests cannot be run"
        )
    built = build(workspace, store, [name, "testing"], need_layers=need_layers)
    stage, testing = built[name].image, built["testing"].image
    present = {layer.diff_id for layer in stage.layers}
    extra = tuple(layer for layer in testing.layers if layer.diff_id not in present)
    config = {name: value for name, value in stage.config.items() if name != "rootfs"}
    image, documents = oci.assemble(config, (*stage.layers, *extra))
    store.add_image(documents)
    return image
