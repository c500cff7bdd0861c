"""A release made again from its commit, by that commit's own code, to be compared with it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from builder import oci
from builder.errors import BuilderError
from builder.inspect import checkout
from builder.inspect.compare import difference
from builder.oci.reference import Reference
from builder.packages.download import downloads_folder
from builder.platform import of_config
from builder.registry import pull
from builder.registry.client import Registry
from builder.registry.http import parse
from builder.store import Store
from pipeline.errors import PipelineError
from pipeline.release.difference import compare


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was made: digests of images by name, the package, and the store that has the images."""

    images: Mapping[str, str]
    package: bytes
    store: Store


@contextmanager
def rebuilt(
    root: Path,
    commit: str,
    images: Sequence[str],
    prefix: str,
    *,
    platforms: Sequence[str] = (),
    insecure: bool = False,
    zstd: bool = False,
) -> Iterator[Rebuilt]:
    """Yield the images and the package that `commit` makes for the registry at `prefix`.

    They are for `platforms`, linux/amd64 without one, their layers compressed by gzip or `zstd`.

    They are made by the code of the commit, in a temporary clone of the checkout at `root`, with an
    empty store; downloads are shared, since they are checked by hash. That code runs with all
    rights of this user, so the commit must be one that the checkout stands on. Raises PipelineError
    where it is not, and where a command of it fails.
    """
    try:
        if not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", commit):
            raise BuilderError("no commit's name")
        checkout.git(root, "merge-base", "--is-ancestor", commit, "HEAD")
    except BuilderError:
        raise PipelineError(
            f"the commit {commit[:12]} is not in the history that {root} stands on; fetch it, and "
            "check out a branch that has it, if you trust it: its code would run here"
        ) from None
    with tempfile.TemporaryDirectory(prefix="plateline-rebuild-") as name:
        folder = Path(name)
        source = folder / "source"
        checkout.git(root, "clone", "--quiet", "--shared", "--no-checkout", ".", str(source))
        checkout.git(source, "checkout", "--quiet", "--detach", commit)
        (folder / "downloads").symlink_to(downloads_folder())
        _share_python(source)
        chosen = ["--platform", ",".join(platforms)] if platforms else []
        chosen += ["--compression", "zstd"] if zstd else []
        words = [",".join(images), "--json", *chosen]
        digests = _digests(_invoke(source, folder, "build-images", *words), images)
        package = folder / "package.yaml"
        words = ["--registry", prefix, "--output", str(package), *chosen]
        _invoke(source, folder, "compile", *words, *(["--insecure"] if insecure else []))
        yield Rebuilt(digests, package.read_bytes(), Store(folder / "store"))


def by_zstd(registry: Registry, home: str, images: Mapping[str, str]) -> bool:
    """Tell whether the layers of a release's images are compressed by zstd.

    `images` are their digests, or those of their indexes, in the repository `home`. Raises
    BuilderError where one is not there.
    """
    for digest in images.values():
        found = registry.get_manifest(home, digest)
        if found is None:
            raise BuilderError(f"{registry.host}/{home} has no {digest}, which the release names")
        document = parse(found[1], digest)
        if "manifests" in document:
            one = pull.listed(document, digest)[0].digest  # the others are compressed alike
            if by_zstd(registry, home, {"": one}):
                return True
        layers = document.get("layers") or []
        if any(layer.get("mediaType") == oci.ZSTD_LAYER for layer in layers):
            return True
    return False


def differences(
    made: Rebuilt, registry: Registry, home: str, images: Mapping[str, str], package: bytes
) -> list[str]:
    """Return in sentences what of a release differs from what was made again.

    `images` has the digests of the release, whose repository is `home`: of an image that differs
    the first file is said. Raises BuilderError where the registry lacks that image.
    """
    found = []
    for name, digest in images.items():
        if made.images[name] != digest:
            found += _differing(made, registry, home, name, digest)
    if made.package != package:
        changes = compare(package, made.package)
        said_of = [f"{c.kind} {c.name}: {c.old or 'none'} and {c.new or 'none'}" for c in changes]
        found.append(f"the package differs: {'; '.join(said_of) or 'no part that has a name'}")
    return found


def _differing(made: Rebuilt, registry: Registry, home: str, name: str, digest: str) -> list[str]:
    """Return in a sentence for each platform's image how it differs from the one made again."""
    released = pull.named(made.store, registry, home, digest)
    if released is None:
        raise PipelineError(f"{registry.host}/{home} lost the image {name}; publish it again")
    found = []
    for theirs in released.images:
        mine = pull.stored(made.store, made.images[name], of_config(theirs.config))
        if mine.digest != theirs.digest:
            pull.pull(made.store, registry, Reference(registry.host, home, digest=theirs.digest))
            said = difference(name, (made.store, theirs), (made.store, mine))
            found.append(f"{said.sentence()} (released, made again)")
    return found or [f"{name} is {digest} and {made.images[name]}, an index and an image"]


def _digests(said: bytes, images: Sequence[str]) -> dict[str, str]:
    try:
        built = json.loads(said)
        return {image: str(built[image]["digest"]) for image in images}
    except (ValueError, KeyError, TypeError, IndexError):
        raise PipelineError(
            "`invoke build-images` of the release's commit said no digests of its images"
        ) from None


def _share_python(source: Path) -> None:
    """Let the clone use this Python's packages, where its lock asks for the same."""
    lock, stamp = source / "requirements.lock", Path(sys.prefix) / "requirements.lock"
    if lock.exists() and stamp.exists() and lock.read_bytes() == stamp.read_bytes():
        (source / ".venv").symlink_to(sys.prefix)
        # Git takes a link for no folder, which .gitignore hides, and the tree for a changed one.
        with (source / ".git/info/exclude").open("a", encoding="utf-8") as stream:
            stream.write("/.venv\n")


def _invoke(source: Path, folder: Path, *words: str) -> bytes:
    """Run a task of the clone with a store of its own; its progress goes to our stderr."""
    environment = {**os.environ, "PLATELINE_STORE": str(folder / "store")}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [source / "invoke", *words], cwd=source, env=environment, stdout=subprocess.PIPE,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise PipelineError(
            f"`invoke {words[0]}` of the release's commit ended with exit code {done.returncode}; "
            "see its message above"
        )
    return done.stdout
