"""What the steps of a run left: artifacts out of the object store, and the logs of their pods.

Both come through the web page of Kubeflow Pipelines (frontend/server/handlers of
kubeflow/pipelines), so that nobody needs the object store's password, or rights to see pods.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlsplit

from pipeline.errors import PipelineError
from pipeline.kubeflow.server.connection import Connection, ServerError

_SOURCES = {"minio": "minio", "s3": "s3", "gs": "gcs"}
_LOG = 16 << 20  # bytes of a log that are read
_MOST_FILES = 100_000
_MOST_BYTES = 64 << 30  # of one artifact


def log(connection: Connection, run_id: str, pod: str) -> str:
    """Return what a step's container printed; raises ServerError where it is gone with its pod."""
    return connection.read(
        "/k8s/pod/logs", limit=_LOG, podname=pod, runid=run_id,
        podnamespace=connection.access.namespace,
    ).decode(errors="replace")  # fmt: skip


def location(uri: str) -> str | None:
    """Return the page's path of an artifact; None for one that no object store has."""
    parts = urlsplit(uri)
    source, key = _SOURCES.get(parts.scheme), parts.path.lstrip("/")
    if source is None or not parts.netloc or not key:
        return None
    return f"/artifacts/{source}/{quote(parts.netloc, safe='')}/{quote(key)}"


def save(
    connection: Connection, uri: str, place: Path, session: str = "",
    most: int = _MOST_BYTES,
) -> str:  # fmt: skip
    """Write an artifact to `place`, a file or a folder, and return "" or why it is not there.

    A folder comes as a tar archive (2.16 and later); what leads out of it is refused. Raises
    PipelineError where the disk, or the server as a whole, fails.
    """
    path = location(uri)
    if path is None:
        return f"{uri} is in no object store that the server reads"
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f".{place.name}.part")
    try:
        with part.open("wb") as file:
            headers = connection.save(
                path, _bounded(file.write, most), namespace=connection.access.namespace,
                providerInfo=session,
            )  # fmt: skip
        name = headers.get("content-disposition", "")
        if headers.get("content-type", "").startswith("application/gzip") and ".tar.gz" in name:
            _unpack(part, place, most)
        else:
            part.replace(place)
    except ServerError as error:
        if error.status in (404, 500):  # a folder, for older servers, or gone
            return f"{uri} cannot be read through the server ({error.status}): a folder, or gone"
        raise
    except _TooLarge:
        return f"{uri} has more than {most:,} bytes"
    except (tarfile.TarError, EOFError) as error:
        shutil.rmtree(place, ignore_errors=True)
        return f"{uri} came as an archive that cannot be unpacked ({error})"
    except OSError as error:
        raise PipelineError(
            f"writing {place} failed ({error.strerror}); make room, or choose another --fetch DIR"
        ) from None
    finally:
        part.unlink(missing_ok=True)
    return ""


class _TooLarge(Exception):  # noqa: N818 - an outcome
    """More bytes came than were allowed."""


def _bounded(write: Callable[[bytes], object], most: int) -> Callable[[bytes], None]:
    size = 0

    def bounded(data: bytes) -> None:
        nonlocal size
        size += len(data)
        if size > most:
            raise _TooLarge
        write(data)

    return bounded


def _unpack(archive: Path, folder: Path, most: int) -> None:
    """Unpack plain files and folders; raises TarError for anything else, and for too much of it."""
    folder.mkdir()
    files = size = 0
    with tarfile.open(archive, "r:gz") as found:
        for member in found:
            files, size = files + 1, size + member.size
            if files > _MOST_FILES or size > most:
                raise _TooLarge
            if not (member.isreg() or member.isdir()):
                raise tarfile.TarError(f"{member.name!r} is neither a file nor a folder")
            member.mode = 0o755 if member.isdir() else 0o644
            found.extract(member, folder, set_attrs=False, filter="data")
