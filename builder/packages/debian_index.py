"""Resolve `debian.in` to `debian.lock` over a signed Debian index."""

from __future__ import annotations

import datetime
import hashlib
import lzma
import re
import subprocess
import tempfile
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path

from builder.errors import BuilderError
from builder.packages import debian, download, lock_file
from builder.platform import NATIVE, Platform

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def lock(
    folder: Path, platform: Platform = NATIVE, *, expired: bool = False
) -> list[debian.Package]:
    """Resolve `folder/debian.in`, write its lock for `platform` and return its packages.

    The file has a line `suite NAME`, then package names, and `-name` for packages that are left
    out though others depend on them. Raises BuilderError where the index is not signed by Debian or
    a package is not in it, and as `check_valid` unless the index may be `expired`.
    """
    roots, left_out, suite = [], set(), debian.suite(folder)
    for raw in lock_file.read(folder / "debian.in").splitlines():
        line = raw.partition("#")[0].strip()
        if line.startswith("suite "):
            continue
        if line.startswith("-"):
            left_out.add(line[1:])
        elif line:
            roots.append(line)
    stanzas = packages_index(debian.mirror(), suite, platform, expired=expired)
    chosen = closure(roots, left_out, stanzas)
    pins = [
        debian.Package(
            name, stanza["Version"], stanza["Filename"], int(stanza["Size"]), stanza["SHA256"]
        )
        for name, stanza in sorted(chosen.items())
    ]
    lines = [
        f"# made from debian.in {lock_file.in_hash(folder, 'debian.in')}",
        "# by `invoke lock`: name version path size sha256",
        *(f"{p.name} {p.version} {p.path} {p.size} {p.sha256}" for p in pins),
    ]
    (folder / platform.debian_lock).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return pins


def packages_index(
    site: str, suite: str, platform: Platform = NATIVE, *, expired: bool = False
) -> dict[str, dict[str, str]]:
    """Return the stanzas of a suite's main section by package name, the signature checked.

    Raises BuilderError as `check_valid`, unless the index may be `expired`.
    """
    release = _signed(_get(f"{site}/dists/{suite}/InRelease"), f"{suite}/InRelease")
    if not expired:
        check_valid(release, suite, datetime.datetime.now(datetime.UTC))
    name = f"main/binary-{platform.architecture}/Packages.xz"
    match = re.search(rf"(?m)^ ([0-9a-f]{{64}})\s+\d+ {re.escape(name)}$", release)
    if not match:
        raise BuilderError(f"the release file of {suite} lists no {name}")
    data = _get(f"{site}/dists/{suite}/{name}")
    if hashlib.sha256(data).hexdigest() != match[1]:
        raise BuilderError(
            f"{suite}/{name} does not have the hash its signed release file gives; "
            "the mirror may be in the middle of an update, try again in some minutes"
        )
    stanzas: dict[str, dict[str, str]] = {}
    for block in lzma.decompress(data).decode().split("\n\n"):
        fields = dict(re.findall(r"(?m)^([A-Za-z0-9-]+): (.*)$", block))
        if fields:
            stanzas[fields["Package"]] = fields
    return stanzas


def check_valid(release: str, suite: str, now: datetime.datetime) -> None:
    """Raise BuilderError where the release file says that it is no longer valid, or not yet.

    Whoever stands between could send an old one, signed all the same, to keep packages with known
    holes in use. A suite without Valid-Until, as Debian's stable ones, is taken at any age. Format:
    https://wiki.debian.org/DebianRepository/Format#Date.2C_Valid-Until
    """
    fields = dict(re.findall(r"(?m)^(Date|Valid-Until): (.*)$", release))
    for name, text in fields.items():
        try:
            at = parsedate_to_datetime(text)
        except ValueError:
            raise BuilderError(f"{suite}/InRelease: its {name} is no date: {text!r}") from None
        at = at if at.tzinfo else at.replace(tzinfo=datetime.UTC)
        if name == "Valid-Until" and at < now:
            raise BuilderError(
                f"{suite}/InRelease was valid until {text} only: the mirror is out of date, or "
                "someone sends an old index; take another mirror (PLATELINE_DEBIAN_MIRROR), or, "
                "for an archive of the past such as a snapshot, `invoke lock --expired`"
            )
        if name == "Date" and at > now + datetime.timedelta(days=1):
            raise BuilderError(
                f"{suite}/InRelease is of {text}, which is in the future; set this machine's clock"
            )


def closure(
    roots: list[str], left_out: set[str], stanzas: Mapping[str, dict[str, str]]
) -> dict[str, dict[str, str]]:
    """Return `roots` and all they depend on, `left_out` excepted.

    Of alternatives the first that is in the index is taken, a virtual package's first provider by
    name. Versions are not compared: within one suite of Debian they fit.
    """
    providers: dict[str, str] = {}
    for name, stanza in sorted(stanzas.items()):
        for provided in _names(stanza.get("Provides", "")):
            providers.setdefault(provided[0], name)
    chosen: dict[str, dict[str, str]] = {}
    waiting = [(name, "debian.in") for name in roots]
    while waiting:
        name, because = waiting.pop()
        name = name if name in stanzas else providers.get(name, name)
        if name in chosen or name in left_out:
            continue
        if name not in stanzas:
            raise BuilderError(f"Debian has no package {name!r}, which {because} asks for")
        chosen[name] = stanza = stanzas[name]
        needs = _names(stanza.get("Pre-Depends", "")) + _names(stanza.get("Depends", ""))
        for alternatives in needs:
            if left_out.isdisjoint(alternatives):
                known = [a for a in alternatives if a in stanzas or a in providers]
                waiting.append(((known or alternatives)[0], name))
    return chosen


def _names(field: str) -> list[list[str]]:
    """Return a dependency field as groups of alternative names."""
    groups = [group for group in field.split(",") if group.strip()]
    return [[re.split(r"[ (:\[]", a.strip())[0] for a in group.split("|")] for group in groups]


def _get(url: str) -> bytes:
    pieces: list[bytes] = []
    download.read(url, pieces.append)
    return b"".join(pieces)


def _signed(data: bytes, what: str) -> str:
    """Return the text of a clear-signed file after gpgv has checked it."""
    if not KEYRING.exists():
        raise BuilderError(f"{KEYRING} is not there; apt-get install debian-archive-keyring")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "InRelease")
        path.write_bytes(data)
        text = Path(folder, "text")
        command = ["gpgv", "--quiet", "--keyring", str(KEYRING), "--output", str(text), str(path)]
        try:
            done = subprocess.run(command, capture_output=True, check=False)
        except FileNotFoundError:
            raise BuilderError("gpgv is not installed; apt-get install gpgv") from None
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise BuilderError(f"{what} is not signed by Debian's archive keys: {reason}")
        return text.read_text(encoding="utf-8")
