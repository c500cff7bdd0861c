"""The wheels of packages that have an sdist only: pinned by `invoke lock`, made where lacking."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from builder import oci
from builder.errors import BuilderError
from builder.packages import pip, sdist
from builder.packages.download import downloads_folder, keep, sha256_file
from builder.packages.python import DEFAULT, Python
from builder.packages.sdist import Sdist
from builder.packages.wheels import Wheel
from builder.sandbox import wheel_build
from builder.store import Store

ImageOf = Callable[[], tuple[Store, oci.Image]]
Resolve = Callable[[Path], Sequence[Wheel]]


def pin(folder: Path, image_of: ImageOf, resolve: Resolve, python: Python = DEFAULT) -> list[Sdist]:
    """Pin each line of sdists.in, and keep the wheel it makes, made twice in two folders.

    `resolve` finds the wheels of a requirements file. Raises BuilderError where an sdist is
    refused, does not build, or makes two wheels that differ and are not allowed to.
    """
    cache, found, asked = downloads_folder(), [], sdist.asked(folder)
    compiler = bool(asked.image)
    for name, version in asked.sdists:
        path = sdist.bring(name, version, "", cache, python)
        _, requires = sdist.build_system(path)
        with tempfile.TemporaryDirectory() as temporary:
            wanted = Path(temporary, "build-requirements.in")
            wanted.write_text("".join(f"{line}\n" for line in requires))
            wheels = tuple(resolve(wanted)) if requires else ()
        draft = Sdist(name, version, sha256_file(path), "", "", wheels)
        file, first = _build(draft, image_of, "one", python, compiler=compiler)
        _, second = _build(draft, image_of, "another/place", python, compiler=compiler)
        allowed = asked.allowed.get(name, "")
        if first != second and not allowed:
            raise BuilderError(
                f"{name} {version} is not reproducible: built twice, its wheel {file} differs; "
                f"ask for a version that has a wheel, or write `allow {name}: REASON` into "
                f"{folder / sdist.WANTED}"
            )
        made = Sdist(name, version, draft.sha256, file, wheel_build.sha256(first), wheels, allowed)
        _keep(made, first)
        found.append(made)
    return found


def make(
    sdists: Sequence[Sdist], image_of: ImageOf, python: Python = DEFAULT, *, again: bool = False
) -> None:
    """Make the wheels that the downloads lack; or `again`, elsewhere, all that must be the same.

    Raises BuilderError where one comes out other than its lock says.
    """
    for item in sdists:
        path = downloads_folder() / item.wheel_sha256 / item.wheel
        there = path.exists() and sha256_file(path) == item.wheel_sha256
        if there and (item.allowed or not again):
            continue
        compiler, place = not wheel_build.is_pure(item.wheel), "a/third" if again else "one"
        _keep(item, _build(item, image_of, place, python, compiler=compiler)[1])


def _build(
    item: Sdist, image_of: ImageOf, place: str, python: Python, *, compiler: bool
) -> tuple[str, bytes]:
    cache = downloads_folder()
    path = sdist.bring(item.name, item.version, item.sha256, cache, python)
    backend, _ = sdist.build_system(path)
    wheels = pip.fetch(item.requires, cache, f"the build of {item.name}", python)
    return wheel_build.build(
        *image_of(), path, backend, wheels, place, compiler=compiler, python=python
    )


def _keep(item: Sdist, content: bytes) -> None:
    path = downloads_folder() / item.wheel_sha256 / item.wheel
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as stream:
        stream.write(content)
    advice = "the build is not the one that was locked: run `invoke lock`, and see what differs"
    if item.allowed:
        advice = (
            f"it is allowed to differ ({item.allowed}), so only the locked wheel makes this image: "
            f"copy {path} from the machine that locked it, take the image with --cache, or "
            "run `invoke lock` and have another image"
        )
    temporary = Path(stream.name)
    try:
        keep(temporary, item.wheel_sha256, path, f"the sandbox for {item.name}", advice)
    finally:
        temporary.unlink(missing_ok=True)
