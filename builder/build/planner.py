"""Plans the targets of a workspace, each once; nothing is made here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

from builder import oci
from builder.build import evaluate
from builder.build.plan import ImagePlan, action_key
from builder.build.workspace import Workspace
from builder.dockerfile import copying
from builder.errors import BuilderError
from builder.oci.layer_plan import LayerPlan
from builder.oci.overlay import Below
from builder.oci.reference import Reference
from builder.packages import bytecode, download, python
from builder.sandbox import layer_index
from builder.store import Store

LayersOf = Callable[[ImagePlan], Sequence[oci.Layer]]


class Planner:
    """Plans a workspace's targets, each once.

    `image_of` builds an image that is copied from, `layers_of` the layers that one is laid over.
    """

    def __init__(
        self,
        workspace: Workspace,
        downloads: Path,
        store: Store,
        image_of: evaluate.ImageOf,
        layers_of: LayersOf,
    ) -> None:
        self.workspace = workspace
        self._store = store
        self.downloads = downloads
        self.image_of = image_of
        self._layers_of = layers_of
        self._plans: dict[str, ImagePlan] = {}
        self._hashes: dict[str, str] = {}
        self._taken: dict[tuple[str, ...], list[copying.Taken]] = {}
        self._unpacking = threading.Lock()

    def planned(self) -> dict[str, ImagePlan]:
        """Return the plans of the targets that were asked for, and of those they stand on."""
        return {n: plan for n, plan in self._plans.items() if n in self.workspace.targets}

    def target(self, name: str, chain: tuple[str, ...] = ()) -> ImagePlan:
        """Return the plan of one target; raises BuilderError where targets need each other."""
        if name in chain:
            raise BuilderError(f"targets need each other: {' -> '.join((*chain, name))}")
        if name not in self._plans:
            target = self.workspace.target(name)
            self._plans[name] = evaluate.Evaluation(self, target, (*chain, name)).plan()
        return self._plans[name]

    def pinned(self, name: str) -> ImagePlan:
        """Return the plan of the image `name` of a registry, which must name its digest.

        Its documents are fetched where the store lacks them; its key is its digest alone, whichever
        registry has it.
        """
        if name not in self._plans:
            reference = Reference.parse(name)
            if not reference.digest:
                raise BuilderError(
                    f"{name!r} can be another image tomorrow; pin it: "
                    f"{reference.host}/{reference.repository}@sha256:…"
                )
            from builder.registry import pull  # httpx costs time

            image = pull.pinned(self._store, reference)
            key = action_key({"image": image.digest})
            self._plans[name] = ImagePlan(name, key, None, (), (), image.config, pulled=image)
        return self._plans[name]

    def below(self, plan: ImagePlan) -> Below:
        """Return what a layer is laid over."""
        return layer_index.below(self._store, self._layers_of(plan))

    def interpreter(self, plan: ImagePlan) -> bytecode.Interpreter:
        """Return the Python of the image `plan`; it runs only where something is compiled.

        Where Debian packages of a lock bring it, it is unpacked from these packages themselves: a
        layer may have come from a registry that others write to.
        """
        if pinned := python_packages(plan):
            return bytecode.Interpreter(_python_key(pinned), partial(self._run_pinned, pinned))

        def run(script: str, stdin: bytes) -> bytes:
            from builder.sandbox.interpreter import run_python

            return run_python(*self.image_of(plan), script, stdin)

        key = action_key({"image": plan.key, "bytecode": bytecode.FORMAT})
        return bytecode.Interpreter(key=key, run=run)

    def _run_pinned(self, layers: Sequence[LayerPlan], script: str, stdin: bytes) -> bytes:
        from builder.sandbox.interpreter import run_pinned

        with self._unpacking:
            root = python_root(self._store, layers)
        return run_pinned(root, script, stdin)

    def take(self, sources: Sequence[str]) -> list[copying.Taken]:
        """Return what `sources` name in the workspace, looked for once a build.

        Raises BuilderError where a source is not there.
        """
        key = tuple(sources)
        if key not in self._taken:
            self._taken[key] = copying.take(sources, self.workspace)
        return self._taken[key]

    def hash(self, path: Path) -> str:
        """Return a file's SHA-256, read once a build."""
        name = str(path)
        if name not in self._hashes:
            self._hashes[name] = download.sha256_file(name)
        return self._hashes[name]


def python_packages(plan: ImagePlan) -> list[LayerPlan]:
    """Return the layers of pinned Debian packages that bring an image's Python, if these do."""
    layers = _debian(plan)
    names = [name for layer in layers for name, *_ in layer.inputs["debian"]]
    return layers if python.PACKAGE in names else []


def isolates(plan: ImagePlan) -> bool:
    """Tell whether byte-code of `plan` itself is compiled by a stranger's Python, in bubblewrap."""
    compiled = any("bytecode" in step.plan.inputs for step in plan.layers)
    return compiled and plan.base is not None and not python_packages(plan.base)


def python_root(store: Store, layers: Sequence[LayerPlan]) -> Path:
    """Return a folder with the packages of `layers` and nothing else, unpacked at first use."""
    from builder.sandbox.unpack import filled  # shutil costs time

    return filled(store, _python_key(layers), lambda: chain(*(layer.entries() for layer in layers)))


def _python_key(layers: Sequence[LayerPlan]) -> str:
    inputs = [layer.inputs for layer in layers]
    return action_key({"python": inputs, "bytecode": bytecode.FORMAT})


def _debian(plan: ImagePlan) -> list[LayerPlan]:
    """Return the layers of Debian packages that make the root of the image, the lowest first."""
    below = _debian(plan.base) if plan.base else []
    own = (step.plan for step in plan.layers if "debian" in step.plan.inputs)
    return [*below, *(layer for layer in own if layer.inputs["destination"] == "/")]
