"""Recipes -> keys -> layers -> images, each thing made once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from builder import oci
from builder.build.plan import ImagePlan, LayerStep
from builder.build.planner import Planner
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.oci import layer
from builder.oci.entry import arrange
from builder.packages import wheels
from builder.packages.download import downloads_folder
from builder.sandbox import layer_index
from builder.store import Store, builds, origins


@dataclass(frozen=True, slots=True)
class Event:
    """Progress: `target` is being built, `what` has `state` started, done, cached or fetched."""

    target: str
    what: str
    state: str
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Built:
    """A target's image, its action key and plan, and whether anything had to be made for it."""

    name: str
    key: str
    image: oci.Image
    cached: bool
    seconds: float
    plan: ImagePlan


class RemoteCache(Protocol):
    """Where results of others are found by action key."""

    def find(self, name: str, key: str) -> oci.Image | None:
        """Return the image of `key`, its two documents in the store, or None."""


def ignore(_: Event) -> None:
    """Take an event and do nothing."""


def build(
    workspace: Workspace,
    store: Store,
    names: Sequence[str] = (),
    *,
    jobs: int = 2,
    progress: Callable[[Event], None] = ignore,
    cache: RemoteCache | None = None,
    need_layers: bool = True,
) -> dict[str, Built]:
    """Build the targets `names` (all without names) and what they stand on; return those asked for.

    What the store or `cache` has is not made again. With `need_layers` an image counts as had only
    where every layer is in the store; without, its documents do. Raises BuilderError.
    """
    with store.in_use():
        return Builder(workspace, store, jobs, progress, cache, need_layers).build(names)


def plans(workspace: Workspace, store: Store, names: Sequence[str] = ()) -> dict[str, ImagePlan]:
    """Return what `build` would be about: the plans of the targets `names`, or of all."""
    return Builder(workspace, store, 1, ignore, None, need_layers=True).plans(names)


