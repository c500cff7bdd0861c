"""Plans the targets of a workspace, each once; nothing is made here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
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
from builder.packages import bytecode, download
from builder.packages.python import Python, of_config, of_debian
from builder.platform import NATIVE, Platform
from builder.sandbox import layer_index
from builder.store import Store

LayersOf = Callable[[ImagePlan], Sequence[oci.Layer]]


class Planner:
    """Plans a workspace's targets for a platform, each once.

    `image_of` builds an image that is copied from, `layers_of` the layers that one is laid over.
    """

    def __init__(
        self,
        workspace: Workspace,
        downloads: Path,
        store: Store,
        image_of: evaluate.ImageOf,
        layers_of: LayersOf,
        platform: Platform = NATIVE,
    ) -> None:
        self.workspace = workspace
        self.platform = platform
        self._store = store
        self.downloads = downloads
        self.image_of = image_of
        self._layers_of = layers_of
        self._plans: dict[str, ImagePlan] = {}
        self._hashes: dict[str, str] = {}
        self._taken: dict[tuple[str, ...], list[copying.Taken]] = {}
        self._interpreters: dict[tuple[str, Python], bytecode.Interpreter] = {}
        self._unpacking = threading.Lock()

    def planned(self) -> dict[str, ImagePlan]:
        """Return the plans of the targets that were asked for, and of those they stand on."""
        return {n: plan for n, plan in self._plans.items() if n in self.workspace.every}

    def target(self, name: str, chain: tuple[str, ...] = ()) -> ImagePlan:
        """Return the plan of one target; raises BuilderError where targets need each other."""
        if name in chain:
            raise BuilderError(f"targets need each other: {' -> '.join((*chain, name))}")
        if name not in self._plans:
            target = self.workspace.target(name)
            self._plans[name] = evaluate.Evaluation(self, target, (*chain, name)).plan()
        return self._plans[name]

    def python(self, name: str) -> Python:
        """Return the Python that the wheels of a target are for, also where they have no lock yet.

        Raises BuilderError where the recipe cannot be planned so far, and where it has two.
        """
        evaluation = evaluate.Evaluation(self, self.workspace.target(name), (name,))
        try:
            evaluation.plan()
        except BuilderError:
            if not evaluation.pythons:
                raise
        found = sorted(set(evaluation.pythons or [Python(platform=self.platform)]), key=str)
        if len(found) > 1:
            raise BuilderError(
                f"{name} has wheels for {found[0]} and for {found[1]}, and a lock is for one; "
                "divide it into two targets"
            )
        return found[0]

    def pinned(self, name: str) -> ImagePlan:
        """Return the plan of the image `name` of a registry, which must name its digest.

        Of an index it is the image for the platform. Its documents are fetched where the store
        lacks them; its key is its digest alone, whichever registry has it.
        """
        if name not in self._plans:
            reference = Reference.parse(name)
            if not reference.digest:
                raise BuilderError(
                    f"{name!r} can be another image tomorrow; pin it: "
                    f"{reference.host}/{reference.repository}@sha256:…"
                )
            from builder.registry import pull  # costs time

            image = pull.pinned(self._store, reference, self.platform)
            key = action_key({"image": image.digest})
            self._plans[name] = ImagePlan(name, key, None, (), (), image.config, pulled=image)
        return self._plans[name]

    def below(self, plan: ImagePlan) -> Below:
        """Return what a layer is laid over."""
        return layer_index.below(self._store, self._layers_of(plan))

    def interpreter(self, plan: ImagePlan) -> bytecode.Interpreter:
        """Return the Python of the image `plan`; it runs only where something is compiled.

        Where Debian packages of a lock bring it, it is unpacked from these packages themselves: a
        layer may have come from a registry that others write to. For another platform those of
        NATIVE do it. Raises BuilderError where the two have not the same version.
        """
        native = debian_python(plan.native)
        own = debian_python(_debian(plan), self.platform)
        if native and own:
            if native.version != own.version:
                raise BuilderError(
                    f"{plan.name} has Python {native.version} for {NATIVE.name} and {own.version} "
                    f"for {self.platform.name}; lock both: `invoke lock --platform "
                    f"{NATIVE.name},{self.platform.name}`"
                )
            run = partial(self._run_pinned, plan.native, native)
            return self._interpreter(bytecode.Interpreter(_python_key(plan.native), run, own))
        python = of_config(plan.config.get("config") or {}, self.platform)
        compiles = plan if self.platform == NATIVE else self._twin(plan, python)

        def run_image(script: str, stdin: bytes) -> bytes:
            from builder.sandbox.interpreter import run_python

            own = replace(python, platform=NATIVE)
            return run_python(*self.image_of(compiles), script, stdin, own)

        key = action_key({"image": compiles.key, "bytecode": bytecode.FORMAT})
        return self._interpreter(bytecode.Interpreter(key, run_image, python))

    def _interpreter(self, found: bytecode.Interpreter) -> bytecode.Interpreter:
        """Return the one that compiles for all images that have it, with what it has compiled."""
        return self._interpreters.setdefault((found.key, found.python), found)

    def _twin(self, plan: ImagePlan, python: Python) -> ImagePlan:
        """Return the image of the same name for NATIVE, whose Python is run instead.

        Of an earlier stage of a recipe it is what that stands on. Raises BuilderError where it has
        none, or another Python.
        """
        native = self.native()
        while plan.base and not plan.pulled and self._plans.get(plan.name) is not plan:
            plan = plan.base
        try:
            found = native.pinned(plan.name) if plan.pulled else native.target(plan.name)
            other = of_config(found.config.get("config") or {})
        except BuilderError as error:
            raise BuilderError(
                f"{plan.name} brings a Python that no Debian package of a lock does, and one for "
                f"{self.platform.name} cannot be run here to compile; pin the digest of an index "
                f"that has {NATIVE.name} too, or begin with FROM base ({error})"
            ) from None
        if other.version != python.version:
            raise BuilderError(
                f"{plan.name} has Python {other.version} for {NATIVE.name} and {python.version} "
                f"for {self.platform.name}; take an index whose images have the same"
            )
        return found

    def native(self) -> Planner:
        """Return the plans of the same workspace for NATIVE, whose programs can be run here."""
        if self.platform == NATIVE:
            return self
        return Planner(self.workspace, self.downloads, self._store, self.image_of, self._layers_of)

    def _run_pinned(
        self, layers: Sequence[LayerPlan], python: Python, script: str, stdin: bytes
    ) -> bytes:
        from builder.sandbox.interpreter import run_pinned

        with self._unpacking:
            root = python_root(self._store, layers)
        return run_pinned(root, script, stdin, python)

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


def debian_python(layers: Sequence[LayerPlan], platform: Platform = NATIVE) -> Python | None:
    """Return the Python that layers of pinned Debian packages bring, if these do."""
    rows = (row for layer in layers for row in layer.inputs["debian"])
    return of_debian({name: version for name, version, *_ in rows}, platform)


def python_packages(plan: ImagePlan) -> Sequence[LayerPlan]:
    """Return the Debian packages whose Python compiles for an image, if it is such a one."""
    return plan.native if debian_python(plan.native) else ()


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
