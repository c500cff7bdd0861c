"""Whether a release and every image it reaches are signed, and by whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from builder.registry.client import Registry
from builder.registry.http import shown
from builder.signing.keys import PublicKey
from builder.signing.signatures import signatures
from pipeline.release.publish import TITLE, find, repository


@dataclass(frozen=True, slots=True)
class Checked:
    """The release itself or one of its images: its name, its digest, and who signed it.

    `forms` are those of good signatures, `problems` say why others do not count.
    """

    name: str
    digest: str
    signers: tuple[PublicKey, ...]
    forms: tuple[str, ...]
    problems: tuple[str, ...]


def verify(
    registry: Registry, path: str, which: str, keys: Sequence[PublicKey]
) -> tuple[Checked, ...]:
    """Look for signatures of `keys` at a release and at each image it reaches, in that order.

    `which` is the package's digest, the release's, or a tag: a tag is not signed, so what is
    verified is the digest that comes first. Raises PipelineError where the registry has no such
    release, and BuilderError where it does not answer.
    """
    digest, entries = find(registry, path, which)
    images = [entry for entry in entries if not entry.artifact_type]
    subjects = [("release", digest)]
    subjects += [(f"image {shown(e.annotations.get(TITLE, ''), 80)}", e.digest) for e in images]
    return tuple(_check(registry, repository(path), *subject, keys) for subject in subjects)


def _check(
    registry: Registry, home: str, name: str, digest: str, keys: Sequence[PublicKey]
) -> Checked:
    found = signatures(registry, home, digest, keys)
    made = [each.key for each in found]
    return Checked(
        name=name,
        digest=digest,
        signers=tuple(key for key in keys if key in made),
        forms=tuple(sorted({each.form for each in found if each.key})),
        problems=tuple(f"{each.form}: {each.problem}" for each in found if each.problem),
    )
