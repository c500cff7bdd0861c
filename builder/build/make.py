"""Recipes -> keys -> layers -> images, each thing made once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from builder import oci
from builder.build.plan import GZIP, ZSTD, ImagePlan, LayerStep, check_compression, in_zstd
from builder.build.planner import Planner
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.oci import layer
from builder.oci.entry import arrange
from builder.packages import wheels
from builder.packages.download import downloads_folder
from builder.packages.python import Python
from builder.platform import NATIVE, Platform, of_config
from builder.sandbox import layer_index
from builder.sandbox.layer_tar import opened
from builder.store import Store, builds, origins

if TYPE_CHECKING:
    from concurrent.futures import Future

    from builder.registry.cache import Cached, Expected
    from builder.signing.keys import PublicKey


@dataclass(frozen=True, slots=True)
class Event:
    """Progress: `target` is being built, `what` has `state` started, done, cached or fetched."""

    target: str
    what: str
    state: str
    seconds: float = 0.0


class PartError(BuilderError):
    """Some targets could not be built; `built` are those that were, by name."""

    def __init__(self, message: str, built: Mapping[str, Built]) -> None:
        super().__init__(message)
        self.built = built


@dataclass(frozen=True, slots=True)
class Built:
    """A target's image, its action key and plan, and whether anything had to be made for it.

    `source` is empty for an image that was made here, otherwise the cache that it came from, and
    `signer` the name of the key that signed it there, if the workspace trusts one that did.
    """

    name: str
    key: str
    image: oci.Image
    cached: bool
    seconds: float
    plan: ImagePlan
    source: str = ""
    signer: str = ""

    @property
    def digest(self) -> str:
        """What pins it."""
        return self.image.digest

    @property
    def named(self) -> oci.Image:
        """What its digest names."""
        return self.image

    @property
    def images(self) -> Mapping[Platform, Built]:
        """The one image that it is, by its platform, as `index.Indexed` has several."""
        return {of_config(self.plan.config): self}


class RemoteCache(Protocol):
    """Where results of others are found by action key: `builder.registry.cache.RegistryCache`."""

    note: Callable[[str], object]

    @property
    def where(self) -> str:
        """Return the cache's name."""

    def find(self, name: str, key: str, expected: Expected) -> Cached | None:
        """Return the image of `key` as the plan expects it, its documents in the store, or None."""

    def sampled(self) -> bool:
        """Tell whether the next layer is to be made again and compared."""


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
    trusted: bool = False,
    platform: Platform = NATIVE,
    compression: str = GZIP,
) -> dict[str, Built]:
    """Build the targets `names` (all without names) and what they stand on; return those asked for.

    They are for `platform`, their layers by `compression`. What the store or `cache` has is not
    made again. With `need_layers` an image counts as had only where every layer is in the store;
    without, its documents do. With `trusted` what came from a cache without a signature of a key
    that the workspace trusts counts as not had: all its layers are made here. Raises BuilderError,
    also where what a cache gave is not what the recipe makes; PartError with what was built where
    that is not all.
    """
    with store.in_use():
        builder = Builder(
            workspace, store, jobs, progress, cache, need_layers, trusted=trusted,
            platform=platform, compression=compression,
        )  # fmt: skip
        return builder.build(names)


def plannable(
    workspace: Workspace, store: Store, platform: Platform = NATIVE, names: Sequence[str] = ()
) -> dict[str, ImagePlan]:
    """Return the plans of the targets `names`, or of all; those without one are left out."""
    builder = Builder(workspace, store, 1, ignore, None, need_layers=True, platform=platform)
    return builder.plannable(names)[0]


def plans(
    workspace: Workspace, store: Store, names: Sequence[str] = (), platform: Platform = NATIVE
) -> dict[str, ImagePlan]:
    """Return what `build` would be about: the plans of the targets `names`, or of all."""
    builder = Builder(workspace, store, 1, ignore, None, need_layers=True, platform=platform)
    return builder.plans(names)


def python_of(workspace: Workspace, store: Store, name: str, platform: Platform) -> Python:
    """Return the Python that the wheels of a target are for: `Planner.python`."""
    builder = Builder(workspace, store, 1, ignore, None, need_layers=True, platform=platform)
    return builder.planner.python(name)


