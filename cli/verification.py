"""The task that checks a release: who signed it, and whether its commit makes it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cli import policy as policies
from cli.command import command
from cli.images import named_registry
from cli.mirror import RELEASE_HELP, opened_release
from cli.output import INSECURE_HELP, JSON_HELP, REGISTRY_HELP, ROOT, facts, say
from cli.policy import POLICY_HELP
from cli.signing import no_key, public_keys, signing_key


@command(
    repeated=["key"],
    help={
        "release": RELEASE_HELP,
        "key": "a public key that may have signed it; once for each (keys/*.pub of this workspace)",
        "rebuild": "make the images and the package again from the commit, and compare each bit",
        "countersign": "sign it with this private key as well, once it was made again the same",
        "policy": POLICY_HELP,
        "registry": REGISTRY_HELP,
        "insecure": INSECURE_HELP,
        "json": JSON_HELP,
    },
)
def verify_release(
    release: str,
    key: list[str] = [],  # noqa: B006 - invoke reads it as a list
    rebuild: bool = False,
    countersign: str = "",
    policy: str = "",
    registry: str = "",
    insecure: bool = False,
    json: bool = False,
) -> None:
    """Say who signed a release and each image it reaches; exit with 1 where one is not signed."""
    from builder.errors import BuilderError
    from builder.mirror.layout import is_layout
    from pipeline.release import verify
    from pipeline.release.publish import find, named_images

    asked = policies.read(policy)
    rebuild = rebuild or bool(countersign)
    own = signing_key(countersign) if countersign else None
    keys = public_keys(key)
    if not keys and not rebuild and not asked:
        raise no_key()
    in_tar = is_layout(release)
    if in_tar and (rebuild or asked):
        raise BuilderError(
            f"{release} is a file, which is not signed, made again or held against a policy; copy "
            "it to a registry by mirror-release, and check it there"
        )
    prefix = "" if in_tar else named_registry(registry)
    with opened_release(release, prefix, insecure=insecure) as (client, path, which):
        checked = verify.verify(client, path, which, keys)
        if in_tar:
            say(f"{release}: {client.check()} blobs are what their digests say")
        unsigned = [c.name for c in checked if not c.signers] if keys else []
        if asked:
            images = named_images(find(client, path, checked[0].digest)[1])
            pinned = [f"{prefix}/{name}@{digest}" for name, digest in images.items()]
            policies.check(asked, pinned, insecure=insecure)
        # The code of the commit runs, so nothing is made again of what the wrong people signed.
        differing = (
            _made_again(client, path, checked[0].digest, prefix, insecure=insecure)
            if rebuild and not unsigned
            else []
        )
        if own and not unsigned and not differing:
            names = verify.countersign(client, path, checked[0].digest, own)
            say(f"signed with {own.public}: {', '.join(names)}")
    found = {**_facts(checked), "unsigned": unsigned, "differences": differing}
    facts(found, _rows(checked), as_json=json)
    for each in checked:
        # Signatures of others beside two good ones are no news.
        for problem in each.problems if keys and len(each.forms) < 2 else ():
            say(f"{each.name}: a signature does not count ({problem})")
    if unsigned:
        say(f"error: not signed by {' or '.join(map(str, keys))}: {', '.join(unsigned)}")
    for sentence in differing:
        say(f"error: {sentence}")
    if unsigned or differing:
        raise SystemExit(1)
    if rebuild:
        say(f"the commit makes this release again, to the bit: {checked[0].digest}")


def _made_again(
    client: Any, path: str, digest: str, prefix: str, *, insecure: bool
) -> Sequence[str]:
    """Make a release again from its commit and return what differs."""
    from pipeline.errors import PipelineError
    from pipeline.release.publish import fetch, find, named_images, repository
    from pipeline.release.rebuild import by_zstd, differences, rebuilt
    from pipeline.spec import provenance

    package = fetch(client, path, digest)
    made = provenance.read(package)
    if made["dirty"] or not made["commit"]:
        raise PipelineError(
            "the release was made of a tree with changes that no commit holds, so it cannot be "
            "made again"
        )
    images = named_images(find(client, path, digest)[1])
    say(f"making {len(images)} images and the package again from {made['commit'][:12]}")
    platforms = sorted({p for image in made["images"].values() for p in image.get("platforms", ())})
    home = repository(path)
    with rebuilt(
        ROOT, made["commit"], list(images), prefix, platforms=platforms, insecure=insecure,
        zstd=by_zstd(client, home, images),
    ) as again:  # fmt: skip
        return differences(again, client, home, images, package)


def _rows(checked: Sequence[Any]) -> list[tuple[str, ...]]:
    rows = [("what", "digest", "signed by", "form")]
    return rows + [
        (c.name, c.digest, ", ".join(map(str, c.signers)) or "NOT SIGNED", ", ".join(c.forms))
        for c in checked
    ]


def _facts(checked: Sequence[Any]) -> dict[str, Any]:
    return {
        "checked": [
            {
                "name": c.name, "digest": c.digest, "forms": c.forms, "problems": c.problems,
                "signers": [{"name": key.name, "id": key.id} for key in c.signers],
            }
            for c in checked
        ]
    }  # fmt: skip
