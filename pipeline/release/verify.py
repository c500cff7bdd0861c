"""Whether a release and every image it reaches are signed, and by whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from builder.registry.client import Registry, Source
from builder.registry.http import shown
from builder.signing.keys import PublicKey, SigningKey
from builder.signing.signatures import sign, signatures
from pipeline.errors import PipelineError
from pipeline.release.publish import find, named_images, repository


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
    registry: Source, path: str, which: str, keys: Sequence[PublicKey]
) -> tuple[Checked, ...]:
    """Look for signatures of `keys` at a release and at each image it reaches, in that order.

    `which` is the package's digest, the release's, or a tag: a tag is not signed, so what is
    verified is the digest that comes first. Raises PipelineError where the registry has no such
    release, and BuilderError where it does not answer.
    """
    digest, entries = find(registry, path, which)
    subjects = [("release", digest)]
    images = named_images(entries)
    subjects += [(f"image {shown(name, 80)}", image) for name, image in images.items()]
    return tuple(_check(registry, repository(path), *subject, keys) for subject in subjects)


def countersign(registry: Registry, path: str, digest: str, key: SigningKey) -> list[str]:
    """Sign the release `digest` and each image it reaches with `key` too; return their names.

    Raises PipelineError and BuilderError as `verify` does.
    """
    home = repository(path)
    checked = verify(registry, path, digest, [])
    for each in checked:
        found = registry.get_manifest(home, each.digest)
        if found is None:
            raise PipelineError(f"{registry.host}/{home} lost the {each.name}; publish it again")
        sign(registry, home, found[0], key)
    return [each.name for each in checked]


def _check(
    registry: Source, home: str, name: str, digest: str, keys: Sequence[PublicKey]
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
