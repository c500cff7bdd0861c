"""What a package would get on this machine, and whether its owner agrees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.errors import BuilderError
from builder.oci.reference import Reference
from pipeline.errors import PipelineError
from pipeline.run.step.context import Volume
from pipeline.run.step.publication import targets
from pipeline.spec.kubernetes import GPU, accelerator, asks_for_network, known_name
from pipeline.spec.package import Package, strings

if TYPE_CHECKING:
    from builder.mirror.layout import Layout
    from builder.registry.client import Registries
    from builder.signing.keys import PublicKey

UNSIGNED = "not signed by a key of this workspace"
_NETWORK = "this machine's, with what listens on its loopback"


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """One thing that a package gets: its kind (folder, secret, …), what it is, and who gets it."""

    kind: str
    what: str
    steps: str = ""

    def __str__(self) -> str:
        shown = f"  {self.kind:8} {self.what}{f' ({self.steps})' if self.steps else ''}"
        # The package chose these words: none of them may move the cursor of a terminal.
        return "".join(letter if letter.isprintable() else "?" for letter in shown)


def grants(
    package: Package,
    parameters: Mapping[str, Any],
    volumes: Mapping[str, Volume],
    secrets: Mapping[str, Path],
    *,
    network: bool = False,
    gpus: bool = False,
    signed: Mapping[str, str] | None = None,
) -> tuple[Grant, ...]:
    """Return all that a run of `package` would get of this machine, in order; pure.

    `signed` has for an image in words who signed it (`signers`).
    """
    found = set()
    for label, settings in package.kubernetes.items():
        for mount in settings.get("pvcMount", []):
            claim = known_name(mount, "pvcName", parameters)
            volume = volumes.get(claim)
            if volume:
                how = "read and write" if volume.writable else "read"
                found.add(Grant("folder", f"{volume.folder}, to {how}: the claim {claim}", label))
        for key in ("secretAsVolume", "secretAsEnv"):
            for secret in settings.get(key, []):
                name = known_name(secret, "secretName", parameters)
                if name in secrets:
                    found.add(Grant("secret", f"{name} ({secrets[name]})", label))
        if asks_for_network(settings) and not network:
            found.add(Grant("network", _NETWORK, label))
    if network:
        found.add(Grant("network", _NETWORK, "all steps"))
    found |= {Grant("store", f"to publish {name}") for name in published(package, parameters)}
    for label, executor in package.spec["deploymentSpec"].get("executors", {}).items():
        source = executor.get("importer", {}).get("artifactUri")
        if source:
            uri = source.get("constant") or "what its parameter says"
            found.add(Grant("import", uri, label))
        if gpus and accelerator(executor.get("container", {}))[0] == GPU:
            found.add(Grant("device", "the GPUs of this machine", label))
        if "container" in executor:
            image = executor["container"]["image"]
            # In front, where no word that the package chose can stand.
            found.add(Grant("image", f"{(signed or {}).get(image, UNSIGNED)}: {image}", label))
    together: dict[tuple[str, str], list[str]] = {}
    for grant in sorted(found):
        together.setdefault((grant.kind, grant.what), []).append(grant.steps)
    return tuple(Grant(*key, ", ".join(steps)) for key, steps in together.items())


def signers(
    package: Package, registries: Registries | Layout, keys: Sequence[PublicKey]
) -> dict[str, str]:
    """Return for each image of a package in words which of `keys` signed it.

    Their registries are asked, unless there are no keys. An image whose signatures cannot be read
    counts as not signed.
    """
    found = {}
    for executor in package.spec["deploymentSpec"].get("executors", {}).values():
        image = executor.get("container", {}).get("image")
        if image and keys:
            found[image] = _signers(image, registries, keys)
    return found


def _signers(image: str, registries: Registries | Layout, keys: Sequence[PublicKey]) -> str:
    from builder.registry.http import shown
    from builder.signing import signatures

    try:
        reference = Reference.parse(image)
        if reference.local or not reference.digest:
            return UNSIGNED
        registry = registries.at(reference.host)
        made = signatures.signers(registry, reference.repository, reference.digest, keys)
    except BuilderError as error:
        return f"{UNSIGNED} (what signs it could not be read: {shown(error, 120)})"
    return f"signed by {', '.join(key.name for key in made)}" if made else UNSIGNED


def published(package: Package, parameters: Mapping[str, Any]) -> frozenset[str]:
    """Return the repositories of the local store that constants and parameters name."""
    words = enumerate(strings([package.spec, parameters]))
    return targets({str(number): word for number, word in words})


def ask(path: Path, listed: tuple[Grant, ...], answer: Callable[[str], str] | None) -> None:
    """Ask whether a package from elsewhere may get what is listed; `answer` is None without a user.

    Raises PipelineError that has the list, unless the answer is yes.
    """
    shown = "\n".join(map(str, listed)) or "  nothing"
    question = f"this checkout did not compile {path}; a run of it would get\n{shown}\n"
    if answer is None:
        raise PipelineError(
            f"{question}run it with --trust if that is right, or run `invoke compile` for a "
            "package of your own"
        )
    if answer(f"{question}Run it? [y/N] ").strip().lower() not in ("y", "yes"):
        raise PipelineError(f"{path} was not run")
