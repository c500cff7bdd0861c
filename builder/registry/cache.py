"""The registry as the shared cache: images found by the action key that made them.

Whoever may push one tag decides what is found under a key, so nothing of it is believed: it must be
the very image that the plan would make of those layers (`difference`), and whether its layers are
those that the plan makes is known only from a signature, or by making them again.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from builder import oci
from builder.errors import BuilderError
from builder.oci import canonical
from builder.oci.reference import Reference
from builder.platform import NATIVE
from builder.registry.client import Registry
from builder.registry.connection import RegistryError
from builder.registry.http import DamagedError, shown
from builder.registry.pull import documents
from builder.store import Store, origins


def key_tag(key: str) -> str:
    """Return the tag under which the registry is asked for the result of an action key."""
    return f"key-{key}"


def find_by_key(store: Store, registry: Registry, repository: str, key: str) -> oci.Image | None:
    """Return the image that was pushed for the action `key`, or None; two requests, no layer.

    Its manifest and config are kept in the store. Raises RegistryError, and BuilderError for
    something else than an image.
    """
    return documents(store, registry, repository, key_tag(key), NATIVE.oci)


@dataclass(frozen=True, slots=True)
class Expected:
    """What a plan says of an image before its layers are made.

    `config` is its config without `rootfs`, `base` the layers below its own, `created_by` what
    the recipe says for each of its own, and `media_type` how these are compressed.
    """

    config: Mapping[str, Any]
    base: tuple[oci.Layer, ...]
    created_by: tuple[str, ...]
    media_type: str = oci.LAYER


def difference(image: oci.Image, expected: Expected) -> str:
    """Return in words the first thing in which `image` is not as `expected`, or nothing; pure.

    The content of its own layers alone is left open: with them, the plan would make this image.
    """
    base, own = image.layers[: len(expected.base)], image.layers[len(expected.base) :]
    if len(base) != len(expected.base) or len(own) != len(expected.created_by):
        wanted = len(expected.base) + len(expected.created_by)
        return f"it has {len(image.layers)} layers and not {wanted}"
    for below, wanted_layer in zip(base, expected.base, strict=True):
        if (below.diff_id, below.blob.digest) != (wanted_layer.diff_id, wanted_layer.blob.digest):
            return f"it stands on the layer {below.blob.digest} instead of the base image's"
    for layer, created_by in zip(own, expected.created_by, strict=True):
        if layer.created_by != created_by:
            return f"it has a layer of {shown(layer.created_by, 80)!r}, not of {created_by!r}"
        if layer.blob.media_type != expected.media_type:
            return f"it has a layer of the type {shown(layer.blob.media_type, 80)!r}"
    if said := _setting(image.config, expected.config):
        return said
    if oci.assemble(expected.config, image.layers)[0].digest != image.digest:
        return "its manifest is not written as plateline writes it"
    return ""


def _setting(found: Mapping[str, Any], wanted: Mapping[str, Any], above: str = "") -> str:
    """Return the first member of a config that differs, with both values."""
    for name in sorted({*found, *wanted} - ({"rootfs"} if not above else set())):
        one, other = found.get(name), wanted.get(name)
        if not above and isinstance(one, dict) and isinstance(other, Mapping):
            if said := _setting(one, other, f"{name}."):
                return said
        elif canonical.dumps(one) != canonical.dumps(other):
            values = (shown(canonical.dumps(value).decode(), 80) for value in (one, other))
            return "its {} is {} and not {}".format(f"{above}{name}", *values)
    return ""


def sample_share(environ: Mapping[str, str] = os.environ) -> float:
    """Return which share of a cache's layers are made again to compare: $PLATELINE_CACHE_SAMPLE.

    Raises BuilderError where that is no number from 0 to 1.
    """
    text = environ.get("PLATELINE_CACHE_SAMPLE", "0.01")
    try:
        share = float(text)
    except ValueError:
        share = -1
    if not 0 <= share <= 1:
        raise BuilderError(f"PLATELINE_CACHE_SAMPLE={text} is not a number from 0 to 1")
    return share


def _damaged(error: RegistryError) -> bool:
    """Tell whether the tag leads to nothing of use, whoever put it there: then it is built here."""
    return isinstance(error, DamagedError) or error.status == 404


@dataclass(frozen=True, slots=True)
class Signer:
    """Who vouches for a result: the name that the workspace has for a key, and the key's id."""

    name: str
    id: str


@dataclass(frozen=True, slots=True)
class Cached:
    """An image from a cache; `signer` says which key of the workspace vouches for it, if any."""

    image: oci.Image
    signer: Signer | None


@dataclass
class RegistryCache:
    """The results that were pushed to `registry` under `path`, by action key (a RemoteCache).

    With `only_signed` nothing without a signature is taken. `share` of the layers are to be made
    again and compared; `signer` tells of a repository, an image and an action key whose key, of
    those that the workspace names, signed that the one is the result of the other; it raises
    BuilderError where that must not be believed. `note` is told what was not taken. `found` holds
    the names of the images that were there.
    """

    store: Store
    registry: Registry
    path: str
    share: float = 0.0
    signer: Callable[[str, oci.Image, str], Signer | None] = lambda *_: None
    only_signed: bool = False
    note: Callable[[str], object] = lambda _: None
    found: set[str] = field(default_factory=set)

    @property
    def where(self) -> str:
        """Return HOST/PATH."""
        return f"{self.registry.host}/{self.path}"

    def find(self, name: str, key: str, expected: Expected) -> Cached | None:
        """Return the image that was pushed as `path/name` for `key`, or None.

        One that is not as the plan has it is noted and not taken. Layers stay where they are; the
        store remembers where, for whoever needs their bytes. Raises RegistryError.
        """
        repository = f"{self.path}/{name}"
        try:
            image = find_by_key(self.store, self.registry, repository, key)
        except BuilderError as error:
            if isinstance(error, RegistryError) and not _damaged(error):
                raise
            self.note(
                f"{name}: what {self.where} has for it is not trusted and was not taken: {error}"
            )
            return None
        if image is None:
            return None
        if said := difference(image, expected):
            self.note(
                f"{name}: the image that {self.where} has for it was not taken, since it is not "
                f"what the recipe says: {said}; find out who may push there"
            )
            return None
        try:
            signer = self.signer(repository, image, key)
        except RegistryError:
            raise
        except BuilderError as error:
            self.note(f"{name}: what {self.where} has for it was not taken: {error}")
            return None
        if signer is None and self.only_signed:
            self.note(
                f"{name}: what {self.where} has for it was not taken, since no key of this "
                "workspace signed it as the result of these sources"
            )
            return None
        self.found.add(name)
        if not self.registry.insecure:
            for layer in image.layers:
                reference = Reference(self.registry.host, repository)
                origins.remember(self.store, layer.blob.digest, reference)
        return Cached(image, signer)

    def sampled(self) -> bool:
        """Tell whether the next layer is one of those to be made again; nobody can foresee it."""
        return random.SystemRandom().random() < self.share
