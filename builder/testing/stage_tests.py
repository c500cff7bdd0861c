"""The tests of a stage, run inside its image: an action like any other, remembered by its key."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from builder import oci
from builder.build.make import build
from builder.build.planner import debian_python
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.oci import canonical
from builder.packages import download
from builder.packages.python import DEFAULT, of_config
from builder.sandbox.process import Exit, Mount, Process, Running, Sandbox, run
from builder.store import Store

FORMAT = "tests-1"
_TESTING = f"/opt/testing/{DEFAULT.site}"
_INSIDE = Path(__file__).with_name("inside")


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
    jobs: int = 1,
    output: BinaryIO | int | None = None,
) -> Tested:
    """Run pytest on the tests of the target `name` inside its image, without network.

    `jobs` files of tests run at a time, unless the stage has a target `testing_<name>`. A pass of
    the same image, tests and arguments is not repeated; a failure is. Raises BuilderError where the
    target has no tests.
    """
    plan = _plan(workspace, store, name, arguments, jobs)
    if known := plan.known(store):
        return known
    with store.in_use():
        return plan.ended(store, run(sandbox, plan.process, output))


def run_at_once(
    workspace: Workspace,
    store: Store,
    sandbox: Sandbox,
    names: Sequence[str],
    arguments: Sequence[str],
    jobs: int,
    ended: Callable[[str, Tested | BuilderError, BinaryIO | None], object],
) -> None:
    """Run the tests of the targets `names` as `run_tests` does, of `jobs` targets at a time.

    `ended` is told how each of them ended, or why it did not begin, and what it printed, in the
    order in which they end. Those in the largest images begin, which as a rule take longest.
    Nothing runs any more when this returns or raises.
    """
    from concurrent.futures import ThreadPoolExecutor, as_completed  # logging costs time

    waiting: list[_Plan] = []
    for name in names:
        try:
            plan = _plan(workspace, store, name, arguments)
        except BuilderError as error:
            ended(name, error, None)
            continue
        if known := plan.known(store):
            ended(name, known, None)
        else:
            waiting.append(plan)
    waiting.sort(key=lambda plan: -sum(layer.blob.size for layer in plan.process.image.layers))
    at_once = _AtOnce(sandbox)

    def one(plan: _Plan, output: BinaryIO) -> Tested | BuilderError:
        try:
            return plan.ended(store, at_once.run(plan.process, output))
        except BuilderError as error:
            return error

    with store.in_use(), ThreadPoolExecutor(jobs) as pool:
        outputs = {plan.name: tempfile.TemporaryFile() for plan in waiting}  # noqa: SIM115
        begun = {pool.submit(one, plan, outputs[plan.name]): plan.name for plan in waiting}
        try:
            for done in as_completed(begun):
                with outputs[begun[done]] as output:
                    output.seek(0)
                    ended(begun[done], done.result(), output)
        finally:
            at_once.end()


class _AtOnce:
    """Runs processes for several threads until all of them are ended at once."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox, self._lock, self._over = sandbox, threading.Lock(), False
        self._running: list[Running] = []

    def run(self, process: Process, output: BinaryIO) -> Exit:
        """Run `process` to its end; raises BuilderError where all was ended before it began."""
        with self._lock:
            if self._over:
                raise BuilderError("the tests were stopped")
            running = self._sandbox.start(process, output)
            self._running.append(running)
        found = running.wait()
        with self._lock:
            self._running.remove(running)
        return found

    def end(self) -> None:
        """Kill what runs; nothing begins any more."""
        with self._lock:
            self._over, running = True, list(self._running)
        for each in running:
            each.stop(grace=0)


