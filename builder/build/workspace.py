"""The repository as the builder sees it: its targets, and the files a recipe may copy."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from builder.dockerfile import recipe
from builder.dockerfile.dockerignore import Ignore
from builder.errors import BuilderError
from builder.oci.entry import Entry
from builder.packages.lock_file import Requirements, variants

_RECIPES = "stages"


@dataclass(frozen=True)
class Target:
    """One image the workspace can build: the folder that holds its Dockerfile gives the name.

    A `variant` of a target is another image of the same recipe, with other wheels. `root` is the
    workspace's.
    """

    name: str
    folder: Path
    root: Path
    variant: str = ""

    @property
    def requirements(self) -> Requirements:
        """The wheels that it asks for."""
        return Requirements(self.folder, self.variant)

    @property
    def path(self) -> str:
        """The recipe's path in the repository."""
        return (self.folder / "Dockerfile").relative_to(self.root).as_posix()

    @functools.cached_property
    def recipe(self) -> recipe.Recipe:
        """The recipe, read at first use, so that a bad one stops no other target.

        Raises BuilderError for one that is refused.
        """
        dockerfile = self.folder / "Dockerfile"
        _check_inside(dockerfile, self.path, self.root)
        if (own := dockerfile.with_name("Dockerfile.dockerignore")).exists():
            raise recipe.RefusedError(
                f"{own.relative_to(self.root)}: a recipe has no rules of its own here; move them "
                "to the repository's .dockerignore"
            )
        return recipe.load(dockerfile, self.path)


