"""The task that moves a release whole, and how other tasks read one out of a tar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cli.command import command
from cli.images import named_registry, opened
from cli.output import INSECURE_HELP, JSON_HELP, REGISTRY_HELP, facts, say
from cli.progress import moving
from cli.signing import SIGN_HELP, public_keys, signing_key

RELEASE_HELP = "the package's digest, the release's, a tag, or a FILE.tar of mirror-release"


@contextmanager
def opened_release(
    which: str, registry: str, *, insecure: bool = False
) -> Iterator[tuple[Any, str, str]]:
    """Yield what a release is read from, PREFIX, and its name there: a tar has one release."""
    from builder.mirror.layout import is_layout
    from pipeline.release import mirror

    if is_layout(which):
        with mirror.opened(Path(which)) as (layout, name):
            yield layout, "", name
    else:
        with opened(named_registry(registry), insecure=insecure) as (client, path):
            yield client, path, which


@command(
    help={
        "release": RELEASE_HELP,
        "to": "HOST/PREFIX of another registry, a FILE.tar, or a folder for one",
        "relocate": "make a new release, whose package names the images at HOST/PREFIX",
        "key": "for --relocate: a public key that must have signed it (keys/*.pub)",
        "sign": f"for --relocate: {SIGN_HELP}",
        "registry": REGISTRY_HELP,
        "insecure": INSECURE_HELP,
        "jobs": "how many things to do at the same time",
        "json": JSON_HELP,
    },
    repeated=["key"],
)
def mirror_release(
    release: str,
    to: str,
    relocate: bool = False,
    key: list[str] = [],  # noqa: B006 - invoke reads it as a list
    sign: str = "",
    registry: str = "",
    insecure: bool = False,
    jobs: int = 4,
    json: bool = False,
) -> None:
    """Copy a release with its images, bills, signatures and provenance to a registry or a tar.

    All keeps its digest, and what is there already is not sent again.
    """
    from builder.store import Store
    from pipeline.errors import PipelineError
    from pipeline.release import mirror

    folder, place = _place(to)
    if relocate and place:
        raise PipelineError(
            "a tar has no name that a package could pull by; copy it to a registry, and "
            "--relocate there"
        )
    made = _relocation(key, sign) if relocate else None
    store = Store.open()
    with opened_release(release, registry, insecure=insecure) as (source, path, which):
        cargo = mirror.survey(source, path, which)
        for said in cargo.lacking:
            say(f"not there, so not copied: {said}")
        progress = moving(cargo.size)
        found: dict[str, Any] = {"release": cargo.digest, "package": cargo.package}
        if place:
            file = place / f"release-{cargo.digest[7:19]}.tar" if folder else place
            size = mirror.to_file(cargo, store, source, file, jobs=jobs, progress=progress)
            found |= {"to": str(file), "size": size}
        else:
            with opened(to, insecure=insecure) as (target, prefix):
                moved = mirror.to_registry(
                    cargo, store, source, target, prefix, jobs=jobs, progress=progress
                )
                found |= {"to": to, "uploaded": moved.uploaded, "mounted": moved.mounts}
                if made:
                    found |= _relocate(target, prefix, store, cargo, *made)
    rows = [("what", ""), *((name, str(value)) for name, value in found.items())]
    facts(found, rows, as_json=json)


def _place(to: str) -> tuple[bool, Path | None]:
    """Return whether `to` is a folder, and its path; no path where it is in a registry."""
    from builder.errors import BuilderError
    from builder.mirror.layout import is_layout

    path = Path(to).expanduser()
    folder = path.is_dir() or to.endswith("/") or to.startswith(("/", "./", "../", "~"))
    if is_layout(to):
        return False, path
    if folder and not path.is_dir():
        raise BuilderError(f"there is no folder {to}; make it, or name a file that ends with .tar")
    return folder, path if folder else None


def _relocation(key: list[str], sign: str) -> tuple[Any, Any]:
    """Return the keys that must have signed the old release, and the one to sign the new with."""
    from pipeline.errors import PipelineError

    keys, own = public_keys(key), signing_key(sign)
    if own is None or not keys:
        raise PipelineError(
            "--relocate makes a new package in your name out of one of somebody else: say with "
            "--sign KEY who signs it, and with --key FILE.pub who must have signed the old one "
            "(or keep that key in keys/)"
        )
    return keys, own


def _relocate(
    target: Any, prefix: str, store: Any, cargo: Any, keys: Any, own: Any
) -> dict[str, Any]:
    """Make and sign the new release at `prefix`, where the old one is by now."""
    from pipeline.release.relocate import relocate

    made = relocate(target, prefix, store, cargo.digest, keys, own)
    say(f"signed with {own.public}")
    return {
        "relocated": f"{target.host}/{prefix}/pipeline@{made.digest}",
        "relocated package": made.package,
    }