@dataclass(frozen=True, slots=True)
class _Plan:
    """The tests of a target: what runs them, and the key by which a pass is known."""

    name: str
    process: Process
    key: str
    files: Mapping[str, str]

    def known(self, store: Store) -> Tested | None:
        """Return the pass that `store` knows of."""
        if found := store.get_result(self.key):
            return Tested(self.name, 0, cached=True, seconds=found["seconds"], files=self.files)
        return None

    def ended(self, store: Store, ended: Exit) -> Tested:
        """Remember a pass."""
        if ended.code == 0:
            store.put_result(self.key, {"seconds": ended.seconds})
        return Tested(self.name, ended.code, False, ended.seconds, self.files)


def _plan(
    workspace: Workspace, store: Store, name: str, arguments: Sequence[str], jobs: int = 1
) -> _Plan:
    """Build the image; raises BuilderError as `run_tests` does."""
    folder = _folder(workspace, name)
    image = with_testing(workspace, store, name)
    at = folder.relative_to(workspace.root).as_posix()
    files = {f"{at}/{path}": sha256 for path, sha256 in _files(folder).items()}
    # pytest-xdist is in the target `testing`; a stage's own target for its tests need not have it.
    shared = f"testing_{name}" not in workspace.targets
    beside = ["-n", str(jobs), "--dist", "loadfile"] if jobs > 1 and shared else []
    process = pytest(image, folder, ["/tests", *beside, *arguments])
    return _Plan(name, process, _key(image, folder, arguments), files)


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
        env={
            "PYTHONPATH": f"{_path(image)}:/inside",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # the module named next does it
            "PYTEST_PLUGINS": "plateline_plugins",
            "HYPOTHESIS_STORAGE_DIRECTORY": "/tmp/hypothesis",  # noqa: S108
            **(env or {}),
        },
        mounts=(Mount(folder, "/tests"), Mount(_INSIDE, "/inside")),
        workdir="/tmp",  # noqa: S108
    )  # fmt: skip


def with_testing(
    workspace: Workspace, store: Store, name: str, *, need_layers: bool = True
) -> oci.Image:
    """Build the target `name` and return its image with pytest on top, of the target `testing`.

    A stage with another Python than that has a target of its own, `testing_<name>`, which stands on
    the stage. Raises BuilderError where it lacks that.
    """
    own = f"testing_{name}"
    if own in workspace.targets:
        found = build(workspace, store, [own], need_layers=need_layers)[own]
        if found.plan.base is None or found.plan.base.name != name:
            raise BuilderError(
                f"{workspace.target(own).path} does not stand on the stage; begin it with "
                f"`FROM {name}`"
            )
        return found.image
    built = build(workspace, store, [name, "testing"], need_layers=need_layers)
    stage, testing = built[name].image, built["testing"].image
    settings = stage.config.get("config") or {}
    python = debian_python(built[name].plan.native) or of_config(settings)
    if python.version != DEFAULT.version:
        raise BuilderError(
            f"{name} has Python {python.version}, and the target testing brings pytest for "
            f"{DEFAULT.version}. Make the target {own} with pytest in its requirements.in and this "
            f"Dockerfile: `FROM {name}`, `COPY --from=wheels / /opt/testing/`, "
            f"`ENV PYTHONPATH=/app:/opt/testing/{python.site}`"
        )
    present = {layer.diff_id for layer in stage.layers}
    # Not what `testing` stands on: a stage may stand on something else.
    top = testing.layers[len(testing.layers) - len(built["testing"].plan.layers) :]
    extra = tuple(layer for layer in top if layer.diff_id not in present)
    config = {name: value for name, value in stage.config.items() if name != "rootfs"}
    image, documents = oci.assemble(config, (*stage.layers, *extra))
    store.add_image(documents)
    return image


def _path(image: oci.Image) -> str:
    """Return where Python looks for modules: what the image says itself where that names pytest."""
    variables = (line.partition("=") for line in (image.config["config"].get("Env") or ()))
    said = {name: value for name, _, value in variables}.get("PYTHONPATH", "")
    return said if "/opt/testing/" in said else f"/app:{_TESTING}"
