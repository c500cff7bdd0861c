"""The Python of an image: which version, for which processor, and what follows from it.

A stage's Python is the one that its base brings: the Debian package `python3.N-minimal` of a lock,
or what an image of a registry says of itself. A test holds DEFAULT and `stages/base` together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import BuilderError
from builder.platform import NATIVE, Platform

HOME = "usr"
_PACKAGE = re.compile(r"python(3\.[0-9]+)-minimal")
_VERSION = re.compile(r"(3\.[0-9]+)(?:\.[0-9]\S*)?")
_GLIBC = re.compile(r"2\.([0-9]+)")
# What every release of Debian with such a Python has: an image of a registry does not say its own.
_OLD_GLIBC = 31
# The first with `sys.path` free of the script's folder by -P, which compiling needs.
_OLDEST = 11


@dataclass(frozen=True, slots=True)
class Python:
    """CPython `version`, of two numbers, on `platform`, with the C library 2.`glibc`."""

    version: str = "3.13"
    platform: Platform = NATIVE
    glibc: int = 41

    @property
    def _digits(self) -> str:
        return self.version.replace(".", "")

    @property
    def tag(self) -> str:
        """What wheels call it.

        https://packaging.python.org/en/latest/specifications/platform-compatibility-tags/
        """
        return f"cp{self._digits}"

    @property
    def cache_tag(self) -> str:
        """What names a file of byte-code: PEP 3147."""
        return f"cpython-{self._digits}"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What a file of a module may end with: importlib.machinery.all_suffixes() there."""
        own = f".{self.cache_tag}-{self.platform.triplet}.so"
        return (own, ".abi3.so", ".so", ".py", ".pyc")

    @property
    def site(self) -> str:
        """Where wheels go, below the prefix of an environment."""
        return f"lib/python{self.version}/site-packages"

    @property
    def package(self) -> str:
        """The Debian package of the program."""
        return f"python{self.version}-minimal"

    @property
    def program(self) -> str:
        """The path of the program in that package."""
        return f"usr/bin/python{self.version}"

    @property
    def libraries(self) -> str:
        """The folder of the libraries that Debian packages bring it."""
        return f"usr/lib/{self.platform.triplet}"

    @property
    def loader(self) -> str:
        """The path of the program that loads it."""
        return f"{self.libraries}/{self.platform.loader}"

    def loading(self, root: Path) -> tuple[str, str]:
        """Return the loader below `root`, and the folders it looks for libraries in, as it wants.

        Before trixie Debian's packages had the C library in /lib, not in /usr/lib:
        https://wiki.debian.org/UsrMerge.
        """
        older = self.loader.removeprefix("usr/")
        if (root / self.loader).exists() or not (root / older).exists():
            return self.loader, self.libraries
        return older, f"{self.libraries}:{self.libraries.removeprefix('usr/')}"

    @property
    def where(self) -> str:
        """What locks say of it."""
        return f"{self.tag} on {self.platform.tag}"

    def __str__(self) -> str:
        return f"Python {self.version} on {self.platform.tag}"


DEFAULT = Python()


def of_debian(packages: Mapping[str, str], platform: Platform = NATIVE) -> Python | None:
    """Return the newest Python that Debian packages (name -> version) bring, if any.

    Raises BuilderError for one that is too old to compile for.
    """
    found = [match[1] for name in packages if (match := _PACKAGE.fullmatch(name))]
    if not found:
        return None
    version = max(found, key=lambda version: int(version[2:]))
    library = _GLIBC.match(packages.get("libc6", ""))
    return _checked(version, platform, int(library[1]) if library else DEFAULT.glibc)


def of_config(config: Mapping[str, Any], platform: Platform = NATIVE) -> Python:
    """Return the Python that an image's config says it has, or the default.

    `PYTHON_VERSION` is what the images `python` of Docker Hub say of themselves. What it says is
    compared with the interpreter before that compiles.
    """
    variables = dict(line.partition("=")[::2] for line in config.get("Env") or ())
    said = _VERSION.fullmatch(variables.get("PYTHON_VERSION", ""))
    return _checked(said[1], platform, _OLD_GLIBC) if said else Python(platform=platform)


def _checked(version: str, platform: Platform, glibc: int) -> Python:
    if int(version[2:]) < _OLDEST:
        raise BuilderError(
            f"Python {version} is too old: byte-code is compiled by 3.{_OLDEST} and newer; take "
            "a base with one of these"
        )
    return Python(version, platform, glibc)
