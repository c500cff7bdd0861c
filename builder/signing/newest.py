"""The newest signed record of each action key that this machine has seen: what a replay betrays.

One small file a key in the store's folder `seen`, which `gc` leaves alone: a memory that can be
emptied by waiting would be none.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from builder.errors import BuilderError
from builder.oci import canonical, is_digest
from builder.store import Store


@dataclass(frozen=True, slots=True)
class Record:
    """A signed word that `digest` is the result of an action key: when, and the key's id.

    `time` is in seconds since 1970, 0 for a record of before they had one.
    """

    digest: str
    time: int
    signer: str


def newest(store: Store, key: str) -> Record | None:
    """Return the newest record of the action `key` that was seen.

    Raises BuilderError where the note of it is damaged: nobody could tell a replay then.
    """
    path = _path(store, key)
    try:
        found = Record(**json.loads(path.read_bytes()))
        if is_digest(found.digest) and type(found.time) is int:
            return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        pass
    raise BuilderError(
        f"{path} is damaged, so an older record of the cache could not be told from a new one; "
        "remove the file if you trust the registry"
    )


def remember(store: Store, key: str, record: Record) -> None:
    """Keep `record` as the newest of the action `key`; raises BuilderError where that fails."""
    path = _path(store, key)
    try:
        path.parent.mkdir(exist_ok=True)
        handle, name = tempfile.mkstemp(dir=store.root / "tmp")
        with os.fdopen(handle, "wb") as stream:
            stream.write(canonical.dumps(asdict(record)))
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(path)
    except OSError as error:
        raise BuilderError(
            f"writing {path} failed ({error.strerror or error}); free some space there or point "
            "PLATELINE_STORE elsewhere"
        ) from None


def _path(store: Store, key: str) -> Path:
    return store.root / "seen" / f"{key}.json"
