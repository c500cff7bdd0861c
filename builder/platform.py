"""The processors that images can be for: the one place that knows what each is called, and by whom.

Nothing of an image is executed while it is put together, so every platform is built on any machine
that can build; what must be run, to compile byte-code, is the Python of `NATIVE`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from builder.errors import BuilderError


@dataclass(frozen=True, slots=True)
class Platform:
    """A processor, with Linux: `architecture` as OCI and dpkg say, `machine` as kernel and wheels.

    Source: https://github.com/opencontainers/image-spec/blob/v1.1.0/config.md, and dpkg's
    `cputable`; for these processors the two have the same word. `loader` is ld.so's own file.
    """

    architecture: str
    machine: str
    loader: str

    @property
    def name(self) -> str:
        """What OCI, Docker and `--platform` write: linux/amd64."""
        return f"linux/{self.architecture}"

    @property
    def tag(self) -> str:
        """What names of files have: linux-amd64."""
        return f"linux-{self.architecture}"

    @property
    def triplet(self) -> str:
        """What names Debian's folders of libraries, and Python's compiled modules."""
        return f"{self.machine}-linux-gnu"

    @property
    def oci(self) -> dict[str, str]:
        """The platform of an entry of an OCI index."""
        return {"os": "linux", "architecture": self.architecture}

    @property
    def debian_lock(self) -> str:
        """The lock of Debian packages; the first platform's came before there was a second."""
        return "debian.lock" if self == NATIVE else f"debian.{self.tag}.lock"

    @property
    def wheels_lock(self) -> str:
        """The lock of wheels."""
        return f"requirements.{self.tag}.lock"


AMD64 = Platform("amd64", "x86_64", "ld-linux-x86-64.so.2")
ARM64 = Platform("arm64", "aarch64", "ld-linux-aarch64.so.1")
# What is built without being asked for another, and whose Python compiles the byte-code of all.
NATIVE = AMD64
KNOWN = {platform.name: platform for platform in (AMD64, ARM64)}


def parse(text: str) -> tuple[Platform, ...]:
    """Return the platforms of `linux/amd64,linux/arm64`, each once; NATIVE where there is none.

    Raises BuilderError that lists those there are.
    """
    names = [name for name in text.split(",") if name]
    if unknown := [name for name in names if name not in KNOWN]:
        raise BuilderError(
            f"there are no images for {', '.join(unknown)}; there are {', '.join(KNOWN)}"
        )
    return tuple(dict.fromkeys(KNOWN[name] for name in names)) or (NATIVE,)


def parse_one(text: str) -> Platform:
    """Return the platform that `text` names, NATIVE where it is empty.

    Raises BuilderError for several, and as `parse`.
    """
    found = parse(text)
    if len(found) > 1:
        raise BuilderError(f"--platform {text}: this is about one; ask for each")
    return found[0]


def here() -> Platform:
    """Return the platform of this machine, whose images run on it.

    Raises BuilderError for a processor that there are no images for.
    """
    machine = os.uname().machine
    for platform in KNOWN.values():
        if platform.machine == machine:
            return platform
    raise BuilderError(f"this machine is {machine}; there are images for {', '.join(KNOWN)}")


def of_config(config: object) -> Platform:
    """Return the platform of an image's config document; raises BuilderError for another one."""
    said = config if isinstance(config, dict) else {}
    return parse(f"{said.get('os')}/{said.get('architecture')}")[0]
