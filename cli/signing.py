"""Keys to sign with: make a pair, open the private one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from cli import password
from cli.command import command
from cli.output import JSON_HELP, ROOT, facts, say

SIGN_HELP = (
    "sign with the private key in this PEM file ($PLATELINE_SIGNING_KEY); its password is asked "
    "for, or in $PLATELINE_SIGNING_PASSWORD, or in the file $PLATELINE_SIGNING_PASSWORD_FILE"
)


def signing_key(sign: str) -> Any:
    """Open the private key `sign` or $PLATELINE_SIGNING_KEY; None where neither is named.

    Raises BuilderError where it cannot be opened.
    """
    name = sign or os.environ.get("PLATELINE_SIGNING_KEY", "")
    if not name:
        return None
    from builder.signing.keys import check_revoked, read_signing  # cryptography costs time

    key = read_signing(Path(name), lambda: _password(f"password of {name}: "))
    check_revoked(ROOT, key.public)
    return key


def public_keys(paths: list[str]) -> list[Any]:
    """Return the public keys in these files, or those that this workspace trusts; none is revoked.

    Raises BuilderError where one cannot be read.
    """
    from builder.signing.keys import check_revoked, read_public, trusted

    keys = [read_public(Path(path)) for path in paths]
    for key in keys:
        check_revoked(ROOT, key)
    return keys or [*trusted(ROOT)]


def no_key() -> Exception:
    """Return the error for a task that needs public keys and has none."""
    from builder.errors import BuilderError
    from builder.signing.named import FOLDER

    return BuilderError(
        f"no key was named, and the workspace trusts none; give --key FILE.pub, or put the public "
        f"keys that you trust into {ROOT / FOLDER}"
    )


def _password(question: str, *, twice: bool = False) -> bytes:
    """Return a password from the environment, a file, or the terminal.

    Raises BuilderError where nobody is there to ask, and where the file can be read by others.
    """
    from getpass import getpass

    from builder.errors import BuilderError
    from builder.signing.keys import check_private

    if given := password.take():
        return given
    if name := os.environ.get("PLATELINE_SIGNING_PASSWORD_FILE", ""):
        try:
            check_private(Path(name))
            return Path(name).read_bytes().rstrip(b"\r\n")
        except OSError as error:
            raise BuilderError(f"the password {name} cannot be read ({error.strerror})") from None
    if not sys.stdin.isatty():
        raise BuilderError(
            "the key's password is not known and nobody is there to ask; set "
            "PLATELINE_SIGNING_PASSWORD, or PLATELINE_SIGNING_PASSWORD_FILE to a file with it"
        )
    first = getpass(question)
    if twice and getpass("the same again: ") != first:
        raise BuilderError("the two passwords differ; nothing was written")
    return first.encode()


@command(
    help={
        "name": "the files to write, without their suffix, outside of this repository",
        "json": JSON_HELP,
    }
)
def keygen(name: str, json: bool = False) -> None:
    """Make a key pair to sign with: NAME.key, which has a password, and NAME.pub for everybody."""
    from builder.errors import BuilderError
    from builder.signing.keys import generate
    from builder.signing.named import FOLDER

    path = Path(name).expanduser().absolute()
    if path.resolve().is_relative_to(ROOT):
        raise BuilderError(
            f"{path}.key would be inside the repository, where a commit or an image could take it; "
            "name a place outside of it"
        )
    key = generate(path, _password(f"password for {path}.key: ", twice=True))
    found = {"private": f"{path}.key", "public": f"{path}.pub", "id": key.id}
    rows = [("what", ""), *found.items()]
    facts(found, rows, as_json=json)
    say(
        f"keep {path}.key and its password secret; a workspace that has {path.name}.pub in its "
        f"folder {FOLDER}/ trusts what it signs"
    )