def remembered(name: str, platform: Platform) -> str:
    """Return under which name the store remembers the last build of a target for a platform."""
    return name if platform == NATIVE else f"{name} for {platform.name}"


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
        *,
        trusted: bool = False,
        platform: Platform = NATIVE,
        compression: str = GZIP,
    ) -> None:
        check_compression(compression)
        self._platform = platform
        self._compression = compression
        self._trusted = trusted
        self._root = workspace.root
        self._workspace = workspace
        self._store = store
        self._jobs = jobs
        self._progress = progress
        self._cache = cache
        self._need_layers = need_layers
        self.planner = Planner(
            workspace, downloads_folder(), store, self.image_of, self.layers_of, platform
        )
        self._lock = threading.Lock()
        self._layers: dict[str, Future[oci.Layer]] = {}
        self._images: dict[str, Built] = {}

    def plans(self, names: Sequence[str]) -> dict[str, ImagePlan]:
        """Return the plans of the targets `names`, or of all.

        Raises BuilderError with the failures of all that cannot be planned.
        """
        found, failures = self.plannable(names)
        if failures:
            raise _together(failures, {})
        return found

    def plannable(
        self, names: Sequence[str]
    ) -> tuple[dict[str, ImagePlan], dict[str, BuilderError]]:
        """Return the plans of the targets `names`, or of all, and why others have none."""
        workspace = self._workspace
        variants = [one for name, one in workspace.variants.items() if name in names]
        stages = (one.requirements for one in (*workspace.targets.values(), *variants))
        wheels.check_one_version(stages, self._platform)
        found: dict[str, ImagePlan] = {}
        failures: dict[str, BuilderError] = {}
        for name in names or workspace.targets:
            try:
                found[name] = self._compressed(self.planner.target(name))
            except BuilderError as error:
                failures[name] = error
        return found, failures

    def _compressed(self, plan: ImagePlan) -> ImagePlan:
        return in_zstd(plan) if self._compression == ZSTD else plan

    def build(self, names: Sequence[str]) -> dict[str, Built]:
        """Build `names` in order, each after what it needs; a failure stops its dependents only.

        Raises PartError with every failure once all others are built.
        """
        planned, failures = self.plannable(names)
        built: dict[str, Built] = {}
        for name, plan in planned.items():
            try:
                built[name] = self._image(plan)
            except BuilderError as error:
                failures[name] = error
        self._remember()
        if failures:
            raise _together(failures, built)
        return built

    def _remember(self) -> None:
        """Record for each target that is built now what its image was made of."""
        for name, planned in self.planner.planned().items():
            plan = self._compressed(planned)
            if result := self._store.get_result(plan.key):
                named = remembered(name, self._platform)
                named += " by zstd" if plan.compression == ZSTD else ""
                builds.remember(self._store, self._root, named, result["manifest"], plan.record())

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
        if result and self._believed(result):
            try:
                image = self._store.image(result["manifest"])
            except BuilderError:
                image = None
        if image is None and self._cache:
            image = self._from(self._cache, plan)
        if image and whole and not origins.at_hand(self._store, image):
            return None
        return image

    def _believed(self, result: Mapping[str, Any]) -> bool:
        """Tell whether a result counts: what came from a cache needs a trusted key, if any is."""
        if not result.get("from"):
            return True
        signed, keys = result.get("signed"), {key.id for key in self._keys()}
        return signed in keys if keys or signed or self._trusted else True

    def _keys(self) -> Sequence[PublicKey]:
        from builder.signing.keys import trusted  # cryptography costs time

        return trusted(self._root)

    def source(self, plan: ImagePlan) -> tuple[str, str]:
        """Return the cache that the image of `plan` came from, and the name of who signed it there.

        Both are empty where it was made here.
        """
        result = self._store.get_result(plan.key) or {}
        signed = result.get("signed")
        names = [key.name for key in self._keys() if key.id == signed] if signed else []
        return str(result.get("from", "")), "".join(names[:1])

    def _from(self, cache: RemoteCache, plan: ImagePlan) -> oci.Image | None:
        """Return what the cache has for `plan`, compared with it; None also without its base."""
        from builder.registry.cache import Expected  # costs time

        base = self._base_layers(plan)
        if base is None:
            return None
        own = tuple(step.created_by for step in plan.layers)
        kind = oci.ZSTD_LAYER if plan.compression == ZSTD else oci.LAYER
        found = cache.find(plan.name, plan.key, Expected(plan.config, base, own, kind))
        if found is None or (self._trusted and not found.signer):
            return None
        if not found.signer:
            for step, theirs in zip(plan.layers, found.image.layers[len(base) :], strict=True):
                self._compare(cache, plan, step, theirs)
        self._store.put_result(
            plan.key,
            {
                "manifest": found.image.digest,
                "from": cache.where,
                "signed": found.signer.id if found.signer else "",
            },
        )
        return found.image

    def _base_layers(self, plan: ImagePlan) -> tuple[oci.Layer, ...] | None:
        """Return the layers of the base, or None where they are not known without making them."""
        if plan.base is None or plan.base.pulled:
            return plan.base.pulled.layers if plan.base and plan.base.pulled else ()
        with self._lock:
            built = self._images.get(plan.base.key)
        image = built.image if built else self.known(plan.base, whole=False)
        return image.layers if image else None

    def _compare(
        self, cache: RemoteCache, plan: ImagePlan, step: LayerStep, theirs: oci.Layer
    ) -> None:
        """Compare a layer of a cache with the one made here, if that is known or to be sampled."""
        made = self.known_layer(step)
        if made is None and cache.sampled():
            try:
                made = self._layer(plan.name, step)
            except BuilderError as error:
                cache.note(f"{plan.name}: {step.plan.name} was not compared ({error})")
        if made and (made.diff_id, made.blob.digest) != (theirs.diff_id, theirs.blob.digest):
            raise BuilderError(
                f"{cache.where} holds for {plan.name} another layer than its recipe makes "
                f"({step.created_by}: {theirs.blob.digest} there, {made.blob.digest} here); "
                "build without that cache, and find out who may push there"
            )

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
        seconds = time.monotonic() - started
        source, signer = self.source(plan) if cached else ("", "")
        built = Built(plan.name, plan.key, image, cached, seconds, plan, source, signer)
        state = "cached" if cached else "done"
        self._progress(Event(plan.name, image.digest, state, built.seconds))
        with self._lock:
            self._images[plan.key] = built
        return built

    def _make(self, plan: ImagePlan) -> oci.Image:
        from concurrent.futures import ThreadPoolExecutor  # logging costs time

        base = self._image(plan.base, whole=True).image.layers if plan.base else ()
        for needed in plan.needs:
            self._image(needed, whole=True)
        with ThreadPoolExecutor(self._jobs) as pool:
            own = tuple(pool.map(lambda step: self._layer(plan.name, step), plan.layers))
        image, documents = oci.assemble(plan.config, (*base, *own))
        before = self._store.get_result(plan.key) or {}
        self._store.add_image(documents)
        self._store.put_result(plan.key, {"manifest": image.digest})
        if before.get("from") and before["manifest"] != image.digest:
            raise BuilderError(
                f"{before['from']} gave for {plan.name} the image {before['manifest']}, and its "
                f"recipe makes {image.digest}, which the store has now; find out who may push "
                "there, and build again"
            )
        return image

    def _layer(self, target: str, step: LayerStep) -> oci.Layer:
        """Make a layer, or wait for the thread that is making it, or take what is known."""
        from concurrent.futures import Future  # logging costs time

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
        if step.gzip:
            made = self._write_zstd(self._layer(target, step.gzip))
            folders = layer_index.key(made.diff_id)
        else:
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

    def _write_zstd(self, gzip: oci.Layer) -> oci.Layer:
        from builder.oci import zstd  # costs time

        with (
            self._store.writing() as (stream, keep),
            self._store.open_blob(gzip.blob.digest) as raw,
        ):
            made = zstd.write_layer(opened(raw, gzip.blob), gzip, stream)
            keep(made.blob.digest)
        return made


def _together(failures: Mapping[str, BuilderError], built: Mapping[str, Built]) -> BuilderError:
    """Return one error for all targets that failed: each reason once, with whom it stopped."""
    if len(failures) == 1 and not built:
        return next(iter(failures.values()))
    stopped: dict[str, list[str]] = {}
    for name, error in failures.items():
        stopped.setdefault(str(error), []).append(name)
    lines = [f"{', '.join(names)} not built: {reason}" for reason, names in stopped.items()]
    return PartError("\n".join([*lines, *([f"built: {', '.join(built)}"] if built else [])]), built)


class Pinnable(Protocol):
    """What a digest can pin: a Built, or the index over several (`index.Indexed`)."""

    @property
    def key(self) -> str:
        """The action key."""

    @property
    def digest(self) -> str:
        """The digest of the image or of the index."""

    @property
    def named(self) -> oci.Image | oci.Index:
        """What the digest names."""

    @property
    def images(self) -> Mapping[Platform, Built]:
        """The image for each platform."""


def pins(built: Mapping[str, Pinnable], prefix: str) -> dict[str, str]:
    """Return target -> `prefix/target@sha256:…`."""
    return {name: f"{prefix}/{name}@{result.digest}" for name, result in built.items()}