@dataclass(frozen=True)
class Workspace:
    """The repository at `root` with its targets by name.

    `targets` are those that are built where nothing is named; `variants` must be named. `looked`
    collects the paths that recipes were told something about, relative to the root.
    """

    root: Path
    targets: Mapping[str, Target]
    ignore: Ignore
    variants: Mapping[str, Target] = field(default_factory=dict)
    looked: set[str] = field(default_factory=set, compare=False, repr=False)

    @staticmethod
    def load(root: Path) -> Workspace:
        """Find every `stages/**/Dockerfile`, and every `requirements.VARIANT.in` beside one.

        Raises BuilderError for two targets of one name, and for a bad name of a variant.
        """
        targets: dict[str, Target] = {}
        others: list[Target] = []
        for dockerfile in sorted(root.glob(f"{_RECIPES}/**/Dockerfile")):
            target = Target(dockerfile.parent.name, dockerfile.parent, root)
            if target.name in targets:
                raise BuilderError(
                    f"{target.path}: the target {target.name} is in {targets[target.name].folder} "
                    "already; rename one of the folders"
                )
            targets[target.name] = target
            others += [
                Target(Requirements(target.folder, variant).target, target.folder, root, variant)
                for variant in variants(os.listdir(target.folder))  # noqa: PTH208 - names alone
            ]
        for target in others:
            if target.name in targets:
                raise BuilderError(
                    f"{target.requirements.path.relative_to(root)} is the variant {target.name}, "
                    f"and {targets[target.name].path} is a target of that name; rename one"
                )
        if not targets:
            raise BuilderError(f"{root} has no stages/*/Dockerfile; is it the repository's root?")
        _check_inside(root / ".dockerignore", ".dockerignore", root)
        return Workspace(root, targets, Ignore.load(root), {one.name: one for one in others})

    @property
    def every(self) -> Mapping[str, Target]:
        """The targets and their variants, by name."""
        return {**self.targets, **self.variants}

    def target(self, name: str) -> Target:
        """Return a target or variant by name; raises BuilderError that lists those there are."""
        found = self.targets.get(name) or self.variants.get(name)
        if found is None:
            more = f", and the variants {', '.join(self.variants)}" if self.variants else ""
            raise BuilderError(
                f"there is no target {name!r}; the targets are {', '.join(self.targets)}{more}"
            )
        return found

    def link(self, path: str) -> str | None:
        """Return what `path` points at where it is a link that recipes may see, otherwise None."""
        if not path or not stat.S_ISLNK(self._mode(path)) or self.ignore.hides(path):
            return None
        return self._link(self.root / path, path).target

    def inputs(self) -> Iterator[str]:
        """Yield each file and folder that recipes, locks and what recipes copied came from so far.

        What is not there is named as well where that was asked for. Raises BuilderError where a
        link leads from beside a recipe to another part of the repository, which is not followed.
        """
        yield str(self.root / ".dockerignore")
        yield from (f"{self.root}/{path}" for path in self.looked)
        for path in files(f"{self.root}/{_RECIPES}"):
            if os.path.islink(path) and (to := self._elsewhere(path)):  # noqa: PTH114 - many
                raise BuilderError(f"{path}: what this link leads to, {to}, is not known here")
            yield path

    def _elsewhere(self, link: str) -> str:
        """Return where a link leads to in the repository outside of the recipes' folder."""
        first = os.path.normpath(f"{os.path.dirname(link)}/{Path(link).readlink()}")  # noqa: PTH120
        inside = (f"{self.root}/", f"{self.root}/{_RECIPES}/")
        ways = (first, str(Path(link).resolve()))
        return "".join(w for w in ways if w.startswith(inside[0]) and not w.startswith(inside[1]))

    def _mode(self, path: str) -> int:
        """Return the st_mode of `path` below the root, 0 where it is not there.

        What a link leads to is not there: the one that copies follows the links that it may see,
        and a hidden one must not lead out of the repository.
        """
        mode = stat.S_IFDIR
        parts = path.split("/") if path else []
        for depth in range(1, len(parts) + 1):
            if not stat.S_ISDIR(mode):
                return 0
            where = "/".join(parts[:depth])
            self.looked.add(where)
            try:
                mode = (self.root / where).lstat().st_mode
            except (OSError, ValueError):
                return 0
        return mode

    def entries(self, start: str) -> Iterator[Entry]:
        """Yield `start` (relative to the root) and all below it, sorted, ignored ones left out.

        Links are not followed. Modes are 0755 for folders and executables, 0644 otherwise, so that
        a umask cannot reach a digest. Raises BuilderError for links that leave the repository and
        for special files.
        """
        path, mode = self.root / start, self._mode(start)
        if start and self.ignore.hides(start):
            if stat.S_ISDIR(mode):
                yield from self._let_in(path, start)
        elif stat.S_ISLNK(mode):
            yield self._link(path, start)
        elif stat.S_ISDIR(mode):
            if start:
                yield Entry(path=start, kind="dir", mode=0o755)
            yield from self._inside(path, start)
        elif mode:
            yield _file(path, start, mode)

    def _inside(self, folder: Path | str, start: str, *, hidden: bool = False) -> Iterator[Entry]:
        """Yield what is in a folder of the path `start`; scandir saves a stat a file."""
        self.looked.add(start)
        with os.scandir(folder) as found:
            items = sorted(found, key=lambda item: item.name)
        hides = self.ignore.hides if hidden else self.ignore.hides_in_seen
        for item in items:
            path = f"{start}/{item.name}" if start else item.name
            is_folder = item.is_dir(follow_symlinks=False)
            if hides(path):
                if is_folder:
                    yield from self._let_in(item.path, path)
                continue
            self.looked.add(path)
            if is_folder:
                yield Entry(path=path, kind="dir", mode=0o755)
                yield from self._inside(item.path, path)
            elif item.is_symlink():
                yield self._link(Path(item.path), path)
            else:
                yield _file(Path(item.path), path, item.stat().st_mode)

    def _let_in(self, folder: Path | str, start: str) -> Iterator[Entry]:
        """Yield what a `!` rule lets in again below a hidden folder, with the folder itself."""
        if self.ignore.may_let_in(start):
            inside = [*self._inside(folder, start, hidden=True)]
            if inside:
                yield Entry(path=start, kind="dir", mode=0o755)
                yield from inside

    def _link(self, path: Path, shown: str) -> Entry:
        target = str(path.readlink())
        inside = os.path.normpath(os.path.join(os.path.dirname(shown), target))  # noqa: PTH118, PTH120
        if not target.startswith("/") and f"{inside}/".startswith("../"):
            raise BuilderError(f"{shown}: the link leaves the repository, to {target}")
        return Entry(path=shown, kind="symlink", mode=0o777, target=target)


def files(folder: str, ending: str = "") -> Iterator[str]:
    """Yield a folder and all below it, of files those that end so; byte-code is left out."""
    yield folder
    with os.scandir(folder) as found:
        items = list(found)
    for item in items:
        if item.is_dir(follow_symlinks=False):
            if item.name != "__pycache__":
                yield from files(item.path, ending)
        elif item.name.endswith(ending):
            yield item.path


def _check_inside(path: Path, shown: str, root: Path) -> None:
    """Refuse a file that links lead out of the repository: messages quote lines of it."""
    if not path.resolve().is_relative_to(root.resolve()):
        raise recipe.RefusedError(
            f"{shown}: a link leads out of the repository, to {path.resolve()}; "
            "put the file itself there"
        )


def _file(path: Path, shown: str, mode: int) -> Entry:
    if not stat.S_ISREG(mode):
        raise BuilderError(f"{shown}: not a file, folder or link; move it out of the context")
    return Entry(path=shown, kind="file", mode=0o755 if mode & 0o100 else 0o644, content=path)