class Builder:
    """One build: remembers what it has made, so that no layer is made twice at the same time."""

    def __init__(
        self,
        workspace: Workspace,
        store: Store,
        jobs: int,
        progress: Callable[[Event], None],
        cache: RemoteCache | None,
        need_layers: bool,
    ) -> None:
        self._root = workspace.root
        self._targets = workspace.targets.values()
        self._store = store
        self._jobs = jobs
        self._progress = progress
        self._cache = cache
        self._need_layers = need_layers
        self._planner = Planner(workspace, downloads_folder(), store, self.image_of, self.layers_of)
        self._lock = threading.Lock()
        self._layers: dict[str, Future[oci.Layer]] = {}
        self._images: dict[str, Built] = {}

    def plans(self, names: Sequence[str]) -> dict[str, ImagePlan]:
        """Return the plans of the targets `names`, or of all."""
        wheels.check_one_version(target.folder for target in self._targets)
        return self._planner.targets(names)

    def build(self, names: Sequence[str]) -> dict[str, Built]:
        """Build `names` in order, each after what it needs; a failure stops its dependents only.

        Raises BuilderError with every failure once all others are built.
        """
        wheels.check_one_version(target.folder for target in self._targets)
        built: dict[str, Built] = {}
        failures: dict[str, BuilderError] = {}
        for name in names or [target.name for target in self._targets]:
            try:
                built[name] = self._image(self._planner.target(name))
            except BuilderError as error:
                failures[name] = error
        self._remember()
        if failures:
            raise _together(failures, list(built))
        return built

    def _remember(self) -> None:
        """Record for each target that is built now what its image was made of."""
        for name, plan in self._planner.planned().items():
            if result := self._store.get_result(plan.key):
                builds.remember(self._store, self._root, name, result["manifest"], plan.record())

    def image_of(self, plan: ImagePlan) -> tuple[Store, oci.Image]:
        """Return an image that a layer is made from, whole, with the store it is in."""
        return self._store, self._image(plan, whole=True).image

    def layers_of(self, plan: ImagePlan) -> tuple[oci.Layer, ...]:
        """Return the layers of an image, those that are not known made; no image is."""
        base = self._image(plan.base, whole=True).image.layers if plan.base else ()
        return (*base, *(self._layer(plan.name, step) for step in plan.layers))

    def known(self, plan: ImagePlan, *, whole: bool) -> oci.Image | None:
        """Return the image of `plan` where the store or the cache has it, `whole` with layers."""
        result = self._store.get_result(plan.key)
        image = None
        if result:
            try:
                image = self._store.image(result["manifest"])
            except BuilderError:
                image = None
        if image is None and self._cache and (image := self._cache.find(plan.name, plan.key)):
            self._store.put_result(plan.key, {"manifest": image.digest})
        if image and whole and not origins.at_hand(self._store, image):
            return None
        return image

    def _image(self, plan: ImagePlan, *, whole: bool | None = None) -> Built:
        whole = self._need_layers if whole is None else whole
        with self._lock:
            if (found := self._images.get(plan.key)) and (
                not whole or origins.at_hand(self._store, found.image)
            ):
                return found
        if plan.pulled:
            return Built(plan.name, plan.key, plan.pulled, cached=True, seconds=0.0, plan=plan)
        started = time.monotonic()
        image = self.known(plan, whole=whole)
        cached = image is not None
        if image is None:
            image = self._make(plan)
        built = Built(plan.name, plan.key, image, cached, time.monotonic() - started, plan)
        state = "cached" if cached else "done"
        self._progress(Event(plan.name, image.digest, state, built.seconds))
        with self._lock:
            self._images[plan.key] = built
        return built

    def _make(self, plan: ImagePlan) -> oci.Image:
        base = self._image(plan.base, whole=True).image.layers if plan.base else ()
        for needed in plan.needs:
            self._image(needed, whole=True)
        with ThreadPoolExecutor(self._jobs) as pool:
            own = tuple(pool.map(lambda step: self._layer(plan.name, step), plan.layers))
        image, documents = oci.assemble(plan.config, (*base, *own))
        self._store.add_image(documents)
        self._store.put_result(plan.key, {"manifest": image.digest})
        return image

    def _layer(self, target: str, step: LayerStep) -> oci.Layer:
        """Make a layer, or wait for the thread that is making it, or take what is known."""
        with self._lock:
            future = self._layers.get(step.key)
            mine = future is None
            if future is None:
                future = self._layers[step.key] = Future()
        if mine:
            try:
                future.set_result(self.known_layer(step) or self._write(target, step))
            except BaseException as error:
                future.set_exception(error)
                raise
        found = future.result()
        return oci.Layer(diff_id=found.diff_id, blob=found.blob, created_by=step.created_by)

    def known_layer(self, step: LayerStep) -> oci.Layer | None:
        """Return the layer of `step` where the store has it."""
        result = self._store.get_result(step.key)
        if not result:
            return None
        found = oci.Layer(diff_id=result["diff_id"], blob=oci.Descriptor.from_json(result["blob"]))
        return found if self._store.has(found.blob) else None

    def _write(self, target: str, step: LayerStep) -> oci.Layer:
        started = time.monotonic()
        self._progress(Event(target, step.plan.name, "started"))
        with self._store.writing() as (stream, keep):
            entries = arrange(step.plan.entries())
            made = layer.write_layer(entries, stream)
            keep(made.blob.digest)
        folders = layer_index.remember(self._store, made.diff_id, entries)
        self._store.put_result(
            step.key,
            {"diff_id": made.diff_id, "blob": made.blob.to_json(), "listing": folders},
        )
        self._progress(Event(target, step.plan.name, "done", time.monotonic() - started))
        return made


def _together(failures: Mapping[str, BuilderError], built: Sequence[str]) -> BuilderError:
    """Return one error for all targets that failed: each reason once, with whom it stopped."""
    if len(failures) == 1 and not built:
        return next(iter(failures.values()))
    stopped: dict[str, list[str]] = {}
    for name, error in failures.items():
        stopped.setdefault(str(error), []).append(name)
    lines = [f"{', '.join(names)} not built: {reason}" for reason, names in stopped.items()]
    return BuilderError("\n".join([*lines, *([f"built: {', '.join(built)}"] if built else [])]))


def pins(built: Mapping[str, Built], prefix: str) -> dict[str, str]:
    """Return target -> `prefix/target@sha256:…`."""
    return {name: f"{prefix}/{name}@{result.image.digest}" for name, result in built.items()}
