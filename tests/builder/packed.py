"""Small wheels and Debian packages, where downloads are kept, and locks that pin them."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from builder.packages import download
from builder.platform import NATIVE, Platform
from tests.builder.locks import lock


def wheel(name: str, version: str, metadata: str) -> tuple[str, bytes]:
    """Return name and bytes of a wheel that holds a METADATA and nothing else."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        head = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n"
        archive.writestr(f"{name}-{version}.dist-info/METADATA", head + metadata)
    return f"{name}-{version}-py3-none-any.whl", sink.getvalue()


def deb(
    name: str, version: str, files: Mapping[str, str], source: str = "", of: str = "amd64"
) -> tuple[str, bytes]:
    """Return the path in the pool and the bytes of a package; `-> x` as content is a link to x."""
    control = _tar({"./control": f"Package: {name}\nVersion: {version}\n"})
    data = b"!<arch>\n"
    parts = {"debian-binary": b"2.0\n", "control.tar": control, "data.tar": _tar(files)}
    for part, content in parts.items():
        data += f"{part:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        data += content + b"\n" * (len(content) % 2)
    plain = version.partition(":")[2] or version
    return f"pool/main/x/{source or name}/{name}_{plain}_{of}.deb", data


def _tar(files: Mapping[str, str]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            if content.startswith("-> "):
                info.type, info.linkname = tarfile.SYMTYPE, content.removeprefix("-> ")
                archive.addfile(info)
            else:
                info.size = len(content.encode())
                archive.addfile(info, io.BytesIO(content.encode()))
    return sink.getvalue()


def lock_wheels(folder: Path, *packed: tuple[str, bytes], platform: Platform = NATIVE) -> None:
    lines = []
    for name, data in packed:
        project, version = name.split("-")[:2]
        digest = _keep(name, data)
        lines.append(f"{project}=={version} --hash=sha256:{digest}  # {len(data)} bytes\n")
    lock(folder, "requirements.in", platform.wheels_lock, "".join(lines))


def lock_debs(folder: Path, *packed: tuple[str, bytes], platform: Platform = NATIVE) -> None:
    lines = []
    for path, data in packed:
        name, version, _ = path.rpartition("/")[2].split("_")
        digest = _keep(path.rpartition("/")[2], data)
        lines.append(f"{name} {version} {path} {len(data)} {digest}\n")
    lock(folder, "debian.in", platform.debian_lock, "".join(lines))


def _keep(name: str, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    path = download.downloads_folder() / digest / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return digest
