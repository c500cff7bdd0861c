"""Which wheels requirements need, as pip finds them, and which locked versions can stay.

What pip answers has no wheel in it; they are brought once the answer is settled.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from builder.errors import BuilderError
from builder.packages import pip, sdist, wheels
from builder.packages.download import downloads_folder, size
from builder.packages.lock_file import normalized
from builder.packages.python import DEFAULT, Python

_LARGE = 10_000_000  # bytes of a wheel whose download is worth a line
_MUCH = 100_000_000  # bytes that are worth being told before


@dataclass(frozen=True, slots=True)
class Chosen:
    """A wheel that pip chose; it need not be here."""

    name: str
    version: str
    sha256: str
    url: str


def fitting(
    inputs: Sequence[Path], pins: Mapping[str, str], without: Mapping[str, str]
) -> dict[str, str]:
    """Return those of `pins` that no line of `inputs` excludes, and that are not in `without`."""
    asked = [requirement for path in inputs for requirement in _requirements(path)]
    excluded = {
        r.name
        for r in asked
        if r.name in pins and not r.specifier.contains(pins[r.name], prereleases=True)
    }
    return {n: v for n, v in pins.items() if n not in excluded and n not in without}


def keepable(
    inputs: Sequence[Path], pins: Mapping[str, str], python: Python = DEFAULT
) -> dict[str, str]:
    """Return as many of `pins` as `inputs` can have at once, earlier ones first.

    A version that has gone, or that something new excludes, stands in the way; halving finds each
    in about 2 * log2(len(pins)) calls of pip. Raises BuilderError where none would help.
    """
    if _resolved(inputs, dict(pins), python) is not None:
        return dict(pins)
    choose(inputs, {}, python)  # where this fails, the pins are not what stands in the way
    kept: dict[str, str] = {}
    waiting = [list(pins.items())] if pins else []
    while waiting:
        group = waiting.pop()
        if _resolved(inputs, {**kept, **dict(group)}, python) is not None:
            kept |= dict(group)
        elif len(group) > 1:
            middle = len(group) // 2
            waiting += [group[middle:], group[:middle]]
    return kept


def _resolved(inputs: Sequence[Path], pins: dict[str, str], python: Python) -> list[Chosen] | None:
    """Resolve `inputs` with exactly `pins`, or return None where that cannot be."""
    try:
        return choose(inputs, pins, python)
    except BuilderError:
        return None


def _requirements(path: Path) -> Iterator[Requirement]:
    """Yield what a requirements file asks for, one version specifier a package."""
    for raw in path.read_text(encoding="utf-8").splitlines():
        line = raw.partition(" #")[0].strip()
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue  # a comment, an option, an address: pip's to read
        requirement.name = normalized(requirement.name)
        yield requirement


def resolve(
    inputs: Sequence[Path], constraints: Mapping[str, str], python: Python = DEFAULT
) -> list[wheels.Wheel]:
    """Return `choose`, brought here; raises BuilderError as both do."""
    return bring(choose(inputs, constraints, python), python)


def choose(
    inputs: Sequence[Path], constraints: Mapping[str, str], python: Python = DEFAULT
) -> list[Chosen]:
    """Ask pip which wheels `inputs` need for `python`; raises BuilderError where there are none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "constraints.txt")
        path.write_text("".join(f"{name}=={version}\n" for name, version in constraints.items()))
        shown = " and ".join(f"{i.parent.name}/{i.name}" for i in inputs)
        report = pip.run(
            ["install", "--dry-run", "--ignore-installed", "--report", "-", "--target", folder,
             *pip.choosing(python), *_made(inputs), "-c", str(path), *(f"-r{i}" for i in inputs)],
            f"resolving {shown} for {python.where}",
            python,
        )  # fmt: skip
    document, found = json.loads(report), []
    if document["environment"]["platform_machine"] != python.platform.machine:
        raise BuilderError(
            "this pip takes the conditions of requirements to be about this machine; use the pip "
            "that requirements.lock has"
        )
    for item in document["install"]:
        name, version = normalized(item["metadata"]["name"]), item["metadata"]["version"]
        sha256 = item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
        if not sha256:
            raise BuilderError(f"pip gave no sha256 for {name} {version}; is it from a folder?")
        found.append(Chosen(name, version, sha256, item["download_info"]["url"]))
    return sorted(found, key=lambda wheel: wheel.name)


def _made(inputs: Sequence[Path]) -> list[str]:
    """Return pip's options for the wheels that were made here of sdists."""
    made = [item for path in inputs for item in sdist.read_lock(path.parent)]
    return [f"--find-links={downloads_folder() / i.wheel_sha256 / i.wheel}" for i in made]


def bring(
    chosen: Sequence[Chosen], python: Python, say: Callable[[str], object] = lambda _: None
) -> list[wheels.Wheel]:
    """Return the wheels with their sizes, downloaded where they are not here.

    A lock needs both: pip reports no size, and what is in two wheels is compared. Where that is
    much, `say` is told how much before, and how far it is. Raises BuilderError as `pip.fetch`.
    """
    cache = downloads_folder()
    missing = [one for one in chosen if not any((cache / one.sha256).glob("*.whl"))]
    with ThreadPoolExecutor(8) as pool:
        sizes = dict(zip(missing, pool.map(lambda one: size(one.url) or 0, missing), strict=True))
    total, done = sum(sizes.values()), 0
    if total >= _MUCH:
        say(f"{len(missing)} wheels are downloaded, {_gigabytes(total)}")
    small = [one for one in missing if sizes[one] < _LARGE]
    for group in ([small] if small else []) + [[one] for one in missing if one not in small]:
        pip.fetch(group, cache, group[0].name, python)
        done += sum(sizes[one] for one in group)
        if total >= _MUCH:
            what = group[0].name if len(group) == 1 else f"{len(group)} small ones"
            say(f"  {what}: {_gigabytes(done)} of {_gigabytes(total)}")
    paths = pip.fetch(chosen, cache, "the lock", python)
    return [
        wheels.Wheel(one.name, one.version, one.sha256, path.stat().st_size)
        for one, path in zip(chosen, paths, strict=True)
    ]


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"


def lacking(pins: Mapping[str, str], python: Python, made: Sequence[Path] = ()) -> list[str]:
    """Return those of `pins` (name -> version) that have no wheel for `python`, each by itself.

    `made` are requirements files whose wheels of sdists count. Raises BuilderError where pip fails
    for another reason.
    """
    found: list[str] = []
    left = dict(pins)
    while left:
        lines = [f"{name}=={version}" for name, version in left.items()]
        try:
            with tempfile.TemporaryDirectory() as folder:
                pip.run(
                    ["install", "--dry-run", "--ignore-installed", "--no-deps", "--target", folder,
                     *pip.choosing(python), *_made(made), *lines],
                    f"looking for wheels for {python.where}",
                    python,
                )  # fmt: skip
        except BuilderError as error:
            gone = [
                name
                for name, line in zip(left, lines, strict=True)
                if f" {line} has no wheel" in str(error)
            ]
            if not gone:
                raise
            found += [f"{name} {left.pop(name)}" for name in gone]
        else:
            break
    return found
